"""What `trace_film` shows is what the sampler computed, and the modules that it computed with."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.inspection.film_trace import looks, modules, trace_film, with_exit
from diffusion.layers.attention import attention_weights
from diffusion.process.samplers import guide
from diffusion.stages.motion import frame_positions, to_sequences

PROMPT = "a red house"
FAST = {"frames": 8, "steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def run(filmer):
    return trace_film(filmer, PROMPT, to="two trees", **FAST)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_the_run_is_that_of_the_artist(run, filmer):
    np.testing.assert_array_equal(run.pictures, filmer.film(PROMPT, to="two trees", **FAST))
    assert run.steps[0].x_t.shape[0] == 8


@pytest.mark.parametrize("index", [0, 1])
def test_both_branches_give_the_prediction_of_the_sampler(run, index):
    inside = run.activations(index)
    close(guide(inside.unconditional, inside.conditional, run.guidance), inside.step.prediction)


def test_looks_are_those_of_the_positions_of_a_module(run, filmer):
    assert modules(run) == [
        "down.0.0", "down.1.0", "middle", "up.0.0", "up.0.1", "up.1.0", "up.1.1",
    ]  # fmt: skip
    inside = run.activations(1)
    found = looks(run, 1, "down.0.0")
    assert found.shape == (8, 8, 2, 8, 8)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=1e-5)
    assert looks(run, 1, "middle", 2).shape == (4, 4, 2, 8, 8)
    module = filmer.motion.adapter.module.down[0][0]
    x = inside.tensors["image.down.blocks.0.transformers.0"]
    normed = module.norm(x.reshape(2, -1, 8, 4)).reshape(x.shape)
    h = module.block.norm1(module.project_in(to_sequences(normed, 8))) + frame_positions(8, 4)[None]
    attention = module.block.attention1
    expected = attention_weights(attention.query(h), attention.key(h), 2)
    close(found.reshape(64, 2, 8, 8), expected[:64])
    with pytest.raises(ValueError, match=r"no module 'up'; choose from down.0.0, down.1.0, middle"):
        looks(run, 0, "up")


def test_an_exit_of_zero_is_silent_and_of_one_is_the_same(filmer):
    silent = with_exit(filmer, 0.0)
    series = filmer.paint(PROMPT, count=8, seed=3, steps=2)
    apart = np.abs(silent.film(PROMPT, **FAST).astype(int) - series)
    assert apart.max() <= 1
    film = filmer.film(PROMPT, **FAST)
    assert np.abs(film.astype(int) - series).max() > 1
    np.testing.assert_array_equal(with_exit(filmer, 1.0).film(PROMPT, **FAST), film)


def test_what_cannot_be_traced_is_named(filmer, artist):
    with pytest.raises(ValueError, match="trace_film needs motion modules"):
        trace_film(artist, PROMPT, **FAST)
    with pytest.raises(ValueError, match="trace_film needs motion modules"):
        trace_film(filmer, PROMPT, walk=True, **FAST)
    with pytest.raises(ValueError, match="frames is 9; give up to 8"):
        trace_film(filmer, PROMPT, frames=9)
    with pytest.raises(ValueError, match="this model has no motion modules"):
        with_exit(artist, 0.0)
