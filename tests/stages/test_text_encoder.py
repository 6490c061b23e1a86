import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import TextEncoderConfig
from diffusion.layers.activations import exact_gelu, quick_gelu
from diffusion.stages.text_encoder import TextEncoder

CONFIG = TextEncoderConfig(vocab_size=40, length=10, width=8, layers=2, heads=2, mlp_width=12)
TOKENS = jnp.asarray([[38, 5, 9, 9, 3, 39, 39, 39, 39, 39]])


@pytest.fixture(scope="module")
def encoder(build):
    return build(lambda: TextEncoder(CONFIG, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def encode(encoder):
    structure, params = nnx.split(encoder)
    jitted = jax.jit(lambda params, tokens: nnx.merge(structure, params)(tokens))
    return lambda tokens: np.asarray(jitted(params, tokens))


@pytest.mark.parametrize("changed", [1, 4, 9])
def test_a_word_changes_what_comes_after_it_and_nothing_before(encode, changed):
    context = encode(TOKENS)
    other = encode(TOKENS.at[0, changed].set(17))
    np.testing.assert_array_equal(other[0, :changed], context[0, :changed])
    assert (np.abs(other - context)[0, changed:].max(axis=-1) > 1e-3).all()


def test_shape_and_short_rows(encode):
    context = encode(jnp.tile(TOKENS, (3, 1)))
    assert context.shape == (3, 10, 8)
    assert context.dtype == np.float32
    np.testing.assert_allclose(encode(TOKENS[:, :4]), context[:1, :4], atol=1e-6)


def test_the_place_of_a_word_matters(encode):
    """Word 9 stands at 2 and at 3, after different words; word 39 after itself from 5 on."""
    context = encode(TOKENS)
    swapped = encode(TOKENS[:, jnp.asarray([0, 2, 1, 3, 4, 5, 6, 7, 8, 9])])
    assert np.abs(swapped - context)[0, 4:].max(axis=-1).min() > 1e-4
    alike = encode(jnp.full((1, 10), 7))[0]
    assert np.abs(np.diff(alike, axis=0)).max(axis=-1).min() > 1e-3


def test_the_last_norm_is_part_of_it(encode, encoder):
    context = encode(TOKENS)
    norm = encoder.final_norm
    plain = (context - np.asarray(norm.bias)) / np.asarray(norm.scale)
    np.testing.assert_allclose(plain.mean(-1), np.zeros((1, 10)), atol=1e-5)
    np.testing.assert_allclose(plain.var(-1), np.ones((1, 10)), atol=1e-3)


def test_against_the_formula(encode, encoder):
    """Pre-norm layers with causal attention, one position at a time, in float64."""

    def norm(layer, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * np.asarray(layer.scale) + np.asarray(layer.bias)

    def linear(layer, x):
        return x @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias)

    x = np.asarray(encoder.token_embedding.embedding, np.float64)[np.asarray(TOKENS[0])]
    x = x + np.asarray(encoder.position_embedding)
    for layer in encoder.layers:
        h = norm(layer.norm1, x)
        q, k, v = (linear(getattr(layer.attention, n), h) for n in ("query", "key", "value"))
        heard = np.zeros_like(x)
        for i in range(10):
            for part in (slice(0, 4), slice(4, 8)):
                weights = np.exp(k[: i + 1, part] @ q[i, part] / math.sqrt(4))
                heard[i, part] = weights / weights.sum() @ v[: i + 1, part]
        x = x + linear(layer.attention.out, heard)
        h = linear(layer.linear1, norm(layer.norm2, x))
        x = x + linear(layer.linear2, h / (1 + np.exp(-1.702 * h)))
    np.testing.assert_allclose(encode(TOKENS)[0], norm(encoder.final_norm, x), atol=1e-5)


def test_the_two_activations():
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(float)]
    np.testing.assert_allclose(exact_gelu(jnp.asarray(x)), exact, atol=1e-6)
    quick = x.astype(float) / (1 + np.exp(-1.702 * x.astype(float)))
    np.testing.assert_allclose(quick_gelu(jnp.asarray(x)), quick, atol=1e-6)
    assert np.abs(quick - exact).max() > 0.01


@pytest.mark.parametrize(("name", "function"), [("quick_gelu", quick_gelu), ("gelu", exact_gelu)])
def test_the_configuration_chooses_the_activation(name, function):
    config = dataclasses.replace(CONFIG, activation=name, layers=1)
    encoder = nnx.eval_shape(lambda: TextEncoder(config, rngs=nnx.Rngs(0)))
    assert encoder.layers[0].activation is function


def test_refuses_an_unknown_activation():
    config = dataclasses.replace(CONFIG, activation="relu")
    with pytest.raises(ValueError, match=r"activation 'relu' is unknown; known: quick_gelu, gelu"):
        TextEncoder(config, rngs=nnx.Rngs(0))


def test_every_norm_has_the_configured_eps():
    encoder = nnx.eval_shape(lambda: TextEncoder(CONFIG, rngs=nnx.Rngs(0)))
    found = [m.epsilon for _, m in nnx.iter_graph(encoder) if isinstance(m, nnx.LayerNorm)]
    assert found == [1e-5] * (2 * CONFIG.layers + 1)


def test_every_parameter_is_trained(encoder, trained):
    """Of the embeddings, the rows of the words that occur."""

    def loss(encoder, weights):
        return jnp.sum(weights * encoder(TOKENS))

    used = np.zeros((40, 8), bool)
    used[np.asarray(TOKENS[0])] = True
    trained(encoder, loss, (1, 10, 8), {"token_embedding.embedding": used})
