import math
from functools import partial
from types import SimpleNamespace

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
    largest_divisor,
)


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


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


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_against_plain_loops(heads):
    query, key, value = draw(2, 4, 6), draw(2, 5, 6, seed=1), draw(2, 5, 6, seed=2)
    expected, _ = plain(query, key, value, heads)
    np.testing.assert_allclose(attention(query, key, value, heads), expected, atol=1e-6)


def test_causal_mask_against_plain_loops():
    query, key, value = draw(2, 4, 6), draw(2, 4, 6, seed=1), draw(2, 4, 6, seed=2)
    mask = jnp.tril(jnp.ones((4, 4), bool))
    out = attention(query, key, value, 2, mask)
    expected, weights = plain(query, key, value, 2, mask)
    assert (weights[:, :, *np.triu_indices(4, 1)] == 0).all()
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_allclose(out[:, 0], value[:, 0], atol=1e-6)  # the first sees itself alone


def test_weights_of_a_query_sum_to_one():
    ones = attention(draw(2, 4, 6), draw(2, 5, 6, seed=1), jnp.ones((2, 5, 6)), 3)
    np.testing.assert_allclose(ones, np.ones((2, 4, 6)), atol=1e-6)


def test_softmax_is_float32_whatever_the_network_runs_in():
    """The logits 100.0 and 100.25 are one number in bfloat16, but not in float32."""
    query = jnp.ones((1, 1, 1), jnp.bfloat16)
    key = jnp.asarray([10.0, 10.0625], jnp.bfloat16).reshape(1, 2, 1)
    value = jnp.asarray([0.0, 1.0], jnp.bfloat16).reshape(1, 2, 1)
    out = attention(10 * query, key, value, 1)
    assert out.dtype == jnp.bfloat16
    weight = 1 / (1 + math.exp(-0.625))
    np.testing.assert_allclose(out.astype(jnp.float32).item(), weight, atol=4e-3)


def test_module_projects_attends_and_projects():
    layer = Attention(6, 2, context_width=4, qkv_bias=False, rngs=nnx.Rngs(0))
    layer.out.bias[...] = jnp.arange(6.0)
    x, context = draw(2, 3, 6), draw(2, 5, 4, seed=1)
    query, key, value = (
        np.asarray(source, np.float64) @ np.asarray(linear.kernel)
        for source, linear in ((x, layer.query), (context, layer.key), (context, layer.value))
    )
    attended, _ = plain(query, key, value, 2)
    expected = attended @ np.asarray(layer.out.kernel) + np.arange(6.0)
    np.testing.assert_allclose(layer(x, context), expected, atol=1e-5)


def test_without_a_context_it_looks_at_itself():
    layer = Attention(6, 2, qkv_bias=True, rngs=nnx.Rngs(0))
    x = draw(2, 3, 6)
    np.testing.assert_array_equal(layer(x), layer(x, x))


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_only_the_output_always_has_a_bias(qkv_bias):
    layer = Attention(6, 2, qkv_bias=qkv_bias, rngs=nnx.Rngs(0))
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


def test_geglu_gates_the_second_half_with_the_exact_gelu():
    layer = FeedForward(4, rngs=nnx.Rngs(0))
    layer.linear1.bias[...] = jnp.linspace(-1, 1, 32)
    layer.linear2.bias[...] = jnp.linspace(-1, 1, 4)
    assert layer.linear1.kernel.shape == (4, 32)
    assert layer.linear2.kernel.shape == (16, 4)
    x = 3 * draw(2, 5, 4)
    y = layer(x)
    np.testing.assert_allclose(y, feed_forward(layer, x, exact), atol=2e-5)
    assert np.abs(y - feed_forward(layer, x, approximate)).max() > 2e-4  # the test can tell


def layer_norm(layer, x):
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return jnp.asarray(x * np.asarray(layer.scale) + np.asarray(layer.bias), jnp.float32)


def test_transformer_block_normalises_before_each_part_and_adds(build):
    block = build(lambda: TransformerBlock(6, 2, 4, rngs=nnx.Rngs(0)))
    x, context = 0.003 * draw(2, 3, 6), draw(2, 5, 4, seed=1)  # so small that eps 1e-5 matters
    y = x + block.self_attention(layer_norm(block.norm1, x))
    y = y + block.cross_attention(layer_norm(block.norm2, y), context)
    y = y + block.feed_forward(layer_norm(block.norm3, y))
    np.testing.assert_allclose(block(x, context), y, atol=1e-5)


def test_layer_norms_have_eps_1e_5():
    block = TransformerBlock(6, 2, 4, rngs=nnx.Rngs(0))
    assert [norm.epsilon for norm in (block.norm1, block.norm2, block.norm3)] == [1e-5] * 3


