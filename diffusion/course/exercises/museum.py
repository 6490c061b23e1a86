"""Exercises of lesson 12, museum pieces."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.weights.architectures import unet
from diffusion.weights.names import theirs, to_file

OURS = (
    "down.conv_in.kernel",
    "down.blocks.1.residuals.0.conv2.bias",
    "bottleneck.residual2.norm1.scale",
    "up.blocks.3.transformers.2.block.cross_attention.query.kernel",
)


def _arrays() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((3, 3, 4, 5)),), (rng.standard_normal((1, 1, 2, 6)),)]


def _named(answer: Any) -> Any:
    return lambda: {name: answer(name) for name in OURS}


def _our_leaf(name: str) -> str:
    return theirs(name, unet.NAMES).rpartition(".")[0] + "." + name.rpartition(".")[2]


def _resnet_numbers(name: str) -> str:
    return theirs(name, unet.NAMES).replace("mid_block.resnets.1", "mid_block.resnets.2")


def _first_attention(name: str) -> str:
    return theirs(name, unet.NAMES).replace("attn2", "attn1")


EXERCISES: Mapping[str, Exercise] = {
    "axes": Exercise(
        minutes=8,
        right=lambda kernel: to_file(kernel, "conv.kernel"),
        cases=_arrays,
        mistakes={
            "reversed": lambda kernel: kernel.transpose(3, 2, 1, 0),
            "unchanged": lambda kernel: kernel,
            "in_out": lambda kernel: kernel.transpose(2, 3, 0, 1),
            "reshaped": lambda kernel: kernel.reshape(
                kernel.shape[3], kernel.shape[2], *kernel.shape[:2]
            ),
        },
    ),
    "names": Exercise(
        minutes=10,
        right=_named(lambda name: theirs(name, unet.NAMES)),
        cases=lambda: [()],
        mistakes={
            "leaf": _named(_our_leaf),
            "from_one": _named(_resnet_numbers),
            "self_attention": _named(_first_attention),
        },
    ),
}
