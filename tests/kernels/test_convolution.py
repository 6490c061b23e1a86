"""Each form of a convolution against the plain one, its gradients, and the rules that choose."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.kernels import convolution
from diffusion.kernels import winograd as winograd_form
from diffusion.kernels.convolution import convolve, convolve_strided, convolve_upsampled, learnt
from diffusion.kernels.gathered import gathered
from diffusion.kernels.phases import upsampled
from diffusion.kernels.plain import AROUND, plain
from diffusion.kernels.winograd import winograd
from diffusion.layers.convolution import Downsample, Upsample
from diffusion.layers.residual import ResidualBlock
from diffusion.runtime.parameters import SameKey

SHAPES = [  # batch, height, width, channels in and out
    (2, 16, 16, 32, 64),
    (1, 7, 10, 12, 5),
    (3, 1, 2, 3, 4),
    (1, 4, 5, 320, 8),
]
# Of the largest output, in float32: what each form may add to the rounding.
phases_gathered = partial(upsampled, form=gathered)
BOUNDS = {gathered: 2e-6, winograd: 1e-5, upsampled: 2e-6, phases_gathered: 2e-6}


@cache
def drawn(b, h, w, c, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((b, h, w, c), np.float32)
    return jnp.asarray(x), jnp.asarray(rng.standard_normal((3, 3, c, d), np.float32))


def repeated(x, kernel):
    """The plain convolution of the upsampled map."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return plain(x.reshape(b, 2 * h, 2 * w, c), kernel)


def exact(form, *inputs):
    """In float64, compiled."""
    with jax.enable_x64():
        found = jax.jit(form)(*(jnp.asarray(x, jnp.float64) for x in inputs))
    return jax.tree.map(np.asarray, found)


def error(found, wanted):
    """Relative to the largest value, of the worst array."""
    errors = jax.tree.map(lambda a, b: np.abs(a - b).max() / np.abs(b).max(), found, wanted)
    return max(jax.tree.leaves(errors))


def abstract(*shapes, dtype="float32"):
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def afresh(function):
    """JAX remembers what it has traced; what is patched since then would go unseen."""
    return lambda *inputs: function(*inputs)


@pytest.mark.parametrize("shape", SHAPES)
def test_form_is_the_convolution(shape):
    inputs = drawn(*shape)
    once, twice = exact(lambda *x: (plain(*x), repeated(*x)), *inputs)
    found = jax.jit(lambda *x: [form(*x) for form in BOUNDS])(*inputs)
    for (form, bound), y in zip(BOUNDS.items(), found, strict=True):
        assert error(y, once if form in (gathered, winograd) else twice) < bound, form


@pytest.mark.parametrize("padding", [AROUND, ((1, 2), (0, 1))])
@pytest.mark.parametrize("shape", SHAPES[1:3])
def test_gathered_with_a_stride(shape, padding):
    both = lambda x, kernel: [form(x, kernel, 2, padding) for form in (gathered, plain)]  # noqa: E731
    assert error(*jax.jit(both)(*drawn(*shape))) < 3e-6


# Winograd's form: in strips of rows, and in parts of the output channels


@pytest.mark.parametrize("shape", [(2, 18, 6, 4, 12), (1, 7, 10, 12, 20)])
def test_winograd_in_strips_and_parts(shape, monkeypatch):
    whole = jax.jit(winograd)(*drawn(*shape))
    monkeypatch.setattr(winograd_form, "STRIP", 1)
    monkeypatch.setattr(winograd_form, "PART", 4)
    assert error(jax.jit(afresh(winograd))(*drawn(*shape)), whole) < 1e-5