def test_spatial_transformer_begins_as_the_identity():
    layer = SpatialTransformer(4, 2, 6, groups=2, rngs=nnx.Rngs(0))
    x = draw(1, 2, 3, 4)
    np.testing.assert_array_equal(layer(x, draw(1, 5, 6)), x)


def test_spatial_transformer_treats_all_positions_alike(build):
    """A mirrored picture gives the mirrored result, whether it is wide or high."""
    layer = build(lambda: SpatialTransformer(4, 2, 6, groups=2, rngs=nnx.Rngs(0)))
    x, context = draw(1, 2, 3, 4), draw(1, 5, 6, seed=1)
    y = layer(x, context)
    assert jnp.abs(y - x).max() > 0.01
    np.testing.assert_allclose(layer(x[:, :, ::-1], context), y[:, :, ::-1], atol=1e-5)
    turned = layer(x.swapaxes(1, 2), context)
    np.testing.assert_allclose(turned, y.swapaxes(1, 2), atol=1e-5)


def test_spatial_transformer_listens_to_its_own_words_only(build):
    layer = build(lambda: SpatialTransformer(4, 2, 6, groups=2, rngs=nnx.Rngs(0)))
    x, context = draw(2, 2, 3, 4), draw(2, 5, 6, seed=1)
    y = layer(x, context)
    other = layer(x, context.at[1].add(1.0))
    np.testing.assert_allclose(other[0], y[0], atol=1e-6)
    assert jnp.abs(other[1] - y[1]).max() > 1e-3
    assert layer.norm.eps == 1e-6


@pytest.mark.parametrize(("n", "m"), [(12, 12), (7, 3), (9, 5)])
def test_large_maps_are_attended_to_in_chunks(monkeypatch, n, m):
    """The same numbers, forward and backward, whatever fits into the cache at once."""
    q, k, v = draw(2, n, 6), draw(2, m, 6, seed=1), draw(2, m, 6, seed=2)

    def run():
        gradient = jax.grad(lambda *x: jnp.sum(attention(*x, 2) ** 2), (0, 1, 2))
        return attention(q, k, v, 2), gradient(q, k, v)

    whole = run()
    monkeypatch.setattr("diffusion.layers.attention.FEW_KEYS", 0)
    monkeypatch.setattr("diffusion.layers.attention.AT_ONCE", 4 * m)
    chunked = run()
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), chunked, whole)


def test_largest_divisor():
    assert largest_divisor(4096, 512) == 512
    assert largest_divisor(9216, 227) == 192
    assert largest_divisor(7, 10) == 7
    assert largest_divisor(7, 6) == 1
    assert largest_divisor(5, 0) == 1


def test_many_positions_think_some_at_a_time(monkeypatch):
    layer, x = FeedForward(4, rngs=nnx.Rngs(0)), draw(2, 300, 4)

    def run():
        return layer(x), jax.grad(lambda x: jnp.sum(layer(x) ** 2))(x)

    whole = run()
    monkeypatch.setattr("diffusion.layers.attention.AT_ONCE", 0)
    assert "scan" in str(jax.make_jaxpr(layer)(x))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), run(), whole)


@pytest.mark.parametrize(
    ("capability", "dtype", "m", "width", "mask", "fused"),
    [
        ("9.0", jnp.bfloat16, 1024, 40, False, True),
        ("8.0", jnp.float16, 1024, 128, False, True),
        ("7.5", jnp.float16, 1024, 40, False, False),  # before Ampere
        ("gfx90a", jnp.float16, 1024, 40, False, False),  # not NVIDIA's
        ("9.0", jnp.float32, 1024, 40, False, False),
        ("9.0", jnp.bfloat16, 77, 40, False, False),
        ("9.0", jnp.bfloat16, 1024, 160, False, False),
        ("9.0", jnp.bfloat16, 1024, 20, False, False),
        ("9.0", jnp.bfloat16, 1024, 40, True, False),
    ],
)
def test_fused_kernel_where_there_is_one(monkeypatch, capability, dtype, m, width, mask, fused):
    """The rule and the shapes; here XLA's own attention stands in for the kernel."""
    calls = []
    theirs = jax.nn.dot_product_attention

    def kernel(*inputs, implementation):
        calls.append(implementation)
        return theirs(*inputs, implementation="xla")

    q = draw(1, 6, 2 * width).astype(dtype)
    k, v = (draw(1, m, 2 * width, seed=seed).astype(dtype) for seed in (1, 2))
    mask = jnp.ones((6, m), bool) if mask else None
    expected = attention(q, k, v, 2, mask)
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=capability)])
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    found = attention(q, k, v, 2, mask)
    assert calls == ["cudnn"] * fused
    np.testing.assert_allclose(
        found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.02, atol=0.02
    )
