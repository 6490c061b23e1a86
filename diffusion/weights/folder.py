"""A model on disk, in the layout of Hugging Face's `diffusers`, ours and everybody's alike.

model_index.json                        which pipeline; our name and guidance of the model
tokenizer/                              vocab.json, merges.txt, or tokenizer.json
text_encoder/config.json                and model.safetensors: stage 1
unet/config.json                        and diffusion_pytorch_model.safetensors: 3A, 3B and 4
                                        (transformer/, where the denoiser is one)
vae/config.json                         and diffusion_pytorch_model.safetensors: stage 5; a discrete
                                        autoencoder lies in vqvae/
scheduler/scheduler_config.json         the noise schedule
training.json                           how each part was trained (only of `diffusion train`)

Other folders (safety_checker, feature_extractor) are not read.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from diffusion.atomic_write import atomic_write
from diffusion.config import ModelConfig
from diffusion.runtime.parameters import Params
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights import configs, places
from diffusion.weights.architectures import SLOTS, architecture, structure
from diffusion.weights.files import Weights, save_params
from diffusion.weights.opened import OpenModel
from diffusion.weights.options import naming

CARD = "training.json"
# Where what ships lies: in a wheel, and in a clone.
SHELVES = tuple(Path(__file__).parents[up] / "data" for up in (1, 2))
WAY_OUT = "a model folder has model_index.json, tokenizer/, text_encoder/, unet/, vae/, scheduler/"


def find(model: str | Path) -> Path:
    """The folder or the single file of a model.

    `model` is the name of one that ships with the package, a path (`~` is the home), or a
    repository (`org/name`) that lies in the local Hugging Face cache. A folder that has the name of
    a shipped model is reached as a path: `./garden`.

    Raises FileNotFoundError that lists the names that ship.
    """
    for shelf in SHELVES:
        if Path(model).name == str(model) and (shelf / model / configs.INDEX).is_file():
            return shelf / model
    place = Path(model).expanduser()
    if place.exists():
        return places.snapshot(place.absolute()) or place
    if snapshot := places.cached(str(model)):
        return snapshot
    found = {path.parent.name for shelf in SHELVES for path in shelf.glob(f"*/{configs.INDEX}")}
    download = (
        f"; `hf download {model}` brings it" if places.REPOSITORY.fullmatch(str(model)) else ""
    )
    raise FileNotFoundError(
        f"model {str(model)!r} is neither a folder, nor a file, nor in the cache {places.cache()}"
        f"{download}, nor one that ships with diffusion "
        f"({', '.join(sorted(found)) or 'none is installed'})"
    )


def shipped(name: str) -> Path:
    """The folder of something that ships beside the models; it need not be there."""
    return next((shelf / name for shelf in SHELVES if (shelf / name).is_dir()), SHELVES[0] / name)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        draft.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_config(root: Path) -> ModelConfig:
    """Raises FileNotFoundError or ValueError that names the file, and what in it is the matter."""
    if root.is_file():
        raise ValueError(
            f"{root} is a single file, and a folder is needed here; make one of it in Python: "
            f"`diffusion.load({str(root)!r}).save(FOLDER)`"
        )
    if not (root / configs.INDEX).exists():
        single = ", ".join(sorted(path.name for path in root.glob("*.safetensors")))
        or_file = f"; or name a single file in it: {single}" if single else ""
        raise FileNotFoundError(f"{root / configs.INDEX} is missing; {WAY_OUT}{or_file}")
    try:
        index = places.read_json(root / configs.INDEX, root)
        configs.check_index(index)
        parts = {path: _read(root, path) for path in configs.paths(index)}
        return configs.read({configs.INDEX: index, **parts}, root.resolve().name)
    except ValueError as error:
        raise ValueError(f"model {root}: {error}") from error


def _read(root: Path, path: str) -> dict[str, Any]:
    lies = home(root, path.partition("/")[0])
    return places.read_json(lies / path, lies)


def home(root: Path, part: str) -> Path:
    """The model folder that has a part of `root`: itself, or another that ships with diffusion.

    So models that ship need not hold the same weights twice; model_index.json says whose they are.
    Raises ValueError where that makes no sense.
    """
    if (root / part).exists() or not (root / configs.INDEX).exists():
        return root
    name = configs.shared(places.read_json(root / configs.INDEX, root)).get(part)
    return root if name is None else shipped(name)


def save_config(root: Path, config: ModelConfig) -> None:
    """Everything but weights and tokenizer; last the index, by which a folder is a model."""
    for path, data in configs.write(config).items():
        write_json(root / path, data)


def load_card(root: Path) -> dict[str, Any]:
    """How each part was trained, where the folder says so."""
    path = root / CARD
    return places.read_json(path) if path.exists() else {}


def trainings(root: Path, part: str) -> list[dict[str, Any]]:
    """The trainings that a part went through, from the first to the last, as its card has them.

    Raises ValueError where an entry of the card makes no sense.
    """
    found, entry = [], load_card(root).get(part)
    while entry is not None:
        if not isinstance(entry, dict):
            raise ValueError(f"{root / CARD}: {part} has {entry!r:.40} where a training belongs")
        if "steps" not in entry:
            break
        found.append(entry)
        entry = entry.get("start")
    for entry in found:
        for name in ("steps", "batch_size", "seed"):
            if type(value := entry.get(name)) is not int:
                raise ValueError(f"{root / CARD}: {name} of {part} is {value!r:.40}, no number")
    return found[::-1]


def load_tokenizer(root: Path) -> Tokenizer:
    """Raises as `Tokenizer.load`."""
    root = home(root, "tokenizer")
    for path in (root / "tokenizer").glob("*"):
        if not path.is_dir():
            places.regular(root, path)
    return Tokenizer.load(root / "tokenizer")


def open_model(root: Path, tokenizer: Path | None = None, vae: bool = False) -> OpenModel:
    """A model folder, with another `tokenizer` if one is given; without its VAE if `vae` is true.

    Raises as `load_config`, `load_tokenizer` and `open_part`.
    """
    config = load_config(root)
    slots = [slot for slot in SLOTS if slot != "autoencoder" or not vae]
    weights = {slot: open_part(root, config, slot) for slot in slots}
    found = load_tokenizer(root) if tokenizer is None else Tokenizer.load(tokenizer)
    return OpenModel(root, config, found, weights)


def open_part(root: Path, config: ModelConfig, slot: str) -> Weights:
    """The checked files of the network in a slot. Raises as `places.find` and `Weights.open`."""
    return _open(root, getattr(config, slot))


def _open(root: Path, network: Any) -> Weights:
    one = architecture(network)
    root = home(root, one.folder)
    with naming(root / one.config_file):
        _, like = structure(network)
    paths = places.find(root, one.folder, one.stem)
    return Weights.open(paths, like, one.names, beside=lambda name: one.beside(network, name))


def load_part(
    root: Path, config: ModelConfig, slot: str, dtype: str = "float32"
) -> tuple[nnx.GraphDef[Any], Params]:
    """Structure and parameters of a slot's network. Raises as `open_part` and `Weights.read`."""
    opened = open_part(root, config, slot)
    return structure(getattr(config, slot))[0], opened.read(dtype)


