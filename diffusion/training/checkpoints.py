"""Checkpoints: whole or not at all, and one training a folder."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from filelock import FileLock, Timeout

from diffusion.runtime import hosts


def manager(folder: Path) -> ocp.CheckpointManager:
    """Keeps the last checkpoint of a training."""
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.absolute() / "checkpoints", options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Raises OSError where there is no room, which Orbax tells in many ways."""
    hook, threading.excepthook = threading.excepthook, lambda _: None  # it raises it here, too
    try:
        manager.save(step, args=ocp.args.StandardSave(state))
    except (ValueError, OSError) as error:
        reason = str(error).partition(" [")[0].rpartition(": ")[2]
        raise OSError(
            f"the checkpoint of step {step} could not be written to {manager.directory}: the one "
            f"before is kept, so make room and give the same command again ({reason})"
        ) from error
    finally:
        threading.excepthook = hook


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raises ValueError where another training writes to the folder."""
    if not hosts.writes():
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"{folder} is in use by another training; wait for it, or name another --output"
        ) from None
    try:
        yield
    finally:
        lock.release()
