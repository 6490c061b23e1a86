"""What the denoiser hears of prompts with signs."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.conditioning import alike, contexts, weighed
from diffusion.layers.attention import Attention
from diffusion.presets import garden_masked
from diffusion.settings import Settings
from diffusion.text import emphasis

DRAW = np.random.default_rng(0)


def context(rows: int, mean: float) -> np.ndarray:
    return (mean + DRAW.standard_normal((rows, 5, 7))).astype(np.float32)


def test_a_weight_scales_its_token_and_the_mean_stays():
    vectors = context(2, 1.0)
    weights = np.float32([[1, 1.5, 1, 1, 1], [1, 0.5, 2, 1, 1]])
    found = np.asarray(weighed(vectors, weights))
    np.testing.assert_allclose(found.mean((1, 2)), vectors.mean((1, 2)), rtol=1e-5)
    for row in range(2):
        changed = vectors[row].astype(float) * weights[row, :, None]
        expected = changed * vectors[row].astype(float).mean() / changed.mean()
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


def test_without_weights_no_bit_changes():
    vectors = context(3, 0.1)
    vectors[2] = 0.0
    np.testing.assert_array_equal(weighed(vectors, np.ones((3, 5), np.float32)), vectors)


@pytest.mark.parametrize("weights", [[1, -30, 1, 1, 1], [50, 50, 50, 50, 50]])
def test_a_mean_that_says_nothing_scales_nothing(weights):
    vectors = context(1, 1.0)
    weights = np.float32([weights])
    found = weighed(vectors, weights)
    np.testing.assert_allclose(found, vectors * weights[..., None], rtol=1e-6)


def test_attention_hears_no_difference_where_a_context_is_repeated(build):
    attention = build(lambda: Attention(6, 2, context_width=7, qkv_bias=False, rngs=nnx.Rngs(0)))
    x = jnp.asarray(DRAW.standard_normal((1, 9, 6)), jnp.float32)
    short, long = (jnp.asarray(DRAW.standard_normal((1, n, 7)), jnp.float32) for n in (4, 6))
    repeated = alike([short, long])
    assert [part.shape for part in repeated] == [(1, 12, 7)] * 2
    for part, same in zip((short, long), repeated, strict=True):
        np.testing.assert_allclose(attention(x, same), attention(x, part), atol=1e-6)


def test_contexts_of_prompts(artist):
    """Rows side by side, weights, and the shorter text as often as it fits."""
    texts = ["a red house BREAK two (trees:1.5)", "night"]
    encode, tokenizer = artist.text_encoder, artist.tokenizer
    found = contexts(encode, tokenizer, texts, True)
    rows = encode(jnp.asarray(tokenizer(["a red house", "two trees", "night"])))
    n = rows.shape[1]
    assert found.shape == (2, 2 * n, rows.shape[2])
    np.testing.assert_array_equal(found[0, :n], rows[0])
    weights = emphasis.rows(tokenizer, "two (trees:1.5)")[1]
    np.testing.assert_allclose(found[0, n:], weighed(rows[1:2], weights)[0], atol=1e-6)
    np.testing.assert_array_equal(found[1], jnp.concatenate([rows[2], rows[2]]))


def test_a_prompt_without_signs_is_told_as_ever(artist):
    texts = ["a red house with two old trees", ""]
    args = artist.text_encoder, artist.tokenizer, texts
    np.testing.assert_array_equal(contexts(*args, True), contexts(*args, False))
    plain = artist.text_encoder(jnp.asarray(artist.tokenizer(texts)))
    np.testing.assert_array_equal(contexts(*args, False), plain)


def test_pictures_of_prompts_with_signs(artist):
    settings = {"steps": 2, "count": 3, "seed": 3}
    plain = artist.paint("a red house", **settings)
    same = artist.paint("a red house", emphasis=True, **settings)
    np.testing.assert_array_equal(same, plain)
    heavy = artist.paint("a (red:1.5) house", emphasis=True, **settings)
    assert (heavy != plain).any()
    rows = artist.paint("a red house BREAK a red house", emphasis=True, **settings)
    assert np.abs(rows.astype(int) - plain).max() <= 1  # twice the same is the same
    with pytest.warns(emphasis.EmphasisWarning, match="is read as words"):
        words = artist.paint("a (red:1.5) house", **settings)
    assert (words != heavy).any()


def test_signs_are_not_for_models_that_sum_a_prompt_up():
    masked = garden_masked()
    whole = dataclasses.replace(
        masked, text_encoder=dataclasses.replace(masked.text_encoder, summary=True)
    )
    assert Settings("", emphasis=True).resolve(masked).emphasis
    with pytest.raises(ValueError, match="garden-masked hears prompts as a whole, too; leave em"):
        Settings("", emphasis=True).resolve(whole)
    with pytest.raises(ValueError, match="emphasis is 'yes'; give True or False"):
        Settings("", emphasis="yes")
