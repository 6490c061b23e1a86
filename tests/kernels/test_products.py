"""Products in the precision that is asked for, and nothing else changed by that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.kernels.products import product, rounded
from diffusion.layers.linear import Linear

X = jax.random.normal(jax.random.key(0), (2, 5, 24))
KERNEL = jax.random.normal(jax.random.key(1), (24, 16))


def loss(x, kernel):
    return jnp.sin(product(x, kernel)).sum()


def half(x):
    return np.asarray(x.astype(jnp.bfloat16), np.float64)


def test_nothing_is_rounded_unless_that_is_asked_for():
    np.testing.assert_array_equal(product(X, KERNEL), X @ KERNEL)
    assert np.abs(product(X, KERNEL) - rounded(X, KERNEL)).max() > 1e-3


def test_both_factors_are_rounded_and_the_sum_is_not():
    with jax.default_matmul_precision("bfloat16"):
        found = jax.jit(product)(X, KERNEL)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, half(X) @ half(KERNEL), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 5, 24), (2, 3, 4, 24)])
def test_gradients_are_products_of_rounded_factors(shape):
    x = jax.random.normal(jax.random.key(2), shape)
    with jax.default_matmul_precision("bfloat16"):
        of_x, of_kernel = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, KERNEL)
    change = half(jnp.cos(jnp.asarray(half(x) @ half(KERNEL), jnp.float32)))
    np.testing.assert_allclose(of_x, change @ half(KERNEL).T, rtol=0, atol=0.05)
    rows, changes = half(x).reshape(-1, 24), change.reshape(-1, 16)
    np.testing.assert_allclose(of_kernel, rows.T @ changes, rtol=0, atol=0.05)
    exact = jax.grad(loss, argnums=(0, 1))(x, KERNEL)
    for found, expected in zip((of_x, of_kernel), exact, strict=True):
        assert found.dtype == expected.dtype
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert 1e-5 < error < 0.03


def test_a_linear_layer_takes_them():
    layer = Linear(24, 16, rngs=nnx.Rngs(0))
    expected = rounded(X, layer.kernel[...]) + layer.bias[...][None, None]
    with jax.default_matmul_precision("bfloat16"):
        np.testing.assert_array_equal(layer(X), expected)
    assert np.abs(layer(X) - expected).max() > 1e-4
