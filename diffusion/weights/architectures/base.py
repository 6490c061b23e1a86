"""What a model folder has to know of an architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flax import nnx

from diffusion.config import ModelConfig
from diffusion.weights.names import NameMap
from diffusion.weights.options import Json

SLOTS = ("text_encoder", "denoiser", "autoencoder")  # of a model, in the order of the stages


@dataclass(frozen=True)
class Architecture:
    """A network that can fill a slot, and how the world's files tell of it."""

    slot: str  # one of `SLOTS`
    config: type[Any]  # its configuration; by this a model says which architecture it has
    create: Callable[[Any, nnx.Rngs], nnx.Module]  # the network of a configuration
    folder: str  # in a model folder
    library: str  # in model_index.json: whose class it is,
    kind: str  # and the name of the class
    stem: str  # of the weights file: STEM.safetensors
    names: NameMap  # the official name of each parameter
    read: Callable[[Json], Any]  # config.json -> configuration; ValueError names what is wrong
    write: Callable[[Any, ModelConfig], Json]  # and back
    prefix: str = ""  # of the names in the files that we write

    @property
    def config_file(self) -> str:
        return f"{self.folder}/config.json"
