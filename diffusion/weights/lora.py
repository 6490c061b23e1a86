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

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open

from diffusion.weights.files import Adjust, refuse
from diffusion.weights.names import today
from diffusion.weights.stored import IN_FILES, Shape, unreadable

# What stands before the name of a layer, and what stands for the dots in it; first PEFT's own.
STEMS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "denoiser": (("unet.", "."), ("", "."), ("lora_unet_", "_")),
    "text_encoder": (("text_encoder.", "."), ("lora_te_", "_"), ("lora_te1_", "_")),
}
PEFT = {part: spellings[0][0] for part, spellings in STEMS.items()}
OLD_SPELLINGS = {
    r"^(text_encoder\.|lora_te1?_)text_model[._]": r"\1",
    r"\.processor\.": ".",
    r"\.self_attn\.to_(q|k|v|out)_lora\.": r".self_attn.\1_proj.lora.",
    r"\.to_(q|k|v)_lora\.": r".to_\1.lora.",
    r"\.to_out_lora\.": ".to_out.0.lora.",
    r"\.lora_linear_layer\.": ".lora.",
}
ENDS = {
    "down": r"\.lora(_A|[._]down)\.weight$",
    "up": r"\.lora(_B|[._]up)\.weight$",
    "alpha": r"\.alpha$",
}
NOT_READ = {
    "a LoHa": r"hada_",
    "a LoKr": r"lokr_",
    "a DoRA": r"dora_scale|lora_magnitude_vector",
    "a LoCon of three factors": r"lora_mid",
    "a LoRA of SDXL": r"lora_te2_|text_encoder_2\.|lora_unet_(input|middle|output)_blocks?_",
    "a file of PEFT's own, which keeps alpha in another file": r"base_model\.model\.",
}
SETTINGS = "lora_adapter_metadata"  # JSON in the head of the file
STRONGEST = 10.0
LARGEST_ALPHA = 1e9
WAY_OUT = "use one that was made for this kind of model (SD 1.x and SD 2.x differ)"

