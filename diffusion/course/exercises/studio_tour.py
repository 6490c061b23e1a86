"""Exercises of lesson 0, the studio tour."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.course.exercise import Exercise


def _trees() -> list[tuple[Any, ...]]:
    conv = {"kernel": jnp.ones((3, 3, 4, 8)), "bias": jnp.ones(8)}
    return [(conv,), ({"one": conv, "blocks": {0: conv, 1: {"scale": jnp.ones(5)}}},)]


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _kernels(params: Any) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel")


def _work(steps: int, pictures: int) -> int:
    """Canvases that go through the U-Net in a painting with guidance."""
    return 2 * steps * pictures


def _ledger() -> dict[str, tuple[int, ...]]:
    return {
        "tokens": (3, 77),
        "context": (3, 77, 128),
        "canvas": (3, 16, 16, 4),
        "prediction": (3, 16, 16, 4),
        "picture": (3, 64, 64, 3),
    }


def _with(**entries: tuple[int, ...]) -> Any:
    return lambda: _ledger() | entries


EXERCISES: Mapping[str, Exercise] = {
    "ledger": Exercise(
        minutes=8,
        right=_with(),
        cases=lambda: [()],
        mistakes={
            "pixels": _with(canvas=(3, 64, 64, 3)),
            "prediction": _with(prediction=(3, 64, 64, 3)),
            "words": _with(context=(3, 128)),
            "channels_first": _with(
                canvas=(3, 4, 16, 16), prediction=(3, 4, 16, 16), picture=(3, 3, 64, 64)
            ),
        },
    ),
    "count": Exercise(
        minutes=5,
        right=_count,
        cases=_trees,
        mistakes={
            "arrays": lambda params: len(jax.tree.leaves(params)),
            "kernels": _kernels,
            "first_axis": lambda params: sum(len(leaf) for leaf in jax.tree.leaves(params)),
        },
    ),
    "work": Exercise(
        minutes=4,
        right=_work,
        cases=lambda: [(25, 1), (10, 4)],
        mistakes={
            "unguided": lambda steps, pictures: steps * pictures,
            "batch": lambda steps, pictures: 2 * steps,
        },
    ),
}
