"""A VAE of its own in the place of a model's: a folder, or a file with either kind of names."""

import dataclasses
from pathlib import Path

from diffusion.config import ModelConfig, VAEConfig
from diffusion.weights import configs, places, stored
from diffusion.weights.architectures import structure, vae
from diffusion.weights.files import Weights
from diffusion.weights.names import TODAY
from diffusion.weights.options import naming

ONE = vae.ARCHITECTURE


def open_vae(place: Path, model: ModelConfig) -> tuple[ModelConfig, Weights]:
    """The model with another VAE, and the files of that.

    Args:
        place: a folder `vae/` or one that has it (a model's), or a file. What a file without a
            config.json beside it does not say is as in the model's own VAE.

    Raises FileNotFoundError or ValueError that says what does not fit.
    """
    place = place.expanduser()
    place = places.snapshot(place.absolute()) or places.cached(str(place)) or place
    if place.is_dir():
        root = place / ONE.folder if (place / ONE.config_file).exists() else place
        config = _config(root / "config.json")
        paths = places.find(root, "", ONE.stem)
    elif place.is_file():
        root, paths = place.parent, [place]
        own = model.autoencoder if isinstance(model.autoencoder, VAEConfig) else VAEConfig()
        known = (root / "config.json").exists() and not (root / configs.INDEX).exists()
        config = _config(root / "config.json") if known else own
    else:
        raise FileNotFoundError(f"VAE {place} is neither a file nor a folder")
    size = model.latent_size * config.downscale
    try:
        model = dataclasses.replace(model, autoencoder=config, image_size=size)
    except ValueError as error:
        raise ValueError(f"VAE {place} does not fit the model ({error})") from error
    keys = [entry.key for path in paths for entry in stored.contents(path)]
    spelling = TODAY
    for other in ONE.originals(config):
        if any(key.startswith(f"{other.prefix}encoder.down.") for key in keys):
            spelling = other
            break
    _, like = structure(config)
    beside = lambda name: ONE.beside(config, name)  # noqa: E731
    return model, Weights.open(paths, like, ONE.names, spelling, beside)


def _config(path: Path) -> VAEConfig:
    with naming(path):
        data = places.read_json(path)
        if data.get("_class_name", ONE.kind) != ONE.kind:
            raise ValueError(f"{data['_class_name']} is not supported; {ONE.kind} is")
        return ONE.read(data)
