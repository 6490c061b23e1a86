"""The shipped model paints latents: `Artist.glances` beside the same network of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel

import diffusion
from benchmarks.peers import as_theirs, forms, outputs
from benchmarks.roofline import flops
from benchmarks.timing import Contender, Options, Row, Work, cores, leaves, measure, size
from diffusion.art_class import Artist, Start
from diffusion.samplers import Plan
from diffusion.weights.folder import find
from parity import reference

PROMPT = "a red house with two old trees and yellow flowers"


def garden(options: Options) -> Iterator[Row]:
    """From the canvas to the finished latents; the words are a context beforehand."""
    reference.quiet()
    torch.set_num_threads(cores())
    artist = diffusion.load("garden")
    network = UNet2DConditionModel.from_pretrained(find("garden"), subfolder="unet")
    network = network.float().eval()
    for count in (1, 8):
        plan, start = artist.plan(PROMPT), artist._start(PROMPT)
        name = f"garden, {len(plan.timestep)} steps, batch {count}"
        if not options.wants(name):
            continue
        _, canvas = artist._canvas(
            start.seed, np.arange(count, dtype=np.uint32), start.given.latents.shape[1:]
        )
        contenders = [Contender("ours", glances(artist, plan, start, count), leaves, compiles=True)]
        for form, function in forms(network, options).items():
            call = torch.inference_mode()(sampling(function, plan, start, canvas))
            compiles = function is not network
            contenders.append(Contender(form, call, outputs, peer=True, compiles=compiles))
        once = flops(
            artist.unet.whole.function,
            artist.unet.params,
            np.concatenate([canvas, canvas]),
            np.zeros(2 * count, np.int32),
            np.repeat(start.context, count, axis=0),
        )
        products = len(plan.timestep) * once
        work = Work(name, contenders, products, size(artist.unet.params))
        yield from measure(work, options.repeats)


def glances(artist: Artist, plan: Plan, start: Start, count: int) -> Callable[[], jax.Array]:
    """The loop of `Artist.glances` after its words; returns the finished latents."""

    def call() -> jax.Array:
        *_, last = artist._turn(plan, start, 0, count)
        return jax.block_until_ready(last.latents)

    return call


def sampling(
    network: Callable[..., Any], plan: Plan, start: Start, canvas: jax.Array
) -> Callable[[], torch.Tensor]:
    """The same of diffusers, with a loop as in its pipelines."""
    scheduler = DPMSolverMultistepScheduler.from_pretrained(find("garden"), subfolder="scheduler")
    z = as_theirs(canvas)
    words, none = as_theirs(start.context)
    context = torch.stack([none] * len(z) + [words] * len(z))
    guidance = float(start.guidance)

    def call() -> torch.Tensor:
        scheduler.set_timesteps(len(plan.timestep))
        latents = z
        for timestep in scheduler.timesteps:
            both = network(torch.cat([latents, latents]), timestep, context).sample
            unconditional, conditional = both.chunk(2)
            prediction = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        return latents

    return call
