"""Films of gardens in which something happens, side by side: run this module to make it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffusion.filming import FilmArtist
from diffusion.images import sheet
from diffusion.loading import load

STORIES = (
    "a red house with two old trees, night falls",
    "a yellow house with two pines by day, the camera moves to the right",
    "gündüz, mavi ev ve üç çam, kar yağmaya başlıyor",
)
PACE = 125  # milliseconds of a frame


def side_by_side(
    artist: FilmArtist, stories: Sequence[str] = STORIES, **settings: Any
) -> UInt8[np.ndarray, "n H W 3"]:
    """A film a story, forwards and backwards; film i has seed i, and nothing was chosen."""
    films = [artist.film(story, seed=seed, **settings) for seed, story in enumerate(stories)]
    there = [sheet(frames, len(films), gap=2) for frames in np.stack(films, axis=1)]
    return np.stack(there + there[-2:0:-1])


def save(path: Path, frames: UInt8[np.ndarray, "n H W 3"], zoom: int = 2) -> None:
    """Write an animated WebP that repeats."""
    first, *others = map(Image.fromarray, frames.repeat(zoom, axis=1).repeat(zoom, axis=2))
    first.save(path, save_all=True, append_images=others, duration=PACE, loop=0, quality=60)


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "films.webp")
    save(path, side_by_side(load()))
    print(f"wrote {path}")
