"""Exercises of lesson 4, the perfect eye."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.process import ideal_denoiser, schedule


def _draw(seed: int, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]


def _under_noise() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for seed, ab in ((0, 0.3), (1, 0.05), (2, 0.9)):
        pictures, noise = _draw(seed, (5, 2, 2, 1), (2, 2, 2, 1))
        bars = jnp.asarray([ab, 0.5 * ab], jnp.float32)
        found.append((schedule.add_noise(pictures[:2], noise, bars), bars, pictures))
    return found


def _distances(z: Any, pictures: Any, signal: Any) -> Any:
    gap = z[:, None] - signal[:, None, None, None, None] * pictures[None]
    return jnp.square(gap).sum(axis=(2, 3, 4))


def _mean(weights: Any, pictures: Any) -> Any:
    return jnp.einsum("bn,nhwc->bhwc", weights, pictures)


def _nearest(z: Any, ab: Any, pictures: Any) -> Any:
    return pictures[_distances(z, pictures, jnp.sqrt(ab)).argmin(axis=1)]


def _faint(z: Any, ab: Any, pictures: Any) -> Any:
    d = _distances(z, pictures, jnp.ones_like(ab))
    return _mean(jax.nn.softmax(-d / (2 * (1 - ab[:, None]))), pictures)


def _always(z: Any, ab: Any, pictures: Any) -> Any:
    return _mean(jax.nn.softmax(-_distances(z, pictures, jnp.sqrt(ab)) / 2), pictures)


def _signal(z: Any, ab: Any, pictures: Any) -> Any:
    d = _distances(z, pictures, jnp.sqrt(ab))
    return _mean(jax.nn.softmax(-d / (2 * ab[:, None])), pictures)


def _shared(pictures: Any, logits: Any, axis: int = 1) -> Any:
    return _mean(jax.nn.softmax(logits, axis), pictures)


def _logits(z: Any, ab: Any, pictures: Any) -> Any:
    return -_distances(z, pictures, jnp.sqrt(ab)) / (2 * (1 - ab[:, None]))


def _unsquared(z: Any, ab: Any, pictures: Any) -> Any:
    d = jnp.sqrt(_distances(z, pictures, jnp.sqrt(ab)))
    return _shared(pictures, -d / (2 * (1 - ab[:, None])))


def _predictions() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for seed, ab in ((0, 0.2), (1, 0.8)):
        z, v = _draw(seed, (2, 2, 2, 1), (2, 2, 2, 1))
        found.append((z, v, jnp.asarray([ab, 1 - ab / 2], jnp.float32)))
    return found


def _roots(ab: Any) -> tuple[Any, Any]:
    tall = ab[:, None, None, None]
    return jnp.sqrt(tall), jnp.sqrt(1 - tall)


def _combine(weights: Any) -> Any:
    def answer(z: Any, v: Any, ab: Any) -> Any:
        a, b = weights(*_roots(ab))
        return a * z + b * v

    return answer


EXERCISES: Mapping[str, Exercise] = {
    "perfect_eye": Exercise(
        minutes=20,
        right=ideal_denoiser.posterior_mean,
        cases=_under_noise,
        mistakes={
            "nearest": _nearest,
            "faint": _faint,
            "always": _always,
            "signal": _signal,
            "away": lambda z, ab, pictures: _shared(pictures, -_logits(z, ab, pictures)),
            "two": lambda z, ab, pictures: _shared(pictures, 2 * _logits(z, ab, pictures)),
            "mean_distance": lambda z, ab, pictures: _shared(
                pictures, _logits(z, ab, pictures) / pictures[0].size
            ),
            "axis": lambda z, ab, pictures: _shared(pictures, _logits(z, ab, pictures), axis=0),
            "unsquared": _unsquared,
        },
        tolerance=1e-4,
    ),
    "noise_of_v": Exercise(
        minutes=8,
        right=lambda z, v, ab: schedule.to_epsilon(v, z, ab, "v"),
        cases=_predictions,
        mistakes={
            "picture": lambda z, v, ab: schedule.to_x0(v, z, ab, "v"),
            "minus": _combine(lambda signal, spread: (spread, -signal)),
            "sign": _combine(lambda signal, spread: (-spread, signal)),
            "only_v": _combine(lambda signal, spread: (0, signal)),
        },
    ),
}
