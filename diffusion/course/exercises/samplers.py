"""Exercises of lesson 10, many glances and a louder teacher."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion.config import VariancePreservingConfig
from diffusion.course.exercise import Exercise
from diffusion.process import samplers, schedule

CONFIG = VariancePreservingConfig(prediction="v")


def _pairs() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal((1, 2, 2, 3), np.float32)) for _ in range(2))
    return [(a, b, 3.0), (a, b, 0.0), (a, b, 1.0), (a, b, 7.5)]


def _steps() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(1)
    z, x0 = (jnp.asarray(rng.standard_normal((1, 2, 2, 3), np.float32)) for _ in range(2))
    return [(z, x0, 0.3, 0.5), (z, x0, 0.05, 0.1), (z, x0, 0.9, 0.999)]


def _ddim(z: Any, x0: Any, now: float, after: float) -> Any:
    noise = (z - now**0.5 * x0) / (1 - now) ** 0.5
    return after**0.5 * x0 + (1 - after) ** 0.5 * noise


def _twice() -> list[tuple[Any, ...]]:
    """Where two steps of DDIM lead, with a belief for each."""
    rng = np.random.default_rng(3)
    found = []
    for now, between, after in ((0.05, 0.2, 0.5), (0.0, 0.2, 0.4), (0.4, 0.7, 0.98)):
        draws = rng.standard_normal((3, 1, 2, 2, 3), np.float32)
        z, x0, later = (jnp.asarray(draw) for draw in draws)
        arrived = _ddim(_ddim(z, x0, now, between), later, between, after)
        found.append((z, arrived, now, after))
    return found


def _kept(now: float, after: float, above: float = 0.5, below: float = 0.5) -> float:
    return (1 - after) ** above / (1 - now) ** below


def _two_in_one(
    z: Any, arrived: Any, now: float, after: float, kept: Any = _kept, root: float = 0.5
) -> Any:
    r = kept(now, after)
    return (arrived - r * z) / (after**root - r * now**root)


def _remembered() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(2)
    draw = lambda: jnp.asarray(rng.standard_normal((1, 2, 2, 3), np.float32))  # noqa: E731
    shares = ((0.1, 0.2, 0.5), (0.02, 0.3, 0.35), (0.6, 0.8, 0.98))
    return [(draw(), draw(), draw(), *three) for three in shares]


def _second_order(
    z: Any, x0: Any, before: Any, earlier: float, now: float, after: float,
    factor: Any = lambda first, h: h / (2 * first), half: float = 0.5,
) -> Any:  # fmt: skip
    first, h = np.diff([half * np.log(share / (1 - share)) for share in (earlier, now, after)])
    k = factor(first, h)
    guess = (1 + k) * x0 - k * before
    kept = ((1 - after) / (1 - now)) ** 0.5
    return kept * z + after**0.5 * (1 - np.exp(-h)) * guess


def _spaced(offset: int, ascending: bool = False) -> Any:
    def answer(steps: int) -> Any:
        grid = np.arange(steps) * (CONFIG.train_steps // steps) + offset
        return grid if ascending else grid[::-1]

    return answer


EXERCISES: Mapping[str, Exercise] = {
    "guide": Exercise(
        minutes=5,
        right=samplers.guide,
        cases=_pairs,
        mistakes={
            "exchanged": lambda untold, told, s: told + s * (untold - told),
            "on_top": lambda untold, told, s: told + s * (told - untold),
            "difference": lambda untold, told, s: s * (told - untold),
            "loud": lambda untold, told, s: s * told,
        },
    ),
    "ddim": Exercise(
        minutes=15,
        right=_ddim,
        cases=_steps,
        mistakes={
            "same_noise_level": lambda z, x0, now, after: (
                after**0.5 * x0 + (1 - now) ** 0.5 * ((z - now**0.5 * x0) / (1 - now) ** 0.5)
            ),
            "unscaled": lambda z, x0, now, after: (
                after**0.5 * x0 + (1 - after) ** 0.5 * (z - now**0.5 * x0)
            ),
            "bright": lambda z, x0, now, after: (
                after**0.5 * x0 + (1 - after) ** 0.5 * (z - x0) / (1 - now) ** 0.5
            ),
            "exchanged": lambda z, x0, now, after: _ddim(z, x0, after, now),
            "finished": lambda z, x0, now, after: x0,
        },
    ),
    "timesteps": Exercise(
        minutes=6,
        right=lambda steps: schedule.timesteps(CONFIG, steps),
        cases=lambda: [(25,), (10,), (7,)],
        mistakes={
            "no_offset": _spaced(0),
            "ascending": _spaced(1, ascending=True),
            "one_more": lambda steps: _spaced(1)(steps + 1),
            "up_to_1000": lambda steps: np.arange(1, 1001, CONFIG.train_steps // steps)[::-1],
            "to_the_end": lambda steps: np.linspace(999, 0, steps).round(),
        },
    ),
    "second_order": Exercise(
        minutes=25,
        right=_second_order,
        cases=_remembered,
        mistakes={
            "forgets": partial(_second_order, factor=lambda first, h: 0),
            "backwards": partial(_second_order, factor=lambda first, h: -h / (2 * first)),
            "upside_down": partial(_second_order, factor=lambda first, h: first / (2 * h)),
            "whole": partial(_second_order, factor=lambda first, h: h / first),
            "variances": partial(_second_order, half=1.0),
        },
    ),
    "two_in_one": Exercise(
        minutes=10,
        right=_two_in_one,
        cases=_twice,
        mistakes={
            "arrived": lambda z, arrived, now, after: arrived,
            "undivided": lambda z, arrived, now, after: arrived - _kept(now, after) * z,
            "all_noise": partial(_two_in_one, kept=lambda now, after: 1.0),
            "kept_once": lambda z, arrived, now, after: (
                (arrived - _kept(now, after) * z) / (after**0.5 - now**0.5)
            ),
            "end_alone": lambda z, arrived, now, after: (
                (arrived - _kept(now, after) * z) / after**0.5
            ),
            "exchanged": lambda z, arrived, now, after: _two_in_one(z, arrived, after, now),
            "no_brackets": lambda z, arrived, now, after: (
                arrived - _kept(now, after) * z / (after**0.5 - _kept(now, after) * now**0.5)
            ),
            "upside_down": partial(_two_in_one, kept=partial(_kept, above=-0.5, below=-0.5)),
            "half_a_root": partial(_two_in_one, kept=partial(_kept, below=1.0)),
            "no_roots": partial(_two_in_one, kept=partial(_kept, above=1.0, below=1.0), root=1.0),
            "variance": partial(_two_in_one, kept=partial(_kept, above=1.0, below=1.0)),
            "shares": partial(_two_in_one, root=1.0),
            "begins_at_noise": lambda z, arrived, now, after: _two_in_one(z, arrived, 0.0, after),
        },
    ),
}
