import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.kernels import plain as plain_form
from diffusion.kernels.gathered import gathered
from diffusion.kernels.phases import upsampled
from diffusion.kernels.winograd import winograd
from diffusion.layers import convolution
from diffusion.layers.convolution import Conv2d, Downsample, Upsample, convolve, learnt
from diffusion.runtime.parameters import SameKey
from diffusion.stages.unet import UNet
from diffusion.stages.vae import VAE

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


# Gradients


def xla(x, kernel):
    return plain_form.plain(x, kernel)


def xla_upsampled(x, kernel):
    return plain_form.plain(x.repeat(2, axis=1).repeat(2, axis=2), kernel)


def gradients(form):
    """(x, kernel, g) -> the two gradients of sum(form(x, kernel) * g)."""
    return jax.jit(jax.grad(lambda x, kernel, g: jnp.sum(form(x, kernel) * g), argnums=(0, 1)))


def largest_error(found, wanted):
    """Relative to the largest value, of the worst leaf."""
    errors = jax.tree.map(lambda a, b: np.abs(a - b).max() / np.abs(b).max(), found, wanted)
    return max(jax.tree.leaves(errors))


@pytest.mark.parametrize(
    ("form", "reference", "bound"),  # of the largest gradient; XLA's own are off by up to 1e-6
    [
        (gathered, xla, 3e-6),
        (winograd, xla, 1e-5),
        (learnt, xla, 1e-5),
        (upsampled, xla_upsampled, 3e-6),
    ],
)
@pytest.mark.parametrize(
    "shape", [(2, 16, 16, 32, 48), (1, 7, 10, 12, 5), (3, 1, 2, 3, 4), (1, 5, 4, 1, 1)]
)
def test_gradients_of_each_form(form, reference, bound, shape):
    b, h, w, c, d = shape
    rng = np.random.default_rng(0)
    compiled = gradients(form)
    for _ in range(2):  # the second call runs what the first has compiled, on other data
        x = rng.standard_normal((b, h, w, c), np.float32)
        kernel = rng.standard_normal((3, 3, c, d), np.float32)
        g = rng.standard_normal(jax.eval_shape(reference, x, kernel).shape, np.float32)
        with jax.enable_x64():
            exact = gradients(reference)(*(jnp.asarray(z, jnp.float64) for z in (x, kernel, g)))
        assert largest_error(compiled(x, kernel, g), jax.tree.map(np.asarray, exact)) < bound


@pytest.mark.parametrize(
    ("shape", "dtype", "plain_ones"),  # how many convolutions of XLA are in it, and in its gradient
    [
        ((2, 16, 16, 32, 48), "float32", (1, 0)),
        ((2, 16, 16, 64, 64), "float32", (0, 0)),
        ((2, 16, 16, 31, 64), "float32", (1, 3)),
        ((1, 16, 16, 64, 64), "float32", (1, 3)),
        ((2, 16, 16, 64, 64), "bfloat16", (1, 3)),
    ],
)
def test_rule_where_gradients_are_asked_for(shape, dtype, plain_ones):
    b, h, w, c, d = shape
    x, kernel = jnp.ones((b, h, w, c), dtype), jnp.ones((3, 3, c, d), dtype)
    forward = str(jax.make_jaxpr(convolve)(x, kernel))
    both = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), argnums=(0, 1))
    backward = str(jax.make_jaxpr(both)(x, kernel))
    assert (forward.count("conv_general"), backward.count("conv_general")) == plain_ones


@pytest.mark.parametrize("network", ["unet", "vae"])
def test_gradients_of_a_network(network, tiny, build, monkeypatch):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    if network == "unet":
        small = dataclasses.replace(
            tiny.denoiser,
            block_out_channels=(8, 12),
            layers_per_block=1,
            attention=(True, False),
            heads=(2, 3),
        )
        module = build(lambda: UNet(small, rngs=SameKey(0)))
        inputs = draw(2, 8, 8, 4), jnp.asarray([37, 800]), draw(2, 5, 8)
        loss = lambda unet, *inputs: jnp.square(unet(*inputs)).mean()  # noqa: E731
    else:
        module = build(lambda: VAE(tiny.autoencoder, rngs=SameKey(0)))
        inputs = (draw(2, 16, 16, 3),)
        loss = lambda vae, images: jnp.square(vae.decode(vae.encode(images).mean)).mean()  # noqa: E731
    structure, params = nnx.split(module)

    def gradient():
        step = jax.grad(lambda params: loss(nnx.merge(structure, params), *inputs))
        quickly = {"xla_backend_optimization_level": 0}  # most of the time is compilation
        return jax.jit(step, compiler_options=quickly)(params)

    monkeypatch.setattr(convolution, "suits_a_cpu", lambda x: False)
    expected = gradient()
    monkeypatch.setattr(convolution, "suits_a_cpu", lambda x: True)
    monkeypatch.setattr(convolution, "NARROW", 1)  # all 3x3 convolutions learn in Winograd's form
    monkeypatch.setattr(convolution, "FEW", 0)
    found = gradient()
    whole = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    errors = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, expected)
    assert 0 < max(jax.tree.leaves(errors)) < 1e-5 * whole
