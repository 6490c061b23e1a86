"""Paintings coming out of the dots, as one animation: run this module to make it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffusion.images import sheet
from diffusion.inspection.figures.prompts import PROMPTS
from diffusion.loading import load
from diffusion.pipeline import Artist

SHOWN = [texts[i % 2] for i, texts in enumerate(PROMPTS)]  # English and Turkish in turns
ZOOM = 2  # pixels of the file along the side of a painted pixel
PACE, REST = 400, 3000  # milliseconds of a glance, and of the finished pictures


def glances(
    artist: Artist, prompts: Sequence[str] = SHOWN, steps: int | None = None, columns: int = 3
) -> UInt8[np.ndarray, "n H W 3"]:
    """The canvases of all prompts side by side, glance by glance; last the finished pictures.

    Picture i has seed i, and nothing was chosen.
    """
    films = []
    for seed, prompt in enumerate(prompts):
        seen = list(artist.sample(prompt, seed=seed, steps=steps))
        latents = [step.x_t for step in seen] + [seen[-1].x_next]
        films.append(artist.decode(jnp.concatenate(latents)))
    return np.stack([sheet(pictures, columns, gap=2) for pictures in np.stack(films, axis=1)])


def save(path: Path, frames: UInt8[np.ndarray, "n H W 3"], zoom: int = ZOOM) -> None:
    """Write an animated WebP that begins with the finished pictures and repeats."""
    large = np.concatenate([frames[-1:], frames[:-1]]).repeat(zoom, axis=1).repeat(zoom, axis=2)
    first, *others = map(Image.fromarray, large)
    pace = [REST] + [PACE] * len(others)
    first.save(path, save_all=True, append_images=others, duration=pace, loop=0, quality=55)


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "film.webp")
    save(path, glances(load()))
    print(f"wrote {path}")
