"""From a sentence to the two ends of a film."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.motion_config import PromptTravelConfig
from diffusion.stages.prompt_travel import PromptTravel, between

SIZES = PromptTravelConfig(vocab_size=10, width=8, length=6, layers=1, heads=2, reach=2)
TOKENS = jnp.array([[3, 1, 4, 1, 5, 9]])


def test_two_sentences_and_two_views():
    context = jax.random.normal(jax.random.key(0), (1, 6, 8))
    ends = PromptTravel(SIZES, rngs=nnx.Rngs(0))(context, TOKENS)
    assert ends.logits.shape == (1, 2, 6, 10 + 5)
    assert np.asarray(ends.copies)[0, 2].tolist() == [3, 1, 4, 1, 5]
    assert np.asarray(ends.copies)[0, 5].tolist() == [1, 5, 9, 9, 9]  # nothing is beyond the end
    np.testing.assert_array_equal(ends.views, np.zeros((1, 2, 4)))  # until it has learnt


def test_tokens_are_written_or_copied():
    logits = np.zeros((1, 2, 6, 15), np.float32)
    logits[0, 0, :, 10 + 3] = 9.0  # the first sentence: all from one place further on
    logits[0, 1, :, 7] = 9.0  # the last: token 7 everywhere
    travel = PromptTravel(SIZES, rngs=nnx.Rngs(0))
    ends = travel(jnp.zeros((1, 6, 8)), TOKENS)._replace(logits=jnp.asarray(logits))
    assert np.asarray(ends.tokens)[0].tolist() == [[1, 4, 1, 5, 9, 9], [7] * 6]


def test_likelihood_counts_all_ways_to_a_token():
    """Every token of the vocabulary is counted once, with its copies, and all add up to 1."""
    key = jax.random.key(1)
    travel = PromptTravel(SIZES, rngs=nnx.Rngs(0))
    ends = travel(jax.random.normal(key, (1, 6, 8)), TOKENS)
    each = [ends.log_likelihood(jnp.full((1, 2, 6), token)) for token in range(10)]
    np.testing.assert_allclose(np.exp(each).sum(0), 1.0, rtol=1e-5)
    alike = ends._replace(logits=jnp.zeros_like(ends.logits))
    found = np.exp(alike.log_likelihood(jnp.full((1, 2, 6), 1)))
    assert found[0, 0, 2] == pytest.approx(3 / 15)  # written; copied from before and from after


def test_the_last_word_changes_what_the_first_means():
    travel = PromptTravel(SIZES, rngs=nnx.Rngs(0))
    context = jax.random.normal(jax.random.key(0), (1, 6, 8))
    other = context.at[0, -1].add(jnp.arange(8.0))
    change = np.asarray(travel(other, TOKENS).logits - travel(context, TOKENS).logits)
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
