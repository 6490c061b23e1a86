"""The two forms of gelu (Hendrycks & Gimpel 2016) that Stable Diffusion uses."""

import jax
from jax import lax
from jaxtyping import Array, Float


def quick_gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x sigmoid(1.702 x): CLIP's approximation of gelu."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x Phi(x), by the error function.

    `jax.nn.gelu` takes its complement, which keeps the digits of values near -10 that are as good
    as zero, and takes twice as long.
    """
    return x * (0.5 + 0.5 * lax.erf(x * 0.5**0.5))