def load_network(root: Path, slot: str, dtype: str = "float32") -> Any:
    """The network in a slot, alone: of a model whose other parts need not be supported, or there.

    So a transformer that hears of classes or of another text encoder's words can be called, with
    contexts of one's own. Raises as `load_config`, `open_part` and `Weights.read`.
    """
    one = configs.architectures(places.read_json(root / configs.INDEX, root))[slot]
    with naming(root / one.config_file):
        network = one.read(_read(root, one.config_file))
    return nnx.merge(structure(network)[0], _open(root, network).read(dtype))


def save_part(
    root: Path, config: ModelConfig, slot: str, params: Params, dtype: str | None = None
) -> None:
    """Write the parameters of a slot's network; see `files.save_params`."""
    network = getattr(config, slot)
    one, path = architecture(network), part_file(root, config, slot)
    linear = getattr(network, "linear_projection", True)
    prefixed = {"prefix": one.prefix, "outside": one.outside}
    save_params(path, params, one.names, dtype=dtype, linear_projection=linear, **prefixed)


def part_file(root: Path, config: ModelConfig, slot: str) -> Path:
    """Where we write the network in a slot."""
    one = architecture(getattr(config, slot))
    return root / one.folder / f"{one.stem}.safetensors"


def save_model(
    place: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    params: Mapping[str, Callable[[], Params]],
    dtype: str | None,
    more: Callable[[Path, str | None], None] = lambda place, dtype: None,
) -> None:
    """Write a whole model, with `params` of each slot, into a new or an empty folder.

    It appears whole or not at all. Raises ValueError where the folder is not empty.

    Args:
        more: writes what else belongs to it.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ValueError(f"{place} is not empty; save to a new folder")
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as draft:
        tokenizer.save(draft / "tokenizer")
        for slot, give in params.items():
            save_part(draft, config, slot, give(), dtype)
        more(draft, dtype)
        save_config(draft, config)
