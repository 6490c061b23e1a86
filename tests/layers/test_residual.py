import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.layers.residual import ResidualBlock


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def block(in_channels=4, out_channels=4, time_width=5):
    return ResidualBlock(
        in_channels, out_channels, groups=2, eps=1e-5, time_width=time_width, rngs=nnx.Rngs(0)
    )


def silu(x):
    return x / (1 + jnp.exp(-x))


def test_begins_as_the_identity():
    x = draw(1, 3, 3, 4)
    np.testing.assert_array_equal(block()(x, draw(1, 5)), x)


def test_begins_as_the_shortcut_where_the_channels_change():
    layer = block(out_channels=6)
    x = draw(1, 3, 3, 4)
    assert layer.shortcut.kernel.shape == (1, 1, 4, 6)
    expected = np.einsum("bhwc,cd->bhwd", x, layer.shortcut.kernel[0, 0])
    np.testing.assert_allclose(layer(x, draw(1, 5)), expected, atol=1e-5)


@pytest.mark.parametrize("out_channels", [4, 6])
def test_the_order_of_its_parts(build, out_channels):
    layer = build(lambda: block(out_channels=out_channels))
    x, time = draw(2, 3, 3, 4), draw(2, 5, seed=1)
    h = layer.conv1(silu(layer.norm1(x)))
    h = h + (silu(time) @ layer.time.kernel[...] + layer.time.bias[...][None])[:, None, None]
    h = layer.conv2(silu(layer.norm2(h)))
    expected = h + (x if layer.shortcut is None else layer.shortcut(x))
    assert (layer.shortcut is None) == (out_channels == 4)
    np.testing.assert_allclose(layer(x, time), expected, atol=1e-5)


def test_knows_no_time_unless_told(build):
    layer = build(lambda: block(time_width=None))
    assert layer.time is None
    x = draw(1, 3, 3, 4)
    assert jnp.abs(layer(x) - x).max() > 0.01


def test_time_is_that_of_each_picture(build):
    layer = build(block)
    x, time = draw(2, 3, 3, 4), draw(2, 5, seed=1)
    y, other = layer(x, time), layer(x, time.at[1].add(1.0))
    np.testing.assert_allclose(other[0], y[0], atol=1e-6)
    assert jnp.abs(other[1] - y[1]).max() > 1e-3
