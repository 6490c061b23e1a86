"""The garden: what is drawn, how it looks, and what is kept out of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.datasets.garden import (
    ATTRIBUTES,
    HELD_OUT,
    LAYOUT,
    Scene,
    is_held_out,
    render,
    sample_scenes,
    value,
)

jax.config.update("jax_numpy_rank_promotion", "raise")


def sample(count: int, seed: int = 0, **options: bool) -> Scene:
    return sample_scenes(np.random.default_rng(seed), count, **options)


def repeat(scene: Scene, index: int, count: int, **changes: np.ndarray) -> Scene:
    """`count` copies of one scene, with some of its fields changed."""
    return Scene(*(np.repeat(field[index : index + 1], count, 0) for field in scene))._replace(
        **changes
    )


def plain_scene() -> Scene:
    """Everything there at once: trees, flowers, a gabled roof, a clear winter's day."""
    words = {name: 0 for name in ATTRIBUTES} | {"trees": 2, "flower_amount": 2}
    words["season"] = ATTRIBUTES["season"].index("winter")
    layout = np.full((1, len(LAYOUT)), 0.5, np.float32)
    return Scene(*(np.array([words[name]], np.int32) for name in ATTRIBUTES), layout=layout)


def test_scene_fields_are_the_attributes_and_the_layout():
    assert Scene._fields == (*ATTRIBUTES, "layout")
    scene = sample(5)
    assert all(getattr(scene, name).dtype == np.int32 for name in ATTRIBUTES)
    assert scene.layout.dtype == np.float32 and scene.layout.shape == (5, len(LAYOUT))
    assert value(scene, 3, "sky") == ATTRIBUTES["sky"][scene.sky[3]]


def test_same_seed_same_scenes_and_pixels():
    first, second, other = sample(6), sample(6), sample(6, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.array_equal(first.layout, other.layout)
    np.testing.assert_array_equal(render(first), render(second))


def test_no_two_pictures_are_the_same():
    pictures = np.asarray(render(repeat(sample(1), 0, 8, layout=sample(8, seed=3).layout)))
    for i in range(8):
        for j in range(i):
            assert np.mean(np.abs(pictures[i] - pictures[j])) > 0.01


@pytest.mark.parametrize("size", [16, 64, 96])
def test_pictures_have_shape_type_and_range(size: int):
    pictures = np.asarray(render(sample(4), size))
    assert pictures.shape == (4, size, size, 3) and pictures.dtype == np.float32
    assert -1.0 <= pictures.min() < -0.4 and 0.7 < pictures.max() <= 1.0


def test_a_picture_does_not_depend_on_its_batch():
    scene = sample(6)
    alone = render(Scene(*(field[4:5] for field in scene)))
    np.testing.assert_allclose(render(scene)[4:5], alone, atol=1e-5)


def test_jit_equals_eager():
    scene = jax.tree.map(jnp.asarray, sample(2))
    with jax.disable_jit():
        eager = render(scene, 32)
    # On a pixel at the border of two hash cells, rounding may choose the other cell.
    difference = np.abs(np.asarray(eager) - np.asarray(render(scene, 32)))
    assert np.mean(difference > 1e-4) < 0.002 and difference.mean() < 1e-4


def test_resolutions_show_the_same_picture():
    scene = sample(16, seed=2)
    small, large = np.asarray(render(scene, 64)), np.asarray(render(scene, 128))
    pooled = large.reshape(16, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.mean(np.abs(pooled - small)) < 0.02
    assert np.mean(np.abs(np.roll(small, 1, 0) - small)) > 0.1  # what a wrong picture would give


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_value_of_an_attribute_looks_different(name: str):
    count = len(ATTRIBUTES[name])
    scene = repeat(plain_scene(), 0, count, **{name: np.arange(count, dtype=np.int32)})
    pictures = np.asarray(render(scene))
    for i in range(count):
        for j in range(i):
            changed = np.max(np.abs(pictures[i] - pictures[j]), axis=-1) > 0.1
            assert changed.sum() >= 12, (ATTRIBUTES[name][i], ATTRIBUTES[name][j])


@pytest.mark.parametrize("style", ATTRIBUTES["style"])
@pytest.mark.parametrize("sky", ATTRIBUTES["sky"])
@pytest.mark.parametrize("name", ["house", "roof", "door", "flowers"])
def test_colours_are_told_apart_at_every_hour_in_every_style(name: str, sky: str, style: str):
    count = len(ATTRIBUTES[name])
    changes = {name: np.arange(count, dtype=np.int32)} | {
        other: np.full(count, ATTRIBUTES[other].index(word), np.int32)
        for other, word in (("sky", sky), ("style", style))
    }
    pictures = np.asarray(render(repeat(plain_scene(), 0, count, **changes)))
    for i in range(count):
        for j in range(i):
            assert np.abs(pictures[i] - pictures[j]).max() > 0.12, (i, j)


def test_what_is_painted_in_bands_reaches_no_further_than_its_band():
    """A shape cut by the border of its band would leave a seam that depends on the resolution."""
    changes = {"layout": np.random.default_rng(0).integers(0, 2, (64, len(LAYOUT)))}
    scene = sample(64, seed=9)._replace(layout=changes["layout"].astype(np.float32) * 0.999)
    small, large = np.asarray(render(scene, 64)), np.asarray(render(scene, 128))
    pooled = large.reshape(64, 64, 2, 64, 2, 3).mean((2, 4))
    rows = np.abs(pooled - small).mean((0, 2, 3))
    for border in (0.16, 0.28, 0.38, 0.50, 0.70, 0.81, 0.85, 0.88):
        assert rows[int(border * 64)] < 0.04


def test_training_never_sees_a_held_out_combination():
    scene = sample(20_000)
    assert len(scene.house) == 20_000
    assert not is_held_out(scene).any()
    for combination in HELD_OUT:  # the rule itself, told again
        match = np.ones(20_000, bool)
        for name, word in combination.items():
            match &= getattr(scene, name) == ATTRIBUTES[name].index(word)
        if "flowers" in combination:
            match &= scene.flower_amount > 0
        assert not match.any()


def test_held_out_scenes_are_all_held_out_and_cover_every_combination():
    scene = sample(2_000, held_out=True)
    assert len(scene.house) == 2_000 and is_held_out(scene).all()
    for combination in HELD_OUT:
        match = np.ones(2_000, bool)
        for name, word in combination.items():
            match &= getattr(scene, name) == ATTRIBUTES[name].index(word)
        assert match.any()


def test_every_value_occurs_often_enough():
    scene = sample(10_000)
    for name, values in ATTRIBUTES.items():
        share = np.bincount(getattr(scene, name), minlength=len(values)) / 10_000
        assert share.min() > 0.06, (name, share)
    clear = np.mean(scene.weather == ATTRIBUTES["weather"].index("clear"))
    assert 0.4 < clear < 0.6


def test_scenes_make_sense():
    scene = sample(10_000)
    winter = scene.season == ATTRIBUTES["season"].index("winter")
    assert winter[scene.weather == ATTRIBUTES["weather"].index("snow")].all()
    assert not winter[scene.weather == ATTRIBUTES["weather"].index("rain")].any()
    assert (scene.flowers[scene.flower_amount == 0] == 0).all()
    assert (scene.tree_kind[scene.trees == 0] == 0).all()
    assert scene.layout.min() >= 0.0 and scene.layout.max() < 1.0


def test_bad_input_is_explained():
    assert len(sample(0).house) == 0
    with pytest.raises(ValueError, match="count is -1"):
        sample(-1)
    with pytest.raises(ValueError, match="size is 4"):
        render(sample(1), 4)
