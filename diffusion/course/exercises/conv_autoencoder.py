"""Exercises of lesson 13, the copyist."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.inspection.priors import gaussian_draws
from diffusion.training.conv_autoencoder import BETA1, BETA2, EPS

RATE = 1e-3
PRINTED = ("conv", "pool", "conv", "up")


def _networks() -> list[tuple[Any, ...]]:
    twice = ("conv", "pool", "conv", "pool", "conv", "up", "conv", "up", "conv")
    return [
        (256, PRINTED, "valid"),
        (256, (*PRINTED, "conv"), "same"),
        (65, twice, "same"),
        (65, twice, "valid"),
    ]


def _sides(lost: int = 2, always: bool = False, rounded: Any = lambda side: side // 2) -> Any:
    """The side after each layer, where a valid convolution loses `lost`."""

    def answer(side: int, layers: Any, padding: str) -> Any:
        found = []
        for layer in layers:
            if layer == "conv" and (padding == "valid" or always):
                side -= lost
            elif layer == "pool":
                side = rounded(side)
            elif layer == "up":
                side *= 2
            found.append(side)
        return found

    return answer


def _averages() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    found: list[tuple[Any, ...]] = []
    for step, size in ((1, 1e-6), (1, 1e-3), (20, 3e-8), (900, 1e-7)):
        gradient = size * rng.standard_normal((2, 3))
        mean = (1 - BETA1**step) * gradient
        found.append((mean, (1 - BETA2**step) * gradient**2 * rng.uniform(1, 4, (2, 3)), step))
    return found


def _adam(rule: Any) -> Any:
    """A rule of mean and square, what corrects either for its beginning at zero, and eps."""
    return lambda mean, square, step: (
        -RATE * rule(mean, square, 1 - BETA1**step, 1 - BETA2**step, EPS)
    )


def _codes() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    found: list[tuple[Any, ...]] = []
    for n, b, shape in ((6, 2, (2, 3, 2)), (4, 5, (1, 2, 3))):
        places = 3 * rng.standard_normal(shape)
        found.append((places + rng.standard_normal((n, *shape)), rng.standard_normal((b, n))))
    return found


def _mixed(codes: Any, noise: Any) -> Any:
    return np.tensordot(noise, codes, axes=1)


EXERCISES: Mapping[str, Exercise] = {
    "sides": Exercise(
        minutes=8,
        right=_sides(),
        cases=_networks,
        mistakes={
            "one_edge": _sides(lost=1),
            "window": _sides(lost=3),
            "always": _sides(always=True),
            "up": _sides(rounded=lambda side: -(-side // 2)),
            "fraction": _sides(rounded=lambda side: side / 2),
            "last": lambda side, layers, padding: _sides()(side, layers, padding)[-1],
        },
    ),
    "change": Exercise(
        minutes=15,
        right=_adam(lambda m, v, c1, c2, eps: np.sqrt(c2) / c1 * m / (np.sqrt(v) + eps)),
        cases=_averages,
        mistakes={
            "textbook": _adam(lambda m, v, c1, c2, eps: m / c1 / (np.sqrt(v / c2) + eps)),
            "uncorrected": _adam(lambda m, v, c1, c2, eps: m / (np.sqrt(v) + eps)),
            "mean_only": _adam(lambda m, v, c1, c2, eps: m / c1 / (np.sqrt(v) + eps)),
            "no_root": _adam(lambda m, v, c1, c2, eps: c2 / c1 * m / (np.sqrt(v) + eps)),
            "inside": _adam(lambda m, v, c1, c2, eps: np.sqrt(c2) / c1 * m / np.sqrt(v + eps)),
            "unsquared": _adam(lambda m, v, c1, c2, eps: np.sqrt(c2) / c1 * m / (v + eps)),
        },
    ),
    "draws": Exercise(
        minutes=20,
        right=gaussian_draws,
        cases=_codes,
        mistakes={
            "around_zero": lambda codes, noise: (
                codes.mean(axis=0) + _mixed(codes, noise) / np.sqrt(len(codes))
            ),
            "no_mean": lambda codes, noise: gaussian_draws(codes, noise) - codes.mean(axis=0),
            "sum": lambda codes, noise: (
                codes.mean(axis=0) + _mixed(codes - codes.mean(axis=0), noise)
            ),
            "unrooted": lambda codes, noise: (
                codes.mean(axis=0) + _mixed(codes - codes.mean(axis=0), noise) / len(codes)
            ),
            "of_draws": lambda codes, noise: (
                codes.mean(axis=0) + _mixed(codes - codes.mean(axis=0), noise) / np.sqrt(len(noise))
            ),
            "one_mean": lambda codes, noise: (
                codes.mean() + _mixed(codes - codes.mean(), noise) / np.sqrt(len(codes))
            ),
        },
    ),
}
