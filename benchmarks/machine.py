"""What the benchmarks run on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "diffusers", "transformers")


def cores() -> int:
    """How many cores JAX uses, and PyTorch is to use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def described(gpu: bool) -> str:
    """Processor or GPU, cores, how many processes wanted to run, versions."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    where = graphics() if gpu else processor()
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"{where}, {cores()} cores, load before {load}; {versions}"


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def graphics() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.check_output(command, text=True).splitlines()[0]
