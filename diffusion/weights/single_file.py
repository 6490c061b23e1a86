"""A whole model in one file, with the names of the first code of Stable Diffusion (CompVis).

model.diffusion_model.*                  the U-Net
first_stage_model.*                      the VAE
cond_stage_model.transformer.*           the text encoder of SD 1.x, as `transformers` stores it
cond_stage_model.model.*                 that of SD 2.x, as OpenCLIP stores it
model_ema.*, betas, optimizer states     of training; not read, as the reference does not

Such a file has no configuration: which model it is, names and shapes tell. It has no tokenizer
either; the vocabulary of CLIP comes from a folder.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusion.config import ModelConfig
from diffusion.presets import sd_v1, sd_v2, sd_v2_base
from diffusion.text.characters import BOS, EOS
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights import places, stored
from diffusion.weights.architectures import SLOTS, architecture, structure
from diffusion.weights.files import Weights
from diffusion.weights.opened import OpenModel
from diffusion.weights.stored import Shape

UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
LISTENS = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
OTHERS = {  # by their names, and what to do with them
    r"conditioner\.": "a model of SDXL, which is not supported",
    r"(model\.diffusion_model\.)?(joint_blocks|double_blocks|double_layers)\.": (
        "a transformer, such as that of SD 3 or Flux, which is not supported"
    ),
    r"(control_model|controlnet_cond_embedding)\.": "a ControlNet, which is not supported",
    r".*lora_(down|up|A|B)\b|lora_": "a LoRA; give a model with --model, and this with --lora",
    r"emb_params$|<[^>]+>$": "an embedding; give a model with --model, and this with --embedding",
    r"(first_stage_model\.)?decoder\.(up|mid|up_blocks|mid_block)\b": (
        "a VAE; give a model with --model, and this with --vae"
    ),
    r"(down_blocks|text_model|encoder\.layers)\.": (
        "one part of a model; give the whole folder that it belongs to"
    ),
}
GLOBAL_STEP_OF_BASE = 875000  # of SD 2.0 and 2.1-base, by which the reference knows them, too
VOCABULARY = "openai/clip-vit-large-patch14"  # the smallest repository that has it
TOKENIZER = (
    f"name the folder of one with --tokenizer, or get it: `hf download {VOCABULARY} vocab.json "
    "merges.txt tokenizer_config.json special_tokens_map.json`"
)
REPOSITORIES = (
    VOCABULARY,
    "stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5",
    "CompVis/stable-diffusion-v1-4", "stabilityai/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base", "stabilityai/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What files of a kind have in common, and do not say."""

    config: ModelConfig
    base: ModelConfig  # of the smaller pictures, which predicts the noise
    pad_token: str
    any_case: frozenset[str]  # markers; see `Tokenizer`


FAMILIES: dict[int, Family] = {  # by the width of the words that the U-Net listens to
    768: Family(sd_v1(), sd_v1(), EOS, frozenset({BOS})),
    1024: Family(sd_v2(), sd_v2_base(), "!", frozenset({BOS, EOS})),
}


def open_model(path: Path, tokenizer: Path | None = None, vae: bool = False) -> OpenModel:
    """A model in one file.

    Args:
        tokenizer: a folder with the vocabulary of CLIP; None: beside the file, or in the cache.
        vae: will there be another VAE? Then the file need not have one.

    Raises ValueError that says what the file is, or lists what does not fit; FileNotFoundError
    where there is no tokenizer.
    """
    shapes = {entry.key: entry.shape for entry in stored.contents(path)}
    family, config = recognise(path, shapes)
    slots = [slot for slot in SLOTS if slot != "autoencoder" or not vae]
    weights = {slot: open_part(path, getattr(config, slot), shapes) for slot in slots}
    found = find_tokenizer(path, tokenizer, family)
    return OpenModel(path, config, found, weights, _beside(shapes))


