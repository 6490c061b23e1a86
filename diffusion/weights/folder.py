"""A model on disk: config.json, tokenizer/, and one safetensors file a network.

config.json                 `ModelConfig` as JSON, the measured latent scale included
tokenizer/                  vocab.json, merges.txt, tokenizer_config.json
text_encoder.safetensors    stage 1
unet.safetensors            stages 3A, 3B and 4
vae.safetensors             stage 5
training.json               how each part was trained (written by `diffusion train`)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flax import nnx

from diffusion.config import ModelConfig, from_dict
from diffusion.replacing import replacing
from diffusion.stages.text_encoder import TextEncoder
from diffusion.stages.unet import UNet
from diffusion.stages.vae import VAE
from diffusion.tokenizer import Tokenizer
from diffusion.weights.files import Params, SameKey, load_params, save_params, shapes

PARTS: dict[str, Callable[[ModelConfig], nnx.Module]] = {
    "text_encoder": lambda config: TextEncoder(config.text_encoder, rngs=SameKey(0)),
    "unet": lambda config: UNet(config.unet, rngs=SameKey(0)),
    "vae": lambda config: VAE(config.vae, rngs=SameKey(0)),
}


def find(model: str | Path) -> Path:
    """The folder of a model: the name of one that ships with the package, or a path.

    A folder that has the name of a shipped model is reached as a path: `./garden`.
    Raises FileNotFoundError that lists the names that ship.
    """
    package = Path(__file__).parents[1]
    shelves = [package / "data", package.parent / "data"]  # in a wheel, and in a clone
    for shelf in shelves:
        if Path(model).name == str(model) and (shelf / model / "config.json").is_file():
            return shelf / model
    if Path(model).is_dir():
        return Path(model)
    names = sorted({path.parent.name for shelf in shelves for path in shelf.glob("*/config.json")})
    raise FileNotFoundError(
        f"model {str(model)!r} is neither a folder nor one that ships with diffusion "
        f"({', '.join(names) or 'none is installed'})"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError, or ValueError where the file holds no JSON object."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy the model folder again")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); copy the model folder again"
        ) from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object; copy the model folder again")
    return data


def write_json(path: Path, data: dict[str, Any]) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_config(folder: Path) -> ModelConfig:
    try:
        return from_dict(ModelConfig, read_json(folder / "config.json"))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error


def save_config(folder: Path, config: ModelConfig) -> None:
    write_json(folder / "config.json", dataclasses.asdict(config))


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder / "tokenizer")


def load_part(folder: Path, config: ModelConfig, part: str) -> tuple[nnx.GraphDef[Any], Params]:
    """Structure and parameters of one of `PARTS`. Raises as `load_params`."""
    structure, like = shapes(lambda: PARTS[part](config))
    return structure, load_params(folder / f"{part}.safetensors", like)


def save_part(folder: Path, part: str, params: Params, dtype: str) -> None:
    save_params(folder / f"{part}.safetensors", params, dtype)
