"""Clips: what is said to happen happens, and nothing else does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.datasets.captions import LANGUAGES, clip_captions
from diffusion.datasets.garden import ATTRIBUTES, Clips, Scene, render, render_clips, sample_clips
from diffusion.datasets.garden.motion import CHANGES, HELD_OUT, MOTIONS, STILL, moment, possible

NAMES = list(MOTIONS)
FRAMES, SIZE = 5, 32


@pytest.fixture(scope="module")
def clips() -> Clips:
    """At least one of each motion, and some of none."""
    return sample_clips(np.random.default_rng(1), 200)


def one(clips: Clips, motion: int) -> int:
    return int(np.flatnonzero(np.asarray(clips.motion) == motion)[0])


def some(clips: Clips, which: list[int], motion: list[int] | None = None) -> Clips:
    scenes = Scene(*(field[which] for field in clips.scenes))
    chosen = clips.motion[which] if motion is None else np.array(motion, np.int32)
    return Clips(scenes, chosen)


@pytest.fixture(scope="module")
def films(clips: Clips) -> np.ndarray:
    """One clip of each motion, and last a still one: (16, FRAMES, SIZE, SIZE, 3)."""
    every = some(clips, [one(clips, i) for i in range(STILL + 1)])
    return np.asarray(render_clips(every, FRAMES, SIZE))


def test_clips_are_the_same_from_the_same_seed(clips: Clips):
    again = sample_clips(np.random.default_rng(1), 200)
    jax.tree.map(np.testing.assert_array_equal, again, clips)
    assert set(np.asarray(clips.motion)) == set(range(STILL + 1))
    assert 0.1 < np.mean(clips.motion == STILL) < 0.3
    assert len({row.tobytes() for row in clips.scenes.layout}) == 200


def test_what_happens_can_happen_and_is_not_held_out(clips: Clips):
    for i, position in enumerate(clips.motion):
        if position == STILL:
            continue
        name = NAMES[position]
        values = {
            key: words[int(getattr(clips.scenes, key)[i])] for key, words in ATTRIBUTES.items()
        }
        assert name in possible(values)
        if name in CHANGES:
            assert values[CHANGES[name][0]] == CHANGES[name][1]
        for combination in HELD_OUT:
            assert not combination.items() <= (values | {"motion": name}).items()
    assert {combination["motion"] for combination in HELD_OUT} <= set(NAMES)
    assert set(CHANGES) <= set(NAMES)


def test_where_nothing_happens_a_clip_is_the_still_picture(clips: Clips):
    clear = np.flatnonzero(clips.scenes.weather < 2)[:6].tolist()
    still = some(clips, clear, [STILL] * 6)
    film = np.asarray(render_clips(still, FRAMES, SIZE))
    np.testing.assert_array_equal(film, np.repeat(film[:, :1], FRAMES, axis=1))
    np.testing.assert_allclose(film[:, 0], render(still.scenes, SIZE), atol=0.02)


def test_in_every_other_clip_something_moves(films: np.ndarray):
    steps = np.abs(np.diff(films, axis=1)).mean((2, 3, 4))
    assert (steps[:STILL] > 1e-4).all()


@pytest.mark.parametrize("name", ["sun rises", "sun sets", "night falls", "leaves turn"])
@pytest.mark.parametrize("end", [0, 1])
def test_a_clip_begins_and_ends_as_its_still_pictures(clips: Clips, films, name, end):
    """But for the sun: it stands where it does not in a still picture."""
    attribute, *values = CHANGES[name]
    i = one(clips, NAMES.index(name))
    scene = Scene(*(field[[i]] for field in clips.scenes))
    found = films[NAMES.index(name), -end]

    def apart(word):
        value = np.array([ATTRIBUTES[attribute].index(word)], np.int32)
        picture = np.asarray(render(scene._replace(**{attribute: value}), SIZE))[0]
        return np.median(np.abs(picture - found))

    assert apart(values[1 + end]) < 0.5 * apart(values[2 - end]) + 1e-6


def moments(clips: Clips, name: str, times: np.ndarray) -> dict[str, np.ndarray]:
    i = one(clips, NAMES.index(name))
    scene = Scene(*(jnp.asarray(field[i]) for field in clips.scenes))
    position, height = jnp.asarray(NAMES.index(name)), jnp.asarray(0.15)
    found = [moment(scene, position, jnp.asarray(t, jnp.float32), height) for t in times]
    return {key: np.array([float(getattr(now, key)) for now in found]) for key in found[0]._fields}


@pytest.mark.parametrize(
    ("name", "what", "direction"),
    [
        ("sun rises", "light_y", -1), ("sun rises", "hour", -1), ("sun sets", "light_y", 1),
        ("sun sets", "hour", 1), ("night falls", "hour", 1), ("rain begins", "falling", 1),
        ("rain ends", "falling", -1), ("snow begins", "falling", 1), ("snow ends", "falling", -1),
        ("clouds drift left", "drift", -1), ("clouds drift right", "drift", 1),
        ("leaves turn", "season", 1), ("view moves left", "view_x", -1),
        ("view moves right", "view_x", 1), ("view comes closer", "zoom", 1),
        ("view widens", "zoom", -1), ("rain ends", "fallen", 1), ("snow begins", "fallen", 1),
    ],
)  # fmt: skip
def test_motions_have_a_direction(clips: Clips, name, what, direction):
    values = moments(clips, name, np.linspace(0, 0.8, 9))[what]
    assert (np.sign(np.diff(values)) == direction).all()


def test_trees_lean_this_way_and_that(clips: Clips):
    lean = moments(clips, "trees sway", np.linspace(0, 1, 17))["lean"]
    assert lean.max() > 0.1
    assert lean.max() == pytest.approx(-lean.min())
    assert lean[0] == pytest.approx(0, abs=1e-6)


def test_snow_begins_flake_by_flake(clips: Clips, films: np.ndarray):
    snow = films[NAMES.index("snow begins")]
    i = one(clips, NAMES.index("snow begins"))
    scene = Scene(*(field[[i]] for field in clips.scenes))
    cloudy = scene._replace(weather=np.array([ATTRIBUTES["weather"].index("cloudy")], np.int32))
    np.testing.assert_allclose(snow[0], np.asarray(render(cloudy, SIZE))[0], atol=0.02)
    large = np.asarray(render_clips(some(clips, [i]), FRAMES, 96))[0]
    changed = [np.mean(np.abs(frame - large[0]) > 0.2) for frame in large]
    assert changed[0] == 0
    assert (np.diff(changed[:4]) > 0).all()


def test_captions_of_clips(clips: Clips):
    said = clip_captions(clips, np.random.default_rng(0), detailed_share=0.5)
    for caption, position in zip(said, clips.motion, strict=True):
        name = "" if position == STILL else NAMES[position]
        assert caption.motion == name
        if name in CHANGES:
            assert CHANGES[name][0] not in caption.named  # it is another at the end
    assert {caption.language for caption in said} == set(LANGUAGES)


def test_frames_must_make_a_clip(clips: Clips):
    assert render_clips(some(clips, [0]), 1, SIZE).shape == (1, 1, SIZE, SIZE, 3)
