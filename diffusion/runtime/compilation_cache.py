"""Compiled programs that outlive a process, so that the second start is fast."""

import atexit
import json
import sys
import tempfile
from pathlib import Path

import jax
import platformdirs

from diffusion.atomic_write import atomic_write

NAMES = "known.json"  # of the programs kept, each with its size and time


def keep_compilations() -> None:
    """Let JAX keep compiled programs in the user's cache folder; says so the first time.

    Where there is no such folder, a note says why, and each start compiles anew.
    """
    try:
        place = platformdirs.user_cache_path("diffusion")
        if not place.is_absolute():
            raise OSError("there is no home folder")
        cache = place / "jax"
        first = not cache.exists()
        cache.mkdir(parents=True, exist_ok=True)
        drop_replaced(cache)
        with tempfile.TemporaryFile(dir=cache):
            pass  # it can be written to
    except (OSError, RuntimeError) as error:
        _say(f"note: compiled programs are not kept, so each start is slow: {error}")
        return
    if first:
        _say(f"first run: JAX compiles the stages for this machine, once; kept in {cache}")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    atexit.register(remember, cache)


def drop_replaced(cache: Path) -> None:
    """Remove the programs that are no longer what was kept under their names.

    JAX takes whatever it can read, and a program of another kind ends in an error that names
    nothing. A program without a record (its process was killed) is believed.
    """
    known = _known(cache)
    for path in cache.glob("*-cache"):
        if path.name in known and known[path.name] != _stamp(path):
            path.unlink(missing_ok=True)


def remember(cache: Path) -> None:
    """Note what is kept, for the next start; a folder that is gone or full needs no note."""
    try:
        now = {path.name: _stamp(path) for path in cache.glob("*-cache")}
        if now != _known(cache):
            with atomic_write(cache / NAMES) as draft:
                draft.write_text(json.dumps(now))
    except OSError:
        pass


def _known(cache: Path) -> dict[str, list[int]]:
    try:
        known = json.loads((cache / NAMES).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _stamp(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
