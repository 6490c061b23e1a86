"""The devices: how much memory is free, and what to call them."""

import os
import platform

import jax
import psutil


def check() -> None:
    """Raises ValueError where JAX does not find the device that it is told to use."""
    try:
        jax.devices()
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # an assertion, where a kind is known but absent
        told = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(
            f"JAX finds no device of JAX_PLATFORMS={told} ({str(error) or 'none is there'}); unset it, "
            "or name another, such as cpu"
        ) from error


def free_memory() -> int:
    """Bytes that are free where the networks run: on the accelerator, or in the machine."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is None:
        return psutil.virtual_memory().available
    return stats["bytes_limit"] - stats["bytes_in_use"]


def described() -> str:
    """The devices and the host, in words, for cards and reports."""
    kind = jax.devices()[0].device_kind
    return f"{jax.device_count()} x {kind} ({os.cpu_count()} cores, {platform.machine()})"
