"""LoRA files: small changes to a model, added to its weights while they are read.

A LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) keeps what training changed in a layer as
the product of two thin matrices, A and B of the paper, here `down` and `up`:

    W' = W + strength * alpha / rank * up @ down

down is (rank, in), up is (out, rank). Of a convolution, down is (rank, in, height, width) and up is
(out, rank, 1, 1). Alpha, a number in the file, makes trainings with different ranks comparable.

Trainers spell the same layer in many ways, of diffusers and PEFT with dots, of kohya's scripts with
`_` in place of every dot. The tables below are these spellings; which layer is meant is looked up
among the layers that the model has.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from diffusion.weights.files import IN_FILES, PICKLES, Adjust, listed

# What stands before the name of a layer, and what stands for the dots in it; first PEFT's own.
STEMS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "denoiser": (("unet.", "."), ("", "."), ("lora_unet_", "_")),
        "text_encoder": (
            ("text_encoder.", "."),
            ("text_encoder.text_model.", "."),
            ("lora_te_", "_"),
            ("lora_te_text_model_", "_"),
            ("lora_te1_", "_"),
            ("lora_te1_text_model_", "_"),
        ),
    }
)
ENDS = MappingProxyType(
    {
        ".lora_A.weight": "down",
        ".lora_B.weight": "up",
        ".lora.down.weight": "down",
        ".lora.up.weight": "up",
        ".lora_down.weight": "down",
        ".lora_up.weight": "up",
        ".alpha": "alpha",
    }
)
OLD_SPELLINGS = (
    (re.compile(r"\.processor\."), "."),
    (re.compile(r"\.self_attn\.to_(q|k|v|out)_lora\."), r".self_attn.\1_proj.lora."),
    (re.compile(r"\.to_(q|k|v)_lora\."), r".to_\1.lora."),
    (re.compile(r"\.to_out_lora\."), ".to_out.0.lora."),
    (re.compile(r"\.lora_linear_layer\."), ".lora."),
)
NOT_READ = MappingProxyType(
    {
        "hada_": "a LoHa",
        "lokr_": "a LoKr",
        "dora_scale": "a DoRA",
        "lora_magnitude_vector": "a DoRA",
        "lora_mid": "a LoCon of three factors",
        "lora_te2_": "a LoRA of SDXL",
        "text_encoder_2.": "a LoRA of SDXL",
        "lora_unet_input_blocks_": "a LoRA of SDXL",
        "lora_unet_middle_block_": "a LoRA of SDXL",
        "lora_unet_output_blocks_": "a LoRA of SDXL",
        "base_model.model.": "a file of PEFT's own, which keeps alpha in another file",
    }
)
WHOLE = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")  # alpha may be stored as these
PEFT_SETTINGS = "lora_adapter_metadata"  # JSON in the head of the file
STRONGEST = 10.0
LARGEST_ALPHA = 1e9

Layer = tuple[str, str]  # part, official name of the parameter
Known = Mapping[str, Mapping[str, tuple[int, ...]]]  # part -> official name -> shape in the files
Contents = Mapping[str, tuple[tuple[int, ...], str]]  # key -> shape, type
Problems = dict[str, list[str]]  # what is the matter -> with what


@dataclass(frozen=True, eq=False)
class Change:
    """What a file adds to one parameter, in the precision of the file."""

    up: np.ndarray  # (out, rank)
    down: np.ndarray  # (rank, in * height * width)
    scale: float  # alpha / rank


@dataclass(frozen=True, eq=False)
class LoRA:
    """One file, read and checked against a model, and how strong it is to be."""

    path: Path
    strength: float  # 1 as it was trained, 0 not at all, negative the other way
    changes: Mapping[Layer, Change]

    @classmethod
    def open(cls, path: str | Path, strength: float, known: Known) -> LoRA:
        """Read a file, after its names and shapes have been compared with those of the model.

        Args:
            known: of "denoiser" and "text_encoder" what `Weights.shapes` says.

        Raises FileNotFoundError; ValueError for a pickle, a damaged file or a strength beyond 10
        either way, and one that lists what is missing, left over, mis-shaped, not finite or not
        supported.
        """
        path = Path(path)
        if not abs(strength) <= STRONGEST:
            raise ValueError(f"strength {strength} of LoRA {path} is not between -10 and 10")
        if path.suffix in PICKLES:
            raise ValueError(
                f"LoRA {path} is a pickle, which can run any program when it is read; take the "
                ".safetensors file of the same LoRA, or convert it with torch and safetensors: "
                "`save_file(torch.load(FILE, weights_only=True), NEW)`"
            )
        if not path.is_file():
            raise FileNotFoundError(f"LoRA {path} is missing or no file")
        try:
            with safe_open(path, "numpy") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                contents = {k: (tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()}
                if not contents:
                    raise ValueError(f"LoRA {path} holds nothing")
                layers, problems = _match(contents, known)
                _refuse(path, problems)
                values = {key: file.get_tensor(key) for key in contents}
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"LoRA {path} is damaged ({error}); copy it again") from error
        scales, problems = _scales(layers, values, metadata)
        endless = [key for key, value in values.items() if not np.isfinite(value).all()]
        _refuse(path, {"not finite": endless, **problems})
        changes = {}
        for layer, keys in layers.items():
            up, down = values[keys["up"]], values[keys["down"]]
            up, down = up.reshape(up.shape[:2]), down.reshape(len(down), -1)
            changes[layer] = Change(up, down, scales[layer])
        return cls(path, float(strength), changes)

    def adjust(self, part: str) -> Adjust:
        """What `Weights.read` needs to add this file's changes to one part of the model.

        The sum is float32. It raises ValueError where a change is too large for that.
        """

        def add(name: str, value: np.ndarray) -> np.ndarray:
            change = self.changes.get((part, name))
            if change is None:
                return value
            scale = np.float32(self.strength * change.scale)
            with np.errstate(over="ignore", invalid="ignore"):
                up, down = change.up.astype(np.float32), change.down.astype(np.float32)
                total = ((scale * up) @ down).reshape(value.shape)
            if not np.isfinite(total).all():
                raise ValueError(f"LoRA {self.path}: its change of {name} is too large for float32")
            total += value
            return total

        return add


def _match(contents: Contents, known: Known) -> tuple[dict[Layer, dict[str, str]], Problems]:
    """The keys of each layer by their role, and what does not fit."""
    stems = {
        prefix + name.removesuffix(".weight").replace(".", dot): (part, name)
        for part, spellings in STEMS.items()
        for name, shape in known[part].items()
        if len(shape) > 1
        for prefix, dot in spellings
    }
    layers: dict[Layer, dict[str, str]] = {}
    problems: Problems = defaultdict(list)
    for key, (shape, dtype) in contents.items():
        layer, role = _place(key, stems)
        if layer is None:
            kinds = [kind for mark, kind in NOT_READ.items() if mark in key]
            problems[f"of {kinds[0]}, which is not read" if kinds else "left over"].append(key)
            continue
        if role in layers.setdefault(layer, {}):
            problems["twice"].append(key)
        layers[layer][role] = key
        if dtype not in IN_FILES and not (role == "alpha" and dtype in WHOLE):
            problems["no fractions"].append(f"{key} of {dtype}")
        if role == "alpha" and shape not in ((), (1,)):
            problems["wrong shape"].append(f"{key} of {shape} instead of one number")
    for (part, name), keys in layers.items():
        missing = {"up", "down"} - keys.keys()
        problems["missing"] += [f"{role} of {_peft(part)}{name}" for role in sorted(missing)]
        if not missing:
            (up, _), (down, _) = (contents[keys[role]] for role in ("up", "down"))
            shape = known[part][name]
            if not _fits(up, down, shape):
                problems["wrong shape"].append(f"{up} times {down} for {_peft(part)}{name} of {shape}")
    return layers, problems


def _place(key: str, stems: Mapping[str, Layer]) -> tuple[Layer | None, str]:
    for old, new in OLD_SPELLINGS:
        key = old.sub(new, key)
    for end, role in ENDS.items():
        if key.endswith(end):
            return stems.get(key.removesuffix(end)), role
    return None, ""


def _fits(up: tuple[int, ...], down: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    out, *rest = _bare(shape)
    rank = down[:1]
    return rank != (0,) and _bare(up) == (out, *rank) and _bare(down) == (*rank, *rest)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1x1 convolution as the Linear layer that it is."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _scales(
    layers: Mapping[Layer, Mapping[str, str]],
    values: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> tuple[dict[Layer, float], Problems]:
    """Alpha / rank of each layer, and what does not fit.

    Alpha is what a tensor of the layer says, else what PEFT's settings say, else the rank. In
    `alpha_pattern`, PEFT lists the exceptions from `lora_alpha` by the end of a layer's name, or by
    all of it after a `^`. `use_rslora` divides by the root of the rank (Kalajdzievski 2023,
    https://arxiv.org/abs/2312.03732).
    """
    try:
        settings = json.loads(metadata.get(PEFT_SETTINGS, "{}"))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        return {}, {"not a JSON object": [PEFT_SETTINGS]}

    def setting(part: str, name: str) -> Any:
        return settings.get(_peft(part) + name, settings.get(name))

    patterns = {part: setting(part, "alpha_pattern") or {} for part, _ in layers}
    if not all(isinstance(alphas, dict) for alphas in patterns.values()):
        return {}, {"not a JSON object": ["alpha_pattern"]}
    idle = [
        f"{_peft(part)}{pattern}"
        for part, alphas in patterns.items()
        for pattern in alphas
        if not any(_named(name, pattern) for other, name in layers if other == part)
    ]
    scales, senseless = {}, []
    for (part, name), keys in layers.items():
        rank = len(values[keys["down"]])
        alpha: Any = rank
        divisor: float = rank
        if "alpha" in keys:
            alpha = values[keys["alpha"]].item()
        elif settings:
            exceptions = (a for pattern, a in patterns[part].items() if _named(name, pattern))
            alpha = next(exceptions, setting(part, "lora_alpha"))
            divisor = math.sqrt(rank) if setting(part, "use_rslora") else rank
        if type(alpha) in (int, float) and abs(alpha) <= LARGEST_ALPHA:
            scales[part, name] = alpha / divisor
        else:
            senseless.append(f"{_peft(part)}{name} {str(alpha)[:20]}")
    return scales, {"alpha_pattern without a layer": idle, "senseless alpha": senseless}


def _peft(part: str) -> str:
    """What stands before the names of a part in PEFT's files and settings."""
    return STEMS[part][0][0]


def _named(name: str, pattern: str) -> bool:
    """Does a pattern of PEFT mean the parameter of this official name?"""
    module = "." + name.removesuffix(".weight")
    end = "." + pattern.removeprefix("^").removeprefix("text_model.")
    return module == end or ("." + pattern == end and module.endswith(end))


def _refuse(path: Path, problems: Problems) -> None:
    if any(problems.values()):
        raise ValueError(
            f"LoRA {path} does not fit the model ({listed(problems)}); use one that was made for "
            "this kind of model (SD 1.x and SD 2.x differ)"
        )
