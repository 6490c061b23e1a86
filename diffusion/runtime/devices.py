"""The devices: how much memory is free, and what to call them."""

import os
import platform

import jax
import psutil


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
