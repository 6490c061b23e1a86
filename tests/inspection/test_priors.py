"""Draws have the mean and the covariance of the codes; the denoiser's surprise is its error."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.inspection.priors import gaussian_draws, surprise


def test_draws_have_mean_and_covariance_of_the_codes():
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((5, 4)) @ rng.standard_normal((4, 4)) + [3, 0, -2, 1]
    codes = mixed.reshape(5, 2, 2, 1)
    draws = gaussian_draws(codes, rng.standard_normal((40_000, 5))).reshape(-1, 4)
    np.testing.assert_allclose(draws.mean(axis=0), mixed.mean(axis=0), atol=0.1)
    wanted = np.cov(mixed, rowvar=False, bias=True)
    np.testing.assert_allclose(np.cov(draws, rowvar=False), wanted, atol=0.03 * wanted.max())


def test_no_noise_draws_the_mean():
    codes = np.random.default_rng(0).standard_normal((3, 2, 2, 1))
    draws = gaussian_draws(codes, np.zeros((2, 3)))
    np.testing.assert_allclose(draws, np.stack([codes.mean(axis=0)] * 2), atol=1e-6)


def test_surprise_is_the_error_of_the_latent_that_the_denoiser_sees(artist):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    x0, t = artist.encode(pictures), jnp.full(2, 300)
    x_t = artist.process.add_noise(x0, jax.random.normal(jax.random.key(4), x0.shape), t)
    context = artist.text_encoder(jnp.asarray(artist.tokenizer(["", ""])))
    seen = artist.process.to_x0(artist.denoiser(x_t, t, context), x_t, t)
    found = surprise(artist, pictures, 300, seed=4)
    np.testing.assert_allclose(found, np.mean((seen - x0) ** 2), rtol=1e-5)
