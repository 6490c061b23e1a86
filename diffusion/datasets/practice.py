"""What the U-Net practises: scenes and their captions, those that are hard more often than others.

Only by what a caption says is it chosen. So all pictures of one caption are as likely as they are
in the garden, and so are those that come without words; but of a hundred captions that are
practised, forty in place of seventeen ask for a few flowers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from diffusion.datasets.captions import Caption, captions
from diffusion.datasets.garden import Scene, sample_scenes, value

CAPTION_DROPOUT = 0.1  # share of examples without words (Ho & Salimans 2022, section 3.2)
DETAILED_SHARE = 0.5  # of the captions; see `diffusion.datasets.captions`
CANDIDATES = 4  # for each example, of which that one is taken
PRACTISED: Mapping[str, Mapping[str, float]] = {  # what failed most; see docs/speedrun.md
    "flower_amount": {"few": 4.0},
    "flowers": {"purple": 3.0, "red": 2.0, "yellow": 1.5, "white": 2.0, "blue": 2.0},
    "tree_kind": {"apple": 3.0},
}
"""How many times as likely a candidate is taken that names this; a product, if it names several."""


def practice(
    rng: np.random.Generator, size: int, candidates: int = CANDIDATES
) -> tuple[Scene, list[str]]:
    """`size` scenes and what is said of each, nothing at all in `CAPTION_DROPOUT` of them.

    Args:
        candidates: drawn for each example. With 1, nothing comes more often than in the garden.

    Raises ValueError if `candidates` is below 1.
    """
    if candidates < 1:
        raise ValueError(f"candidates is {candidates}; draw 1 or more for each example")
    scenes = sample_scenes(rng, size * candidates)
    said = captions(scenes, rng, detailed_share=DETAILED_SHARE)
    silent = rng.binomial(size, CAPTION_DROPOUT)
    often = how_often(said, scenes)
    often[:silent] = 0.0  # these are taken as they come
    spoken = rng.choice(len(said), size - silent, replace=False, p=often / often.sum())
    taken = np.concatenate([np.arange(silent), spoken])
    texts = [""] * silent + [said[i].text for i in spoken]
    return Scene(*(field[taken] for field in scenes)), texts


def how_often(said: Sequence[Caption], scenes: Scene) -> Float[np.ndarray, " b"]:
    """How many times as likely each caption is taken as one that names nothing hard."""
    return np.array(
        [
            math.prod(
                times.get(value(scenes, i, name), 1.0)
                for name, times in PRACTISED.items()
                if name in caption.named
            )
            for i, caption in enumerate(said)
        ]
    )
