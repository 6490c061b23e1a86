"""Stable Diffusion from scratch in JAX and Flax NNX, told as an art class."""

from diffusion.pipeline import Artist, Glance, load

__all__ = ["Artist", "Glance", "load"]