Layer = tuple[str, str]  # part, official name of the parameter
Layers = dict[Layer, dict[str, str]]  # the key of each role in a layer
Known = Mapping[str, Mapping[str, Shape]]  # part -> official name -> shape in the files
Contents = Mapping[str, tuple[Shape, str]]  # key -> shape, type
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
    def open(cls, path: str | Path, strength: float, known: Known) -> Self:
        """Read a file, after its names and shapes have been compared with those of the model.

        `known` is what `Weights.shapes` says of "denoiser" and "text_encoder".
        Raises FileNotFoundError; ValueError for a pickle, a damaged file, a strength beyond 10
        either way, and one that lists what in the file does not fit.
        """
        path = Path(path)
        if not abs(strength) <= STRONGEST:
            raise ValueError(f"strength {strength} of LoRA {path} is not between -10 and 10")
        if not path.is_file():
            raise FileNotFoundError(f"LoRA {path} is missing or no file")
        if reason := unreadable(path):
            raise ValueError(f"LoRA {reason}")
        what = f"LoRA {path} does not fit the model"
        try:
            with safe_open(path, "numpy") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                contents = {k: (tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()}
                if not contents:
                    raise ValueError(f"LoRA {path} holds nothing")
                layers, problems = _match(contents, known)
                refuse(what, problems, WAY_OUT)
                values = {key: file.get_tensor(key) for key in contents}
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"LoRA {path} is damaged ({error}); copy it again") from error
        scales, problems = _scales(layers, values, metadata)
        endless = [key for key, value in values.items() if not np.isfinite(value).all()]
        refuse(what, {"not finite": endless, **problems}, WAY_OUT)
        changes = {}
        for layer, keys in layers.items():
            up, down = values[keys["up"]], values[keys["down"]]
            up, down = up.reshape(up.shape[:2]), down.reshape(len(down), -1)
            changes[layer] = Change(up, down, scales[layer])
        return cls(path, float(strength), changes)

    def adjust(self, part: str) -> Adjust:
        """What adds this file's changes to one part of the model while `Weights.read` reads it.

        The sum is float32; ValueError where a change is too large for that.
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


def _match(contents: Contents, known: Known) -> tuple[Layers, Problems]:
    """The keys of each layer by their role, and what does not fit."""
    stems = {
        prefix + name.removesuffix(".weight").replace(".", dot): (part, name)
        for part, spellings in STEMS.items()
        for name, shape in known[part].items()
        if len(shape) > 1
        for prefix, dot in spellings
    }
    layers: Layers = {}
    problems: Problems = defaultdict(list)
    for key, (shape, dtype) in contents.items():
        layer, role = _place(key, stems)
        if layer is None:
            kinds = [kind for kind, mark in NOT_READ.items() if re.search(mark, key)]
            problems[f"of {kinds[0]}, which is not read" if kinds else "left over"].append(key)
            continue
        if role in layers.setdefault(layer, {}):
            problems["twice"].append(key)
        layers[layer][role] = key
        whole = dtype.startswith(("I", "U"))  # as alpha may be, too
        if dtype not in IN_FILES and not (role == "alpha" and whole):
            problems["no fractions"].append(f"{key} of {dtype}")
        if role == "alpha" and shape not in ((), (1,)):
            problems["wrong shape"].append(f"{key} of {shape} instead of one number")
    for (part, name), keys in layers.items():
        told = PEFT[part] + name
        missing = {"up", "down"} - keys.keys()
        problems["missing"] += [f"{role} of {told}" for role in sorted(missing)]
        if not missing:
            (up, _), (down, _) = (contents[keys[role]] for role in ("up", "down"))
            shape = known[part][name]
            if not _fits(up, down, shape):
                problems["wrong shape"].append(f"{up} times {down} for {told} of {shape}")
    return layers, problems


def _place(key: str, stems: Mapping[str, Layer]) -> tuple[Layer | None, str]:
    key = today(key, OLD_SPELLINGS)
    for role, end in ENDS.items():
        if re.search(end, key):
            return stems.get(re.sub(end, "", key)), role
    return None, ""


def _fits(*shapes: Shape) -> bool:
    """Do `up` and `down` make a layer of this shape? A 1x1 convolution is a Linear layer."""
    up, down, (out, *rest) = (x[:2] if x[2:] == (1, 1) else x for x in shapes)
    rank = down[:1]
    return rank != (0,) and up == (out, *rank) and down == (*rank, *rest)


def _scales(
    layers: Layers, values: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> tuple[dict[Layer, float], Problems]:
    """Alpha / rank of each layer, and what does not fit.

    Alpha is what a tensor of the layer says, else what PEFT's settings say, else the rank. In
    `alpha_pattern`, PEFT lists the exceptions from `lora_alpha` by the end of a layer's name, or by
    all of it after a `^`. `use_rslora` divides by the root of the rank (Kalajdzievski 2023,
    https://arxiv.org/abs/2312.03732).
    """
    try:
        settings = json.loads(metadata.get(SETTINGS, "{}"))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        return {}, {"not a JSON object": [SETTINGS]}

    def setting(part: str, name: str) -> Any:
        return settings.get(PEFT[part] + name, settings.get(name))

    patterns = {part: setting(part, "alpha_pattern") or {} for part, _ in layers}
    if not all(isinstance(alphas, dict) for alphas in patterns.values()):
        return {}, {"not a JSON object": ["alpha_pattern"]}
    idle = {part: {*alphas} for part, alphas in patterns.items()}
    scales, senseless = {}, []
    for (part, name), keys in layers.items():
        alpha: Any = len(values[keys["down"]])
        divisor: float = alpha
        meant = [pattern for pattern in patterns[part] if _named(name, pattern)]
        idle[part] -= {*meant}
        if "alpha" in keys:
            alpha = values[keys["alpha"]].item()
        elif settings:
            alpha = patterns[part][meant[0]] if meant else setting(part, "lora_alpha")
            divisor = math.sqrt(divisor) if setting(part, "use_rslora") else divisor
        if type(alpha) in (int, float) and abs(alpha) <= LARGEST_ALPHA:
            scales[part, name] = alpha / divisor
        else:
            senseless.append(f"{PEFT[part]}{name} {str(alpha)[:20]}")
    unused = [PEFT[part] + pattern for part, left in idle.items() for pattern in sorted(left)]
    return scales, {"alpha_pattern without a layer": unused, "senseless alpha": senseless}


def _named(name: str, pattern: str) -> bool:
    """Does a pattern of PEFT mean the parameter of this official name?"""
    module = "." + name.removesuffix(".weight")
    end = "." + pattern.removeprefix("^").removeprefix("text_model.")
    return module == end or ("." + pattern == end and module.endswith(end))
