"""From a model's name, folder or file to an artist."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from diffusion.config import ModelConfig
from diffusion.film import MotionModules, Travel
from diffusion.filming import FilmArtist
from diffusion.kernels.device import has_bfloat16
from diffusion.runtime.programs import Network
from diffusion.runtime.transformed_kernels import prepare
from diffusion.weights import adapter, folder, prompt_travel, single_file
from diffusion.weights.architectures import SLOTS, architecture, structure
from diffusion.weights.architectures.motion import check_fits
from diffusion.weights.embeddings import open_all, with_rows
from diffusion.weights.files import Weights
from diffusion.weights.lora import LoRA, find
from diffusion.weights.opened import OpenModel
from diffusion.weights.options import naming
from diffusion.weights.other_vae import open_vae


def load(
    model: str | Path = "garden",
    *,
    dtype: str | None = None,
    loras: Mapping[str, float] | None = None,
    vae: str | Path | None = None,
    tokenizer: str | Path | None = None,
    embeddings: Mapping[str, str] | None = None,
    clip_skip: int | None = None,
    motion: str | Path | None = None,
) -> FilmArtist:
    """Load a model: the name of one that ships ("garden"), or one of SD 1.x or 2.x.

    Args:
        model: a name, a folder in the layout of Hugging Face's diffusers, a single file with the
            original names, or a repository ("org/name") in the local Hugging Face cache.
        dtype: precision of the weights and of the networks' arithmetic: "float32", "bfloat16" or
            "float16". None: bfloat16 where the device multiplies in it, float32 elsewhere.
        loras: LoRA files (safetensors) to merge into the weights, each with its strength.
        vae: a folder or a file with another VAE.
        tokenizer: a folder with another tokenizer; a single file comes without.
        embeddings: files of textual inversion (safetensors), each with its token in prompts, or ""
            for the one that the file says.
        clip_skip: how many layers before its end the text encoder stops, and one more, as web
            interfaces count: 1 is the model's own end, 2 leaves out its last layer.
        motion: a motion adapter for films, in the layout of diffusers. None: the model's own, if
            its folder has a motion_adapter/.

    Raises FileNotFoundError or ValueError that names the file that is missing or does not fit.
    What lies there and is not used, a warning tells.
    """
    dtype = dtype or ("bfloat16" if has_bfloat16() else "float32")
    place = folder.find(model)
    opened = _open(place, vae, tokenizer)
    config, weights = opened.config, opened.weights
    text = config.text_encoder
    words = open_all(embeddings or {}, opened.tokenizer, text.width)
    tokens = [token for embedding in words for token in embedding.tokens]
    config = replace(config, text_encoder=replace(text, vocab_size=text.vocab_size + len(tokens)))
    if opened.note:
        warnings.warn(opened.note, stacklevel=2)
    changes = _changes(loras or {}, config, weights)
    if clip_skip is not None:
        config, weights = _without_layers(config, weights, clip_skip)

    def network(slot: str) -> Network:
        form, _ = structure(getattr(config, slot))
        read = partial(weights[slot].read, dtype, [lora.adjust(slot) for lora in changes])
        if slot == "text_encoder" and words:
            found = Network(form, lambda: with_rows(read(), words))
        elif slot == "denoiser":  # it is called most often
            found = Network(form, read, partial(prepare, form, positions=config.latent_size**2))
        else:
            found = Network(form, read)
        found.params  # noqa: B018 (what is wrong with the numbers should be known now)
        return found

    networks = {slot: network(slot) for slot in SLOTS}
    artist = FilmArtist(config, opened.tokenizer.extended(tokens), **networks)
    if motion is not None or (place / adapter.FOLDER).exists():
        artist.motion = _motion(Path(motion or place), artist, dtype)
    if prompt_travel.exists(place) and clip_skip in (None, 1):  # it has learnt whole contexts
        artist.travel = _travel(place, opened.config, dtype)  # which knows no embedding's tokens
    return artist


def _changes(
    loras: Mapping[str, float], config: ModelConfig, weights: Mapping[str, Weights]
) -> list[LoRA]:
    """The LoRA files, checked against the model's own names and those of its first code."""
    known = {slot: opened.shapes for slot, opened in weights.items()}
    others = {
        slot: opened.spelled(spelling.names)
        for slot, opened in weights.items()
        for spelling in architecture(getattr(config, slot)).originals(getattr(config, slot))[:1]
        if spelling.names is not None
    }
    return [LoRA.open(find(x), s, known, others) for x, s in loras.items()]


def _without_layers(
    config: ModelConfig, weights: Mapping[str, Weights], clip_skip: int
) -> tuple[ModelConfig, Mapping[str, Weights]]:
    """A text encoder that ends before its last layers; the norm at its end stays."""
    text = config.text_encoder
    if not 1 <= clip_skip <= text.layers or (text.summary and clip_skip > 1):
        most = 1 if text.summary else text.layers
        raise ValueError(f"clip_skip is {clip_skip}; give 1 to {most} for {config.name}")
    short = replace(text, layers=text.layers - clip_skip + 1)
    opened = weights["text_encoder"]
    beside = architecture(short).beside
    kept = tuple(tensor for tensor in opened.tensors if not beside(short, tensor.official))
    shorter = {**weights, "text_encoder": replace(opened, tensors=kept)}
    return replace(config, text_encoder=short), shorter


def _motion(place: Path, artist: FilmArtist, dtype: str) -> MotionModules:
    """An adapter for an artist's denoiser; its numbers are read when a film is painted."""
    config = adapter.load_config(place)
    with naming(adapter.find(place)):
        check_fits(config, artist.config.denoiser)
    weights = adapter.open_adapter(place, config)
    form, _ = structure(config)
    modules = Network(form, partial(adapter.read_adapter, weights, config, dtype))
    return MotionModules(config, modules, artist.denoiser)


def _travel(place: Path, config: ModelConfig, dtype: str) -> Travel:
    """What finds the ends of films in sentences, for a model's text encoder."""
    sizes = prompt_travel.load_config(place)
    weights = prompt_travel.open_travel(place, sizes, config.text_encoder)
    form, _ = structure(sizes)
    return Travel(sizes, Network(form, partial(weights.read, dtype)))


def _open(place: Path, vae: str | Path | None, tokenizer: str | Path | None) -> OpenModel:
    """The files of a model, checked against each other."""
    own = None if tokenizer is None else Path(tokenizer).expanduser()
    open_model = single_file.open_model if place.is_file() else folder.open_model
    found = open_model(place, own, vae=vae is not None)
    text, words = found.config.text_encoder, found.tokenizer
    if (words.vocab_size, words.length) != (text.vocab_size, text.length):
        raise ValueError(
            f"{own or place / 'tokenizer'} has {words.vocab_size} tokens and rows of "
            f"{words.length}, text_encoder/config.json says {text.vocab_size} and "
            f"{text.length}; use the files of one model"
        )
    if vae is None:
        return found
    config, weights = open_vae(Path(vae), found.config)
    return replace(found, config=config, weights={**found.weights, "autoencoder": weights})
