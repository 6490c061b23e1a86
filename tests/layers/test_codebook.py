import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.layers.codebook import (
    Codebook,
    counts,
    gumbel_softmax,
    k_means,
    kl_to_uniform,
    perplexity,
    revived,
    squared_distances,
)


def with_codes(*codes):
    codes = jnp.asarray(codes)
    book = Codebook(*codes.shape, rngs=nnx.Rngs(0))
    book.vectors.embedding[...] = codes
    return book


def test_distances_by_hand():
    x = jnp.asarray([3.0, 4.0]).reshape(1, 1, 1, 2)
    found = squared_distances(x, jnp.asarray([[0.0, 0.0], [3.0, 3.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(found.ravel(), [25.0, 1.0, 0.0])


def test_distances_keep_the_digits_that_tell_near_codes_apart():
    """Multiplied out, both would be 0 or 2^-1 and more off: 1000^2 has no digits left for 1e-6."""
    x = jnp.full((1, 1, 1, 1), 1000.0)
    near = squared_distances(x, jnp.asarray([[1000.001], [1000.002]])).ravel()
    assert 0 < near[0] < near[1] < 1e-5


def test_each_vector_becomes_the_nearest_code_and_ties_go_to_the_first():
    book = with_codes([0.0, 0.0], [2.0, 0.0], [0.0, 5.0])
    x = jnp.asarray([[0.9, 0.0], [1.1, 0.0], [0.0, 9.0], [1.0, 0.0]]).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(book.nearest(x).ravel(), [0, 1, 2, 0])
    np.testing.assert_array_equal(book(x).reshape(4, 2), book.codes[jnp.asarray([0, 1, 2, 0])])


def test_counts_and_perplexity():
    codes = jnp.asarray([[[0, 0, 3, 3]]])
    np.testing.assert_array_equal(counts(codes, 5), [2, 0, 0, 2, 0])
    assert perplexity(counts(codes, 5)) == pytest.approx(2.0)
    assert perplexity(jnp.asarray([7, 0])) == pytest.approx(1.0)
    assert perplexity(jnp.asarray([3, 3, 3, 3])) == pytest.approx(4.0)


def test_cold_shares_are_draws_from_the_softmax():
    logits = jnp.tile(jnp.asarray([1.0, 0.0, -1.0]), (20_000, 1))
    noise = jax.random.gumbel(jax.random.key(0), logits.shape)
    cold, hot = (np.asarray(gumbel_softmax(logits, noise, t)) for t in (1e-3, 1e3))
    np.testing.assert_allclose(cold.mean(axis=0), jax.nn.softmax(logits[0]), atol=0.01)
    np.testing.assert_allclose(hot, 1 / 3, atol=0.01)
    np.testing.assert_allclose(gumbel_softmax(logits, 0 * logits, 1.0), jax.nn.softmax(logits))


def test_the_kl_is_nothing_where_all_are_alike_and_log_k_where_one_is_certain():
    found = kl_to_uniform(jnp.asarray([[2.0, 2.0, 2.0], [0.0, 1e4, 0.0]]))
    np.testing.assert_allclose(found, [0.0, np.log(3)], atol=1e-6)


def test_dead_codes_are_exchanged_for_the_fresh_ones_of_their_number():
    codes, fresh = jnp.asarray([[0.0], [9.0], [2.0]]), jnp.asarray([[5.0], [6.0], [7.0]])
    x = jnp.asarray([0.1, 1.9, 2.2]).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(revived(codes, x, fresh), [[0.0], [6.0], [2.0]])


def test_k_means_finds_the_middles_of_heaps():
    draw = np.random.default_rng(0)
    middles = np.asarray([[-9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    heaps = np.repeat(middles, 50, axis=0) + draw.normal(0, 0.1, (150, 2))
    points = jnp.asarray(heaps, jnp.float32)
    tries = [np.asarray(k_means(points, 3, jax.random.key(i))) for i in range(4)]
    found = min(tries, key=lambda centres: np.ptp(centres[:, 0]) < 17)  # both ends are there
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], middles, atol=0.1)


def test_k_means_needs_a_point_for_each_centre():
    with pytest.raises(ValueError, match="codes: 4 centres need as many points, and there are 3"):
        k_means(jnp.zeros((3, 2)), 4, jax.random.key(0))
