"""The shipped model paints latents: `Artist.glances` beside the same network of diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel

import diffusion
from benchmarks.apart import Call, apart
from benchmarks.peers import FORMS, as_theirs, formed, forms, outputs, prepare
from benchmarks.roofline import flops
from benchmarks.timing import Options, Row, Work, leaves, measure, size
from diffusion.weights.folder import find
from parity import reference

PROMPT = "a red house with two old trees and yellow flowers"


def garden(options: Options) -> Iterator[Row]:
    """From the canvas to the finished latents; the words are a context beforehand."""
    artist = diffusion.load("garden", dtype="float32")
    for count in (1, 8):
        plan, start = artist.plan(PROMPT), artist._start(PROMPT)
        name = f"garden, {len(plan.timestep)} steps, batch {count}"
        if not options.wants(name):
            continue
        once = flops(
            artist.denoiser.whole.function,
            artist.denoiser.params,
            np.zeros((2 * count, *start.given.latents.shape[1:]), np.float32),
            np.zeros(2 * count, np.int32),
            np.repeat(start.context, count, axis=0),
        )
        with ExitStack() as stack:
            contenders = [stack.enter_context(apart("ours", ours, count, compiles=True))]
            for form in forms(options):
                compiles = form != FORMS[0]
                theirs = apart(form, sampling, count, form, peer=True, compiles=compiles)
                contenders.append(stack.enter_context(theirs))
            products = len(plan.timestep) * once
            work = Work(name, contenders, products, size(artist.denoiser.params))
            yield from measure(work, options.repeats)


def ours(count: int) -> Call:
    """The loop of `Artist.glances` after its words; returns the finished latents."""
    artist = diffusion.load("garden", dtype="float32")
    plan, start = artist.plan(PROMPT), artist._start(PROMPT)

    def call() -> list[np.ndarray]:
        *_, last = artist._turn(plan, start, 0, count)
        return leaves(last.x_next)

    return call


def sampling(count: int, form: str) -> Call:
    """The same of diffusers, with a loop as in its pipelines."""
    reference.quiet()
    device = prepare()
    artist = diffusion.load("garden", dtype="float32")
    plan, start = artist.plan(PROMPT), artist._start(PROMPT)
    shape = start.given.latents.shape[1:]
    _, canvas = artist._canvas(start.seed, np.arange(count, dtype=np.uint32), shape)
    place = find("garden")
    network = UNet2DConditionModel.from_pretrained(place, subfolder="unet")
    network = network.float().eval().to(device)
    predict = formed(network, form)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(place, subfolder="scheduler")
    z = as_theirs(canvas).to(device)
    words, none = as_theirs(start.context).to(device)
    context = torch.stack([none] * count + [words] * count)
    guidance = float(start.guidance)

    @torch.inference_mode()
    def call() -> list[np.ndarray]:
        scheduler.set_timesteps(len(plan.timestep), device=device)
        latents = z
        for timestep in scheduler.timesteps:
            both = predict(torch.cat([latents, latents]), timestep, context).sample
            unconditional, conditional = both.chunk(2)
            prediction = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        return outputs(latents)

    return call
