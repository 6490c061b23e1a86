"""The name map: what the official files call our parameters, as data.

Left our name, right theirs; `*` is a number, the same in both. The last word of a parameter is
mapped by `LEAVES`, and its axes by `to_file` and `from_file`: PyTorch keeps a convolution as
(out, in, height, width) and a Linear layer as (out, in), JAX as (height, width, in, out) and
(in, out). Official files of several ages spell some names differently: see `OLD_SPELLINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

NameMap = Mapping[str, str]

LEAVES = MappingProxyType(
    {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
)
IGNORED = re.compile(r"\.?position_ids$")  # 0, 1, 2, ...: no parameter
PROJECTION = re.compile(r"\.project_(in|out)\.kernel$")
OLD_SPELLINGS = (
    (re.compile(r"^text_model\."), ""),
    (re.compile(r"(attentions\.\d+)\.query\."), r"\1.to_q."),
    (re.compile(r"(attentions\.\d+)\.key\."), r"\1.to_k."),
    (re.compile(r"(attentions\.\d+)\.value\."), r"\1.to_v."),
    (re.compile(r"(attentions\.\d+)\.proj_attn\."), r"\1.to_out.0."),
)


def under(ours: str, theirs: str, brick: NameMap) -> dict[str, str]:
    """The map of a brick at one place of a network."""
    return {f"{ours}.{name}": f"{theirs}.{other}" for name, other in brick.items()}


# In any config.json, and no matter to a network.
ANYWHERE = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size"}

ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}

RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
}

TRANSFORMER = {
    "norm": "norm",
    "project_in": "proj_in",
    "block.norm1": "transformer_blocks.0.norm1",
    **under("block.self_attention", "transformer_blocks.0.attn1", ATTENTION),
    "block.norm2": "transformer_blocks.0.norm2",
    **under("block.cross_attention", "transformer_blocks.0.attn2", ATTENTION),
    "block.norm3": "transformer_blocks.0.norm3",
    "block.feed_forward.linear1": "transformer_blocks.0.ff.net.0.proj",
    "block.feed_forward.linear2": "transformer_blocks.0.ff.net.2",
    "project_out": "proj_out",
}


def theirs(name: str, names: NameMap) -> str:
    """The official name of one of our parameters (`down.conv_in.kernel` -> `conv_in.weight`), or of
    a module (`down.conv_in` -> `conv_in`).

    Raises KeyError where the map does not know it.
    """
    numbers = iter(re.findall(r"(?<=\.)\d+(?=\.|$)", name))
    pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
    if pattern not in names:
        pattern, _, leaf = pattern.rpartition(".")
        found = f"{names[pattern]}.{LEAVES[leaf]}"
    else:
        found = names[pattern]
    return re.sub(r"\*", lambda _: next(numbers), found)


def today(name: str) -> str:
    """An official name as the files of today spell it."""
    for old, new in OLD_SPELLINGS:
        name = old.sub(new, name)
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
