"""How much memory does each stage need at full size, and how long does loading take?

`python -m benchmarks.memory` writes a folder with the architecture of SD 1.5 and random weights (4
GiB, in a temporary place; `--model FOLDER` takes another), and measures in a process of its own for
each line: the parameters, and the peak of resident memory beyond what Python, JAX and the
parameters take (scratch; compilation included). `--size` is the picture's side in pixels.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

import diffusion
from diffusion.config import ModelConfig, sd_v1
from diffusion.runtime.parameters import Params
from diffusion.runtime.programs import Network
from diffusion.runtime.tiled_decoding import decode_in_tiles
from diffusion.weights import folder
from diffusion.weights.architectures import SLOTS, structure
from parity.full_size import synthetic_tokenizer

MEBIBYTE = 2**20
REPEATS = 5  # of reading and loading, in turns; the median is shown
Line = tuple[float, float, float]  # parameters and scratch in MiB, seconds


def stages(config: ModelConfig, size: int) -> dict[str, tuple[str, Callable[[Network], Any]]]:
    """What is measured: the slot of a network, and a call of it."""
    h, z = size // config.autoencoder.downscale, config.denoiser.latent_channels
    text = config.text_encoder
    both = (
        jnp.zeros((2, h, h, config.denoiser.in_channels)),
        jnp.full(2, 500),
        jnp.zeros((2, text.length, text.width)),
    )
    words = jnp.zeros((2, text.length), jnp.int32)
    image, latents = jnp.zeros((1, size, size, 3)), jnp.zeros((1, h, h, z))
    return {
        "text encoder, two prompts": ("text_encoder", lambda network: network(words)),
        "U-Net, both branches of guidance": ("denoiser", lambda network: network(*both)),
        "VAE encoder": ("autoencoder", lambda network: network.encode(image)),
        "VAE decoder": ("autoencoder", lambda network: network.decode(latents)),
        "VAE decoder in tiles": (
            "autoencoder",
            lambda network: decode_in_tiles(network.module, latents.astype(network.dtype)),
        ),
    }


def stage(model: Path, dtype: str, name: str, size: int) -> Line:
    """One stage; the seconds are those of a second call."""
    config = folder.load_config(model)
    slot, call = stages(config, size)[name]
    weights = folder.open_part(model, config, slot)
    network = Network(structure(getattr(config, slot))[0], partial(weights.read, dtype))
    parameters, before = size_of(network), resident()
    jax.block_until_ready(call(network))
    began = time.perf_counter()
    jax.block_until_ready(call(network))
    return parameters, peak() - before, time.perf_counter() - began


def loading(model: Path, dtype: str) -> Line:
    before, began = resident(), time.perf_counter()
    artist = diffusion.load(model, dtype=dtype)
    seconds = time.perf_counter() - began
    size = sum(size_of(getattr(artist, slot)) for slot in SLOTS)
    return size, peak() - before - size, seconds


def reading(model: Path, dtype: str) -> Line:
    """All bytes of the weights into memory, and nothing else."""
    began = time.perf_counter()
    contents = [path.read_bytes() for path in sorted(model.glob("*/*.safetensors"))]
    seconds = time.perf_counter() - began
    return sum(map(len, contents)) / MEBIBYTE, 0.0, seconds


def resident() -> float:
    """The memory that this process has now, in MiB."""
    return psutil.Process().memory_info().rss / MEBIBYTE


def peak() -> float:
    """The most resident memory that this process ever had, in MiB.

    Linux hands `ru_maxrss` down to a child that begins from a large parent, and /proc does not.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE


def size_of(network: Network) -> float:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(network.params)) / MEBIBYTE


def write_random_model(place: Path, config: ModelConfig) -> None:
    """A folder like an official one: every parameter random, a vocabulary of the right size."""
    draw = np.random.default_rng(0)

    def parameter(like: Any) -> np.ndarray:
        """What passes it keeps its size."""
        scale = np.float32(np.prod(like.shape[:-1]) ** -0.5)
        return draw.standard_normal(like.shape, np.float32) * scale

    for slot in SLOTS:
        params: Params = jax.tree.map(parameter, structure(getattr(config, slot))[1])
        folder.save_part(place, config, slot, params)
    text = config.text_encoder
    synthetic_tokenizer(text.vocab_size, text.length).save(place / "tokenizer")
    folder.save_config(place, config)


def alone(measure: Callable[..., Line], *arguments: Any) -> Line:
    """A line of the table from a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def show(dtype: str, name: str, line: Any) -> None:
    print(f"{dtype:10}{name:34}{line[0]:8.0f} MiB{line[1]:8.0f} MiB{line[2]:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    given = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {given.size} pixels")
    print(", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy")))
    with tempfile.TemporaryDirectory() as temporary:
        model = given.model or Path(temporary) / "sd-v1"
        if given.model is None:
            write_random_model(model, sd_v1())
        print(f"{'':44}{'parameters':>12}{'scratch':>12}{'seconds':>9}")
        names = stages(folder.load_config(model), given.size)
        for dtype in given.dtypes:
            both = [
                [alone(one, model, dtype) for one in (reading, loading)] for _ in range(REPEATS)
            ]
            for name, median in zip(
                ("reading all bytes, nothing else", "loading the model"),
                np.median(both, axis=0),
                strict=True,
            ):
                show(dtype, name, median)
            for name in names:
                show(dtype, name, alone(stage, model, dtype, name, given.size))


if __name__ == "__main__":
    main()
