"""What a model folder has to know of an architecture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flax import nnx

from diffusion.config import ModelConfig
from diffusion.weights.names import NameMap, Spelling
from diffusion.weights.options import Json

SLOTS = ("text_encoder", "denoiser", "autoencoder")  # of a model, in the order of the stages


@dataclass(frozen=True)
class Architecture:
    """A network that can fill a slot, and how the world's files tell of it."""

    slot: str  # one of `SLOTS`; what is added for films: "motion", "travel"
    config: type[Any]  # its configuration; by this a model says which architecture it has
    create: Callable[..., nnx.Module]  # create(config, rngs=...) is the network
    folder: str  # in a model folder
    kind: str  # in model_index.json: the name of its class, where `write` says no other
    names: NameMap  # the official name of each parameter
    read: Callable[[Json], Any]  # config.json -> configuration; ValueError names what is wrong
    write: Callable[[Any, ModelConfig], Json]  # and back
    library: str = "diffusers"  # which has that class
    stem: str = "diffusion_pytorch_model"  # of the weights file: STEM.safetensors
    prefix: str = ""  # of the names in the files that we write,
    outside: str = ""  # but for this module
    part: str = ""  # what `diffusion train` and a model's card call it; "": as its folder
    # Of a denoiser: the kinds of model_index.json that have it, and the one that we write.
    pipelines: tuple[str, ...] = ("StableDiffusionPipeline",)
    pipeline: Callable[[ModelConfig], str] = lambda model: "StableDiffusionPipeline"

    # Of a configuration: how files of other code than diffusers may spell the names.
    originals: Callable[[Any], tuple[Spelling, ...]] = lambda config: ()
    # Of a configuration and a name in a file: is it another's, which changes no picture?
    beside: Callable[[Any, str], bool] = lambda config, name: False

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", self.part or self.folder)

    @property
    def config_file(self) -> str:
        return f"{self.folder}/config.json"
