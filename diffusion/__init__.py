"""Stable Diffusion from scratch in JAX and Flax NNX, told as an art class."""

from diffusion.loading import load
from diffusion.pipeline import Artist
from diffusion.process.sampling import Step
from diffusion.settings import Settings

__all__ = ["Artist", "Settings", "Step", "load"]
