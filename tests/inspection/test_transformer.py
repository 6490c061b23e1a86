"""The figures of a diffusion transformer show what it did, drawn by a tiny one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import DiTConfig, RectifiedFlowConfig
from diffusion.inspection import transformer as numbers
from diffusion.inspection.figures import transformer
from diffusion.inspection.trace import trace
from diffusion.loading import load
from diffusion.stages.dit import place_code


@pytest.fixture(scope="module")
def run(tiny, write_model, tmp_path_factory):
    config = dataclasses.replace(
        tiny,
        name="tiny-dit",
        denoiser=DiTConfig(
            layers=2, heads=2, head_width=4, context_width=8, sample_size=8, learned_variance=False
        ),
        process=RectifiedFlowConfig(),
    )
    artist = load(write_model(tmp_path_factory.mktemp("models") / "tiny-dit", config))
    return trace(artist, "a red house with two old trees", seed=1, steps=3)


def shown(figure):
    return [image.get_array() for axis in figure.axes for image in axis.images]


def test_gates_are_those_of_the_blocks(run):
    dit = run.artist.denoiser.module
    found = numbers.gates(dit, jnp.asarray([0.0, 700.5]))
    assert found.shape == (2, 2, 2)
    activations = run.activations(0)  # at t = 1000
    here = numbers.gates(dit, jnp.asarray([run.steps[0].t]))
    for block in range(2):
        six = np.asarray(activations.tensors[f"blocks.{block}.modulation"][0])
        np.testing.assert_allclose(here[:, block, 0], np.abs(six[[2, 5]]).mean(axis=1), rtol=1e-4)
    attention, mlp, *_ = shown(transformer.gates_over_time(run.artist, count=5))
    ends = numbers.gates(dit, jnp.asarray([0.0, 999.0]))
    np.testing.assert_allclose(attention[:, [0, -1]], ends[0], rtol=1e-4)
    np.testing.assert_allclose(mlp[:, [0, -1]], ends[1], rtol=1e-4)


def test_what_blocks_add_is_what_changes_the_tokens(run):
    activations = run.activations(1)
    assert numbers.layers(activations) == 2
    tensors = {name: np.asarray(x[0]) for name, x in activations.tensors.items()}
    shares, given = numbers.added(activations), tensors["patches"]
    for i, share in enumerate(shares):
        six = tensors[f"blocks.{i}.modulation"]
        looks = six[2] * tensors[f"blocks.{i}.self_attention"]
        thinks = six[5] * tensors[f"blocks.{i}.feed_forward"]
        listens = tensors[f"blocks.{i}.cross_attention"]
        whole = given + looks + listens + thinks
        np.testing.assert_allclose(tensors[f"blocks.{i}"], whole, atol=1e-4)
        lengths = [np.linalg.norm(x, axis=1).mean() for x in (looks, listens, thinks)]
        np.testing.assert_allclose(share, lengths / np.linalg.norm(given, axis=1).mean(), rtol=1e-4)
        given = whole
    lines = transformer.what_is_added(run, (0, 1)).axes[1].lines
    assert [line.get_label() for line in lines] == [*numbers.PARTS]
    np.testing.assert_allclose([line.get_ydata() for line in lines], shares.T)


def test_how_far_a_head_looks():
    near = np.eye(6, dtype=np.float32)[None]
    np.testing.assert_allclose(numbers.looked_far(near, 3), [0.0])
    right = np.zeros((1, 6, 6), np.float32)
    right[0, :, 2] = 1.0  # all at the upper right corner of two rows of three
    far = np.mean([2, 1, 0, 5**0.5, 2**0.5, 1])
    np.testing.assert_allclose(numbers.looked_far(right, 3), [far], rtol=1e-6)


def test_how_far_is_drawn_for_every_head(run):
    axis = transformer.how_far(run, (1,)).axes[0]
    *dots, even = axis.lines
    weights = run.activations(1).attention["blocks.1.self_attention"][0]
    np.testing.assert_allclose(dots[1].get_ydata(), numbers.looked_far(weights, 4), rtol=1e-6)
    everywhere = np.full((1, 16, 16), 1 / 16)
    np.testing.assert_allclose(even.get_ydata()[0], numbers.looked_far(everywhere, 4)[0], rtol=1e-6)


def test_without_its_blocks_the_network_sees_another_picture(run):
    whole = numbers.seen_without(run, 2, ())
    seen = run.artist.decode(run.steps[2].x0)[0].astype(int)
    assert np.abs(whole - seen).max() <= 1  # compiled in parts, rounded to bytes
    both = numbers.seen_without(run, 2, (0, 1)).astype(int)
    assert np.abs(both - seen).max() > 5
    figure = transformer.without_blocks(run, (2,))
    pictures = shown(figure)
    np.testing.assert_array_equal(pictures[0], whole)
    np.testing.assert_array_equal(pictures[2], numbers.seen_without(run, 2, (1,)))
    change = np.abs(pictures[2].astype(float) - whole).mean()
    assert figure.axes[2].get_xlabel() == f"{change:.1f}"
    assert [axis.get_title() for axis in figure.axes] == ["all blocks", "without 0", "without 1"]


def test_the_stream_shows_every_block_at_every_step(run):
    figure = transformer.stream(run, (0, 2))
    pictures = shown(figure)
    assert len(pictures) == 2 * 5  # canvas, patches, two blocks, what it sees
    assert [axis.get_title() for axis in figure.axes[:5]] == [
        "canvas", "patches", "block 0", "block 1", "it sees",
    ]  # fmt: skip
    assert pictures[1].shape == (4, 4, 3)
    np.testing.assert_array_equal(pictures[9], run.artist.decode(run.steps[2].x0)[0])


def test_where_patches_look_and_words_are_heard(run):
    activations = run.activations(1)
    maps = shown(transformer.looks(run, 1, ((0, 1), (3, 2))))
    weights = np.asarray(activations.attention["blocks.1.self_attention"][0]).mean(axis=0)
    np.testing.assert_allclose(maps[5], weights[3 * 4 + 2].reshape(4, 4), rtol=1e-6)
    house = next(word for word in run.words if word.text == "house")
    weights = np.asarray(activations.attention["blocks.0.cross_attention"][0])
    expected = weights[:, :, house.places].sum(axis=2).mean(axis=0).reshape(4, 4)
    maps = shown(transformer.heard(run, 1, ("house", "red")))
    assert len(maps) == 2 * 3
    np.testing.assert_allclose(maps[1], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="no 'blue'; its words are a, red"):
        transformer.heard(run, 1, ("blue",))


def test_a_wide_canvas_has_its_own_grid(run):
    wide = trace(run.artist, "a house", steps=1, height=16, width=32)
    assert transformer.grid(wide) == (4, 8)
    assert shown(transformer.looks(wide, 0, ((1, 6),)))[1].shape == (4, 8)
    assert shown(transformer.stream(wide, (0,)))[1].shape == (4, 8, 3)


def test_places_are_the_codes_and_their_likeness():
    config = DiTConfig(heads=2, head_width=4, sample_size=8)
    code, likeness = shown(transformer.places(config, ((1, 2),)))
    expected = place_code(4, 4, 8, 4)
    np.testing.assert_array_equal(code, expected)
    assert np.unravel_index(likeness.argmax(), likeness.shape) == (1, 2)
    assert likeness.max() == pytest.approx(1.0)


def test_the_block_of_the_exercise_is_the_networks(run):
    from diffusion.course.exercises.dit import EXERCISES

    dit = run.artist.denoiser.module
    block = dit.blocks[0]
    x, six, context = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 5, 8), (2, 6, 8), (2, 3, 8)])
    )
    listen = lambda h: block.cross_attention(h, context)  # noqa: E731
    parts = block.norm1, block.self_attention, listen, block.feed_forward
    ours = EXERCISES["block"].right(x, block.modulation(six), *parts)
    np.testing.assert_allclose(ours, block(x, six, context), atol=1e-6)
