"""Exercises of lesson 6, the essential shape."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise


def _maps() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    return [
        (jnp.asarray(rng.standard_normal(s, np.float32)),) for s in ((1, 2, 3, 4), (2, 4, 4, 5))
    ]


def _tokens(x: Any) -> Any:
    b, h, w, c = x.shape
    return x.reshape(b, h * w, c)


def _weights() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    logits = jnp.asarray(2 * rng.standard_normal((5, 12, 12), np.float32))
    weights = jax.nn.softmax(logits, axis=-1)
    return [(weights, 1, 2, 3, 4), (weights, 2, 3, 3, 4)]


def _looked_at(weights: Any, row: int, column: int, h: int, w: int) -> Any:
    return weights.mean(axis=0)[row * w + column].reshape(h, w)


def _explained(x: Any, count: int) -> Any:
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    strengths = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    return strengths[:count].sum() / strengths.sum()


def _uncentred(x: Any, count: int) -> Any:
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    strengths = np.linalg.svd(rows, compute_uv=False) ** 2
    return strengths[:count].sum() / strengths.sum()


def _unsquared(x: Any, count: int) -> Any:
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    strengths = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    return strengths[:count].sum() / strengths.sum()


EXERCISES: Mapping[str, Exercise] = {
    "to_tokens": Exercise(
        minutes=5,
        right=_tokens,
        cases=_maps,
        mistakes={
            "columns": lambda x: _tokens(jnp.swapaxes(x, 1, 2)),
            "channels": lambda x: jnp.swapaxes(_tokens(x), 1, 2),
        },
    ),
    "looked_at": Exercise(
        minutes=10,
        right=_looked_at,
        cases=_weights,
        mistakes={
            "backwards": lambda p, row, column, h, w: p.mean(axis=0)[:, row * w + column].reshape(
                h, w
            ),
            "one_head": lambda p, row, column, h, w: p[0, row * w + column].reshape(h, w),
            "position": lambda p, row, column, h, w: p.mean(axis=0)[row * h + column].reshape(h, w),
        },
    ),
    "explained": Exercise(
        minutes=10,
        right=_explained,
        cases=lambda: [(x[0] + 1, count) for (x,) in _maps() for count in (1, 2)],
        mistakes={"uncentred": _uncentred, "unsquared": _unsquared},
        tolerance=1e-4,
    ),
}
