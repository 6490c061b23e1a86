"""From a sentence to the two ends of a film."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.motion_config import PromptTravelConfig
from diffusion.stages.prompt_travel import PromptTravel, between

SIZES = PromptTravelConfig(vocab_size=10, width=8, length=6, layers=1, heads=2)


def test_two_sentences_of_tokens_and_two_views():
    context = jax.random.normal(jax.random.key(0), (3, 6, 8))
    ends = PromptTravel(SIZES, rngs=nnx.Rngs(0))(context)
    assert ends.logits.shape == (3, 2, 6, 10)
    np.testing.assert_array_equal(ends.tokens, np.asarray(ends.logits).argmax(-1))
    np.testing.assert_array_equal(ends.views, np.zeros((3, 2, 3)))  # until it has learnt


def test_the_last_word_changes_what_the_first_means():
    travel = PromptTravel(SIZES, rngs=nnx.Rngs(0))
    context = jax.random.normal(jax.random.key(0), (1, 6, 8))
    other = context.at[0, -1].add(jnp.arange(8.0))
    change = np.asarray(travel(other).logits - travel(context).logits)
    assert np.abs(change[0, :, 0]).max() > 1e-4


def test_the_way_between_is_straight():
    ends = jnp.stack([jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3))], axis=1)
    way = np.array([0.0, 0.25, 1.0], np.float32)
    np.testing.assert_allclose(between(ends, way)[0, :, 0, 0], way)
    assert between(ends[:, :, 0], way).shape == (1, 3, 3)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="heads: 3 heads do not divide a width of 8"):
        PromptTravelConfig(width=8, heads=3)
    with pytest.raises(ValueError, match="layers"):
        PromptTravelConfig(layers=0)
