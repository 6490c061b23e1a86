"""Clips to learn motion from: drawn and encoded once, looked at many times.

To draw and to encode sixteen frames takes as long as to learn from them. So a training has a
library of clips, in files beside its checkpoints. What is said of a clip is drawn anew each time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from safetensors.numpy import load_file
from tqdm import tqdm

from diffusion.datasets.garden import Clips, sample_clips
from diffusion.runtime import hosts
from diffusion.weights.files import write_tensors

PART = 32  # clips a file


class Library(NamedTuple):
    """Clips, and the latents of their frames."""

    clips: Clips
    latents: Float[np.ndarray, "n f h w z"]  # in half precision


def library(
    place: Path,
    count: int,
    seed: int,
    still_share: float,
    encode: Callable[[Clips], Float[Array, "b f h w z"]],
    mark: str,
) -> Library:
    """`count` clips in the folder `place`; what is missing there is made.

    Args:
        count: a multiple of `PART`.
        encode: the latents of one clip.
        mark: tells what they are encoded with from all else; a part of the files' names.
    """
    parts = [sample_clips(np.random.default_rng([seed, i]), PART, still_share)
             for i in range(count // PART)]  # fmt: skip
    files = [place / f"{mark}-{seed}-{i:04d}.safetensors" for i in range(len(parts))]
    if hosts.writes():
        place.mkdir(parents=True, exist_ok=True)
        missing = [i for i, file in enumerate(files) if not file.exists()]
        for i in tqdm(missing, "clips", unit=f" x {PART}", leave=False, disable=not missing):
            each = [jax.tree.map(lambda x, j=j: x[j : j + 1], parts[i]) for j in range(PART)]
            latents = np.concatenate([np.asarray(encode(one), np.float16) for one in each])
            write_tensors(files[i], {"latents": latents})
    hosts.wait("the clips are there")
    clips = jax.tree.map(lambda *fields: np.concatenate(fields), *parts)
    return Library(clips, np.concatenate([load_file(file)["latents"] for file in files]))