def recognise(path: Path, shapes: Mapping[str, Shape]) -> tuple[Family, ModelConfig]:
    """Which model a file holds, by the names and shapes of its tensors.

    Raises ValueError that says what it holds, where that is not supported.
    """
    if (
        FIRST not in shapes
        or LISTENS not in shapes
        or any(k.startswith("conditioner.") for k in shapes)
    ):
        kinds = (what for mark, what in OTHERS.items() if any(re.match(mark, k) for k in shapes))
        raise ValueError(f"{path} is {next(kinds, 'no model that is known')}")
    width, channels = shapes[LISTENS][-1], shapes[FIRST][1]
    if width not in FAMILIES:
        known = ", ".join(map(str, FAMILIES))
        raise ValueError(f"{path}: words of {width} numbers are not supported; known: {known}")
    family = FAMILIES[width]
    config = family.base if channels != 4 or _is_base(path, shapes) else family.config
    try:
        denoiser = dataclasses.replace(config.denoiser, in_channels=channels)  # type: ignore[type-var]
        return family, dataclasses.replace(config, name=path.stem, denoiser=denoiser)
    except ValueError as error:  # eight channels: a model that is told by pictures
        raise ValueError(f"{path} is not supported ({error})") from error


def _is_base(path: Path, shapes: Mapping[str, Shape]) -> bool:
    """Does it predict the noise? Shapes do not tell; what else is known of a file may.

    A file of options (YAML) beside it, as the first code has it; its head; its training's steps.
    """
    options = path.with_suffix(".yaml")
    if options.is_file():
        return not re.search(r'parameterization: *"?v\b', options.read_text(errors="replace"))
    said = stored.metadata(path).get("modelspec.prediction_type", "")
    if said or "v_pred" in shapes:
        return said.startswith("eps")
    return stored.number(path, "global_step") == GLOBAL_STEP_OF_BASE


def open_part(path: Path, network: object, shapes: Mapping[str, Shape]) -> Weights:
    """The network of a configuration in such a file.

    Raises ValueError where it is not there, and as `Weights.open`.
    """
    one = architecture(network)
    spellings = one.originals(network)
    for spelling in spellings:
        if spelling.prefix and any(key.startswith(spelling.prefix) for key in shapes):
            break
    else:
        prefixes = " or ".join(f"{spelling.prefix}*" for spelling in spellings if spelling.prefix)
        way_out = "give one with --vae" if one.slot == "autoencoder" else "use a whole model"
        raise ValueError(f"{path} holds no {one.folder} ({prefixes}); {way_out}")
    _, like = structure(network)
    found = Weights.open([path], like, one.names, spelling, lambda name: one.beside(network, name))
    return dataclasses.replace(found, unused=())  # the official files have some, all alike


def find_tokenizer(path: Path, given: Path | None, family: Family) -> Tokenizer:
    """CLIP's tokenizer, padding as the family does.

    Raises FileNotFoundError that says how to get it; ValueError where a folder has another one.
    """
    cached = filter(None, map(places.cached, REPOSITORIES))
    near = [given] if given is not None else [path.parent, *cached]
    for folder in (place / name for place in near for name in ("tokenizer", "")):
        if (folder / "merges.txt").exists() or (folder / "tokenizer.json").exists():
            break
    else:
        told = f"{path} has no tokenizer of CLIP, and none is beside it or in {places.cache()}"
        if given is not None:
            told = f"{given} holds no vocab.json and merges.txt"
        raise FileNotFoundError(f"{told}; {TOKENIZER}")
    found = Tokenizer.load(folder)
    if found.pad_token == family.pad_token:
        return found
    return Tokenizer(
        found.vocab,
        found.merges,
        length=found.length,
        pad_token=family.pad_token,
        any_case=family.any_case,
    )


def _beside(shapes: Mapping[str, Shape]) -> str:
    """What else the file holds: tensors of training, such as averaged weights."""
    read = (UNET, "first_stage_model.", "vae.", "cond_stage_model.")
    others = Counter(key.split(".")[0] for key in shapes if not key.startswith(read))
    most = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{name} ({count})" for name, count in most)
