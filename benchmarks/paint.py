"""How long does a picture take? `python benchmarks/paint.py` prints a table of what it saw.

Whole processes, from start to finished file: with an empty compilation cache, and with a full one.
In one warm process: medians of `Artist.paint`. And the compilation of the whole path by itself.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version

PROMPT = "a red house with two old trees and yellow flowers"
REPEATS = 7
WARM = """
import sys, time, tempfile
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
import diffusion
began = time.perf_counter()
artist = diffusion.load()
loaded = time.perf_counter()
artist.paint(sys.argv[2])
first = time.perf_counter()
print("loading", loaded - began)
print("first", first - loaded)
artist.paint(sys.argv[2], count=8)
for name, count in (("one", 1), ("eight", 8)):
    for i in range(int(sys.argv[3])):
        began = time.perf_counter()
        artist.paint(sys.argv[2], count=count, seed=i)
        print(name, time.perf_counter() - began)
"""


def seconds(arguments: list[str], home: str) -> float:
    """Wall time of a whole process with its own cache folder."""
    began = time.perf_counter()
    environment = os.environ | {"XDG_CACHE_HOME": home}
    subprocess.run(arguments, check=True, capture_output=True, env=environment)
    return time.perf_counter() - began


def inside(cache: str) -> dict[str, list[float]]:
    """Times measured inside one process whose compilations are kept in `cache`."""
    command = [sys.executable, "-c", WARM, cache, PROMPT, str(REPEATS)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    found: dict[str, list[float]] = {}
    for name, value in (line.split() for line in lines if line):
        found.setdefault(name, []).append(float(value))
    return found


def main() -> None:
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, 64x64, 25 steps, guidance"
    )
    print(", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy")))
    with tempfile.TemporaryDirectory() as folder:
        paint = [sys.executable, "-m", "diffusion", "paint", PROMPT, "--output", f"{folder}/p.png"]
        print(f"process, 4 pictures, empty cache    {seconds(paint, folder):6.2f} s")
        again = [seconds(paint, folder) for _ in range(3)]
        print(f"process, 4 pictures, full cache     {statistics.median(again):6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = inside(folder), inside(folder)
        print(f"loading the weights                 {warm['loading'][0]:6.2f} s")
        for name, label in (("one", "1 picture"), ("eight", "8 pictures")):
            times = cold[name] + warm[name]
            print(
                f"warm process, {label:10s}            {statistics.median(times):6.2f} s "
                f"({min(times):.2f} to {max(times):.2f})"
            )
        usual = statistics.median(cold["one"] + warm["one"])
        print(f"compiling the whole path, no cache  {cold['first'][0] - usual:6.2f} s")
        print(f"the same with the cache             {warm['first'][0] - usual:6.2f} s")


if __name__ == "__main__":
    main()
