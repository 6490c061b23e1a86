"""Contenders side by side: in processes of their own, called in turn, held against each other.

Nobody paints or trains with PyTorch in the same process. Eight pictures of the garden took 713 ms
beside it and 587 ms apart, PyTorch's 794 and 748 (Zen 5, 2026-11-27).
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion.inspection.blocks import nhwc
from diffusion.inspection.rows import compare

EAGER = "PyTorch"  # names that begin so are not compiled
PAUSE = 0.02  # seconds before each call, for the threads of the one before to fall asleep
SPENT, MOST = 3.0, 50  # short works are repeated until so many seconds, or rounds, are over

Call = Callable[[], Any]  # do the work once; what it returns is compared, None is not


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    repeats: int
    compile: bool = True  # is torch.compile to be measured?
    only: str = ""  # measure only the works whose name holds this
    half: bool = False  # bfloat16, where a group has it
    gpu: bool = False

    def wants(self, work: str) -> bool:
        return self.only in work

    @property
    def bound(self) -> float:
        """Of the difference between contenders, relative to the largest output.

        By the bits of a product's factors: bfloat16, TensorFloat-32 on a GPU, float32 on a CPU.
        """
        return 5e-2 if self.half else 1e-2 if self.gpu else 1e-4


@dataclass(frozen=True)
class Side:
    """A process with one contender, or several that share their weights."""

    build: Callable[..., dict[str, Call]]  # a function of a module: names and calls, over there
    arguments: tuple[Any, ...] = ()
    peer: bool = False  # another project's


@dataclass(frozen=True)
class Work:
    """Something to do, and who does it; all others must agree with the first."""

    name: str
    sides: Sequence[Side]
    flops: float = 0.0  # operations of the plain form; 0: not counted
    times: int = 1  # how often a call does it


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    work: Work
    contender: str
    seconds: tuple[float, ...] = ()  # of the rounds that count; none where it failed
    ratio: float | None = None  # of the median to that of the fastest peer, or of the first
    compiling: float | None = None  # seconds of the first call beyond a usual one
    grown: int = 0
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Answer(NamedTuple):
    """What a process says of a call."""

    seconds: float
    grown: int  # bytes: the most memory that it had by now, less what it had when it was ready
    outputs: list[np.ndarray]  # where they are wanted


@dataclass(frozen=True)
class Contender:
    """One way to do a work, in another process."""

    name: str
    peer: bool
    pipe: Connection

    def call(self, wanted: bool = False) -> Answer:
        """Raises what it raised over there."""
        self.pipe.send((self.name, wanted))
        return _received(self.pipe)


def measure(work: Work, options: Options) -> Iterator[Row]:
    """A row a contender. The first two rounds do not count: they compile, compare and warm up.

    All must return what the first does. A compiled peer that fails, or that returns something else,
    has a note in place of its time; of any other contender that is an error.
    """
    with contextlib.ExitStack() as stack:
        contenders = [one for side in work.sides for one in stack.enter_context(_started(side))]
        first, failed = _first_round(contenders, options.bound)
        running = [one for one in contenders if one.name in first]
        warm = sum(one.call().seconds for one in running)
        seconds: dict[str, list[float]] = {one.name: [] for one in running}
        for _ in range(max(options.repeats, min(MOST, int(SPENT / warm)))):
            for one in running:
                time.sleep(PAUSE)
                seconds[one.name].append(one.call().seconds)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    peers = [medians[one.name] for one in running if one.peer]
    best = min(peers, default=medians[contenders[0].name])
    for i, one in enumerate(contenders):
        if one.name in failed:
            yield Row(work, one.name, note=failed[one.name])
            continue
        median, begin = medians[one.name], first[one.name]
        yield Row(
            work,
            one.name,
            tuple(second / work.times for second in seconds[one.name]),
            ratio=median / best if not one.peer and (peers or i) else None,
            compiling=None if one.name.startswith(EAGER) else max(0.0, begin.seconds - median),
            grown=begin.grown,
        )


def _first_round(
    contenders: list[Contender], bound: float
) -> tuple[dict[str, Answer], dict[str, str]]:
    """Each contender's first answer, and what is the matter with those that failed."""
    first: dict[str, Answer] = {}
    failed: dict[str, str] = {}
    expected: list[np.ndarray] = []
    for one in contenders:
        try:
            answer = one.call(wanted=True)
            expected = expected or answer.outputs
            for pair in zip(answer.outputs, expected, strict=True) if answer.outputs else ():
                row = compare("", *pair, bound)
                if not row.ok:
                    raise ValueError(f"differs by {row.relative:.1e} of the largest output")
            first[one.name] = answer
        except Exception as error:
            if not one.peer or one.name.startswith(EAGER):
                error.add_note(one.name)
                raise
            failed[one.name] = str(error).strip().splitlines()[0]
    return first, failed


@contextlib.contextmanager
def _started(side: Side) -> Iterator[list[Contender]]:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, side), daemon=True)
    process.start()
    there.close()  # if the process dies, the end of the pipe is noticed here
    try:
        yield [Contender(name, side.peer, here) for name in _received(here)]
    finally:
        process.kill()
        process.join()


def _received(pipe: Connection) -> Any:
    found = pipe.recv()
    if isinstance(found, Exception):
        raise found
    return found


def _serve(pipe: Connection, side: Side) -> None:
    """Build the calls, say their names, and make whichever is asked for."""
    sys.stdout = sys.stderr  # the other is for rows
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        calls = side.build(*side.arguments)
        pipe.send(list(calls))
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the most memory until now
        ready = memory("VmRSS")
        while True:
            name, wanted = pipe.recv()
            began = time.perf_counter()
            result = calls[name]()
            _wait(result)
            seconds = time.perf_counter() - began
            outputs = arrays(result) if wanted else []
            pipe.send(Answer(seconds, memory("VmHWM") - ready, outputs))
    except EOFError:  # nobody asks any more
        return
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def memory(entry: str) -> int:
    """Bytes that this process has in memory (VmRSS) or had at most (VmHWM); 0 if unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(entry))


def _wait(result: Any) -> None:
    """Until the device has done what it was asked for."""
    jax.block_until_ready(result)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def arrays(result: Any) -> list[np.ndarray]:
    """What a call returned, PyTorch's maps with the channels where ours are."""
    return [
        nhwc(leaf.float().cpu().numpy()) if hasattr(leaf, "cpu") else np.asarray(leaf, np.float32)
        for leaf in jax.tree.leaves(result)
    ]
