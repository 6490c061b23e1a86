"""Exercises of lesson 3, the dotted canvas."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion.config import VariancePreservingConfig
from diffusion.course.exercise import Exercise
from diffusion.process import schedule

CONFIG = VariancePreservingConfig(prediction="v")


def _noise_cases() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    bars = schedule.alpha_bars(CONFIG)
    return [
        (draw(1, 4, 4, 4), draw(1, 4, 4, 4), jnp.asarray([bars[t]], jnp.float32))
        for t in (50, 400, 900)
    ] + [(draw(3, 4, 4, 4), draw(3, 4, 4, 4), jnp.asarray(bars[[10, 500, 999]], jnp.float32))]


def _tall(x: Any) -> Any:
    return jnp.asarray(x)[:, None, None, None]


def _bars_cases() -> list[tuple[Any, ...]]:
    bars = schedule.alpha_bars(CONFIG)
    return [(bars[[0, 300, 999]],), (bars,)]


def _many_steps(betas: Any, t: int) -> Any:
    return np.prod(1.0 - betas[: t + 1])


EXERCISES: Mapping[str, Exercise] = {
    "add_noise": Exercise(
        minutes=10,
        right=schedule.add_noise,
        cases=_noise_cases,
        mistakes={
            "swapped": lambda x0, noise, ab: (
                jnp.sqrt(1 - _tall(ab)) * x0 + jnp.sqrt(_tall(ab)) * noise
            ),
            "variance": lambda x0, noise, ab: _tall(ab) * x0 + (1 - _tall(ab)) * noise,
            "amount": lambda x0, noise, ab: (
                jnp.sqrt(_tall(ab)) * x0 + (1 - jnp.sqrt(_tall(ab))) * noise
            ),
            "signal": lambda x0, noise, ab: x0 + jnp.sqrt(1 - _tall(ab)) * noise,
            "minus": lambda x0, noise, ab: (
                jnp.sqrt(_tall(ab)) * x0 - jnp.sqrt(1 - _tall(ab)) * noise
            ),
        },
    ),
    "many_steps": Exercise(
        minutes=8,
        right=_many_steps,
        cases=lambda: [(schedule.betas(CONFIG), t) for t in (0, 10, 500, 999)],
        mistakes={
            "sums": lambda betas, t: 1.0 - np.sum(betas[: t + 1]),
            "betas": lambda betas, t: np.prod(betas[: t + 1]),
            "late": lambda betas, t: np.prod(1.0 - betas[:t]),
            "roots": lambda betas, t: np.prod(np.sqrt(1.0 - betas[: t + 1])),
            "single": lambda betas, t: 1.0 - betas[t],
        },
    ),
    "snr": Exercise(
        minutes=4,
        right=schedule.snr,
        cases=_bars_cases,
        mistakes={
            "upside_down": lambda ab: (1 - ab) / ab,
            "standard_deviation": lambda ab: np.sqrt(ab / (1 - ab)),
        },
        tolerance=1e-4,  # float32 is off by 3e-5 in 1 - alpha_bar, where noise is little
    ),
}
