import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.layers.residual import ResidualBlock
from diffusion.runtime.parameters import SameKey

call = jax.jit(lambda layer, *inputs: layer(*inputs))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def block(in_channels=4, out_channels=4, time_width=5):
    return ResidualBlock(
        in_channels, out_channels, groups=2, eps=1e-5, time_width=time_width, rngs=SameKey(0)
    )


def silu(x):
    return x / (1 + jnp.exp(-x))


@pytest.mark.parametrize("out_channels", [4, 6])
def test_begins_as_the_identity_or_as_the_shortcut(out_channels):
    def begin(x, time):
        new = block(out_channels=out_channels)
        return new(x, time), x if new.shortcut is None else x @ new.shortcut.kernel[0, 0]

    y, expected = jax.jit(begin)(draw(1, 3, 3, 4), draw(1, 5))
    assert y.shape[-1] == out_channels
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.parametrize("out_channels", [4, 6])
def test_the_order_of_its_parts(build, out_channels):
    layer = build(lambda: block(out_channels=out_channels))
    x, time = draw(2, 3, 3, 4), draw(2, 5, seed=1)

    def composed(layer, x, time):
        h = layer.conv1(silu(layer.norm1(x)))
        h = h + (silu(time) @ layer.time.kernel[...] + layer.time.bias[...][None])[:, None, None]
        h = layer.conv2(silu(layer.norm2(h)))
        return h + (x if layer.shortcut is None else layer.shortcut(x))

    assert (layer.shortcut is None) == (out_channels == 4)
    expected = jax.jit(composed)(layer, x, time)
    np.testing.assert_allclose(call(layer, x, time), expected, atol=1e-5)


def test_knows_no_time_unless_told(build):
    layer = build(lambda: block(time_width=None))
    assert layer.time is None
    x = draw(1, 3, 3, 4)
    assert jnp.abs(call(layer, x) - x).max() > 0.01


def test_time_is_that_of_each_picture(build):
    layer = build(block)
    x, time = draw(2, 3, 3, 4), draw(2, 5, seed=1)
    y, other = call(layer, x, time), call(layer, x, time.at[1].add(1.0))
    np.testing.assert_allclose(other[0], y[0], atol=1e-6)
    assert jnp.abs(other[1] - y[1]).max() > 1e-3


def test_its_gradient_keeps_no_more_than_it_must(build):
    """The input, what each convolution was fed, and what the first one made; nothing between.

    All that a norm and an activation make would be eight maps more.
    """
    layer = build(lambda: block(8, 8, time_width=None))
    x = draw(1, 4, 4, 8)
    _, pullback = jax.eval_shape(lambda x: jax.vjp(lambda layer, x: layer(x), layer, x), x)
    maps = [leaf for leaf in jax.tree.leaves(pullback) if leaf.shape == x.shape]
    assert len(maps) == 4
