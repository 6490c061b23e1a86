"""The garden: what is drawn, how it looks, and what is kept out of training."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from diffusion.datasets import garden
from diffusion.datasets.garden import (
    ATTRIBUTES,
    HELD_OUT,
    LAYOUT,
    Scene,
    is_held_out,
    render,
    renderer,
    sample_scenes,
    value,
)

SIZES = (32, 64)  # each is compiled once, for batches of 8


def sample(count: int, seed: int = 0, **options: bool) -> Scene:
    return sample_scenes(np.random.default_rng(seed), count, **options)


def variants(scene: Scene, **changes: np.ndarray) -> Scene:
    """Eight copies of a single scene, some of its fields changed; short changes are filled up."""
    eight = Scene(*(np.repeat(field, 8, axis=0) for field in scene))
    filled = {name: np.resize(column, (8, *column.shape[1:])) for name, column in changes.items()}
    return eight._replace(**filled)


def compiled_again(size: int) -> Callable[[Scene], jax.Array]:
    """What `render` is now, not what it was when it was compiled first."""
    return jax.jit(jax.vmap(lambda one: renderer._render_one(one, size, "")))


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
    assert scene.layout.dtype == np.float32
    assert scene.layout.shape == (5, len(LAYOUT))
    assert value(scene, 3, "sky") == ATTRIBUTES["sky"][scene.sky[3]]


def test_same_seed_same_scenes_and_pixels():
    first, second, other = sample(8), sample(8), sample(8, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.array_equal(first.layout, other.layout)
    np.testing.assert_array_equal(render(first), render(second))


def test_no_two_pictures_are_the_same():
    pictures = np.asarray(render(variants(plain_scene(), layout=sample(8, seed=3).layout)))
    for i in range(8):
        for j in range(i):
            assert np.mean(np.abs(pictures[i] - pictures[j])) > 0.01


@pytest.mark.parametrize("size", SIZES)
def test_pictures_have_shape_type_and_range(size: int):
    pictures = np.asarray(render(sample(8), size))
    assert pictures.shape == (8, size, size, 3)
    assert pictures.dtype == np.float32
    assert -1.0 <= pictures.min() < -0.3
    assert 0.7 < pictures.max() <= 1.0


def test_a_picture_does_not_depend_on_its_neighbours():
    scene = sample(8)
    turned = render(Scene(*(field[::-1] for field in scene)))
    np.testing.assert_array_equal(render(scene), turned[::-1])


def test_the_compiler_changes_no_picture():
    """As people render, with all optimizations of XLA, and as the tests do, with few of them."""
    scene = sample(8)
    plain = np.asarray(render(scene, 32))
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        optimized = np.asarray(compiled_again(32)(scene))
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    # On a pixel at the border of two hash cells, rounding may choose the other cell.
    difference = np.abs(optimized - plain)
    assert np.mean(difference > 1e-3) < 0.002
    assert difference.mean() < 1e-4


def test_resolutions_show_the_same_picture():
    scene = sample(8, seed=2)
    small, large = (np.asarray(render(scene, size)) for size in SIZES)
    pooled = large.reshape(8, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.mean(np.abs(pooled - small)) < 0.03
    assert np.mean(np.abs(np.roll(small, 1, 0) - small)) > 0.1  # what a wrong picture would give


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_value_of_an_attribute_looks_different(name: str):
    count = len(ATTRIBUTES[name])
    scene = variants(plain_scene(), **{name: np.arange(count, dtype=np.int32)})
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
    changes = {name: np.arange(count, dtype=np.int32)}
    for other, word in (("sky", sky), ("style", style)):
        changes[other] = np.array([ATTRIBUTES[other].index(word)], np.int32)
    pictures = np.asarray(render(variants(plain_scene(), **changes)))
    for i in range(count):
        for j in range(i):
            assert np.abs(pictures[i] - pictures[j]).max() > 0.12, (i, j)


def test_no_shape_reaches_beyond_the_rows_it_is_drawn_in(monkeypatch: pytest.MonkeyPatch):
    scene = sample(512, seed=9)
    extremes = np.random.default_rng(0).integers(0, 2, scene.layout.shape) * 0.999
    scene = scene._replace(layout=extremes.astype(np.float32))
    # In eights, for which `render` is compiled only once.
    eights = [Scene(*(field[i : i + 8] for field in scene)) for i in range(0, 512, 8)]
    in_rows = [np.asarray(render(eight, 32)) for eight in eights]
    monkeypatch.setattr(renderer, "fill_rows", lambda drawing, top, bottom, draw: draw(drawing))
    whole = compiled_again(32)
    for eight, pictures in zip(eights, in_rows, strict=True):
        assert np.max(np.abs(np.asarray(whole(eight)) - pictures)) < 0.01


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
    assert len(scene.house) == 2_000
    assert is_held_out(scene).all()
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
    assert scene.layout.min() >= 0.0
    assert scene.layout.max() < 1.0


def test_bad_input_is_explained():
    assert len(sample(0).house) == 0
    with pytest.raises(ValueError, match="count is -1"):
        sample(-1)
    with pytest.raises(ValueError, match="size is 4"):
        render(sample(1), 4)


def test_a_tree_has_a_kind_where_there_is_one():
    scenes = sample_scenes(np.random.default_rng(0), 200)
    np.testing.assert_array_equal(garden.is_there(scenes, "tree_kind"), scenes.trees > 0)
    np.testing.assert_array_equal(garden.is_there(scenes, "flowers"), scenes.flower_amount > 0)
    assert garden.is_there(scenes, "house").all()


@pytest.mark.parametrize("layer", renderer.LAYERS)
def test_a_picture_without_a_layer(layer):
    """A layer that shows nothing can be left out; one that shows something cannot."""
    scene = sample(16, seed=1)
    whole, without = np.asarray(render(scene)), np.asarray(render(scene, without=layer))
    shown = {
        "stars": (scene.sky == 2) & (scene.weather == 0),
        "flowers": scene.flower_amount > 0,
        "weather": scene.weather >= 2,
        "trees": scene.trees > 0,
    }.get(layer, np.ones(16, bool))
    assert ((np.abs(whole - without) > 1e-4).any(axis=(1, 2, 3)) == shown).all()
