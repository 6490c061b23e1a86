import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.layers.convolution import Conv2d, Downsample, Upsample

NINE = np.arange(1.0, 10.0, dtype=np.float32).reshape(3, 3)  # each tap has a number of its own


def plain(x, kernel, bias, stride, padding):
    """Cross-correlation, one output at a time, in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    size = kernel.shape[0]
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    y = np.empty((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            y[:, i, j] = np.einsum("bhwc,hwcd->bd", window, kernel) + bias
    return y


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [None, ((0, 1), (2, 0))])
def test_against_plain_loops(size, stride, padding):
    layer = Conv2d(3, 5, size, stride=stride, padding=padding, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(5.0)
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    padding = padding or ((size // 2, size // 2),) * 2
    expected = plain(x, np.asarray(layer.kernel), np.arange(5.0), stride, padding)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_default_keeps_the_size_and_the_variance():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 16))
    y = Conv2d(16, 64, rngs=nnx.Rngs(0))(x)
    assert y.shape == (1, 32, 32, 64)
    assert 0.8 < jnp.std(y[:, 1:-1, 1:-1]) < 1.2  # lecun_normal over all inputs of a kernel


def impulse(row, column, size=4):
    return jnp.zeros((1, size, size, 1)).at[0, row, column, 0].set(1.0)


def numbered(layer):
    layer.conv.kernel[...] = jnp.asarray(NINE)[:, :, None, None]
    return layer


@pytest.mark.parametrize(
    ("position", "expected"),
    [  # with a row and a column of nothing all around, output (i, j) is centred on input (2i, 2j)
        ((0, 0), [[5, 0], [0, 0]]),
        ((1, 1), [[9, 7], [3, 1]]),
        ((3, 3), [[0, 0], [0, 9]]),
        ((2, 1), [[0, 0], [6, 4]]),
    ],
)
def test_downsample_of_the_unet_pads_on_all_sides(position, expected):
    y = numbered(Downsample(1, rngs=nnx.Rngs(0)))(impulse(*position))
    np.testing.assert_array_equal(y[0, :, :, 0], expected)


@pytest.mark.parametrize(
    ("position", "expected"),
    [  # padded at the bottom and the right alone, output (i, j) begins at input (2i, 2j)
        ((0, 0), [[1, 0], [0, 0]]),
        ((1, 1), [[5, 0], [0, 0]]),
        ((2, 2), [[9, 7], [3, 1]]),
        ((3, 3), [[0, 0], [0, 5]]),
    ],
)
def test_downsample_of_the_vae_pads_bottom_and_right(position, expected):
    layer = Downsample(1, padding=((0, 1), (0, 1)), rngs=nnx.Rngs(0))
    y = numbered(layer)(impulse(*position))
    np.testing.assert_array_equal(y[0, :, :, 0], expected)


def test_upsample_repeats_the_nearest_then_convolves():
    layer = Upsample(2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 2, 3, 2))
    repeated = np.repeat(np.repeat(np.asarray(x), 2, axis=1), 2, axis=2)
    padding = ((1, 1), (1, 1))
    expected = plain(repeated, np.asarray(layer.conv.kernel), np.zeros(2), 1, padding)
    y = layer(x)
    assert y.shape == (2, 4, 6, 2)
    np.testing.assert_allclose(y, expected, atol=1e-5)
