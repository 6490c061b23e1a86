import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from diffusion.layers.convolution import Conv2d, Downsample, Upsample
from diffusion.runtime.parameters import SameKey

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


call = jax.jit(lambda layer, x: layer(x))


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [None, ((0, 1), (2, 0))])
def test_against_plain_loops(build, size, stride, padding):
    layer = build(lambda: Conv2d(3, 5, size, stride=stride, padding=padding, rngs=SameKey(0)))
    x = draw(2, 6, 7, 3)
    padding = padding or ((size // 2, size // 2),) * 2
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    np.testing.assert_allclose(call(layer, x), plain(x, kernel, bias, stride, padding), atol=1e-5)


def test_default_keeps_the_size_and_the_variance():
    x = draw(1, 16, 16, 16)
    y = jax.jit(lambda x: Conv2d(16, 32, rngs=nnx.Rngs(0))(x))(x)
    assert y.shape == (1, 16, 16, 32)
    assert 0.8 < jnp.std(y[:, 1:-1, 1:-1]) < 1.2  # lecun_normal over all inputs of a kernel


def impulse(row, column, size=4):
    return jnp.zeros((1, size, size, 1)).at[0, row, column, 0].set(1.0)


@pytest.fixture
def numbered(build):
    """A layer of one channel, each weight of its kernel a number of its own, without bias."""

    def numbered(create):
        layer = build(create)
        layer.conv.kernel[...] = jnp.asarray(NINE)[:, :, None, None]
        layer.conv.bias[...] = jnp.zeros(1)
        return layer

    return numbered


@pytest.mark.parametrize(
    ("position", "expected"),
    [  # with a row and a column of nothing all around, output (i, j) is centred on input (2i, 2j)
        ((0, 0), [[5, 0], [0, 0]]),
        ((1, 1), [[9, 7], [3, 1]]),
        ((3, 3), [[0, 0], [0, 9]]),
        ((2, 1), [[0, 0], [6, 4]]),
    ],
)
def test_downsample_of_the_unet_pads_on_all_sides(numbered, position, expected):
    y = call(numbered(lambda: Downsample(1, rngs=SameKey(0))), impulse(*position))
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
def test_downsample_of_the_vae_pads_bottom_and_right(numbered, position, expected):
    create = lambda: Downsample(1, padding=((0, 1), (0, 1)), rngs=SameKey(0))  # noqa: E731
    y = call(numbered(create), impulse(*position))
    np.testing.assert_array_equal(y[0, :, :, 0], expected)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (8, 2)])
def test_same_padding_of_even_sides_is_that_of_the_vae(numbered, height, width):
    x = draw(1, height, width, 1)
    same = lax.conv_general_dilated(
        x, NINE[:, :, None, None], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    vae = numbered(lambda: Downsample(1, padding=((0, 1), (0, 1)), rngs=SameKey(0)))
    unet = numbered(lambda: Downsample(1, rngs=SameKey(0)))
    np.testing.assert_allclose(call(vae, x), same, atol=1e-5)
    assert jnp.abs(call(unet, x) - same).max() > 1


def test_upsample_repeats_the_nearest_then_convolves(build):
    layer = build(lambda: Upsample(2, rngs=SameKey(0)))
    x = draw(2, 2, 3, 2)
    repeated = np.repeat(np.repeat(np.asarray(x), 2, axis=1), 2, axis=2)
    kernel, bias = np.asarray(layer.conv.kernel), np.asarray(layer.conv.bias)
    y = call(layer, x)
    assert y.shape == (2, 4, 6, 2)
    np.testing.assert_allclose(y, plain(repeated, kernel, bias, 1, ((1, 1), (1, 1))), atol=1e-5)
