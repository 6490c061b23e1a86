"""The finished picture: the reference's pipelines beside `Artist.sample`, from the same noise.

Both load one folder, and both ways: one that the reference wrote, and one that we wrote.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import (
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

import diffusion
from diffusion.inspection.blocks import nhwc
from diffusion.inspection.rows import Row, compare
from diffusion.pipeline import Artist
from diffusion.process.samplers import noise_at
from diffusion.settings import Settings
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.weights.folder import find
from parity import reference
from parity.samplers import CLASSES

BOUND = 5e-5  # every step hands its rounding on to the next, and guidance makes it louder
EXACT = ("ddim", "euler", "heun", "dpm++2m")  # draw no noise on the way
DRAWING = {  # the others, and where the reference's schedulers draw theirs
    "ddpm": "diffusers.schedulers.scheduling_ddpm.randn_tensor",
    "euler_a": "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor",
    "lcm": "diffusers.schedulers.scheduling_lcm.randn_tensor",
}
PROMPT = "a red house with two old trees and yellow flowers"
NEGATIVE = "night"
STEPS = 6
GUIDANCE = 7.5
# Where the reference's pipelines and its VAE draw their noise.
DRAWN = (
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img.randn_tensor",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint.randn_tensor",
)
DRAWN_BY_VAE = "diffusers.models.autoencoders.vae.randn_tensor"


def sections(seed: int) -> Iterator[tuple[str, Iterable[Row]]]:
    """Titles and rows: a folder of the reference in both families, then folders of ours."""
    for family, model in reference.TINY.items():
        yield f"{family}, tiny: finished pictures", _pictures(model, seed)
    yield "sd1, tiny, U-Net with nine channels: inpainting", _nine_channels(seed)
    yield "sd1, tiny, a latent consistency model", _consistency(seed)
    yield "folders that we write, loaded by the reference", _ours_in_reference(seed)


def _pictures(model: reference.Model, seed: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as place:
        pipeline = reference.build(model, seed, tiny=True)
        pipeline.save_pretrained(place)
        artist = diffusion.load(place)
        for sampler in (*EXACT, *DRAWING):
            yield from _compare(f"{sampler}, from noise", artist, pipeline, sampler, seed)
        wide = {"height": artist.config.image_size // 2, "width": artist.config.image_size}
        yield from _compare("dpm++2m, wide", artist, pipeline, "dpm++2m", seed, wide)
        image, mask = _image(artist, seed)
        for sampler in EXACT:
            given = {"image": image, "strength": 0.6}
            yield from _compare(
                f"{sampler}, from a picture", artist, pipeline, sampler, seed, given
            )
            for strength in (1.0, 0.6):
                given = {"image": image, "mask": mask, "strength": strength}
                name = f"{sampler}, with a mask, strength {strength}"
                yield from _compare(name, artist, pipeline, sampler, seed, given)


def _nine_channels(seed: int) -> Iterator[Row]:
    model = reference.TINY["sd1"]
    model = dataclasses.replace(model, unet=model.unet | {"in_channels": 9})
    with tempfile.TemporaryDirectory() as place:
        pipeline = reference.build(model, seed, tiny=True)
        pipeline.save_pretrained(place)
        artist = diffusion.load(place)
        image, mask = _image(artist, seed)
        for sampler in EXACT:
            given = {"image": image, "mask": mask, "strength": 1.0}
            yield from _compare(f"{sampler}, with a mask", artist, pipeline, sampler, seed, given)


def _consistency(seed: int) -> Iterator[Row]:
    """Guidance as an embedding: one call a step, and the scale changes the picture."""
    model = reference.TINY["sd1"]
    model = dataclasses.replace(model, unet=model.unet | {"time_cond_proj_dim": 32})
    with tempfile.TemporaryDirectory() as place:
        theirs, ours = Path(place) / "theirs", Path(place) / "ours"
        parts = reference.build(model, seed, tiny=True).components
        parts["scheduler"] = LCMScheduler.from_config(parts["scheduler"].config)
        LatentConsistencyModelPipeline(**parts).save_pretrained(theirs)
        artist = diffusion.load(theirs)
        artist.save(ours)
        shape = (artist.config.latent_size, artist.config.latent_size)
        for folder in (theirs, ours):
            pipeline = LatentConsistencyModelPipeline.from_pretrained(folder, dtype=torch.float32)
            pipeline.set_progress_bar_config(disable=True)
            for scale in (1.0, 8.5):
                *_, last = artist.sample(PROMPT, seed=seed, guidance=scale)
                noises = noise(artist, seed, *shape)
                with _drawing(*noises, DRAWING["lcm"], on_the_way(artist, seed, *shape)):
                    latents = pipeline(
                        PROMPT,
                        num_inference_steps=4,
                        guidance_scale=scale,
                        latents=noises[0],
                        output_type="latent",
                    ).images
                name = f"4 steps at guidance {scale}, folder of {folder.name}"
                yield compare(name, np.asarray(last.x_next), nhwc(latents.numpy()), BOUND)


def _ours_in_reference(seed: int) -> Iterator[Row]:
    garden = diffusion.load("garden")
    shipped = StableDiffusionPipeline.from_pretrained(find("garden"), dtype=torch.float32)
    yield from _compare("the shipped garden", garden, shipped, "ddim", seed)
    with tempfile.TemporaryDirectory() as place:
        theirs, ours = Path(place) / "theirs", Path(place) / "ours"
        for family, model in reference.TINY.items():
            reference.build(model, seed, tiny=True).save_pretrained(theirs / family)
            artist = diffusion.load(theirs / family)
            artist.save(ours / family)
            loaded = StableDiffusionPipeline.from_pretrained(ours / family, dtype=torch.float32)
            yield from _compare(f"{family}, saved by us", artist, loaded, "ddim", seed)


def _compare(
    name: str,
    artist: Artist,
    pipeline: StableDiffusionPipeline,
    sampler: str,
    seed: int,
    given: dict[str, Any] | None = None,
) -> Iterator[Row]:
    settings = {"seed": seed, "steps": STEPS, "guidance": GUIDANCE, "sampler": sampler}
    *_, last = artist.sample(PROMPT, negative=NEGATIVE, **settings, **(given or {}))
    latents = paint(artist, pipeline, sampler, seed, given)
    yield compare(f"{name}: latents", np.asarray(last.x_next), nhwc(latents.numpy()), BOUND)
    with torch.no_grad():
        theirs = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample.numpy()
    picture = np.asarray(artist.autoencoder.decode(last.x_next))
    yield compare(f"{name}: picture", picture, nhwc(theirs), BOUND)


def paint(
    artist: Artist,
    pipeline: StableDiffusionPipeline,
    sampler: str,
    seed: int,
    given: dict[str, Any] | None = None,
) -> torch.Tensor:
    """The final latents of the reference, (1, 4, h, w), from the noise that `artist` would draw.

    Args:
        given: size, or image, mask and strength, as `Artist.sample` takes them.
    """
    given = given or {}
    kind = StableDiffusionPipeline
    size = {name: given[name] for name in ("height", "width") if name in given}
    options: dict[str, Any] = dict(size)
    if "image" in given:
        kind = StableDiffusionInpaintPipeline if "mask" in given else StableDiffusionImg2ImgPipeline
        options = {"image": Image.fromarray(given["image"]), "strength": given["strength"]}
    if "mask" in given:
        options["mask_image"] = Image.fromarray(given["mask"])
    side = artist.config.autoencoder.downscale
    pixels = Settings(PROMPT, **size).size(artist.config, given.get("image"))
    shape = (pixels[0] // side, pixels[1] // side)
    first_noise, of_vae = noise(artist, seed, *shape)
    if "image" not in given:
        options["latents"] = first_noise
    elif "mask" in given:
        options |= dict(zip(("height", "width"), given["mask"].shape, strict=True))
    scheduler = getattr(diffusers, CLASSES[sampler]).from_config(pipeline.scheduler.config)
    parts = pipeline.components | {"scheduler": scheduler}
    painter = kind(**parts, requires_safety_checker=False)
    painter.set_progress_bar_config(disable=True)
    with _drawing(first_noise, of_vae, DRAWING.get(sampler), on_the_way(artist, seed, *shape)):
        return painter(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="latent",
            **options,
        ).images


@contextmanager
def _drawing(
    noise: torch.Tensor, of_vae: torch.Tensor, scheduler: str | None, later: Iterator[torch.Tensor]
) -> Iterator[None]:
    """Let the reference draw our noise."""
    with ExitStack() as patches:
        if scheduler is not None:
            patches.enter_context(mock.patch(scheduler, side_effect=lambda *_, **__: next(later)))
        for place in DRAWN:
            patches.enter_context(mock.patch(place, return_value=noise))
        patches.enter_context(mock.patch(DRAWN_BY_VAE, return_value=of_vae))
        yield


def noise(artist: Artist, seed: int, h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise that a seed begins with, and that of the VAE in a picture: (1, 4, h, w)."""
    size = (h, w, artist.config.denoiser.latent_channels)
    begin = initial_noise(picture_keys(seed, jnp.zeros(1, jnp.uint32)), size)
    of_vae = jax.random.normal(jax.random.key(seed), (1, *size))
    return _nchw(begin), _nchw(of_vae)


def on_the_way(artist: Artist, seed: int, h: int, w: int) -> Iterator[torch.Tensor]:
    """The noise that our samplers draw in one call after the other, each (1, 4, h, w)."""
    keys = picture_keys(seed, jnp.zeros(1, jnp.uint32))
    for call in itertools.count():
        yield _nchw(noise_at(keys, call, (h, w, artist.config.denoiser.latent_channels)))


def _nchw(x: jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(x.transpose(0, 3, 1, 2)))


def _image(artist: Artist, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, and a mask whose border lies between latents: there all masks mean the same."""
    side = artist.config.image_size
    picture = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    mask = np.zeros((side, side), bool)
    mask[side // 4 :, : side // 2] = True
    return picture, mask
