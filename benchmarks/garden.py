"""The shipped model paints: beside diffusers, beside its arithmetic, and as a user waits for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

import diffusion
from benchmarks.peers import as_theirs, device, formed, network, pair
from benchmarks.roofline import counted
from benchmarks.timing import Call, Options, Side, Work
from diffusion import painting
from diffusion.presets import sd_v1
from diffusion.runtime.programs import Network, Program
from diffusion.settings import PictureSettings
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.weights.architectures import structure
from diffusion.weights.folder import find

ASKED = PictureSettings("a red house with two old trees and yellow flowers", count=1)
STRIP = replace(ASKED, strip=True)  # of eight moments
CALLS = 1000  # of a function that does nothing, for one measurement


def garden(options: Options) -> Iterator[Work]:
    """From noise to the finished latents; the words are a context beforehand."""
    config = diffusion.load("garden64").config
    side, text, channels = config.latent_size, config.text_encoder, config.denoiser.in_channels
    for count in (1, 8):
        name = f"garden, {ASKED.steps} steps, batch {count}"
        if options.wants(name):
            b = 2 * count  # both branches of guidance
            shapes = (b, side, side, channels), (b,), (b, text.length, text.width)
            products = ASKED.steps * counted(config.denoiser, "__call__", *map(jnp.zeros, shapes))
            yield Work(name, pair(ours, theirs, (count,), options), products)


def ours(count: int) -> dict[str, Call]:
    """The loop of `Artist.sample` after its words."""
    artist = diffusion.load("garden64", dtype="float32")
    asked, rows = artist.resolve(ASKED)
    given = artist._condition(asked, None, None)

    def call() -> jax.Array:
        *_, last = artist._sample(rows, given, 0, count)
        return last.x_next

    return {"ours": call}


def theirs(count: int, form: str) -> Call:
    """The same of diffusers, with a loop as in its pipelines."""
    artist = diffusion.load("garden64", dtype="float32")
    guidance, side = artist.config.guidance, artist.config.latent_size
    keys = picture_keys(ASKED.seed, np.arange(count, dtype=np.uint32))
    noise = as_theirs(initial_noise(keys, (side, side, artist.config.denoiser.latent_channels)))
    words, none = as_theirs(artist.text_encoder(artist.tokenizer([ASKED.prompt, ""])))
    context = torch.stack([none] * count + [words] * count)
    predict = formed(network(find("garden64"), "unet", form), form)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(find("garden64"), subfolder="scheduler")

    @torch.inference_mode()
    def call() -> torch.Tensor:
        scheduler.set_timesteps(ASKED.steps, device=device())
        latents = noise
        for timestep in scheduler.timesteps:
            both = predict(torch.cat([latents, latents]), timestep, context).sample
            unconditional, conditional = both.chunk(2)
            prediction = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        return latents

    return call


def start(options: Options) -> Iterator[Work]:
    """The command line, a process that goes on, and a call that does nothing."""
    with tempfile.TemporaryDirectory() as place:
        works = (
            Work("`diffusion paint`, 4 of 64x64, to the file", [Side(whole, (Path(place), 4))]),
            Work("in a warm process", [Side(warm)]),
            Work("dispatch of a step, as many arrays as SD 1.5", [Side(dispatch)], times=CALLS),
        )
        yield from (work for work in works if options.wants(work.name))


def dispatch() -> dict[str, Call]:
    """A function that gets what a step gets and does next to nothing."""
    artist = diffusion.load("garden64")
    seen: list[tuple[Any, ...]] = []
    step = artist._advance
    artist._advance = lambda *inputs: seen.append(inputs) or step(*inputs)
    next(artist.sample(ASKED))
    tiny = {"block_out_channels": (4, 8, 12, 12), "norm_groups": 2, "heads": (2,) * 4}
    form, like = structure(replace(sd_v1().denoiser, **tiny))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), like)
    program = Program(Network(form, lambda: params), lambda params, x_t, *others: x_t + 0)
    program.compiled = jax.jit(program.compiled.__wrapped__, keep_unused=True)
    name = f"a call with {len(jax.tree.leaves(params))} arrays"
    return {name: lambda: [program(*seen[0]) for _ in range(CALLS)][-1]}


def whole(place: Path, count: int) -> dict[str, Call]:
    """Without compiled programs, and with those that are left."""
    command = [sys.executable, "-m", "diffusion", "paint", ASKED.prompt, "--count", str(count)]
    command += ["--output", str(place / "picture.png")]

    def paint(empty: bool) -> None:
        if empty:
            shutil.rmtree(place / "cache", ignore_errors=True)
        environment = os.environ | {"XDG_CACHE_HOME": str(place / "cache")}
        subprocess.run(command, check=True, capture_output=True, env=environment)

    return {"empty cache": partial(paint, True), "full cache": partial(paint, False)}


def warm() -> dict[str, Call]:
    """The weights stay in memory: reading them again in each round is not what is asked."""
    artist = diffusion.load("garden64")
    Network.release = lambda self: None

    def others(call: Callable[..., Any], *inputs: Any) -> None:
        """Another picture than the first's is not compared."""
        call(*inputs)

    return {
        "1 picture": lambda: artist.paint(ASKED),
        "1 with the bar": lambda: painting.paint(artist, ASKED, {}),
        "1 with the bar and a strip": partial(others, painting.paint, artist, STRIP, {}),
        "8 pictures": partial(others, artist.paint, replace(ASKED, count=8)),
    }
