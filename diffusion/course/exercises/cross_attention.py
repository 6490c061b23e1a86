"""Exercises of lesson 8, listening while painting."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.layers.attention import attention


def _sides() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    cases = []
    for n, m, heads in ((6, 4, 2), (4, 5, 4)):
        layers = {name: 0.5 * draw(width, 8) for name, width in
                  (("query", 8), ("key", 6), ("value", 6), ("out", 8))}  # fmt: skip
        cases.append((draw(n, 8), draw(m, 6), layers, heads))
    return cases


def _listen(x: Any, context: Any, layers: Any, heads: int) -> Any:
    q, k, v = x @ layers["query"], context @ layers["key"], context @ layers["value"]
    return attention(q[None], k[None], v[None], heads)[0] @ layers["out"]


def _one_head(x: Any, context: Any, layers: Any, heads: int) -> Any:
    return _listen(x, context, layers, 1)


def _no_out(x: Any, context: Any, layers: Any, heads: int) -> Any:
    q, k, v = x @ layers["query"], context @ layers["key"], context @ layers["value"]
    return attention(q[None], k[None], v[None], heads)[0]


def _keys_mixed(x: Any, context: Any, layers: Any, heads: int) -> Any:
    return _listen(x, context, layers | {"value": layers["key"]}, heads)


def _whole_width(x: Any, context: Any, layers: Any, heads: int) -> Any:
    return _listen(x, context, layers | {"query": layers["query"] * heads**-0.5}, heads)


def _by_hand(split: Any, scaled: bool, axis: int) -> Any:
    """`split` cuts a list of rows into heads: (n, c), heads -> (n, heads, width)."""

    def answer(x: Any, context: Any, layers: Any, heads: int) -> Any:
        q, k, v = x @ layers["query"], context @ layers["key"], context @ layers["value"]
        q, k, v = (split(y, heads) for y in (q, k, v))
        logits = jnp.einsum("nhd,mhd->hnm", q, k) / (q.shape[-1] ** 0.5 if scaled else 1)
        mixed = jnp.einsum("hnm,mhd->nhd", jax.nn.softmax(logits, axis=axis), v)
        return mixed.reshape(x.shape) @ layers["out"]

    return answer


def _side_by_side(y: Any, heads: int) -> Any:
    return y.reshape(len(y), heads, -1)


def _interleaved(y: Any, heads: int) -> Any:
    return jnp.swapaxes(y.reshape(len(y), -1, heads), 1, 2)


def _maps() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    weights = jax.nn.softmax(jnp.asarray(2 * rng.standard_normal((3, 16, 7), np.float32)))
    return [(weights, slice(2, 3), 4), (weights, slice(1, 4), 4)]


def _which(query: bool, key: bool, value: bool) -> Any:
    return lambda: {"query": query, "key": key, "value": value}


EXERCISES: Mapping[str, Exercise] = {
    "listen": Exercise(
        minutes=20,
        right=_listen,
        cases=_sides,
        mistakes={
            "one_head": _one_head,
            "no_out": _no_out,
            "keys": _keys_mixed,
            "whole_width": _whole_width,
            "unscaled": _by_hand(_side_by_side, scaled=False, axis=-1),
            "positions": _by_hand(_side_by_side, scaled=True, axis=1),
            "interleaved": _by_hand(_interleaved, scaled=True, axis=-1),
        },
    ),
    "heat": Exercise(
        minutes=8,
        right=lambda weights, places, side: (
            weights[:, :, places].sum(axis=-1).mean(axis=0).reshape(side, side)
        ),
        cases=_maps,
        mistakes={
            "mean_of_tokens": lambda weights, places, side: (
                weights[:, :, places].mean(axis=(0, 2)).reshape(side, side)
            ),
            "one_head": lambda weights, places, side: (
                weights[0, :, places].sum(axis=-1).reshape(side, side)
            ),
            "sum_of_heads": lambda weights, places, side: (
                weights[:, :, places].sum(axis=(0, 2)).reshape(side, side)
            ),
            "first_token": lambda weights, places, side: (
                weights[:, :, places.start].mean(axis=0).reshape(side, side)
            ),
        },
    ),
    "changes": Exercise(
        minutes=3,
        right=_which(False, True, True),
        cases=lambda: [()],
        mistakes={
            "everything": _which(True, True, True),
            "keys_only": _which(False, True, False),
            "values_only": _which(False, False, True),
        },
    ),
}
