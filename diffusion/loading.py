"""From a model's name or folder to an artist."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from diffusion.film import MotionModules
from diffusion.filming import FilmArtist
from diffusion.kernels.device import has_bfloat16
from diffusion.runtime.programs import Network
from diffusion.runtime.transformed_kernels import prepare
from diffusion.weights import adapter, folder
from diffusion.weights.architectures import SLOTS, structure
from diffusion.weights.architectures.motion import check_fits
from diffusion.weights.lora import LoRA
from diffusion.weights.options import naming


def load(
    model: str | Path = "garden",
    *,
    dtype: str | None = None,
    loras: Mapping[str, float] | None = None,
    motion: str | Path | None = None,
) -> FilmArtist:
    """Load a model: the name of one that ships ("garden"), or a folder of SD 1.x or 2.x.

    Args:
        model: a name, or a folder in the layout of Hugging Face's diffusers.
        dtype: precision of the weights and of the networks' arithmetic: "float32", "bfloat16" or
            "float16". None: bfloat16 where the device multiplies in it, float32 elsewhere.
        loras: LoRA files (safetensors) to merge into the weights, each with its strength.
        motion: a motion adapter for films, in the layout of diffusers. None: the model's own, if
            its folder has a motion_adapter/.

    Raises FileNotFoundError or ValueError that names the file that is missing or does not fit.
    """
    dtype = dtype or ("bfloat16" if has_bfloat16() else "float32")
    place = folder.find(model)
    config = folder.load_config(place)
    tokenizer = folder.load_tokenizer(place)
    text = config.text_encoder
    if (tokenizer.vocab_size, tokenizer.length) != (text.vocab_size, text.length):
        raise ValueError(
            f"{place / 'tokenizer'} has {tokenizer.vocab_size} tokens and rows of "
            f"{tokenizer.length}, text_encoder/config.json says {text.vocab_size} and "
            f"{text.length}; use the files of one model"
        )
    weights = {slot: folder.open_part(place, config, slot) for slot in SLOTS}
    opened = [
        LoRA.open(path, strength, {slot: w.shapes for slot, w in weights.items()})
        for path, strength in (loras or {}).items()
    ]

    def network(slot: str) -> Network:
        form, _ = structure(getattr(config, slot))
        read = partial(weights[slot].read, dtype, [lora.adjust(slot) for lora in opened])
        if slot == "denoiser":  # it is called most often
            found = Network(form, read, partial(prepare, form, positions=config.latent_size**2))
        else:
            found = Network(form, read)
        found.params  # noqa: B018 (what is wrong with the numbers should be known now)
        return found

    networks = {slot: network(slot) for slot in SLOTS}
    artist = FilmArtist(config, tokenizer, **networks)
    if motion is not None or (place / adapter.FOLDER).exists():
        artist.motion = _motion(Path(motion or place), artist, dtype)
    return artist


def _motion(place: Path, artist: FilmArtist, dtype: str) -> MotionModules:
    """An adapter for an artist's denoiser; its numbers are read when a film is painted."""
    config = adapter.load_config(place)
    with naming(adapter.find(place)):
        check_fits(config, artist.config.denoiser)
    weights = adapter.open_adapter(place, config)
    form, _ = structure(config)
    modules = Network(form, partial(adapter.read_adapter, weights, config, dtype))
    return MotionModules(config, modules, artist.denoiser)
