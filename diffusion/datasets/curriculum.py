"""What the U-Net practises: scenes and their captions, those that are hard more often than others.

Only by what a caption says is it chosen. So all pictures of one caption are as likely as they are
in the garden, and so are those that come without words; but of a hundred captions, sixty-four in
place of seventeen ask for a few flowers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from diffusion.datasets.captions import Caption, captions
from diffusion.datasets.garden import Scene, sample_scenes, value

CAPTION_DROPOUT = 0.1  # share of examples without words (Ho & Salimans 2022, section 3.2)
DETAILED_SHARE = 0.5  # of the captions; see `diffusion.datasets.captions`
CANDIDATES = 8  # as many times the examples of a step are drawn, and some of them taken
Weights = Mapping[str, Mapping[str, float]]  # attribute -> value -> weight
PRACTISED: Weights = {  # what failed most; see docs/speedrun.md
    "flower_amount": {"few": 9.0},
    "flowers": {"purple": 8.0, "red": 4.5, "yellow": 3.0, "white": 2.5, "blue": 3.0},
    "tree_kind": {"apple": 2.0},
    "weather": {"snow": 2.0},
}
"""The weight of a caption that names this, where others have 1, when a few of the candidates are
drawn; a product, if it names several. (Shares grow by less: nothing is drawn twice.)"""


def practice(
    rng: np.random.Generator,
    size: int,
    candidates: int = CANDIDATES,
    practised: Weights = PRACTISED,
) -> tuple[Scene, list[str]]:
    """`size` scenes and what is said of each, nothing at all in `CAPTION_DROPOUT` of them.

    They come in random order: the place in a batch may decide how noisy an example is seen.

    Args:
        candidates: how many are drawn for each example. With 1, nothing comes more often than in
            the garden.
        practised: in place of `PRACTISED`.

    Raises ValueError if `candidates` is below 1.
    """
    if candidates < 1:
        raise ValueError(f"candidates is {candidates}; draw 1 or more for each example")
    scenes = sample_scenes(rng, size * candidates)
    said = captions(scenes, rng, detailed_share=DETAILED_SHARE)
    silent = rng.binomial(size, CAPTION_DROPOUT)  # the first are taken as they come
    spoken = list(range(silent, len(said)))
    weight = np.array([_weight(said[i], scenes, i, practised) for i in spoken])
    taken = np.arange(silent)
    if spoken:  # not so where a batch of one has no words
        chosen = rng.choice(spoken, size - silent, replace=False, p=weight / weight.sum())
        taken = np.concatenate([taken, chosen])
    taken = rng.permutation(taken)
    texts = ["" if i < silent else said[i].text for i in taken]
    return Scene(*(field[taken] for field in scenes)), texts


def _weight(caption: Caption, scenes: Scene, index: int, practised: Weights) -> float:
    named = (
        weights.get(value(scenes, index, name), 1.0)
        for name, weights in practised.items()
        if name in caption.named
    )
    return math.prod(named, start=1.0)
