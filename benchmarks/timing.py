"""Contenders side by side: called in turn, held against each other, and told apart by medians."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parity.rows import compare

# Of the difference between contenders, relative to the largest output, by the bits of a product's
# factors: float32 on a CPU; TensorFloat-32 on a GPU, and bfloat16.
BOUND, BOUND_TF32, BOUND_HALF = 1e-4, 1e-2, 5e-2
PAUSE = 0.02  # seconds before each call, for the threads of the one before to fall asleep
SPENT, MOST = 3.0, 50  # short works are repeated until so many seconds, or rounds, are over
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "diffusers", "transformers", "keras-cv")


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    repeats: int
    compile: bool  # is torch.compile to be measured?
    only: str = ""  # measure only the works whose name holds this
    half: bool = False  # bfloat16, where a group has it

    def wants(self, work: str) -> bool:
        return self.only in work


@dataclass(frozen=True)
class Contender:
    """One way to do a work."""

    name: str
    call: Callable[[], Any]  # do it once, to the end
    outputs: Callable[[Any], list[np.ndarray]] | None  # of a call, as ours; None: not compared
    peer: bool = False  # another project's
    compiles: bool = False  # is the first call longer for it?


@dataclass(frozen=True)
class Work:
    """Something to do, and who does it; all others must agree with the first."""

    name: str
    contenders: Sequence[Contender]
    flops: float = 0.0  # operations of the plain form; 0: not counted
    weights: int = 0  # bytes of parameters


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    work: str
    contender: str
    seconds: tuple[float, ...] = ()  # of the rounds that count; none where it failed
    compiling: float | None = None  # seconds of the first call beyond a usual one
    ratio: float | None = None  # of the median to that of the fastest peer
    flops: float = 0.0
    weights: int = 0
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def ours(name: str, function: Callable[..., Any], *inputs: Any) -> Contender:
    """A compiled function of JAX on inputs that are already on the device."""
    return Contender(name, lambda: jax.block_until_ready(function(*inputs)), leaves, compiles=True)


def leaves(result: Any) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(result)]


def size(params: Any) -> int:
    """Bytes of parameters, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and its result."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def measure(work: Work, repeats: int, bound: float | None = None) -> list[Row]:
    """A row a contender. The first two rounds do not count: they compile, compare and warm up.

    All must return what the first does. A compiled peer that fails, or that returns something else,
    has a note in place of its time; of any other contender that is an error.

    Args:
        bound: of the difference; None: what float32 has here.
    """
    bound = bound or (BOUND if jax.default_backend() == "cpu" else BOUND_TF32)
    first: dict[str, float] = {}
    expected: list[np.ndarray] = []
    failed: dict[str, str] = {}
    for contender in work.contenders:
        try:
            first[contender.name], result = timed(contender.call)
            if contender.outputs is not None:
                outputs = contender.outputs(result)
                expected = expected or outputs
                _check(outputs, expected, bound)
                del outputs
            del result
        except Exception as error:
            if not (contender.peer and contender.compiles):
                error.add_note(f"{work.name}: {contender.name}")
                raise
            failed[contender.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"

    running = [contender for contender in work.contenders if contender.name not in failed]
    warm = sum(timed(contender.call)[0] for contender in running)
    rounds = max(repeats, min(MOST, int(SPENT / warm)))
    seconds: dict[str, list[float]] = {contender.name: [] for contender in running}
    for _ in range(rounds):
        for contender in running:
            time.sleep(PAUSE)
            seconds[contender.name].append(timed(contender.call)[0])

    best = min((statistics.median(seconds[c.name]) for c in running if c.peer), default=None)
    rows = []
    for contender in work.contenders:
        row = Row(work.name, contender.name, flops=work.flops, weights=work.weights)
        if contender.name in failed:
            rows.append(replace(row, note=failed[contender.name]))
            continue
        row = replace(row, seconds=tuple(seconds[contender.name]))
        if contender.compiles:
            row = replace(row, compiling=max(0.0, first[contender.name] - row.median))
        if best is not None and not contender.peer:
            row = replace(row, ratio=row.median / best)
        rows.append(row)
    return rows


def _check(outputs: list[np.ndarray], expected: list[np.ndarray], bound: float) -> None:
    """Raise ValueError where outputs are not those that the first contender had."""
    for one, other in zip(outputs, expected, strict=True):
        row = compare("", one, other, bound)
        if not row.ok:
            raise ValueError(
                f"differs from the first by {row.relative:.1e} of the largest output, "
                f"more than {bound:.0e}"
            )


def cores() -> int:
    """How many cores JAX uses, and PyTorch is to use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> str:
    """How many processes wanted to run in the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def processor() -> str:
    """What the processor calls itself."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def graphics() -> str:
    """What the GPU calls itself."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.check_output(command, text=True).splitlines()[0]


def versions() -> str:
    """The versions of those `PACKAGES` that are installed."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
