"""The curriculum: what is hard comes more often, and nothing else changes."""

import math

import numpy as np
import pytest

from diffusion.datasets import curriculum
from diffusion.datasets.captions import captions
from diffusion.datasets.curriculum import (
    CANDIDATES,
    CAPTION_DROPOUT,
    DETAILED_SHARE,
    PRACTISED,
    practice,
)
from diffusion.datasets.garden import ATTRIBUTES, sample_scenes

FEW = ATTRIBUTES["flower_amount"].index("few")
RED = ATTRIBUTES["house"].index("red")


def close(share, expected, count):
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


def test_hard_captions_come_more_often():
    """Of those with words, more than twice as many say "a few"."""

    def few(candidates):
        _, texts = practice(np.random.default_rng(0), 300, candidates)
        said = [text.lower() for text in texts if text]
        return np.mean([" few" in text or "birkaç" in text for text in said])

    assert few(CANDIDATES) > 2 * few(1)


def test_scenes_without_words_are_as_in_the_garden(monkeypatch):
    monkeypatch.setattr(curriculum, "CAPTION_DROPOUT", 0.5)
    scenes, texts = practice(np.random.default_rng(0), 400, 4)
    silent = np.array([text == "" for text in texts])
    garden = sample_scenes(np.random.default_rng(1), 20_000)
    expected = np.mean(garden.flower_amount == FEW)
    assert close(np.mean(scenes.flower_amount[silent] == FEW), expected, silent.sum())
    assert not close(np.mean(scenes.flower_amount[~silent] == FEW), expected, (~silent).sum())


def test_one_candidate_each_is_the_garden_itself():
    """The scenes are those of the garden, in another order."""
    scenes, _ = practice(np.random.default_rng(5), 64, candidates=1)
    garden = sample_scenes(np.random.default_rng(5), 64)
    assert np.array_equal(np.sort(scenes.layout[:, 0]), np.sort(garden.layout[:, 0]))


def test_only_what_is_named_counts():
    """With all weight on red houses, a caption that says "red house" is taken wherever one is."""
    taken = 0
    for seed in range(60):
        texts = practice(np.random.default_rng(seed), 1, 8, {"house": {"red": 1e9}})[1]
        rng = np.random.default_rng(seed)
        scenes = sample_scenes(rng, 8)
        said = captions(scenes, rng, detailed_share=DETAILED_SHARE)
        red = [c.text for i, c in enumerate(said) if scenes.house[i] == RED and "house" in c.named]
        if red and texts != [""]:
            assert texts[0] in red
            taken += 1
    assert taken > 20


def test_every_place_of_a_batch_is_alike():
    """A place decides at which noise it is seen, so nothing may prefer one."""
    batches = [practice(np.random.default_rng([9, i]), 8, candidates=1)[1] for i in range(200)]
    silent = np.mean([[text == "" for text in texts] for texts in batches], axis=0)
    assert all(close(share, CAPTION_DROPOUT, 200) for share in silent)


def test_a_batch_of_one_without_words():
    texts = [practice(np.random.default_rng(i), 1, 1)[1] for i in range(60)]
    assert [""] in texts


def test_every_word_of_the_table_is_one_of_the_garden():
    for name, times in PRACTISED.items():
        assert times.keys() <= set(ATTRIBUTES[name])


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="candidates is 0; draw 1 or more"):
        practice(np.random.default_rng(0), 8, candidates=0)
