"""The architectures that a model folder may hold, one file each.

A new one is a file beside these and an entry here.
"""

from functools import lru_cache
from typing import Any

from flax import nnx

from diffusion.runtime.parameters import Params, SameKey, shapes
from diffusion.weights.architectures import (
    conv_autoencoder,
    dit,
    dvae,
    masked,
    motion,
    prompt_travel,
    text_encoder,
    unet,
    vae,
)
from diffusion.weights.architectures.base import SLOTS, Architecture

__all__ = ["ARCHITECTURES", "SLOTS", "Architecture", "architecture", "create", "structure"]

ARCHITECTURES: dict[type[Any], Architecture] = {
    module.ARCHITECTURE.config: module.ARCHITECTURE
    for module in (
        *(text_encoder, unet, dit, masked, vae, dvae, conv_autoencoder),
        *(motion, prompt_travel),  # for films
    )
}


def architecture(config: Any) -> Architecture:
    """That of a network's configuration. Raises ValueError where there is none."""
    if type(config) not in ARCHITECTURES:
        known = ", ".join(kind.__name__ for kind in ARCHITECTURES)
        raise ValueError(f"{type(config).__name__} has no architecture; known: {known}")
    return ARCHITECTURES[type(config)]


def create(config: Any, rngs: nnx.Rngs) -> Any:
    """The network of a configuration, with fresh parameters."""
    return architecture(config).create(config, rngs=rngs)


@lru_cache(maxsize=16)  # Flax takes a second to trace the modules of a model
def structure(config: Any) -> tuple[nnx.GraphDef[Any], Params]:
    """A network without its numbers: its structure, and the shapes of its parameters."""
    return shapes(lambda: create(config, SameKey(0)))
