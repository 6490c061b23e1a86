"""U-Nets on latents that cannot be halved as often as they have levels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from flax import nnx

from diffusion.inspection.blocks import nhwc
from diffusion.inspection.rows import Row, compare
from diffusion.weights import folder
from parity import reference

GOLDEN = "odd.safetensors"
SMALL = ((9, 13), (1, 1), (8, 5))  # of latents: 72x104 pixels, 8x8, 64x40
LARGE = (17, 30)  # the coarser half of 1920x1080: 135x240, 68x120, 34x60, 17x30
BOUND = 1e-5
Arrays = dict[str, np.ndarray]


@torch.no_grad()
def record(unet: UNet2DConditionModel, sizes: tuple[tuple[int, int], ...], seed: int) -> Arrays:
    """What the reference says of random latents of each size; the latents and the words, too."""
    draw = torch.Generator().manual_seed(seed)
    context = torch.randn(1, 5, unet.config.cross_attention_dim, generator=draw)
    found = {"context": context.numpy()}
    for height, width in sizes:
        latents = torch.randn(1, 4, height, width, generator=draw)
        said = unet(latents, torch.tensor([500]), context).sample
        name = f"{height}x{width}"
        found |= {f"{name} in": latents.numpy(), f"{name} out": said.numpy()}
    return found


def compared(network: nnx.Module, arrays: Arrays) -> Iterator[Row]:
    """One row a size."""
    call = jax.jit(network)
    for name in arrays:
        if name.endswith(" in"):
            size = name.removesuffix(" in")
            given = nhwc(arrays[name]), np.array([500]), arrays["context"]
            said = call(*map(jnp.asarray, given))
            yield compare(f"U-Net, {size}", np.asarray(said), nhwc(arrays[f"{size} out"]), BOUND)


def rows(seed: int) -> Iterator[Row]:
    for model in reference.TINY.values():
        with tempfile.TemporaryDirectory() as place:
            pipeline = reference.build(model, seed, tiny=True)
            pipeline.save_pretrained(place)
            ours = folder.load_network(Path(place), "denoiser")
            yield from compared(ours, record(pipeline.unet, (*SMALL, LARGE), seed))
