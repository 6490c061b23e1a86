"""LoRA files: small changes to a model, added to its weights while they are read.

A LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) keeps what training changed in a layer as
the product of two thin matrices, A and B of the paper, here `down` and `up`:

    W' = W + strength * alpha / rank * up @ down

down is (rank, in), up is (out, rank). Of a convolution, down is (rank, in, height, width) and up is
(out, rank, 1, 1). Alpha, a number in the file, makes trainings with different ranks comparable.
`lora_kinds` has the other kinds.

Trainers spell the same layer in many ways, of diffusers and PEFT with dots, of kohya's scripts with
`_` in place of every dot; some use the names of the first code of Stable Diffusion. The tables
below are these spellings; which layer is meant is looked up among the layers that the model has.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open

from diffusion.weights.files import Adjust, refuse
from diffusion.weights.lora_kinds import BIASES, Change, fits, rank_role, recognise, roles
from diffusion.weights.names import today
from diffusion.weights.stored import IN_FILES, Shape, unreadable

# What stands before the name of a layer, and what stands for the dots in it; first PEFT's own.
STEMS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "denoiser": (("unet.", "."), ("", "."), ("lora_unet_", "_"), ("diffusion_model.", ".")),
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
    r"\.lora_(A|B|magnitude_vector)\.(?!weight$)[^.]+(?=\.weight$|$)": r".lora_\1",  # an adapter
}
ENDS = {  # by its role
    "down": r"\.lora(_A|[._]down)\.weight$",
    "mid": r"\.lora_mid\.weight$",
    "up": r"\.lora(_B|[._]up)\.weight$",
    "alpha": r"\.alpha$",
    "magnitude": r"\.lora_magnitude_vector(\.weight)?$",
    "dora_scale": r"\.dora_scale$",
    # What is called so in the files.
    "": r"\.(hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|diff(?:_b)?|[wb]_norm)$",
}
NOT_READ = {
    "an OFT": r"oft_",
    "an (IA)^3": r"on_input$|ia3_",
    "a GLoRA": r"\.(a[12]|b[12m])\.weight$",
    "a LoRA of SDXL": r"lora_te2_|text_encoder_2\.|transformer_blocks[._][1-9]",
    "a LoRA of a transformer, such as SD 3 or Flux": (
        r"(double|single|joint)(_transformer)?_blocks|^transformer\.|lora_transformer_"
    ),
    "a file of PEFT's own, which keeps alpha in another file": r"base_model\.model\.",
}
SETTINGS = "lora_adapter_metadata"  # JSON in the head of the file
STRONGEST = 10.0
LARGEST_ALPHA = 1e9
USUAL = "pytorch_lora_weights.safetensors"  # in a folder
WAY_OUT = "use one that was made for this kind of model (SD 1.x and SD 2.x differ)"

LENGTHS = frozenset(("magnitude", "dora_scale"))
BESIDE = LENGTHS | BIASES | {"alpha"}  # what any kind may have, too

Layer = tuple[str, str]  # part, official name of the parameter
Layers = dict[Layer, dict[str, str]]  # the key of each role in a layer
Known = Mapping[str, Mapping[str, Shape]]  # part -> official name -> shape in the files
Contents = Mapping[str, tuple[Shape, str]]  # key -> shape, type
Problems = dict[str, list[str]]  # what is the matter -> with what


@dataclass(frozen=True, eq=False)
class LoRA:
    """One file, read and checked against a model, and how strong it is to be."""

    path: Path
    strength: float  # 1 as it was trained, 0 not at all, negative the other way
    changes: Mapping[Layer, Change]

    @classmethod
    def open(
        cls,
        path: str | Path,
        strength: float,
        known: Known,
        others: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Self:
        """Read a file, after its names and shapes have been compared with those of the model.

        Args:
            path: of the file, or of the folder that it is in.
            known: what `Weights.shapes` says of "denoiser" and "text_encoder".
            others: of a part, by the official name of each parameter: another that it goes by.

        Raises FileNotFoundError; ValueError for a pickle, a damaged file, a strength beyond 10
        either way, and one that lists what in the file does not fit.
        """
        path = find(path)
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
                layers, problems = _match(contents, known, others or {})
                refuse(what, problems, WAY_OUT)
                values = {key: file.get_tensor(key) for key in contents}
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"LoRA {path} is damaged ({error}); copy it again") from error
        scales, problems = _scales(layers, values, metadata)
        endless = [key for key, value in values.items() if not np.isfinite(value).all()]
        refuse(what, {"not finite": endless, **problems}, WAY_OUT)
        changes = {}
        for (part, name), keys in layers.items():
            tensors = {role: values[key] for role, key in keys.items()}
            kind, form = recognise(tensors.keys() - BESIDE)
            if roles(form) <= tensors.keys():
                lengths = _lengths(tensors, known[part][name])
                changes[part, name] = Change(kind, form, tensors, scales[part, name], lengths)
            for role in BIASES & tensors.keys():
                full, whole = recognise({"diff"})
                changes[part, _bias(name)] = Change(full, whole, {"diff": tensors[role]})
        return cls(path, float(strength), changes)

    def adjust(self, part: str) -> Adjust:
        """What adds this file's changes to one part of the model while `Weights.read` reads it.

        The sum is float32; ValueError where a change is too large for that.
        """

        def add(name: str, value: np.ndarray) -> np.ndarray:
            change = self.changes.get((part, name))
            if change is None:
                return value
            with np.errstate(over="ignore", invalid="ignore"):
                total = change.added(value, self.strength)
            if not np.isfinite(total).all():
                raise ValueError(f"LoRA {self.path}: its change of {name} is too large for float32")
            total += value
            return total

        return add


def find(path: str | Path) -> Path:
    """A file, or the one in a folder: that of the usual name, or the only one of its kind.

    Raises FileNotFoundError where a folder has none, ValueError where it has several.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    found = [path / USUAL] if (path / USUAL).is_file() else sorted(path.glob("*.safetensors"))
    if len(found) > 1:
        raise ValueError(f"{path} holds {', '.join(file.name for file in found)}; name one of them")
    if not found:
        raise FileNotFoundError(f"LoRA {path} is a folder without a .safetensors file")
    return found[0]


