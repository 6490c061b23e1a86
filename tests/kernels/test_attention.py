"""Attention in less memory gives the numbers of the equation, and each form comes in its place."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.kernels import attention as kernels
from diffusion.kernels.attention import attend, attend_partly, finish, merge
from diffusion.layers.attention import attention


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def with_gradients(attend, mask=None):
    """Compiled: what it gives, and the gradients of the sum of its squares."""

    def run(q, k, v):
        loss = lambda *x: jnp.sum(attend(*x, 2, mask) ** 2)  # noqa: E731
        return attend(q, k, v, 2, mask), jax.grad(loss, (0, 1, 2))(q, k, v)

    return jax.jit(run)


@pytest.mark.parametrize(("n", "m", "chunks"), [(4, 4, False), (9, 5, True), (7, 3, True)])
def test_attend_is_the_equation(monkeypatch, n, m, chunks):
    """Forward and backward, side by side with a mask, or in chunks of 3 and of 1 queries."""
    inputs = draw(2, n, 6), draw(2, m, 6, seed=1), draw(2, m, 6, seed=2)
    mask = None if chunks else jnp.tril(jnp.ones((n, m), bool))
    if chunks:
        monkeypatch.setattr(kernels, "FEW_KEYS", 0)
        monkeypatch.setattr(kernels, "AT_ONCE", 4 * m)
    found, expected = (with_gradients(form, mask)(*inputs) for form in (attend, attention))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), found, expected)


def test_softmax_is_float32_whatever_the_network_runs_in():
    """The logits 100.0 and 100.25 are one number in bfloat16, but not in float32."""
    query = jnp.ones((1, 1, 1), jnp.bfloat16)
    key = jnp.asarray([10.0, 10.0625], jnp.bfloat16).reshape(1, 2, 1)
    value = jnp.asarray([0.0, 1.0], jnp.bfloat16).reshape(1, 2, 1)
    weight = 1 / (1 + np.exp(-0.625))
    for form in (attend, attention):
        out = form(10 * query, key, value, 1)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_allclose(out.astype(jnp.float32).item(), weight, atol=4e-3)


def test_merged_parts_are_the_whole():
    """Also where one part has a hundred times the logits, and another is masked but for one key."""
    query, key, value = draw(1, 3, 4), draw(1, 6, 4, seed=1), draw(1, 6, 4, seed=2)
    key = key.at[:, 2:4].multiply(100.0)
    mask = jnp.asarray([[True, True, True, True, False, True]])
    parts = [
        attend_partly(query, key[:, part], value[:, part], mask[:, part])
        for part in (slice(0, 2), slice(2, 4), slice(4, 6))
    ]
    whole = finish(attend_partly(query, key, value, mask))
    for order in ((0, 1, 2), (2, 0, 1)):
        first, second, third = (parts[i] for i in order)
        found = finish(merge(merge(first, second), third))
        np.testing.assert_allclose(found, whole, atol=1e-5)


def standing_in(monkeypatch, capability):
    """A device of this kind; XLA's own attention stands in for cuDNN's, and is counted."""
    calls = []
    theirs = jax.nn.dot_product_attention

    def kernel(*inputs, implementation):
        calls.append(implementation)
        return theirs(*inputs, implementation="xla")

    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=capability)])
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    return calls


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
def test_rule_of_the_fused_kernel(monkeypatch, capability, dtype, m, width, mask, fused):
    calls = standing_in(monkeypatch, capability)
    q, k = (jax.ShapeDtypeStruct((1, n, 2 * width), dtype) for n in (6, m))
    mask = jnp.ones((6, m), bool) if mask else None
    out = jax.eval_shape(lambda q, k, v: attend(q, k, v, 2, mask), q, k, k)
    assert (out.shape, out.dtype) == (q.shape, q.dtype)
    assert calls == ["cudnn"] * fused


def test_fused_kernel_gets_its_heads_in_place(monkeypatch):
    q = draw(1, 6, 16).astype(jnp.bfloat16)
    k, v = (draw(1, 8, 16, seed=seed).astype(jnp.bfloat16) for seed in (1, 2))
    expected = attention(q, k, v, 2)
    monkeypatch.setattr(kernels, "FEW_KEYS", 0)
    assert standing_in(monkeypatch, "9.0") == []
    found = attend(q, k, v, 2)
    np.testing.assert_allclose(
        found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.02, atol=0.02
    )
