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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

import diffusion
from diffusion.config import ModelConfig, sd_v1
from diffusion.pipeline import TextEncoderStage, UNetStages, VAEStages
from diffusion.runtime.parameters import Params
from diffusion.weights import folder
from parity.full_size import synthetic_tokenizer

MEBIBYTE = 2**20
READING, LOADING = "reading all bytes, nothing else", "loading the model"
REPEATS = 5  # of reading and loading, in turns; the median is shown


def stages(config: ModelConfig, size: int) -> dict[str, tuple[str, Any, Callable[[Any], Any]]]:
    """What is measured: part of the model, class of its stages, and a call of it."""
    h, z = size // config.autoencoder.downscale, config.denoiser.latent_channels
    n, d = config.text_encoder.length, config.text_encoder.width
    both = (
        jnp.zeros((2, h, h, config.denoiser.in_channels)),
        jnp.full(2, 500),
        jnp.zeros((2, n, d)),
    )
    image, latents = jnp.zeros((1, size, size, 3)), jnp.zeros((1, h, h, z))
    return {
        "text encoder, two prompts": (
            "text_encoder", TextEncoderStage, lambda stage: stage(jnp.zeros((2, n), jnp.int32))
        ),
        "U-Net, both branches of guidance": ("unet", UNetStages, lambda stage: stage(*both)),
        "VAE encoder": ("vae", VAEStages, lambda stage: stage.encode(image)),
        "VAE decoder": ("vae", VAEStages, lambda stage: stage.decode(latents)),
        "VAE decoder in tiles": ("vae", VAEStages, lambda stage: stage.decode_in_tiles(latents)),

    }  # fmt: skip


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


def size_of(params: Params) -> float:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / MEBIBYTE


def random_params(like: Params) -> Params:
    """Parameters of the shapes of `like`, each so that what passes it keeps its size."""
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (
            draw.standard_normal(leaf.shape, np.float32)
            * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
        ),
        like,
    )


def write_random_model(place: Path, config: ModelConfig) -> None:
    """A folder like an official one: every parameter random, a vocabulary of the right size."""
    for part in SLOTS:
        params = random_params(structure_of(config, part)[1])
        folder.save_part(place, config, part, params)
    text = config.text_encoder
    synthetic_tokenizer(text.vocab_size, text.length).save(place / "tokenizer")
    folder.save_config(place, config)


def measure_stage(model: Path, dtype: str, name: str, size: int) -> None:
    """Print parameters and scratch of one stage in MiB, and the seconds of a second call."""
    config = folder.load_config(model)
    part, kind, call = stages(config, size)[name]
    structure, like = structure_of(config, part)
    weights = folder.open_part(model, part, like)
    stage = kind(structure, partial(weights.read, dtype))
    parameters = size_of(stage.params)
    before = resident()
    jax.block_until_ready(call(stage))
    began = time.perf_counter()
    jax.block_until_ready(call(stage))
    print(parameters, peak() - before, time.perf_counter() - began)


def measure_loading(model: Path, dtype: str) -> None:
    """Print the parameters and what loading needs beyond them in MiB, and its seconds."""
    before = resident()
    began = time.perf_counter()
    artist = diffusion.load(model, dtype=dtype)
    seconds = time.perf_counter() - began
    size = sum(
        size_of(network.params)
        for network in (artist.text_encoder, artist.denoiser, artist.autoencoder)
    )
    print(size, peak() - before - size, seconds)


def measure_reading(model: Path) -> None:
    """Print the size of all weights in MiB, 0, and the seconds to read their bytes into memory."""
    began = time.perf_counter()
    contents = [path.read_bytes() for path in sorted(model.glob("*/*.safetensors"))]
    seconds = time.perf_counter() - began
    print(sum(map(len, contents)) / MEBIBYTE, 0, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--only", nargs=2, metavar=("DTYPE", "STAGE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        dtype, name = arguments.only
        if name == READING:
            measure_reading(arguments.model)
        elif name == LOADING:
            measure_loading(arguments.model, dtype)
        else:
            measure_stage(arguments.model, dtype, name, arguments.size)
        return
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {arguments.size} pixels")
    print(", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy")))
    with tempfile.TemporaryDirectory() as temporary:
        model = arguments.model or Path(temporary) / "sd-v1"
        if arguments.model is None:
            write_random_model(model, sd_v1())
        print(f"{'':44}{'parameters':>12}{'scratch':>12}{'seconds':>9}")
        names = stages(folder.load_config(model), arguments.size)
        for dtype in arguments.dtypes:
            both = [
                [run(model, dtype, name) for name in (READING, LOADING)] for _ in range(REPEATS)
            ]
            for name, runs in zip((READING, LOADING), zip(*both, strict=True), strict=True):
                show(dtype, name, np.median(runs, axis=0))
            for name in names:
                show(dtype, name, run(model, dtype, name, arguments.size))


def run(model: Path, dtype: str, name: str, size: int = 512) -> np.ndarray:
    """One line of the table, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--model", str(model)]
    command += ["--size", str(size), "--only", dtype, name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return np.array(output.split(), float)


def show(dtype: str, name: str, line: np.ndarray) -> None:
    print(f"{dtype:10}{name:34}{line[0]:8.0f} MiB{line[1]:8.0f} MiB{line[2]:9.2f}", flush=True)


if __name__ == "__main__":
    main()
