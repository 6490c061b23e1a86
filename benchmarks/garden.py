"""The shipped model paints latents: `Artist.sample` beside the same network of diffusers."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

import diffusion
from benchmarks.peers import as_theirs, device, formed, network, pair
from benchmarks.roofline import counted
from benchmarks.timing import Call, Options, Work
from diffusion.pipeline import Artist
from diffusion.settings import Settings
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.weights.folder import find

ASKED = Settings("a red house with two old trees and yellow flowers")


def garden(options: Options) -> Iterator[Work]:
    """From noise to the finished latents; the words are a context beforehand."""
    config = load().config
    side, text, channels = config.latent_size, config.text_encoder, config.denoiser.in_channels
    for count in (1, 8):
        name = f"garden, {ASKED.steps} steps, batch {count}"
        if not options.wants(name):
            continue
        b = 2 * count  # both branches of guidance
        shapes = (b, side, side, channels), (b,), (b, text.length, text.width)
        facts = counted(config.denoiser, "__call__", *map(jnp.zeros, shapes))
        facts["flops"] *= ASKED.steps
        yield Work(name, pair(ours, theirs, count, options=options), **facts)


def load() -> Artist:
    return diffusion.load("garden", dtype="float32")


def ours(count: int) -> dict[str, Call]:
    """The loop of `Artist.sample` after its words."""
    artist = load()
    asked, rows = artist.resolve(ASKED)
    given = artist._condition(asked, None, None)

    def call() -> jax.Array:
        *_, last = artist._sample(rows, given, 0, count)
        return last.x_next

    return {"ours": call}


def theirs(count: int, form: str) -> Call:
    """The same of diffusers, with a loop as in its pipelines."""
    artist = load()
    guidance, side = artist.config.guidance, artist.config.latent_size
    keys = picture_keys(ASKED.seed, np.arange(count, dtype=np.uint32))
    noise = as_theirs(initial_noise(keys, (side, side, artist.config.denoiser.latent_channels)))
    words, none = as_theirs(artist.text_encoder(artist.tokenizer([ASKED.prompt, ""])))
    context = torch.stack([none] * count + [words] * count)
    predict = formed(network(find("garden"), "unet", form), form)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(find("garden"), subfolder="scheduler")

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
