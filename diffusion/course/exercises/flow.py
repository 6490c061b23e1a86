"""Exercises of lesson 16, straight paths."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion.config import RectifiedFlowConfig
from diffusion.course.exercise import Exercise
from diffusion.process.flow import RectifiedFlow
from diffusion.process.tables import along_slope

FLOW = RectifiedFlow(RectifiedFlowConfig())


def _tall(s: Any) -> Any:
    return s[:, None, None, None]


def _draw(seed: int, *shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def _velocities() -> list[tuple[Any, ...]]:
    levels = (jnp.asarray([0.2, 0.9]), jnp.asarray([1.0, 0.55, 0.01]))
    return [(_draw(0, len(s), 2, 2, 3), _draw(1, len(s), 2, 2, 3), s) for s in levels]


def _ends(z: Any, v: Any, s: Any) -> Any:
    picture = FLOW.to_x0(v, z, FLOW.train_steps * s)
    return {"picture": picture, "noise": picture + v}


def _moved(to_picture: Any, to_noise: Any) -> Any:
    """How far along v each end is."""
    return lambda z, v, s: {
        "picture": z + to_picture(_tall(s)) * v,
        "noise": z + to_noise(_tall(s)) * v,
    }


def _exchanged(z: Any, v: Any, s: Any) -> Any:
    right = _ends(z, v, s)
    return {"picture": right["noise"], "noise": right["picture"]}


def _batches() -> list[tuple[Any, ...]]:
    predict = lambda z, t: jnp.tanh(0.7 * z + _tall(jnp.cos(t / 300.0)))  # noqa: E731
    times = (jnp.asarray([150.0, 700.5]), jnp.asarray([1000.0, 420.0, 33.0]))
    return [(predict, _draw(2, len(t), 2, 2, 3), _draw(3, len(t), 2, 2, 3), t) for t in times]


def _flow_loss(predict: Any, x0: Any, noise: Any, t: Any) -> Any:
    return FLOW.error(predict(FLOW.add_noise(x0, noise, t), t), x0, noise, t).mean()


def _error(target: Any = lambda x0, noise: noise - x0, mixed: Any = FLOW.add_noise) -> Any:
    def answer(predict: Any, x0: Any, noise: Any, t: Any) -> Any:
        return jnp.square(predict(mixed(x0, noise, t), t) - target(x0, noise)).mean()

    return answer


def _curved(x0: Any, noise: Any, t: Any) -> Any:
    s = _tall(t / FLOW.train_steps)
    return jnp.sqrt(1 - s) * x0 + jnp.sqrt(s) * noise


def _told_share(predict: Any, x0: Any, noise: Any, t: Any) -> Any:
    told = lambda z, t: predict(z, t / FLOW.train_steps)  # noqa: E731
    return _flow_loss(told, x0, noise, t)


def _levels() -> list[tuple[Any, ...]]:
    """Of a flow, of a process that keeps the variance, and of neither."""
    pairs = ((0.3, 0.7, 0.6, 0.4), (0.6, 0.8, 0.8, 0.6), (0.5, 1.5, 0.9, 1.2))
    return [(_draw(4, 1, 2, 2, 3), _draw(5, 1, 2, 2, 3), *levels) for levels in pairs]


def _any_step(
    z: Any, x0: Any, signal: float, spread: float, next_signal: float, next_spread: float
) -> Any:
    """What the table of `euler` does in a step that does not end at the picture."""
    alpha, sigma, next_alpha = np.array([[signal], [spread], [next_signal]])
    from_z, from_x0 = along_slope(next_spread / next_alpha, alpha, sigma, next_alpha)
    return from_z.item() * z + from_x0.item() * x0


def _mixed_anew(noise_of: Any) -> Any:
    """`noise_of(z, x0, signal, spread)` is taken for the noise."""
    return lambda z, x0, signal, spread, next_signal, next_spread: (
        next_signal * x0 + next_spread * noise_of(z, x0, signal, spread)
    )


def _along_v(z: Any, x0: Any, signal: float, spread: float, _: float, next_spread: float) -> Any:
    noise = (z - signal * x0) / spread
    return z + (next_spread - spread) * (noise - x0)


def _glasses(s: Any, size: Any = lambda a, b: jnp.sqrt(a**2 + b**2)) -> Any:
    t = FLOW.train_steps * s
    alpha, sigma = FLOW.alpha(t), FLOW.sigma(t)
    whole = size(alpha, sigma)
    return {"alpha_bar": jnp.square(alpha / whole), "factor": 1 / whole}


def _wrong(name: str, change: Any) -> Any:
    """One of the two is another."""

    def answer(s: Any) -> Any:
        right = _glasses(s)
        return right | {name: change(right[name])}

    return answer


EXERCISES: Mapping[str, Exercise] = {
    "ends": Exercise(
        minutes=8,
        right=_ends,
        cases=_velocities,
        mistakes={
            "sign": _moved(lambda s: s, lambda s: s - 1),
            "whole": _moved(lambda s: -1, lambda s: 1),
            "shares": _moved(lambda s: s - 1, lambda s: s),
            "exchanged": _exchanged,
        },
    ),
    "flow_loss": Exercise(
        minutes=10,
        right=_flow_loss,
        cases=_batches,
        mistakes={
            "direction": _error(lambda x0, noise: x0 - noise),
            "noise": _error(lambda x0, noise: noise),
            "turned": _error(mixed=lambda x0, noise, t: FLOW.add_noise(noise, x0, t)),
            "curve": _error(mixed=_curved),
            "told_share": _told_share,
            "sum": lambda predict, x0, noise, t: _flow_loss(predict, x0, noise, t) * x0.size,
        },
    ),
    "any_step": Exercise(
        minutes=15,
        right=_any_step,
        cases=_levels,
        mistakes={
            "along_v": _along_v,
            "unscaled": _mixed_anew(lambda z, x0, signal, spread: z - signal * x0),
            "bright": _mixed_anew(lambda z, x0, signal, spread: (z - x0) / spread),
            "canvas": _mixed_anew(lambda z, x0, signal, spread: z),
            "exchanged": lambda z, x0, a, b, c, d: _any_step(z, x0, c, d, a, b),
            "finished": lambda z, x0, *_: x0,
        },
    ),
    "glasses": Exercise(
        minutes=20,
        right=_glasses,
        cases=lambda: [(jnp.asarray([0.1, 0.5, 0.8]),), (jnp.asarray([0.0, 0.3, 1.0, 0.95]),)],
        mistakes={
            "naked": partial(_glasses, size=lambda a, b: a + b),
            "squares": partial(_glasses, size=lambda a, b: a**2 + b**2),
            "noise": _wrong("alpha_bar", lambda share: 1 - share),
            "root": _wrong("alpha_bar", jnp.sqrt),
            "upside_down": _wrong("factor", lambda factor: 1 / factor),
        },
    ),
}
