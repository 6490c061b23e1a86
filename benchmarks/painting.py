"""What painting with the garden costs beside its arithmetic, and what a user waits for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffusion
from benchmarks.timing import Call, Options, Side, Work
from diffusion import painting
from diffusion.config import sd_v1
from diffusion.runtime.programs import Network, Program
from diffusion.settings import PictureSettings
from diffusion.weights.architectures import structure

PROMPT = "a red house with two old trees and yellow flowers"
CALLS = 1000  # of a function that does nothing, for one measurement


def loop(options: Options) -> Iterator[Work]:
    """Python's loop, the dispatch, the bar and the strip."""
    works = (
        Work("the dispatch of a step, as many arrays as SD 1.5 has", [Side(dispatch)], times=CALLS),
        Work("the bar of the command line: one picture, 25 steps", [Side(bar)]),
    )
    return (work for work in works if options.wants(work.name))


def dispatch() -> dict[str, Call]:
    """A function that gets what a step gets and does next to nothing."""
    artist = diffusion.load("garden")
    seen: list[tuple[Any, ...]] = []
    step = artist._advance
    artist._advance = lambda *inputs: seen.append(inputs) or step(*inputs)
    next(artist.sample(PROMPT))
    tiny = replace(
        sd_v1().denoiser, block_out_channels=(4, 8, 12, 12), norm_groups=2, heads=(2,) * 4
    )
    form, like = structure(tiny)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), like)
    name = f"a call with {len(jax.tree.leaves(params))} arrays"
    program = Program(Network(form, lambda: params), lambda params, x_t, *others: x_t + 0)
    program.compiled = jax.jit(program.compiled.__wrapped__, keep_unused=True)
    return {name: lambda: [program(*seen[0]) for _ in range(CALLS)][-1]}


def bar() -> dict[str, Call]:
    """`diffusion paint` with its bar, and with a strip of eight moments, beside painting alone.

    The weights stay in memory: reading them again in each round is not what is asked.
    """
    artist = diffusion.load("garden")
    Network.release = lambda self: None  # type: ignore[method-assign]
    asked = PictureSettings(PROMPT, count=1)

    def strip() -> None:  # another picture than the others'
        painting.paint(artist, replace(asked, strip=True), {})

    return {
        "without": lambda: artist.paint(PROMPT),
        "with the bar": lambda: painting.paint(artist, asked, {}),
        "with the bar and a strip": strip,
    }


def start(options: Options) -> Iterator[Work]:
    """What a user waits for, the first time and later."""
    command = "`diffusion paint`, 4 of 64x64, 25 steps, to the file"
    if options.wants(command):
        with tempfile.TemporaryDirectory() as place:
            yield Work(command, [Side(whole, (Path(place), 4))])
    for count in (1, 8):
        name = f"{count} of 64x64, 25 steps, in a warm process"
        if options.wants(name):
            yield Work(name, [Side(warm, (count,))])


def whole(place: Path, count: int) -> dict[str, Call]:
    """The command line: without compiled programs, and with those that it has left."""
    command = [sys.executable, "-m", "diffusion", "paint", PROMPT, "--count", str(count)]
    command += ["--output", str(place / "picture.png")]
    cache = place / "cache"

    def paint(empty: bool) -> None:
        if empty:
            shutil.rmtree(cache, ignore_errors=True)
        environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
        subprocess.run(command, check=True, capture_output=True, env=environment)

    return {"empty cache": partial(paint, True), "full cache": partial(paint, False)}


def warm(count: int) -> dict[str, Call]:
    artist = diffusion.load("garden")
    return {"ours": lambda: np.asarray(artist.paint(PROMPT, count=count))}
