"""Exercises of lesson 7, the oil painting."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise


def _maps() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    return [
        (jnp.asarray(rng.standard_normal(s, np.float32)),) for s in ((1, 2, 3, 2), (2, 4, 4, 3))
    ]


def _twice(x: Any) -> Any:
    return x.repeat(2, axis=1).repeat(2, axis=2)


def _widths(channels: Any, layers: int) -> list[int]:
    """Channels that each residual block on the way up gets, in the order of their work."""
    made = [channels[0]]  # conv_in
    for level, width in enumerate(channels):
        made += [width] * layers
        if level < len(channels) - 1:
            made.append(width)  # the downsampling
    found, h = [], channels[-1]
    for level in reversed(range(len(channels))):
        for _ in range(layers + 1):
            found.append(h + made.pop())
            h = channels[level]
    return found


def _in_order(channels: Any, layers: int) -> list[int]:
    """With the first skip first."""
    made = [channels[0]]
    for level, width in enumerate(channels):
        made += [width] * layers + ([width] if level < len(channels) - 1 else [])
    found, h = [], channels[-1]
    for level in reversed(range(len(channels))):
        for _ in range(layers + 1):
            found.append(h + made.pop(0))
            h = channels[level]
    return found


def _of_the_level(channels: Any, layers: int) -> list[int]:
    """As if all skips of a level had that level's channels."""
    found, h = [], channels[-1]
    for width in reversed(channels):
        for _ in range(layers + 1):
            found.append(h + width)
            h = width
    return found


def _without_skips(channels: Any, layers: int) -> list[int]:
    found, h = [], channels[-1]
    for width in reversed(channels):
        for _ in range(layers + 1):
            found.append(h)
            h = width
    return found


def _skips() -> list[tuple[Any, ...]]:
    names = [f"skip {i}" for i in range(6)]
    return [(names, 2), (names, 3), ([f"skip {i}" for i in range(12)], 3)]


EXERCISES: Mapping[str, Exercise] = {
    "twice": Exercise(
        minutes=5,
        right=_twice,
        cases=_maps,
        mistakes={
            "tiled": lambda x: jnp.tile(x, (1, 2, 2, 1)),
            "one_axis": lambda x: x.repeat(2, axis=1),
            "channels": lambda x: x.repeat(2, axis=2).repeat(2, axis=3),
        },
    ),
    "skips": Exercise(
        minutes=8,
        right=lambda skips, each: [skips[::-1][i : i + each] for i in range(0, len(skips), each)],
        cases=_skips,
        mistakes={
            "first_first": lambda skips, each: [
                skips[i : i + each] for i in range(0, len(skips), each)
            ],
            "flat": lambda skips, each: skips[::-1],
            "levels_only": lambda skips, each: [
                skips[i : i + each] for i in range(0, len(skips), each)
            ][::-1],
        },
    ),
    "widths": Exercise(
        minutes=15,
        right=_widths,
        cases=lambda: [((32, 64, 128), 1), ((8, 12, 16), 2), ((320, 640, 1280, 1280), 2)],
        mistakes={
            "first_first": _in_order,
            "of_the_level": _of_the_level,
            "no_skips": _without_skips,
        },
    ),
}
