"""What is asked, and what counts as an answer."""

import numpy as np
import pytest

from diffusion.datasets.garden import ATTRIBUTES, HELD_OUT, is_held_out, sample_scenes
from diffusion.evaluation.questions import (
    Question,
    _twin,
    ask,
    held_out_pairs,
    others,
    questions,
    right,
    scene_of,
)


def index(name: str, word: str) -> int:
    return ATTRIBUTES[name].index(word)


def question(**named: str) -> Question:
    scene = scene_of(sample_scenes(np.random.default_rng(0), 1), 0)
    return Question("", "en", {name: index(name, word) for name, word in named.items()}, scene)


@pytest.mark.parametrize("language", ["en", "tr"])
def test_questions_name_something_that_is_true_of_their_scene(language):
    asked = questions(50, language)
    assert len(asked) == 50
    assert len({one.text for one in asked}) > 40
    for one in asked:
        assert one.language == language
        assert one.named
        assert not is_held_out(one.scene)[0]
        assert all(getattr(one.scene, name)[0] == value for name, value in one.named.items())


def test_questions_are_the_same_each_time_and_others_with_another_seed():
    assert [q.text for q in questions(20, "en")] == [q.text for q in questions(20, "en")]
    assert [q.text for q in questions(20, "en")] != [q.text for q in questions(20, "en", seed=3)]


@pytest.mark.parametrize("language", ["en", "tr"])
def test_held_out_captions_say_the_whole_combination_and_their_twins_do_not(language):
    held, twins = held_out_pairs(12, language)
    for i, (one, twin) in enumerate(zip(held, twins, strict=True)):
        wanted = HELD_OUT[i % len(HELD_OUT)]
        assert all(one.named[name] == index(name, word) for name, word in wanted.items())
        assert is_held_out(one.scene)[0]
        assert not is_held_out(twin.scene)[0]
        changed = {name for name in one.named if one.named[name] != twin.named[name]}
        assert len(changed) == 1
        assert changed < wanted.keys()
        assert one.text != twin.text


def test_there_are_enough_pairs_for_a_whole_evaluation():
    """Scenes with two held-out combinations come up only now and then, and have no twin."""
    held, twins = held_out_pairs(250, "en")
    assert len(held) == len(twins) == 250
    assert not any(is_held_out(twin.scene)[0] for twin in twins)


def test_a_scene_with_two_held_out_combinations_has_no_twin():
    scene = scene_of(sample_scenes(np.random.default_rng(0), 1), 0)
    colours, pines = HELD_OUT[3], HELD_OUT[4]
    scene = scene._replace(
        flower_amount=np.array([1], np.int32),  # a flower has its colour where there is one
        **{k: np.array([index(k, word)], np.int32) for k, word in (colours | pines).items()},
    )
    rng = np.random.default_rng(0)
    assert _twin(scene, colours, rng) is None
    assert _twin(scene, pines, rng) is None
    fewer = scene._replace(trees=np.array([index("trees", "one")], np.int32))
    assert _twin(fewer, colours, rng) is not None


def test_other_answers_keep_what_was_said_and_nothing_else():
    asked = question(house="red", season="winter", tree_kind="pine", flowers="blue")
    scenes = others(asked, 60, np.random.default_rng(0))
    assert len(scenes.house) == 60
    for name, value in asked.named.items():
        assert (getattr(scenes, name) == value).all()
    assert (scenes.trees > 0).all()
    assert (scenes.flower_amount > 0).all()
    assert {len(set(getattr(scenes, name))) for name in ("roof", "door")} == {8, 6}


def test_other_answers_fit_what_was_meant():
    """Whoever says "pines, the sun on the left" means more than one pine, and no night."""
    asked = question(tree_kind="pine", light="left")
    scenes = others(asked, 60, np.random.default_rng(0))
    assert set(scenes.trees) == {index("trees", "two"), index("trees", "three")}
    assert set(scenes.sky) == {index("sky", "day"), index("sky", "sunset")}
    one = others(question(tree_kind="pine", trees="one", sky="night", light="left"), 9,
                 np.random.default_rng(0))  # fmt: skip
    assert set(one.trees) == {index("trees", "one")}
    assert set(one.sky) == {index("sky", "night")}


def test_what_is_left_open_is_as_likely_as_among_all_scenes_that_fit():
    """Against the plain way: draw until everything fits."""
    asked = question(house="red", season="winter", flower_amount="few", trees="two")
    few = ("season", "flower_amount", "trees")
    drawn = sample_scenes(np.random.default_rng(1), 200_000)
    fits = np.all([getattr(drawn, name) == asked.named[name] for name in few], axis=0)
    scenes = others(asked, 2000, np.random.default_rng(0))
    for name in ("flowers", "tree_kind", "weather", "door"):
        kinds = len(ATTRIBUTES[name])
        found = np.bincount(getattr(scenes, name), minlength=kinds) / 2000
        known = np.bincount(getattr(drawn, name)[fits], minlength=kinds) / fits.sum()
        assert np.abs(found - known).max() < 0.05, name
    assert not (scenes.weather == index("weather", "rain")).any()
    assert (scenes.weather == index("weather", "snow")).mean() > 0.3


@pytest.mark.parametrize("of", [0, 1])
def test_held_out_combinations_are_answers_to_captions_of_such_scenes_alone(of):
    pairs = held_out_pairs(len(HELD_OUT), "en")
    for asked in pairs[of]:
        scenes = others(asked, 20, np.random.default_rng(0))
        assert (is_held_out(scenes) == (of == 0)).all()
    yellow = question(house="yellow")
    assert not is_held_out(others(yellow, 300, np.random.default_rng(0))).any()


def test_right_is_what_was_named():
    asked = [question(house="red"), question(roof="blue", trees="two")]
    values = {name: np.zeros((2, 2), int) for name in ATTRIBUTES}
    values["house"][:] = [[index("house", "red"), 1], [2, 2]]
    values["trees"][1] = [2, 3]
    matches, named = right(asked, values)
    assert named["house"].tolist() == [[True, True], [False, False]]
    assert matches["house"][0].tolist() == [True, False]
    assert matches["trees"][1].tolist() == [True, False]
    assert named["roof"].tolist() == [[False, False], [True, True]]
    assert not named["door"].any()


@pytest.mark.parametrize(
    ("of", "there", "word"), [("tree_kind", "trees", "oak"), ("flowers", "flower_amount", "red")]
)
def test_what_does_not_grow_has_no_kind_and_no_colour(of, there, word):
    values = {name: np.zeros((1, 2), int) for name in ATTRIBUTES}
    values[there][0, 1] = 1
    matches, _ = right([question(**{of: word})], values)
    assert matches[of].tolist() == [[False, True]]


def test_the_words_decide_what_is_named():
    scene = scene_of(sample_scenes(np.random.default_rng(5), 1), 0)
    asked = [ask(scene, np.random.default_rng(i), "en") for i in range(20)]
    assert len({frozenset(one.named) for one in asked}) > 5
