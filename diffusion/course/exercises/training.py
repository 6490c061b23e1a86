"""Exercises of lesson 9, art school."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.config import VariancePreservingConfig
from diffusion.course.exercise import Exercise
from diffusion.process import schedule
from diffusion.process.schedule import weight


def _batch() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    found: list[tuple[Any, ...]] = []
    for bars in ((0.3,), (0.2, 0.5, 0.9)):
        shapes = [(len(bars), 2, 2, 4)] * 3
        x0, noise, prediction = (
            jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes
        )
        found.append((prediction, x0, noise, jnp.asarray(bars, jnp.float32)))
    return found


def _loss(prediction: Any, x0: Any, noise: Any, alpha_bar: Any) -> Any:
    return jnp.square(prediction - schedule.velocity(x0, noise, alpha_bar)).mean()


def _against(target: Any) -> Any:
    def answer(prediction: Any, x0: Any, noise: Any, alpha_bar: Any) -> Any:
        ab = alpha_bar[:, None, None, None]
        return jnp.square(prediction - target(x0, noise, jnp.sqrt(ab), jnp.sqrt(1 - ab))).mean()

    return answer


def _drawn() -> list[tuple[Any, ...]]:
    texts = ["a red house", "two pines", "night", "a blue door", "gece", "a dome"]
    draws = np.array([0.05, 0.5, 0.09, 0.95, 0.1, 0.3])
    return [(texts, draws, 0.1), (texts, draws, 0.5)]


def _trees() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    tree = lambda: {"a": rng.standard_normal(3), "b": {"c": rng.standard_normal((2, 2))}}  # noqa: E731
    return [(tree(), tree(), 0.9), (tree(), tree(), 0.999)]


def _mix(kept: Any) -> Any:
    return lambda average, params, decay: jax.tree.map(
        lambda a, p: kept(decay)[0] * a + kept(decay)[1] * p, average, params
    )


def _bars() -> list[tuple[Any, ...]]:
    bars = schedule.alpha_bar_table(VariancePreservingConfig())
    return [(bars[jnp.array([1, 200, 500, 999])],)]


def _ratio(alpha_bar: Any) -> Any:
    return alpha_bar / (1 - alpha_bar)


EXERCISES: Mapping[str, Exercise] = {
    "loss": Exercise(
        minutes=10,
        right=_loss,
        cases=_batch,
        mistakes={
            "epsilon": _against(lambda x0, noise, signal, spread: noise),
            "picture": _against(lambda x0, noise, signal, spread: x0),
            "canvas": _against(lambda x0, noise, signal, spread: signal * x0 + spread * noise),
            "plus": _against(lambda x0, noise, signal, spread: signal * noise + spread * x0),
            "sum": lambda prediction, x0, noise, alpha_bar: (
                _loss(prediction, x0, noise, alpha_bar) * x0.size
            ),
            "sign": _against(lambda x0, noise, signal, spread: spread * x0 - signal * noise),
        },
    ),
    "dropout": Exercise(
        minutes=5,
        right=lambda texts, draws, share: [
            "" if draw < share else text for text, draw in zip(texts, draws, strict=True)
        ],
        cases=_drawn,
        mistakes={
            "reversed": lambda texts, draws, share: [
                text if draw < share else "" for text, draw in zip(texts, draws, strict=True)
            ],
            "shorter": lambda texts, draws, share: [
                text for text, draw in zip(texts, draws, strict=True) if draw >= share
            ],
            "half": lambda texts, draws, share: [
                "" if draw < 0.5 else text for text, draw in zip(texts, draws, strict=True)
            ],
        },
    ),
    "ema": Exercise(
        minutes=6,
        right=_mix(lambda decay: (decay, 1 - decay)),
        cases=_trees,
        mistakes={
            "exchanged": _mix(lambda decay: (1 - decay, decay)),
            "sum": _mix(lambda decay: (decay, 1.0)),
            "newest": _mix(lambda decay: (0.0, 1.0)),
        },
    ),
    "weight": Exercise(
        minutes=12,
        right=lambda alpha_bar: weight(schedule.snr(alpha_bar), "v"),
        cases=_bars,
        mistakes={
            "epsilon": lambda alpha_bar: weight(schedule.snr(alpha_bar), "epsilon"),
            "unclipped": lambda alpha_bar: _ratio(alpha_bar) / (_ratio(alpha_bar) + 1),
            "clipped_above": lambda alpha_bar: (
                jnp.minimum(_ratio(alpha_bar), 5.0) / (_ratio(alpha_bar) + 1)
            ),
            "clipped_below": lambda alpha_bar: (
                jnp.maximum(_ratio(alpha_bar), 1.0) / (_ratio(alpha_bar) + 1)
            ),
            "not_divided": lambda alpha_bar: jnp.clip(_ratio(alpha_bar), 1.0, 5.0),
        },
    ),
}
