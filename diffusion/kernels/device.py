"""What the machine is good at: the questions by which layers choose their form."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def suits_a_cpu(x: Array) -> bool:
    """Are the forms that were measured on a CPU, in float32, the ones to take?"""
    return jax.default_backend() == "cpu" and x.dtype == jnp.float32


def has_bfloat16() -> bool:
    """Does the device multiply matrices in bfloat16? TPUs do, and NVIDIA's GPUs since Ampere."""
    return jax.default_backend() == "tpu" or _is_ampere()


def has_flash_attention(x: Array, width: int) -> bool:
    """Can cuDNN's fused kernel attend in x's precision with heads of this width?

    It needs an NVIDIA GPU since Ampere, half precision, and heads of up to 128 in steps of 8.
    """
    return _is_ampere() and x.dtype.itemsize == 2 and width <= 128 and width % 8 == 0


def _is_ampere() -> bool:
    version = getattr(jax.devices()[0], "compute_capability", "")  # "8.0", or "gfx90a" from AMD
    return version[:1].isdigit() and float(version) >= 8.0
