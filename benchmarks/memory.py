"""How much memory each stage of SD 1.5 needs at 512x512, and how long loading takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

import diffusion
from benchmarks.peers import random_model
from benchmarks.timing import Call, Options, Side, Work
from diffusion.runtime.programs import Network
from diffusion.runtime.tiled_decoding import decode_in_tiles
from diffusion.weights import folder

DTYPES = ("float32", "bfloat16")
LOADING = "loading all three networks"
TILES = "decode_in_tiles"
# The slot of a network, its method, and the shapes of the inputs.
STAGES = {
    "text encoder, two prompts": ("text_encoder", "__call__", (2, 77)),
    "U-Net, both branches": ("denoiser", "__call__", (2, 64, 64, 4), (2,), (2, 77, 768)),
    "VAE encoder": ("autoencoder", "encode", (1, 512, 512, 3)),
    "VAE decoder": ("autoencoder", "decode", (1, 64, 64, 4)),
    "VAE decoder in tiles": ("autoencoder", TILES, (1, 64, 64, 4)),
}


def memory(options: Options) -> Iterator[Work]:
    """Each stage in both precisions; the U-Net's kernels are transformed on the way."""
    with random_model("sd1") as place:
        if options.wants(LOADING):
            sides = [Side(loading, (place, dtype)) for dtype in DTYPES]
            yield Work(LOADING, [*sides, Side(reading, (place,))])
        for name in filter(options.wants, STAGES):
            yield Work(name, [Side(stage, (place, name, dtype)) for dtype in DTYPES])


def stage(place: Path, name: str, dtype: str) -> dict[str, Call]:
    slot, method, *shapes = STAGES[name]
    form, params = folder.load_part(place, folder.load_config(place), slot, dtype)
    network = Network(form, lambda: params)
    inputs = [jnp.zeros(shape, float if len(shape) > 2 else int) for shape in shapes]

    def run() -> None:  # what it returns differs by the rounding of bfloat16
        if method == TILES:
            decode_in_tiles(network.module, inputs[0].astype(dtype))
        else:
            jax.block_until_ready(getattr(network, method)(*inputs))

    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 2**20
    return {f"{dtype}, weights of {weights:,.0f} MiB": run}


def loading(place: Path, dtype: str) -> dict[str, Call]:
    def run() -> None:
        diffusion.load(place, dtype=dtype)

    return {f"{dtype}, weights included": run}


def reading(place: Path) -> dict[str, Call]:
    def run() -> None:
        for path in sorted(place.glob("*/*.safetensors")):
            path.read_bytes()

    return {"reading all bytes": run}
