"""LoRA files: the weights that `diffusers` makes of one, beside ours.

The file is written here, in each of the conventions that are around, with random factors for every
layer. The reference loads it and fuses it into its weights; ours are read with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from diffusion.inspection.blocks import PARTS
from diffusion.inspection.rows import Row, compare
from diffusion.weights import folder
from diffusion.weights.lora import LoRA
from diffusion.weights.names import theirs, to_file
from parity.reference import TINY, Model, build

BOUND = 1e-6  # of the error relative to the largest weight, in float32
STRENGTH, RANK, ALPHA = 0.7, 3, 6.0
CHANGED = ("unet", "text_encoder")  # the networks that a LoRA changes, as the reference calls them

Factors = Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]  # (part, layer) -> down, up
File = tuple[dict[str, np.ndarray], dict[str, str]]  # tensors, metadata


def peft(factors: Factors) -> File:
    """As diffusers writes today, with one layer and one kind of layer that have their own alpha."""
    tensors, settings = {}, {}
    for (part, layer), (down, up) in factors.items():
        tensors |= {f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}
    for part in CHANGED:
        layers = [layer for other, layer in factors if other == part]
        settings |= {
            f"{part}.r": RANK,
            f"{part}.lora_alpha": ALPHA,
            f"{part}.target_modules": layers,
            f"{part}.alpha_pattern": {f"^{layers[0]}": 1.5, layers[-1].rpartition(".")[2]: 4.0},
        }
    return tensors, {"lora_adapter_metadata": json.dumps(settings)}


def processors(factors: Factors) -> File:
    """As diffusers wrote when only attention could be trained; alpha is the rank."""
    spellings = {
        "unet": {f".to_{x}": f".processor.to_{x}_lora" for x in "qkv"}
        | {".to_out.0": ".processor.to_out_lora"},
        "text_encoder": {f".{x}_proj": f".to_{x}_lora" for x in ("q", "k", "v", "out")},
    }
    tensors = {}
    for (part, layer), (down, up) in factors.items():
        for end, old in spellings[part].items():
            if layer.endswith(end):
                stem = "text_encoder.text_model." if part == "text_encoder" else "unet."
                stem += layer.removesuffix(end) + old
                tensors |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    return tensors, {}


def kohya(factors: Factors) -> File:
    """One alpha for all layers, for where they differ the reference takes the most frequent one.

    Its `get_peft_kwargs` files the others under names that no layer has (diffusers 0.42).
    """
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    tensors = {}
    for (part, layer), (down, up) in factors.items():
        stem = prefixes[part] + layer.replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors[f"{stem}.alpha"] = np.array(ALPHA, np.float32)
    return tensors, {}


def rows(seed: int) -> list[Row]:
    """One row for each part of both tiny models and each convention."""
    found: list[Row] = []
    for family, model in TINY.items():
        for convention in (peft, processors, kohya):
            name = f"{family} {convention.__name__}"
            with tempfile.TemporaryDirectory() as place:
                found += _compare(name, model, convention, Path(place), seed)
    return found


def _compare(
    name: str, model: Model, convention: Callable[[Factors], File], place: Path, seed: int
) -> Iterator[Row]:
    reference = build(model, seed, tiny=True)
    reference.save_pretrained(place)
    file = place / "lora.safetensors"
    tensors, metadata = convention(_factors(reference, seed))
    save_file(tensors, file, metadata)
    reference.load_lora_weights(place, weight_name=file.name)
    reference.fuse_lora(lora_scale=STRENGTH)
    reference.unload_lora_weights()  # what is fused stays

    config = folder.load_config(place)
    slots = {part: PARTS[part].slot for part in CHANGED}
    weights = {slot: folder.open_part(place, config, slot) for slot in slots.values()}
    lora = LoRA.open(file, STRENGTH, {slot: w.shapes for slot, w in weights.items()})
    for part, slot in slots.items():
        params = weights[slot].read(adjusts=[lora.adjust(slot)])
        ours = {}
        for path, value in flatten_dict(params).items():
            ours_name = ".".join(map(str, path))
            official = theirs(ours_name, PARTS[part].names)
            ours[official] = to_file(np.asarray(value), ours_name).ravel()
        expected = _state(reference, part)
        yield compare(
            f"{name} {part}",
            np.concatenate([ours[key] for key in expected]),
            np.concatenate([value.ravel() for value in expected.values()]),
            BOUND,
        )


def _state(reference: StableDiffusionPipeline, part: str) -> dict[str, np.ndarray]:
    state = getattr(reference, part).state_dict()
    return {name.removeprefix("text_model."): value.numpy() for name, value in state.items()}


def _factors(reference: StableDiffusionPipeline, seed: int) -> Factors:
    """Random factors of every layer that multiplies, so that a change is as large as a weight."""
    draw = np.random.default_rng(seed)
    factors = {}
    for part in CHANGED:
        for name, value in _state(reference, part).items():
            if value.ndim > 1 and "embeddings." not in name:
                out, *rest = value.shape
                down = draw.standard_normal((RANK, *rest), np.float32)
                up = draw.standard_normal((out, RANK, *[1] * len(rest[1:])), np.float32)
                down /= np.float32(np.sqrt(down[0].size))
                factors[part, name.removesuffix(".weight")] = down, up
    return factors
