"""What painting costs beside its arithmetic: Python's loop, the dispatch, the bar and the strip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import diffusion
from benchmarks.timing import Contender, Options, Row, Work, leaves, measure
from diffusion import cli
from diffusion.config import sd_v1
from diffusion.picture_files import Settings
from diffusion.pipeline import Artist, Network, Program, Start
from diffusion.process.samplers import Plan

PROMPT = "a red house with two old trees and yellow flowers"
CALLS = 1000  # of a function that does nothing, for one measurement


def loop(options: Options) -> Iterator[Row]:
    """One picture of the garden, 25 steps, but for the last work: the tree of SD 1.5."""
    artist = diffusion.load("garden")
    for name, rows in (
        ("a step of the loop", beside_calls),
        ("the dispatch of a step", dispatch),
        ("the bar of the command line", bar),
    ):
        if options.wants(name):
            yield from rows(name, artist, options.repeats)


def beside_calls(name: str, artist: Artist, repeats: int) -> Iterator[Row]:
    """`Artist.glances`, and its compiled function called as often with everything ready."""
    plan, start = artist.plan(PROMPT), artist._start(PROMPT)

    def whole() -> Any:
        *_, last = artist._turn(plan, start, 0, 1)
        return jax.block_until_ready(last.x_next)

    contenders = [
        Contender("the loop of glances", whole, leaves),
        Contender("bare calls", bare(artist, plan, start), leaves),
    ]
    rows = measure(Work(f"{name}: 25 steps", contenders), repeats)
    yield from rows
    more = np.subtract(*(row.seconds for row in rows)) / len(plan.timestep)
    yield Row(f"{name}: 25 steps", "difference a step", tuple(more.tolist()))


def bare(artist: Artist, plan: Plan, start: Start) -> Callable[[], Any]:
    """The calls of a painting and nothing else; their inputs are on the device beforehand."""
    steps = jax.device_put(list(arguments(artist, plan, start)))

    def call() -> Any:
        z, memory = steps[0][:2]
        for _, _, *others in steps:
            _, _, z, memory = artist._glance(z, memory, *others)
        return jax.block_until_ready(z)

    return call


def arguments(artist: Artist, plan: Plan, start: Start) -> Iterator[tuple[Any, ...]]:
    """What `Artist` gives to its compiled function, step by step; of the latents, the first."""
    size = start.given.latents.shape[1:]
    keys, noise = artist._canvas(start.seed, np.zeros(1, np.uint32), size)
    arrives = np.append(plan.alpha_bar[1:], np.float32(1.0))
    for call in range(len(plan.timestep)):
        row = Plan(*(column[call] for column in plan))
        yield (
            noise, jnp.zeros_like(noise), start.context, start.guidance, row, np.uint32(call),
            keys, start.given, noise, arrives[call],
        )  # fmt: skip


def dispatch(name: str, artist: Artist, repeats: int) -> Iterator[Row]:
    """A function of the same arguments that does next to nothing, with as many parameters as SD."""
    config = sd_v1()
    unet = replace(
        config.denoiser, block_out_channels=(4, 8, 12, 12), norm_groups=2, heads=(2,) * 4
    )
    structure, like = structure_of(replace(config, unet=unet), "unet")
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), like)
    program = Program(Network(structure, lambda: params), lambda params, z, *others: z + 0)
    program.compiled = jax.jit(program.compiled.__wrapped__, keep_unused=True)
    inputs = next(arguments(artist, artist.plan(PROMPT), artist._start(PROMPT)))

    def call() -> Any:
        for _ in range(CALLS):
            z = program(*inputs)
        return jax.block_until_ready(z)

    work = f"{name}: {len(jax.tree.leaves(params))} arrays"
    for row in measure(Work(work, [Contender("a call", call, leaves)]), repeats):
        yield replace(row, seconds=tuple(seconds / CALLS for seconds in row.seconds))


def bar(name: str, artist: Artist, repeats: int) -> Iterator[Row]:
    """`diffusion paint` with its bar, and with a strip of eight moments, beside painting alone.

    The weights stay in memory: reading them again in each round is not what is asked.
    """
    settings = Settings(prompt=PROMPT, count=1, guidance=artist.config.guidance)
    arguments = cli.asked(artist, settings)
    with mock.patch.object(Network, "release"):
        contenders = [
            Contender("without", lambda: artist.paint(PROMPT), leaves),
            Contender("with the bar", partial(cli.paint, artist, settings, arguments), leaves),
            Contender(
                "with the bar and a strip",
                partial(cli.paint, artist, replace(settings, strip=True), arguments),
                None,
            ),
        ]
        rows = measure(Work(f"{name}: one picture, 25 steps", contenders), repeats)
    for row in rows:
        share = row.median / rows[0].median - 1.0
        yield row if row is rows[0] else replace(row, note=f"{share:+.1%}")
