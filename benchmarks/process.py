"""From the start of a process to the picture: without and with compiled programs in the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax

import diffusion
from benchmarks.timing import Options, Row, timed

PROMPT = "a red house with two old trees and yellow flowers"
MEBIBYTE = 2**20
EMPTY, FULL = "empty cache", "full cache"
INSIDE = {  # what a process measures inside, and how it is called in the table
    "loading": "loading the weights",
    "compiling": "compiling all stages",
    "one": "1 picture in a warm process",
    "eight": "8 pictures in a warm process",
}


@dataclass(frozen=True)
class Run:
    """What a process needed."""

    seconds: float
    peak: float  # resident memory in MiB
    output: str


def start(options: Options) -> Iterator[Row]:
    """Each round begins with an empty cache, and goes on with what is then in it."""
    for count in (1, 4):
        work = f"`diffusion paint`, {count} of 64x64, 25 steps, to the file"
        if options.wants(work):
            yield from _whole(work, count, options.repeats)
    if options.wants("inside"):
        yield from _inside(options.repeats)


def _whole(work: str, count: int, repeats: int) -> Iterator[Row]:
    runs: dict[str, list[Run]] = {EMPTY: [], FULL: []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            output = str(Path(place) / "picture.png")
            command = ["-m", "diffusion", "paint", PROMPT, "--count", str(count)]
            for cache in runs:
                runs[cache].append(run([*command, "--output", output], XDG_CACHE_HOME=place))
    for cache, found in runs.items():
        peak = max(one.peak for one in found)
        seconds = tuple(one.seconds for one in found)
        yield Row(work, cache, seconds, note=f"peak {peak:,.0f} MiB")


def _inside(repeats: int) -> Iterator[Row]:
    found: dict[str, list[dict[str, list[float]]]] = {EMPTY: [], FULL: []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            for rounds in found.values():
                output = run(["-m", "benchmarks.process", place, str(repeats)]).output
                rounds.append(json.loads(output))
    for name, work in INSIDE.items():
        for cache, rounds in found.items():
            seconds = tuple(second for one in rounds for second in one[name])
            yield Row(f"inside: {work}", cache, seconds)


def run(arguments: list[str], **environment: str) -> Run:
    """A process of this Python, with its own peak of memory.

    Raises subprocess.CalledProcessError where it fails.
    """
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, *arguments]

        def call() -> tuple[int, float]:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.DEVNULL, env=os.environ | environment
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_maxrss

        seconds, (code, peak) = timed(call)
        if code:
            raise subprocess.CalledProcessError(code, command)
        output.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        return Run(seconds, peak * unit / MEBIBYTE, output.read())


def inside(cache: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of `INSIDE` in this process, whose compiled programs are kept in `cache`."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    loading, artist = timed(diffusion.load)
    first, _ = timed(lambda: artist.paint(PROMPT))
    one = [timed(lambda: artist.paint(PROMPT))[0] for _ in range(repeats)]
    artist.paint(PROMPT, count=8)
    eight = [timed(lambda: artist.paint(PROMPT, count=8))[0] for _ in range(repeats)]
    compiling = max(0.0, first - sorted(one)[len(one) // 2])
    return {"loading": [loading], "compiling": [compiling], "one": one, "eight": eight}


if __name__ == "__main__":
    print(json.dumps(inside(sys.argv[1], int(sys.argv[2]))))
