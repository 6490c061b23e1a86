"""The name map: what the official files call our parameters, as data.

Left our name, right theirs; `*` is a number, the same in both. One more `*` on the right: what we
have once, the files have in every block (`copies`). The last word of a parameter is
mapped by `LEAVES`, and its axes by `to_file` and `from_file`: PyTorch keeps a convolution as
(out, in, height, width) and a Linear layer as (out, in), JAX as (height, width, in, out) and
(in, out). Official files of several ages spell some names differently: see `OLD_SPELLINGS`. Those
of the first code of Stable Diffusion have names of their own: see `Spelling`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

NameMap = Mapping[str, str]

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
IGNORED = re.compile(r"\.?position_ids$")  # 0, 1, 2, ...: no parameter
PROJECTION = re.compile(r"\.project_(in|out)\.kernel$")
OLD_SPELLINGS = {
    r"^text_model\.": "",
    r"(attentions\.\d+)\.query\.": r"\1.to_q.",
    r"(attentions\.\d+)\.key\.": r"\1.to_k.",
    r"(attentions\.\d+)\.value\.": r"\1.to_v.",
    r"(attentions\.\d+)\.proj_attn\.": r"\1.to_out.0.",
}


@dataclass(frozen=True)
class Spelling:
    """How some files spell the parameters of a network."""

    names: NameMap | None = None  # ours left, theirs right; None: the architecture's own map
    prefix: str = ""  # before every name; what has another one belongs to another network
    old: Mapping[str, str] = field(default_factory=dict)  # pattern -> as it is spelled today
    # Tensors that are stored as one, one after the other: the end of its name -> of theirs.
    fused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    beside: str = "the config.json beside it"  # what the files have to fit, for messages


TODAY = Spelling(old=OLD_SPELLINGS)


def under(ours: str, theirs: str, brick: NameMap) -> dict[str, str]:
    """The map of a brick at one place of a network."""
    return {f"{ours}.{name}": f"{theirs}.{other}" for name, other in brick.items()}


ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}

RESIDUAL = {
    "norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj",
    "norm2": "norm2", "conv2": "conv2", "shortcut": "conv_shortcut",
}  # fmt: skip
BLOCK = {
    **{name: name for name in ("norm1", "norm2", "norm3")},
    **under("self_attention", "attn1", ATTENTION),
    **under("cross_attention", "attn2", ATTENTION),
    "feed_forward.linear1": "ff.net.0.proj",
    "feed_forward.linear2": "ff.net.2",
}
TRANSFORMER = {
    "norm": "norm",
    "project_in": "proj_in",
    **under("block", "transformer_blocks.0", BLOCK),
    "project_out": "proj_out",
}


def theirs(name: str, names: NameMap) -> str:
    """The official name of one of our parameters (`down.conv_in.kernel` -> `conv_in.weight`), or of
    a module (`down.conv_in` -> `conv_in`).

    Raises KeyError where the map does not know it.
    """
    found = _mapped(name, names) or _mapped(NUMBER.sub("*", name), names)
    if found is None:
        raise KeyError(name)
    for number in NUMBER.findall(name):
        found = found.replace("*", number, 1)
    return found


def _mapped(name: str, names: NameMap) -> str | None:
    if name in names:
        return names[name]
    module, _, leaf = name.rpartition(".")
    return f"{names[module]}.{LEAVES[leaf]}" if module in names and leaf in LEAVES else None


def copies(official: str, known: Iterable[str]) -> list[str]:
    """The names that an official one stands for: with a `*` left in it, one for each number that
    other names of the same network have there; else itself."""
    before, star, after = official.partition("*")
    if not star:
        return [official]
    rest = (name.removeprefix(before) for name in known if name.startswith(before))
    numbers = {name.partition(".")[0] for name in rest} - {"*"}
    return [before + number + after for number in sorted(numbers, key=int)]


def today(name: str, spellings: Mapping[str, str] = OLD_SPELLINGS) -> str:
    """An official name as the files of today spell it."""
    for old, new in spellings.items():
        name = re.sub(old, new, name)
    return name


def to_file(value: np.ndarray, name: str, linear_projection: bool = True) -> np.ndarray:
    """A parameter, by our name of it, with its axes in the order of the files.

    Args:
        linear_projection: False where the file has 1x1 convolutions around a transformer (SD 1.x).
    """
    if not name.endswith(".kernel"):
        return value
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if linear_projection or not PROJECTION.search(name) else value.T[..., None, None]


def from_file(value: np.ndarray, name: str) -> np.ndarray:
    """The way back."""
    if not name.endswith(".kernel"):
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
