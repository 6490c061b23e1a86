import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.layers.normalisation import GroupNorm


def reference(x, groups, eps, scale, bias):
    """Wu & He 2018, equation 1 and 2, in float64 and one group at a time."""
    x = np.asarray(x, np.float64)
    y = np.empty_like(x)
    size = x.shape[-1] // groups
    for picture in range(len(x)):
        for group in range(groups):
            part = np.s_[picture, :, :, group * size : (group + 1) * size]
            mean = x[part].sum() / x[part].size
            variance = ((x[part] - mean) ** 2).sum() / x[part].size
            y[part] = (x[part] - mean) / np.sqrt(variance + eps)
    return y * scale + bias


def norm(channels, groups, eps=1e-5):
    layer = GroupNorm(channels, groups, eps=eps)
    layer.scale[...] = jnp.linspace(0.5, 2.0, channels)
    layer.bias[...] = jnp.linspace(-1.0, 1.0, channels)
    return layer


call = jax.jit(lambda layer, x: layer(x))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_against_float64(groups):
    """Also where the mean is much larger than the deviation.

    There E[x^2] - E[x]^2 in float32 would be off by about 0.1.
    """
    layer = norm(8, groups)
    for mean, deviation, bound in (
        (0.0, 1.0, 3e-6),
        (5.0, 0.01, 5e-4),
        (1000.0, 1.0, 1e-3),
        (-1e4, 10.0, 1e-3),
        (0.0, 1e5, 1e-5),
    ):
        draw = np.random.default_rng(0)
        x = (mean + deviation * draw.standard_normal((2, 5, 7, 8))).astype(np.float32)
        expected = reference(x, groups, 1e-5, np.asarray(layer.scale), np.asarray(layer.bias))
        np.testing.assert_allclose(call(layer, x), expected, rtol=0, atol=bound)


def test_channels_of_a_group_may_have_means_of_their_own():
    draw = np.random.default_rng(1)
    means = np.array([-40.0, 0.0, 3.0, 900.0])
    x = (means + draw.standard_normal((2, 4, 4, 4))).astype(np.float32)
    layer = norm(4, 2)
    expected = reference(x, 2, 1e-5, np.asarray(layer.scale), np.asarray(layer.bias))
    np.testing.assert_allclose(call(layer, x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 1.0])
def test_eps_is_added_to_the_variance(eps):
    """Plus and minus d has variance d^2; with eps = d^2 the result is d / sqrt(2 d^2)."""
    d = eps**0.5
    x = d * jnp.asarray([1.0, -1.0]).reshape(1, 1, 2, 1)
    y = call(GroupNorm(1, 1, eps=eps), x)
    np.testing.assert_allclose(y.ravel(), [0.5**0.5, -(0.5**0.5)], rtol=1e-5)


def test_a_flat_picture_becomes_the_bias():
    layer = norm(4, 2)
    y = call(layer, jnp.full((1, 3, 3, 4), 7.0))
    # 7 / sqrt(1e-5) is 2,200, with a spacing of 2e-4 in float32; twice that for scale up to 2.
    np.testing.assert_allclose(y[0, 1, 1], np.asarray(layer.bias), atol=5e-4)


def test_gradient_is_that_of_the_plain_formula():
    """The origin that the variance is measured from carries no gradient, and needs none."""

    def plain(x):
        mean = x.mean(axis=(1, 2), keepdims=True).reshape(2, 1, 1, 2, 2).mean(-1, keepdims=True)
        parts = x.reshape(2, 3, 3, 2, 2) - mean
        variance = jnp.square(parts).mean(axis=(1, 2, 4), keepdims=True)
        return (parts / jnp.sqrt(variance + 1e-5)).reshape(x.shape)

    x, weights = np.random.default_rng(0).standard_normal((2, 2, 3, 3, 4), np.float32)
    layer = GroupNorm(4, 2, eps=1e-5)
    gradient, expected = (
        jax.jit(jax.grad(lambda x, form=form: jnp.sum(weights * form(x))))(x)
        for form in (layer, plain)
    )
    assert jnp.abs(expected).max() > 0.1
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_half_precision_goes_in_and_out_but_is_summed_in_float32():
    noise = np.random.default_rng(0).standard_normal((1, 64, 64, 2), np.float32)
    x = jnp.asarray(100.0 + noise).astype(jnp.bfloat16)
    y = call(GroupNorm(2, 1, eps=1e-5), x)
    assert y.dtype == jnp.bfloat16
    expected = reference(x.astype(jnp.float32), 1, 1e-5, np.ones(2), np.zeros(2))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.02)


def test_refuses_groups_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="norm_groups: 3 groups do not divide 8 channels"):
        GroupNorm(8, 3, eps=1e-5)
