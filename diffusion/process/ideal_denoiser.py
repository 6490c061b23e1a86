"""The perfect eye: the best answer to "what is under the noise?" if there were only these pictures.

No network, no training: for a finite set the mean of what may be there can be computed. What a
trained network does beyond that, to imagine pictures that are not in the set, is what it is for.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from diffusion.process import Mixing

Latents = Float[Array, "b h w c"]


def shares(
    z: Latents, alpha_bar: Float[Array, " b"], pictures: Float[Array, "n h w c"]
) -> Float[Array, "b n"]:
    """How probable each picture is, given what it has become under noise: the posterior.

    Rows sum to 1.

    Bayes' rule with equal chances beforehand: z comes from picture i with the density of a Gaussian
    around sqrt(alpha_bar) x_i with variance 1 - alpha_bar (Ho et al. 2020, eq. 4).
    """
    ab = alpha_bar[:, None]
    flat, known = z.reshape(len(z), -1), pictures.reshape(len(pictures), -1)
    distance = jnp.square(flat[:, None] - jnp.sqrt(ab)[..., None] * known[None]).sum(axis=-1)
    return jax.nn.softmax(-distance / (2.0 * (1.0 - ab)), axis=-1)


def posterior_mean(
    z: Latents, alpha_bar: Float[Array, " b"], pictures: Float[Array, "n h w c"]
) -> Latents:
    """The ideal denoiser: the mean of all pictures, weighted with `shares`.

    No answer has a smaller mean squared error (it is the MMSE estimator), so it is what training
    aims at.
    """
    weights = shares(z, alpha_bar, pictures)
    return jnp.einsum("bn,nhwc->bhwc", weights, pictures)


def ideal_denoiser(
    process: Mixing, pictures: Float[Array, "n h w c"]
) -> Callable[[Latents, Real[Array, " b"]], Latents]:
    """A "network" that predicts as well as can be, for `diffusion.process.sampling.stepper`.

    Divided by the root of alpha^2 + sigma^2, x_t is one whose variance is preserved.
    """

    def predict(x_t: Latents, t: Real[Array, " b"]) -> Latents:
        alpha, sigma = process.alpha(t), process.sigma(t)
        total = jnp.square(alpha) + jnp.square(sigma)
        preserved = x_t / jnp.sqrt(total)[:, None, None, None]
        x0 = posterior_mean(preserved, jnp.square(alpha) / total, pictures)
        noise = (x_t - alpha[:, None, None, None] * x0) / sigma[:, None, None, None]
        return process.target(x0, noise, t)

    return predict
