"""Each form of a convolution against the plain one, and the rule that chooses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.kernels import winograd as winograd_form
from diffusion.kernels.gathered import gathered
from diffusion.kernels.phases import upsampled
from diffusion.kernels.plain import plain
from diffusion.kernels.winograd import winograd
from diffusion.layers import convolution
from diffusion.layers.convolution import convolve

SHAPES = [  # batch, height, width, channels in and out
    (1, 8, 8, 64, 32),
    (2, 16, 16, 32, 64),
    (1, 7, 10, 12, 5),
    (3, 1, 2, 3, 4),
    (1, 4, 5, 320, 8),
]
# Of the largest output, in float32: what each form may add to the rounding.
phases_gathered = partial(upsampled, form=gathered)
BOUNDS = {gathered: 2e-6, winograd: 1e-5, upsampled: 2e-6, phases_gathered: 2e-6}


def drawn(b, h, w, c, d):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((b, h, w, c), np.float32)
    return jnp.asarray(x), jnp.asarray(rng.standard_normal((3, 3, c, d), np.float32))


def exact(x, kernel):
    with jax.enable_x64():
        return np.asarray(plain(jnp.asarray(x, jnp.float64), jnp.asarray(kernel, jnp.float64)))


def repeated(x, kernel):
    return exact(np.asarray(x).repeat(2, axis=1).repeat(2, axis=2), kernel)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("form", "expected"),
    [(gathered, exact), (winograd, exact), (upsampled, repeated), (phases_gathered, repeated)],
)
def test_form_is_the_convolution(form, expected, shape):
    x, kernel = drawn(*shape)
    wanted = expected(x, kernel)
    error = np.abs(np.asarray(jax.jit(form)(x, kernel)) - wanted).max() / np.abs(wanted).max()
    assert error < BOUNDS[form]


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((1, 2), (0, 1))])
@pytest.mark.parametrize("shape", SHAPES)
def test_gathered_with_a_stride(shape, padding):
    x, kernel = drawn(*shape)
    wanted = np.asarray(plain(x, kernel, 2, padding))
    found = np.asarray(gathered(x, kernel, 2, padding))
    np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("shape", "form"),
    [((16, 8, 8, 96), "gathered"), ((1, 32, 32, 640), "plain"), ((1, 8, 8, 64), "plain")],
)
def test_rule_of_the_upsampling(shape, form, monkeypatch):
    chosen = []
    monkeypatch.setattr(convolution, "upsampled", lambda x, kernel, form: chosen.append(form) or x)
    convolution.Upsample(shape[-1], rngs=nnx.Rngs(0))(jnp.zeros(shape))
    assert chosen == [getattr(convolution, form)]


@pytest.mark.parametrize(("channels", "form"), [(512, "gathered"), (256, "plain")])
def test_rule_of_the_stride(channels, form, monkeypatch):
    down = convolution.Downsample(channels, rngs=nnx.Rngs(0))
    for name in {"gathered", "plain"} - {form}:
        monkeypatch.setattr(convolution, name, lambda *_: pytest.fail("the other form"))
    assert down(jnp.zeros((1, 4, 4, channels))).shape == (1, 2, 2, channels)


@pytest.mark.parametrize("shape", SHAPES)
def test_winograd_in_strips_and_parts(shape, monkeypatch):
    b, h, w, c, d = shape
    x, kernel = drawn(b, 3 * h, w, c, 4 * d)
    whole = winograd(x, kernel)
    monkeypatch.setattr(winograd_form, "STRIP", 1)
    monkeypatch.setattr(winograd_form, "PART", d)
    np.testing.assert_allclose(winograd(x, kernel), whole, atol=1e-5 * float(jnp.abs(whole).max()))


@pytest.mark.parametrize("high", [1, 2, 5, 7, 16, 31])
@pytest.mark.parametrize("budget", [1, 500, 2000, 10**9])
def test_no_strip_of_winograd_is_padding_alone(high, budget, monkeypatch):
    asked = []
    one_by_one = winograd_form.one_by_one
    monkeypatch.setattr(winograd_form, "STRIP", budget)
    monkeypatch.setattr(
        winograd_form,
        "one_by_one",
        lambda run, count, **rest: asked.append(count) or one_by_one(run, count, **rest),
    )
    x, kernel = drawn(1, high * winograd_form.TILE, 8, 2, 1)
    found = winograd(x, kernel)
    strips = asked[0]
    rows = -(-high // strips)
    assert (strips - 1) * rows < high <= strips * rows
    wanted = exact(x, kernel)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))


def test_winograd_keeps_its_digits_over_many_channels():
    x, kernel = drawn(1, 32, 32, 640, 64)
    wanted = exact(x, kernel)
    assert np.abs(np.asarray(winograd(x, kernel)) - wanted).max() < 6e-6 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((1, 8, 8, 128, 256), "gathered"),
        ((1, 16, 16, 256, 128), "gathered"),
        ((2, 16, 16, 128, 128), "winograd"),
        ((1, 32, 32, 128, 128), "winograd"),
        ((1, 64, 64, 4, 320), "plain"),
        ((1, 64, 64, 320, 4), "plain"),
        ((32, 16, 16, 32, 32), "plain"),
    ],
)
def test_rule_by_shape(shape, form, monkeypatch):
    chosen = []

    def spy(name):
        def form(x, kernel):
            chosen.append(name)
            return jnp.zeros((*x.shape[:3], kernel.shape[-1]))

        return form

    for name in ("gathered", "plain", "winograd"):
        monkeypatch.setattr(convolution, name, spy(name))
    b, h, w, c, d = shape
    convolve(jnp.zeros((b, h, w, c)), jnp.zeros((3, 3, c, d)))
    assert chosen == [form]


@pytest.mark.parametrize("change", ["platform", "dtype"])
def test_elsewhere_and_in_other_precisions_the_plain_form(change, monkeypatch):
    x, kernel = drawn(1, 32, 32, 128, 128)
    if change == "platform":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    else:
        x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    np.testing.assert_array_equal(convolve(x, kernel), plain(x, kernel))
    layer = convolution.Upsample(128, rngs=nnx.Rngs(0))
    jaxpr = str(jax.make_jaxpr(layer)(jnp.zeros((1, 64, 64, 128))))
    assert jaxpr.count("conv_general_dilated") == (1 if change == "platform" else 4)


def test_one_by_one_is_a_product():
    x, kernel = drawn(2, 5, 6, 7, 8)
    expected = plain(x, kernel[:1, :1], padding=((0, 0), (0, 0)))
    np.testing.assert_allclose(convolve(x, kernel[:1, :1]), expected, rtol=1e-5, atol=1e-5)


def scratch_of_eight(b, h, w, channels):
    """Bytes that a row of eight convolutions needs, and the size of its input."""
    x, kernel = drawn(b, h, w, channels, channels)

    def row(x, kernels):
        for kernel in kernels:
            x = winograd(x, kernel)
        return x

    program = jax.jit(row).lower(x, jnp.stack([kernel] * 8)).compile()
    return program.memory_analysis().temp_size_in_bytes, x.nbytes


def test_kernels_are_transformed_one_after_the_other():
    """XLA would do all of it at the beginning; it must not find out that it could."""
    scratch, _ = scratch_of_eight(1, 24, 24, 128)
    assert scratch < 8 * (36 * 128 * 128 * 4) / 2  # 7.8 MB, and 20.2 without waiting


def test_maps_are_made_when_their_parts_come(monkeypatch):
    monkeypatch.setattr(winograd_form, "STRIP", 1)
    scratch, size = scratch_of_eight(1, 256, 64, 8)
    assert scratch < 8 * size  # 3.2 MB, and 9.5 without waiting