def test_no_strip_of_winograd_is_padding_alone(monkeypatch):
    asked = []
    one_by_one = winograd_form.one_by_one

    def counted(run, count, **rest):
        asked.append(count)
        return one_by_one(run, count, **rest)

    monkeypatch.setattr(winograd_form, "one_by_one", counted)
    for high in (1, 2, 5, 7, 16, 31):
        inputs = drawn(1, high * winograd_form.TILE, 8, 2, 1)
        for budget in (1, 500, 2000, 10**9):
            monkeypatch.setattr(winograd_form, "STRIP", budget)
            asked.clear()
            jax.eval_shape(afresh(winograd), *inputs)
            strips = asked[0]
            rows = -(-high // strips)
            assert (strips - 1) * rows < high <= strips * rows
            if (high, budget) in ((7, 500), (16, 2000)):
                assert strips > 1
                assert error(jax.jit(afresh(winograd))(*inputs), exact(plain, *inputs)) < 1e-5


def test_winograd_keeps_its_digits_over_many_channels():
    inputs = drawn(1, 16, 16, 640, 16)
    assert error(jax.jit(winograd)(*inputs), exact(plain, *inputs)) < 6e-6


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


# Rules


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
    jax.eval_shape(afresh(convolve), *abstract((b, h, w, c), (3, 3, c, d)))
    assert chosen == [form]


@pytest.mark.parametrize(
    ("shape", "form"),
    [((16, 8, 8, 96), "gathered"), ((1, 32, 32, 640), "plain"), ((1, 8, 8, 64), "plain")],
)
def test_rule_of_the_upsampling(shape, form, monkeypatch):
    chosen = []

    def spy(x, kernel, form):
        chosen.append(form)
        return upsampled(x, kernel, form)

    monkeypatch.setattr(convolution, "upsampled", spy)
    jax.eval_shape(afresh(convolve_upsampled), *abstract(shape, (3, 3, shape[-1], shape[-1])))
    assert chosen == [getattr(convolution, form)]


@pytest.mark.parametrize(("channels", "form"), [(512, "gathered"), (256, "plain")])
def test_rule_of_the_stride(channels, form, monkeypatch):
    for name in {"gathered", "plain"} - {form}:
        monkeypatch.setattr(convolution, name, lambda *_: pytest.fail("the other form"))
    strided = lambda x, kernel: convolve_strided(x, kernel, 2, AROUND)  # noqa: E731
    y = jax.eval_shape(strided, *abstract((1, 4, 4, channels), (3, 3, channels, channels)))
    assert y.shape == (1, 2, 2, channels)


@pytest.mark.parametrize("change", ["platform", "dtype"])
def test_elsewhere_and_in_other_precisions_the_plain_forms(change, monkeypatch):
    dtype = "bfloat16" if change == "dtype" else "float32"
    if change == "platform":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    inputs = abstract((1, 32, 32, 128), (3, 3, 128, 128), dtype=dtype)
    found, expected = (str(jax.make_jaxpr(afresh(form))(*inputs)) for form in (convolve, plain))
    assert found == expected
    once = str(jax.make_jaxpr(afresh(convolve_upsampled))(*inputs))
    assert once.count("conv_general_dilated") == 1


def test_one_by_one_is_a_product():
    x, kernel = drawn(2, 5, 6, 7, 8)
    nowhere = ((0, 0), (0, 0))
    assert error(convolve(x, kernel[:1, :1]), plain(x, kernel[:1, :1], padding=nowhere)) < 1e-5


# Gradients


def gradients(form):
    """(x, kernel, g) -> the two gradients of sum(form(x, kernel) * g)."""
    return jax.jit(jax.grad(lambda x, kernel, g: jnp.sum(form(x, kernel) * g), argnums=(0, 1)))


@pytest.mark.parametrize(
    ("reference", "bounds"),  # of the largest gradient; XLA's own are off by up to 1e-6
    [(plain, {gathered: 3e-6, winograd: 1e-5, learnt: 1e-5}), (repeated, {upsampled: 3e-6})],
)
@pytest.mark.parametrize(
    "shape", [(2, 16, 16, 32, 48), (1, 7, 10, 12, 5), (3, 1, 2, 3, 4), (1, 5, 4, 1, 1)]
)
def test_gradients_of_each_form(reference, bounds, shape):
    forms = list(bounds) if shape == (1, 7, 10, 12, 5) else [f for f in bounds if f is not learnt]
    compiled = jax.jit(lambda *inputs: [gradients(form)(*inputs) for form in forms])
    for seed in range(2):  # the second call runs what the first has compiled, on other data
        x, kernel = drawn(*shape, seed=seed)
        like = jax.eval_shape(reference, x, kernel).shape
        g = np.random.default_rng(seed + 9).standard_normal(like, np.float32)
        wanted = exact(gradients(reference), x, kernel, g)
        for form, found in zip(forms, compiled(x, kernel, g), strict=True):
            assert error(found, wanted) < bounds[form], form


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
    inputs = abstract((b, h, w, c), (3, 3, c, d), dtype=dtype)
    forward = str(jax.make_jaxpr(convolve)(*inputs))
    both = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), argnums=(0, 1))
    backward = str(jax.make_jaxpr(both)(*inputs))
    assert (forward.count("conv_general"), backward.count("conv_general")) == plain_ones


class Little(nnx.Module):
    """Each layer that convolves, once."""

    def __init__(self):
        self.residual = ResidualBlock(4, 6, groups=2, eps=1e-5, rngs=SameKey(0))
        self.down, self.up = Downsample(6, rngs=SameKey(0)), Upsample(6, rngs=SameKey(0))

    def __call__(self, x):
        return self.up(self.down(self.residual(x)))


def test_gradients_of_a_network(build, monkeypatch):
    module, x = build(Little), drawn(2, 8, 8, 4, 1)[0]

    def gradient():
        loss = lambda module, x: jnp.square(module(x)).mean()  # noqa: E731
        return jax.jit(jax.grad(loss))(module, x)

    monkeypatch.setattr(convolution, "suits_a_cpu", lambda x: False)
    expected = gradient()
    monkeypatch.setattr(convolution, "suits_a_cpu", lambda x: True)
    monkeypatch.setattr(convolution, "NARROW", 1)  # all 3x3 convolutions learn in Winograd's form
    monkeypatch.setattr(convolution, "FEW", 0)
    found = gradient()
    whole = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    errors = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, expected)
    assert 0 < max(jax.tree.leaves(errors)) < 1e-5 * whole
