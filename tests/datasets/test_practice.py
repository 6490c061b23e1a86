"""Practice: what is hard comes more often, and nothing else changes."""

import math

import numpy as np
import pytest

from diffusion.datasets.captions import captions
from diffusion.datasets.garden import ATTRIBUTES, sample_scenes
from diffusion.datasets.practice import CAPTION_DROPOUT, PRACTISED, how_often, practice

COUNT = 3_000
FEW = ATTRIBUTES["flower_amount"].index("few")


@pytest.fixture(scope="module")
def practised():
    return practice(np.random.default_rng(0), COUNT)


def close(share, expected, count):
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


def test_a_tenth_comes_without_words(practised):
    _, texts = practised
    assert close(np.mean([text == "" for text in texts]), CAPTION_DROPOUT, COUNT)


def test_hard_captions_come_more_often(practised):
    """Of those with words, more than twice as many say "a few"."""

    def few(texts):
        return np.mean([any(word in text.lower() for word in (" few", "birkaç")) for text in texts])

    _, texts = practised
    plain = practice(np.random.default_rng(0), COUNT, candidates=1)[1]
    assert few(filter(None, texts)) > 2 * few(filter(None, plain))


def test_scenes_without_words_are_as_in_the_garden(practised):
    scenes, texts = practised
    silent = np.array([text == "" for text in texts])
    garden = sample_scenes(np.random.default_rng(1), 20_000)
    expected = np.mean(garden.flower_amount == FEW)
    assert close(np.mean(scenes.flower_amount[silent] == FEW), expected, silent.sum())
    assert not close(np.mean(scenes.flower_amount[~silent] == FEW), expected, COUNT)


def test_one_candidate_each_is_the_garden_itself():
    """The scenes of a training that knew no practice, in another order."""
    scenes, _ = practice(np.random.default_rng(5), 64, candidates=1)
    garden = sample_scenes(np.random.default_rng(5), 64)
    assert np.array_equal(np.sort(scenes.layout[:, 0]), np.sort(garden.layout[:, 0]))


def test_only_what_is_named_counts():
    scenes = sample_scenes(np.random.default_rng(2), 500)
    said = captions(scenes, np.random.default_rng(2))
    often = how_often(said, scenes)
    for caption, times in zip(said, often, strict=True):
        if not caption.named & PRACTISED.keys():
            assert times == 1.0
    few = [i for i, c in enumerate(said) if c.named & PRACTISED.keys() == {"flower_amount"}]
    table = PRACTISED["flower_amount"]
    for i in few:
        word = ATTRIBUTES["flower_amount"][scenes.flower_amount[i]]
        assert often[i] == table.get(word, 1.0)
    assert {1.0, table["few"]} <= set(often[few])


def test_every_word_of_the_table_is_one_of_the_garden():
    for name, times in PRACTISED.items():
        assert times.keys() <= set(ATTRIBUTES[name])


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="candidates is 0; draw 1 or more"):
        practice(np.random.default_rng(0), 8, candidates=0)
