import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.layers.attention import (
    Attention,
    FeedForward,
    SpatialTransformer,
    TransformerBlock,
    attention,
    attention_weights,
)
from diffusion.runtime.parameters import SameKey

call = jax.jit(lambda layer, *inputs: layer(*inputs))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def plain(query, key, value, heads, mask=None):
    """One head, one query at a time, in float64. Also returns the weights (b, heads, n, m)."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    b, n, c = query.shape
    d = c // heads
    out, weights = np.zeros((b, n, c)), np.zeros((b, heads, n, key.shape[1]))
    for picture in range(b):
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            for i in range(n):
                logits = key[picture, :, part] @ query[picture, i, part] / math.sqrt(d)
                if mask is not None:
                    logits[~np.asarray(mask[i])] = -np.inf
                e = np.exp(logits - logits.max())
                weights[picture, head, i] = e / e.sum()
                out[picture, i, part] = weights[picture, head, i] @ value[picture, :, part]
    return out, weights


@pytest.mark.parametrize(("heads", "causal"), [(1, False), (2, True), (6, False)])
def test_equation_against_plain_loops(heads, causal):
    """With a causal mask, too: there the first sees itself alone."""
    query, key, value = draw(2, 4, 6), draw(2, 4, 6, seed=1), draw(2, 4, 6, seed=2)
    mask = jnp.tril(jnp.ones((4, 4), bool)) if causal else None
    both = lambda q, k, v: (attention(q, k, v, heads, mask), attention_weights(q, k, heads, mask))  # noqa: E731
    out, weights = jax.jit(both)(query, key, value)
    expected, expected_weights = plain(query, key, value, heads, mask)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=-1), np.ones((2, heads, 4)), atol=1e-6)
    if causal:
        assert (weights[:, :, *np.triu_indices(4, 1)] == 0).all()
        np.testing.assert_allclose(out[:, 0], value[:, 0], atol=1e-6)


def test_module_projects_attends_and_projects(build):
    """And its weights are those with which it attends; without a context it looks at itself."""
    layer = build(lambda: Attention(6, 2, context_width=4, qkv_bias=False, rngs=SameKey(0)))
    x, context = draw(2, 3, 6), draw(2, 5, 4, seed=1)
    query, key, value = (
        np.asarray(source, np.float64) @ np.asarray(linear.kernel)
        for source, linear in ((x, layer.query), (context, layer.key), (context, layer.value))
    )
    attended, expected_weights = plain(query, key, value, 2)
    expected = attended @ np.asarray(layer.out.kernel) + np.asarray(layer.out.bias)
    out, weights = jax.jit(lambda layer, *x: (layer(*x), layer.weights(*x)))(layer, x, context)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-5)


def test_without_a_context_it_looks_at_itself(build):
    layer = build(lambda: Attention(6, 2, qkv_bias=True, rngs=SameKey(0)))

    def look(layer, x):
        return (layer(x), layer.weights(x)), (layer(x, x), layer.weights(x, x))

    jax.tree.map(np.testing.assert_array_equal, *jax.jit(look)(layer, draw(2, 3, 6)))


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_only_the_output_always_has_a_bias(qkv_bias):
    layer = nnx.eval_shape(lambda: Attention(6, 2, qkv_bias=qkv_bias, rngs=SameKey(0)))
    assert layer.out.bias is not None
    assert [linear.bias is not None for linear in (layer.query, layer.key, layer.value)] == [
        qkv_bias
    ] * 3


def test_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="4 heads do not divide a width of 6"):
        Attention(6, 4, qkv_bias=True, rngs=nnx.Rngs(0))


def feed_forward(layer, x, gelu):
    x = np.asarray(x, np.float64)
    h = x @ np.asarray(layer.linear1.kernel) + np.asarray(layer.linear1.bias)
    value, gate = h[..., : h.shape[-1] // 2], h[..., h.shape[-1] // 2 :]
    h = value * np.vectorize(gelu)(gate)
    return h @ np.asarray(layer.linear2.kernel) + np.asarray(layer.linear2.bias)


def exact(x):
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def approximate(x):
    return x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_geglu_gates_the_second_half_with_the_exact_gelu(build):
    layer = build(lambda: FeedForward(4, rngs=SameKey(0)))
    assert layer.linear1.kernel.shape == (4, 32)
    assert layer.linear2.kernel.shape == (16, 4)
    x = 3 * draw(2, 5, 4)
    y = call(layer, x)
    np.testing.assert_allclose(y, feed_forward(layer, x, exact), atol=2e-5)
    assert np.abs(y - feed_forward(layer, x, approximate)).max() > 2e-4  # the test can tell


def layer_norm(layer, x):
    mean, variance = x.mean(-1, keepdims=True), jnp.var(x, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * layer.scale[None, None] + layer.bias[None, None]


def test_transformer_block_normalises_before_each_part_and_adds(build):
    block = build(lambda: TransformerBlock(6, 2, 4, rngs=SameKey(0)))
    x, context = 0.003 * draw(2, 3, 6), draw(2, 5, 4, seed=1)  # so small that eps 1e-5 matters

    def composed(block, x, context):
        y = x + block.self_attention(layer_norm(block.norm1, x))
        y = y + block.cross_attention(layer_norm(block.norm2, y), context)
        return y + block.feed_forward(layer_norm(block.norm3, y))

    expected = jax.jit(composed)(block, x, context)
    np.testing.assert_allclose(call(block, x, context), expected, atol=1e-5)
    assert [norm.epsilon for norm in (block.norm1, block.norm2, block.norm3)] == [1e-5] * 3


def test_spatial_transformer_begins_as_the_identity():
    create = partial(SpatialTransformer, 4, 2, 6, groups=2)
    x, context = draw(1, 2, 3, 4), draw(1, 5, 6, seed=1)
    y = jax.jit(lambda x, context: create(rngs=SameKey(0))(x, context))(x, context)
    np.testing.assert_array_equal(y, x)


def test_spatial_transformer_treats_all_positions_alike(build):
    """A mirrored picture gives the mirrored result, whether it is wide or high.

    And each picture listens to its own words only.
    """
    layer = build(lambda: SpatialTransformer(4, 2, 6, groups=2, rngs=SameKey(0)))
    assert layer.norm.eps == 1e-6
    x, context = draw(2, 2, 3, 4), draw(2, 5, 6, seed=1)
    y = call(layer, x, context)
    assert jnp.abs(y - x).max() > 0.01
    np.testing.assert_allclose(call(layer, x[:, :, ::-1], context), y[:, :, ::-1], atol=1e-5)
    turned = call(layer, x.swapaxes(1, 2), context)
    np.testing.assert_allclose(turned, y.swapaxes(1, 2), atol=1e-5)
    other = call(layer, x, context.at[1].add(1.0))
    np.testing.assert_allclose(other[0], y[0], atol=1e-6)
    assert jnp.abs(other[1] - y[1]).max() > 1e-3
