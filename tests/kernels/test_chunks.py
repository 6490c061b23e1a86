from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.kernels import chunks
from diffusion.kernels.chunks import in_parts, largest_divisor
from diffusion.kernels.gradients import recomputed


def test_largest_divisor():
    assert largest_divisor(4096, 512) == 512
    assert largest_divisor(9216, 227) == 192
    assert largest_divisor(7, 10) == 7
    assert largest_divisor(7, 6) == 1
    assert largest_divisor(5, 0) == 1


def test_many_positions_some_at_a_time(monkeypatch):
    """Each alone, so it is the same, forward and backward."""
    x, other = np.random.default_rng(0).standard_normal((2, 2, 300, 4), np.float32)
    matrix = jnp.asarray(other[0, :4])

    def compiled():
        layer = lambda x: in_parts(lambda some: jnp.tanh(some @ matrix), x, width=8)  # noqa: E731
        return jax.jit(lambda x: (layer(x), jax.grad(lambda x: jnp.sum(layer(x) ** 2))(x)))

    whole = compiled()(x)
    monkeypatch.setattr(chunks, "AT_ONCE", 0)
    assert "scan" in str(jax.make_jaxpr(compiled())(x))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), compiled()(x), whole)


def test_what_is_computed_again_is_not_kept():
    """Of a chain of three maps the gradient keeps the first alone."""

    def chain(x):
        return recomputed(lambda: jnp.sin(jnp.cos(jnp.exp(x))))

    x = jnp.linspace(0.0, 1.0, 7)
    _, pullback = jax.vjp(chain, x)
    assert [leaf.shape for leaf in jax.tree.leaves(pullback)] == [x.shape]
    expected = jax.grad(lambda x: jnp.sin(jnp.cos(jnp.exp(x))).sum())(x)
    np.testing.assert_allclose(pullback(jnp.ones(7))[0], expected, rtol=1e-5)
