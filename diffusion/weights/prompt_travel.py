"""Prompt travel on disk: the folder prompt_travel/ of a model."""

from pathlib import Path

from diffusion.config import TextEncoderConfig
from diffusion.motion_config import PromptTravelConfig
from diffusion.runtime.parameters import Params
from diffusion.weights import places
from diffusion.weights.architectures import prompt_travel, structure
from diffusion.weights.files import Weights, save_params
from diffusion.weights.folder import write_json
from diffusion.weights.options import naming

ONE = prompt_travel.ARCHITECTURE
FOLDER = ONE.folder


def exists(root: Path) -> bool:
    return (root / FOLDER).exists()


def load_config(root: Path) -> PromptTravelConfig:
    """Raises FileNotFoundError or ValueError that names the file, and what in it is the matter."""
    path = root / ONE.config_file
    data = places.read_json(path)
    with naming(path):
        return prompt_travel.read(data)


def open_travel(root: Path, config: PromptTravelConfig, text: TextEncoderConfig) -> Weights:
    """The checked files of a model's.

    Raises as `Weights.open`, and ValueError where it does not fit the model's text encoder.
    """
    with naming(root / FOLDER):
        prompt_travel.check_fits(config, text)
    return Weights.open(places.find(root, FOLDER, ONE.stem), structure(config)[1], ONE.names)


def save_travel(
    root: Path, config: PromptTravelConfig, params: Params, dtype: str | None = None
) -> None:
    save_params(root / FOLDER / f"{ONE.stem}.safetensors", params, ONE.names, dtype=dtype)
    write_json(root / ONE.config_file, prompt_travel.write(config))
