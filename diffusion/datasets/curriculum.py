"""What the denoiser practises: scenes with captions, and the hard captions more often.

Captions are chosen by what they say, never by their pictures. So the pictures of one caption are as
likely as in the garden, and so are the pictures without words. But a few flowers are asked for in
62 of a hundred captions, not in 16.
"""

import math
from collections.abc import Mapping

import numpy as np

from diffusion.datasets.captions import Caption, captions
from diffusion.datasets.garden import Scene, sample_scenes, value

CAPTION_DROPOUT = 0.1  # share of examples without words (Ho & Salimans 2022, section 3.2)
DETAILED_SHARE = 0.5  # of the captions; see `diffusion.datasets.captions`
CANDIDATES = 8  # scenes drawn for each example that is taken
MOTION_SHARE = 0.15  # of a new training's captions: films find their words known
Weights = Mapping[str, Mapping[str, float]]  # attribute -> value -> weight
PRACTISED: Weights = {  # what failed most; see docs/log.md
    "flower_amount": {"few": 9.0},
    "flowers": {"purple": 8.0, "red": 4.5, "yellow": 3.0, "white": 2.5, "blue": 3.0},
    "tree_kind": {"apple": 3.0},
    "season": {"winter": 2.0},
    "weather": {"snow": 2.0},
}
"""How much likelier a caption that names this value is to be taken; several values multiply. Shares
grow by less than that, because no candidate is taken twice."""


def practice(
    rng: np.random.Generator,
    size: int,
    candidates: int = CANDIDATES,
    practised: Weights = PRACTISED,
    motion_share: float = 0.0,
) -> tuple[Scene, list[str]]:
    """Sample `size` scenes with a caption each; in a share of `CAPTION_DROPOUT` the text is empty.

    The examples are in random order, because the place in a batch may decide how much noise an
    example gets.

    Args:
        candidates: how many scenes are drawn for each example that is taken. With 1, nothing comes
            more often than in the garden.
        practised: weights of values, as in `PRACTISED`.
        motion_share: the share of captions that say what happens.

    Raises ValueError if `candidates` is below 1.
    """
    if candidates < 1:
        raise ValueError(f"candidates is {candidates}; draw 1 or more for each example")
    scenes = sample_scenes(rng, size * candidates)
    said = captions(scenes, rng, detailed_share=DETAILED_SHARE, motion_share=motion_share)
    silent = rng.binomial(size, CAPTION_DROPOUT)  # examples without words: the first, unweighted
    spoken = list(range(silent, len(said)))
    taken = np.arange(silent)
    if spoken:  # there are none if a batch of one, with one candidate, has no words
        weight = np.array([_weight(said[i], scenes, i, practised) for i in spoken])
        chosen = rng.choice(spoken, size - silent, replace=False, p=weight / weight.sum())
        taken = np.concatenate([taken, chosen])
    taken = rng.permutation(taken)
    texts = ["" if i < silent else said[i].text for i in taken]
    return Scene(*(field[taken] for field in scenes)), texts


def _weight(caption: Caption, scenes: Scene, index: int, weights: Weights) -> float:
    named = [name for name in weights if name in caption.named]
    found = (weights[name].get(value(scenes, index, name), 1.0) for name in named)
    return math.prod(found, start=1.0)
