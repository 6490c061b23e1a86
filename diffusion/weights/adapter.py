"""A motion adapter on disk, in the layout of diffusers: config.json, and a safetensors file.

A model's own lies in its folder, in motion_adapter/; others lie anywhere.
"""

from pathlib import Path
from typing import Any

import numpy as np

from diffusion.motion_config import MotionConfig
from diffusion.runtime.parameters import Params
from diffusion.stages.motion import frame_positions
from diffusion.weights import places
from diffusion.weights.architectures import motion, structure
from diffusion.weights.files import Weights, save_params
from diffusion.weights.folder import write_json
from diffusion.weights.options import naming

ONE = motion.ARCHITECTURE
CONFIG = "config.json"
FOLDER = ONE.folder  # of a model's own adapter
ROUNDED = 1e-2  # by which a table of places in a file may differ from the computed one


def find(place: Path) -> Path:
    """The folder of an adapter: itself, or the one that belongs to a model.

    Raises FileNotFoundError where there is none.
    """
    for folder in (place / FOLDER, place):
        if (folder / CONFIG).is_file():
            return folder
    raise FileNotFoundError(
        f"motion adapter {str(place)!r} is no folder with {CONFIG} and {ONE.stem}.safetensors; "
        "give one, or a model that has a motion_adapter/"
    )


def load_config(place: Path) -> MotionConfig:
    """Raises FileNotFoundError or ValueError that names the file, and what in it is the matter."""
    path = find(place) / CONFIG
    data = places.read_json(path)
    with naming(path):
        return motion.read(data)


def open_adapter(place: Path, config: MotionConfig) -> Weights:
    """The checked files of an adapter. Raises as `places.find` and `Weights.open`."""
    root = find(place)
    with naming(root / CONFIG):
        like = _with_places(structure(config)[1], config.length)
    return Weights.open(places.find(root, ".", ONE.stem), like, ONE.names)


def read_adapter(weights: Weights, config: MotionConfig, dtype: str = "float32") -> Params:
    """The parameters. The files also hold tables of places, which are computed here.

    Raises ValueError as `Weights.read` does, and where a table is another.
    """
    params = weights.read(dtype)
    tables: dict[int, np.ndarray] = {}
    for block in _blocks(params):
        place = np.asarray(block.pop("place"), np.float32)
        width = place.shape[-1]
        if width not in tables:
            tables[width] = _table(config.length, width)
        if not np.allclose(place, tables[width], atol=ROUNDED):
            raise ValueError(
                f"{weights.tensors[0].file}: pos_embed.pe is not the table of sines and cosines "
                "of the frame's number; only adapters with that one are supported"
            )
    return params


def save_adapter(
    place: Path, config: MotionConfig, params: Params, dtype: str | None = None
) -> None:
    """Write an adapter that `read_adapter` and the reference read; see `files.save_params`."""
    whole = _with_places(params, config.length)
    save_params(place / f"{ONE.stem}.safetensors", whole, ONE.names, dtype=dtype)
    write_json(place / CONFIG, motion.write(config))


def _table(length: int, width: int) -> np.ndarray:
    return np.asarray(frame_positions(length, width))[None]


def _with_places(params: Any, length: int) -> Any:
    """The same, and in each block the table of places that it has in a file."""
    whole = {
        name: _with_places(entry, length) if isinstance(entry, dict) else entry
        for name, entry in params.items()
    }
    if "attention1" in whole:
        whole["place"] = _table(length, whole["norm1"]["scale"].shape[0])
    return whole


def _blocks(params: Params) -> list[Params]:
    if "attention1" in params:
        return [params]
    inner = (entry for entry in params.values() if isinstance(entry, dict))
    return [found for entry in inner for found in _blocks(entry)]