def _match(
    contents: Contents, known: Known, others: Mapping[str, Mapping[str, str]]
) -> tuple[Layers, Problems]:
    """The keys of each layer by their role, and what does not fit."""
    stems = {
        prefix + spelling.removesuffix(".weight").replace(".", dot): (part, name)
        for part, spellings in STEMS.items()
        for name in known[part]
        if name.endswith(".weight")
        for spelling in {name, others.get(part, {}).get(name, name)}
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
    for layer, keys in layers.items():
        for problem, told in _wrong(layer, keys, contents, known):
            problems[problem].append(told)
    return layers, problems


def _wrong(
    layer: Layer, keys: Mapping[str, str], contents: Contents, known: Known
) -> Iterator[tuple[str, str]]:
    """What is the matter with the tensors of a layer, and with which."""
    part, name = layer
    told, shape = PEFT[part] + name, known[part][name]
    shapes = {role: contents[key][0] for role, key in keys.items()}
    for role in BIASES & keys.keys():
        if (bias := known[part].get(_bias(name))) is None:
            yield "left over", keys[role]
        elif shapes[role] != bias:
            yield "wrong shape", f"{keys[role]} of {shapes[role]} instead of {bias}"
    given = keys.keys() - BESIDE
    if not given:
        yield from (("left over", key) for role, key in keys.items() if role not in BIASES)
        return
    kind, form = recognise(given)
    needed = roles(form)
    yield from (("missing", f"{role} of {told}") for role in sorted(needed - given))
    yield from (("left over", keys[role]) for role in sorted(given - needed))
    if needed != given:
        return
    if not fits(kind, form, shapes, shape):
        factors = " times ".join(str(shapes[role]) for factor in form for role in factor.roles)
        yield "wrong shape", f"{factors} for {told} of {shape}"
    if keys.keys() >= LENGTHS:
        yield "twice", f"lengths of {told}"
    for role in LENGTHS & keys.keys():
        if _side(role, shapes[role], shape) is None:
            yield "wrong shape", f"{keys[role]} of {shapes[role]} for {told} of {shape}"


def _bias(name: str) -> str:
    return name.removesuffix(".weight") + ".bias"


def _side(role: str, shape: Shape, layer: Shape) -> Shape | None:
    """What the lengths of a DoRA belong to: the rows of a layer, (out, 1), or the columns, (1, in).

    The vectors of PEFT are of rows. None where they do not fit.
    """
    rows, columns = (layer[0], 1), (1, *layer[1:2])
    if math.prod(shape) == layer[0] and (role == "magnitude" or shape[:1] == layer[:1]):
        return rows
    return columns if role == "dora_scale" and shape[:2] == columns == _squeezed(shape) else None


def _squeezed(shape: Shape) -> Shape:
    return shape[:2] if math.prod(shape[2:]) == 1 else shape


def _lengths(tensors: Mapping[str, np.ndarray], layer: Shape) -> np.ndarray | None:
    for role in LENGTHS & tensors.keys():
        side = _side(role, tensors[role].shape, layer)
        return tensors[role].reshape(side or ())
    return None


def _place(key: str, stems: Mapping[str, Layer]) -> tuple[Layer | None, str]:
    key = today(key, OLD_SPELLINGS)
    for role, end in ENDS.items():
        if found := re.search(end, key):
            return stems.get(key[: found.start()]), role or found[1]
    return None, ""


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
        _, form = recognise(keys.keys() - BESIDE)
        rank = rank_role(form)
        if rank is None or rank not in keys:  # nothing thin: alpha has no meaning
            scales[part, name] = 1.0
            continue
        alpha: Any = len(values[keys[rank]])
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
