from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import sd_v1
from diffusion.layers.convolution import Downsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.runtime.parameters import SameKey
from diffusion.stages.vae import VAE, Posterior


@pytest.fixture(scope="module")
def vae(tiny, build):
    return build(lambda: VAE(tiny.autoencoder, rngs=SameKey(0)))


@pytest.fixture(scope="module")
def images():
    draw = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3))
    return jnp.asarray(draw, jnp.float32)


@pytest.fixture(scope="module")
def official():
    return nnx.eval_shape(lambda: VAE(sd_v1().autoencoder, rngs=SameKey(0)))


def test_shapes_of_stable_diffusion(official):
    images = jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32)
    latents = nnx.eval_shape(lambda vae, x: vae.encode(x), official, images)
    assert latents.shape == (1, 64, 64, 4)
    images = nnx.eval_shape(lambda vae, x: vae.decode(x), official, latents)
    assert images.shape == (1, 512, 512, 3)


def test_every_norm_of_stable_diffusion_has_eps_1e_6(official):
    """Encoder 8 + 2 residual blocks, decoder 12 + 2, of two each; two attentions, two last ones."""
    found = [m.eps for _, m in nnx.iter_graph(official) if isinstance(m, GroupNorm)]
    assert found == [1e-6] * (2 * (10 + 14) + 4)


def test_the_encoder_pads_bottom_and_right(official):
    found = [m.conv.padding for _, m in nnx.iter_graph(official) if isinstance(m, Downsample)]
    assert found == [((0, 1), (0, 1))] * 3


def test_encode_and_decode_are_their_parts(vae, images):
    """Latents are scaled, what lies between encoder and decoder is not."""

    def look(vae, images, key):
        posterior = vae.posterior(images)
        latents = vae.encode(images)
        unscaled = latents / vae.scaling_factor
        return (
            (posterior.mean, posterior.log_variance),
            jnp.split(vae.quant_conv(vae.encoder(images)), 2, axis=-1),
            (latents, vae.encode(images, key)),
            (posterior.mean * vae.scaling_factor, posterior.sample(key) * vae.scaling_factor),
            vae.decode(latents),
            vae.decoder(vae.post_quant_conv(unscaled)),
        )

    posterior, both, latents, scaled, decoded, expected = jax.jit(look)(
        vae, images, jax.random.key(1)
    )
    assert latents[0].shape == (2, 4, 4, 4)
    assert decoded.shape == images.shape
    assert jnp.abs(latents[0] - latents[1]).max() > 0.01
    close = partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, [*posterior, *latents], [*both, *scaled])
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


def test_log_variance_is_clipped(vae, images):
    structure, params = nnx.split(vae)
    loud = nnx.merge(structure, jax.tree.map(jnp.copy, params))
    loud.quant_conv.kernel[...] *= 1000.0
    posterior = jax.jit(lambda vae, x: vae.posterior(x))(loud, images)
    assert posterior.log_variance.min() == -30.0
    assert posterior.log_variance.max() == 20.0
    assert jnp.abs(posterior.mean).max() > 100.0  # the mean is not


def test_sample_has_the_moments_of_the_posterior():
    mean = jnp.linspace(-3, 3, 4).reshape(1, 1, 1, 4)
    log_variance = jnp.asarray([-30.0, -2.0, 0.0, 3.0]).reshape(1, 1, 1, 4)
    wide = Posterior(jnp.tile(mean, (1, 100, 100, 1)), jnp.tile(log_variance, (1, 100, 100, 1)))
    drawn = np.asarray(wide.sample(jax.random.key(0)), np.float64).reshape(-1, 4)
    deviation = np.exp(0.5 * np.asarray(log_variance)).ravel()
    assert (np.abs(drawn.mean(0) - mean.ravel()) < 5 * deviation / 100 + 1e-6).all()
    np.testing.assert_allclose(drawn.std(0)[1:], deviation[1:], rtol=0.04)
    assert drawn.std(0)[0] < 1e-6


def test_sample_depends_on_the_key_alone():
    posterior = Posterior(jnp.zeros((1, 2, 2, 4)), jnp.zeros((1, 2, 2, 4)))
    first = posterior.sample(jax.random.key(0))
    np.testing.assert_array_equal(first, posterior.sample(jax.random.key(0)))
    assert jnp.abs(first - posterior.sample(jax.random.key(1))).max() > 0.1


def test_kl_by_hand():
    """KL(N(m, s^2), N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2; summed over a picture."""
    mean = jnp.asarray([[0.0, 2.0], [0.0, 0.0]]).reshape(2, 1, 2, 1)
    log_variance = jnp.log(jnp.asarray([[1.0, 1.0], [4.0, 0.25]])).reshape(2, 1, 2, 1)
    by_hand = [4 / 2, (4 - 1 - np.log(4)) / 2 + (0.25 - 1 + np.log(4)) / 2]
    np.testing.assert_allclose(Posterior(mean, log_variance).kl(), by_hand, rtol=1e-6)


def test_kl_against_monte_carlo():
    """The mean of log q(z) - log p(z) over z from q."""
    mean, log_variance = 0.7, -1.1
    q = Posterior(jnp.full((1, 400, 500, 1), mean), jnp.full((1, 400, 500, 1), log_variance))
    z = np.asarray(q.sample(jax.random.key(0)), np.float64)
    log_q = -0.5 * ((z - mean) ** 2 / np.exp(log_variance) + log_variance)
    log_p = -0.5 * z**2
    estimate = (log_q - log_p).mean()
    error = (log_q - log_p).std() / z.size**0.5
    assert error < 0.005
    assert abs(q.kl()[0] / z.size - estimate) < 5 * error


def test_every_parameter_is_trained(vae, images, trained):
    def loss(vae, weights):
        return jnp.sum(weights * vae.decode(vae.encode(images, jax.random.key(1))))

    trained(vae, loss, (2, 8, 8, 3))
