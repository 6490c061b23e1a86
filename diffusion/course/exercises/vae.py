"""Exercises of lesson 11, the exhibition."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.stages.vae import Posterior


def _posteriors() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    return [(draw(1, 2, 2, 4), draw(1, 2, 2, 4) - 1), (draw(3, 4, 4, 2), 2 * draw(3, 4, 4, 2))]


def _sampled() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(1)
    return [
        (mean, log_variance, jnp.asarray(rng.standard_normal(mean.shape, np.float32)))
        for mean, log_variance in _posteriors()
    ]


def _latents() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    return [(scale * rng.standard_normal((8, 4, 4, 4)) + 0.1,) for scale in (1.3, 5.5)]


def _sum(each: Any) -> Any:
    return 0.5 * each.sum(axis=(1, 2, 3))


EXERCISES: Mapping[str, Exercise] = {
    "draw": Exercise(
        minutes=6,
        right=lambda mean, log_variance, noise: mean + jnp.exp(0.5 * log_variance) * noise,
        cases=_sampled,
        mistakes={
            "variance": lambda mean, log_variance, noise: mean + jnp.exp(log_variance) * noise,
            "logarithm": lambda mean, log_variance, noise: mean + log_variance * noise,
            "mean_only": lambda mean, log_variance, noise: mean,
        },
    ),
    "kl": Exercise(
        minutes=12,
        right=lambda mean, log_variance: Posterior(mean, log_variance).kl(),
        cases=_posteriors,
        mistakes={
            "sign": lambda mean, log_variance: _sum(
                mean**2 + jnp.exp(log_variance) - 1 + log_variance
            ),
            "half": lambda mean, log_variance: 2 * Posterior(mean, log_variance).kl(),
            "mean": lambda mean, log_variance: (
                Posterior(mean, log_variance).kl() / np.prod(mean.shape[1:])
            ),
            "batch": lambda mean, log_variance: Posterior(mean, log_variance).kl().sum(),
            "one": lambda mean, log_variance: _sum(mean**2 + jnp.exp(log_variance) - log_variance),
        },
    ),
    "scale": Exercise(
        minutes=5,
        right=lambda latents: 1 / latents.std(),
        cases=_latents,
        mistakes={
            "upside_down": lambda latents: latents.std(),
            "variance": lambda latents: 1 / latents.var(),
            "per_channel": lambda latents: 1 / latents.std(axis=(0, 1, 2)),
        },
    ),
}
