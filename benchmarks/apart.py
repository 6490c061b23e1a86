"""Contenders in processes of their own, so that none works in memory that another has left behind.

Nobody paints or trains with PyTorch in the same process. Eight pictures of the garden took 713 ms
beside it and 587 ms apart, PyTorch's 794 and 748 (Zen 5, 2026-11-27).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import jax
import numpy as np

from benchmarks.timing import Contender

Call = Callable[[], list[np.ndarray]]


@contextmanager
def apart(
    name: str, build: Callable[..., Call], *arguments: Any, peer: bool = False, compiles: bool
) -> Iterator[Contender]:
    """A contender whose calls another process makes; it sleeps in between.

    Args:
        build: a function of a module; makes the call from `arguments`, over there.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, build, arguments), daemon=True)
    process.start()
    there.close()  # if the process dies, the end of the pipe is noticed here

    def answer() -> Any:
        result = here.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def call() -> list[np.ndarray]:
        here.send(None)
        result: list[np.ndarray] = answer()
        return result

    try:
        answer()
        yield Contender(name, call, lambda result: result, peer, compiles)
    finally:
        process.kill()
        process.join()


def _serve(pipe: Connection, build: Callable[..., Call], arguments: tuple[Any, ...]) -> None:
    """Build the call, say that it is there, and make it whenever anything comes."""
    sys.stdout = sys.stderr  # the other is for rows
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        call = build(*arguments)
        result: list[np.ndarray] | None = None
        while True:
            pipe.send(result)
            pipe.recv()
            result = call()
    except EOFError:  # nobody asks any more
        return
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
