"""A model on disk, in the layout of Hugging Face's `diffusers`, ours and everybody's alike.

model_index.json                        which pipeline; our name and guidance of the model
tokenizer/                              vocab.json, merges.txt, or tokenizer.json
text_encoder/config.json                and model.safetensors: stage 1
unet/config.json                        and diffusion_pytorch_model.safetensors: 3A, 3B and 4
vae/config.json                         and diffusion_pytorch_model.safetensors: stage 5
scheduler/scheduler_config.json         the noise schedule
training.json                           how each part was trained (only of `diffusion train`)

Other folders (safety_checker, feature_extractor) are not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flax import nnx

from diffusion.config import ModelConfig
from diffusion.runtime.atomic_write import replacing
from diffusion.stages.text_encoder import TextEncoder
from diffusion.stages.unet import UNet
from diffusion.stages.vae import VAE
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights import configs, files
from diffusion.weights.files import Params, SameKey, Weights, save_params, shapes
from diffusion.weights.names import NAME_MAPS

CARD = "training.json"
SHELVES = (  # of what ships: in a wheel, and in a clone
    Path(__file__).parents[1] / "data",
    Path(__file__).parents[2] / "data",
)
WAY_OUT = (
    "a model folder has model_index.json, tokenizer/, text_encoder/, unet/, vae/ and scheduler/; a "
    "single file becomes such a folder by `StableDiffusionPipeline.from_single_file(FILE)"
    ".save_pretrained(FOLDER)` of diffusers"
)


@dataclass(frozen=True)
class Part:
    """One network: how to make it, and how its file and the names in it begin."""

    create: Callable[[ModelConfig], nnx.Module]
    stem: str
    prefix: str = ""


PARTS: dict[str, Part] = {
    "text_encoder": Part(
        lambda c: TextEncoder(c.text_encoder, rngs=SameKey(0)), "model", "text_model."
    ),
    "unet": Part(lambda c: UNet(c.unet, rngs=SameKey(0)), "diffusion_pytorch_model"),
    "vae": Part(lambda c: VAE(c.vae, rngs=SameKey(0)), "diffusion_pytorch_model"),
}


def find(model: str | Path) -> Path:
    """The folder of a model: the name of one that ships with the package, or a path.

    A folder that has the name of a shipped model is reached as a path: `./garden`.
    Raises FileNotFoundError that lists the names that ship, ValueError for a single file.
    """
    for shelf in SHELVES:
        if Path(model).name == str(model) and (shelf / model / configs.INDEX).is_file():
            return shelf / model
    if Path(model).is_dir():
        return Path(model)
    if Path(model).is_file():
        raise ValueError(f"model {str(model)!r} is a file; {WAY_OUT}")
    found = {path.parent.name for shelf in SHELVES for path in shelf.glob(f"*/{configs.INDEX}")}
    raise FileNotFoundError(
        f"model {str(model)!r} is neither a folder nor one that ships with diffusion "
        f"({', '.join(sorted(found)) or 'none is installed'})"
    )


def shipped(name: str) -> Path:
    """The folder of something that ships beside the models; it need not be there."""
    return next((shelf / name for shelf in SHELVES if (shelf / name).is_dir()), SHELVES[0] / name)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_config(root: Path) -> ModelConfig:
    """Raises FileNotFoundError or ValueError that names the file, and what in it is the matter."""
    if not (root / configs.INDEX).exists():
        raise FileNotFoundError(f"{root / configs.INDEX} is missing; {WAY_OUT}")
    try:
        index = files.read_json(root / configs.INDEX, root)
        configs.check_index(index)
        parts = {path: files.read_json(root / path, root) for path in configs.FILES.values()}
        return configs.read({configs.INDEX: index, **parts}, root.resolve().name)
    except ValueError as error:
        raise ValueError(f"model {root}: {error}") from error


def save_config(root: Path, config: ModelConfig) -> None:
    """Everything but weights and tokenizer; last the index, by which a folder is a model."""
    written = configs.write(config)
    for path in sorted(written, key=lambda path: path == configs.INDEX):
        write_json(root / path, written[path])


def load_card(root: Path) -> dict[str, Any]:
    """How each part was trained, where the folder says so."""
    path = root / CARD
    return files.read_json(path) if path.exists() else {}


def trainings(root: Path, part: str) -> list[dict[str, Any]]:
    """The trainings that a part went through, from the first to the last, as its card has them."""
    found, entry = [], load_card(root).get(part)
    while entry is not None and "steps" in entry:
        found.append(entry)
        entry = entry.get("start")
    return found[::-1]


def load_tokenizer(root: Path) -> Tokenizer:
    """Raises as `Tokenizer.load`."""
    for path in (root / "tokenizer").glob("*"):
        if not path.is_dir():
            files.regular(root, path)
    return Tokenizer.load(root / "tokenizer")


@lru_cache(maxsize=16)  # Flax takes a second to trace the modules of a model
def structure_of(config: ModelConfig, part: str) -> tuple[nnx.GraphDef[Any], Params]:
    """One of `PARTS` without its numbers: its structure, and the shapes of its parameters."""
    return shapes(lambda: PARTS[part].create(config))


def open_part(root: Path, part: str, like: Params) -> Weights:
    """The checked files of one of `PARTS`. Raises as `files.find` and `Weights.open`."""
    return Weights.open(files.find(root, part, PARTS[part].stem), like, NAME_MAPS[part])


def load_part(
    root: Path, config: ModelConfig, part: str, dtype: str = "float32"
) -> tuple[nnx.GraphDef[Any], Params]:
    """Structure and parameters of one of `PARTS`. Raises as `open_part` and `Weights.read`."""
    structure, like = structure_of(config, part)
    return structure, open_part(root, part, like).read(dtype)


def save_part(
    root: Path, config: ModelConfig, part: str, params: Params, dtype: str | None = None
) -> None:
    """Write one of `PARTS`; see `files.save_params`."""
    save_params(
        part_file(root, part),
        params,
        NAME_MAPS[part],
        dtype=dtype,
        linear_projection=config.unet.linear_projection,
        prefix=PARTS[part].prefix,
    )


def part_file(root: Path, part: str) -> Path:
    """Where we write one of `PARTS`."""
    return root / part / f"{PARTS[part].stem}.safetensors"
