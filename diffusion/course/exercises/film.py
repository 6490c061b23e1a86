"""Exercises of lesson 17, the film."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import film
from diffusion.course.exercise import Exercise
from diffusion.layers.attention import attention
from diffusion.stages.motion import frame_positions, to_maps, to_sequences


def _summed(sequences: Any) -> Any:
    """Each frame and all before it: it depends on which frames there are, and on their order."""
    return jnp.cumsum(sequences, axis=1)


def _films() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    sizes = ((2, 3, 4, 5, 6), (1, 4, 2, 3, 1), (3, 1, 2, 2, 2))  # films, frames, h, w, channels
    return [
        (jnp.asarray(rng.standard_normal((n * f, h, w, c), np.float32)), f, _summed)
        for n, f, h, w, c in sizes
    ]


def _across_frames(x: Any, frames: int, look: Any) -> Any:
    return to_maps(look(to_sequences(x, frames)), *x.shape[1:3])


def _reshaped(x: Any, frames: int, look: Any) -> Any:
    return look(x.reshape(-1, frames, x.shape[-1])).reshape(x.shape)


def _reshaped_back(x: Any, frames: int, look: Any) -> Any:
    return look(to_sequences(x, frames)).reshape(x.shape)


def _one_film(x: Any, frames: int, look: Any) -> Any:
    return _across_frames(x, len(x), look)


def _films_fastest(x: Any, frames: int, look: Any) -> Any:
    """As if the first frames of all films came first."""
    turned = x.reshape(frames, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
    found = _across_frames(turned, frames, look)
    return found.reshape(-1, frames, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def _positions(x: Any, frames: int, look: Any) -> Any:
    """Each frame as a sequence of its positions: what a spatial transformer does."""
    return look(x.reshape(len(x), -1, x.shape[-1])).reshape(x.shape)


def _exchanged(x: Any, frames: int, look: Any) -> Any:
    _, h, w, c = x.shape
    found = look(to_sequences(x, frames)).reshape(-1, w, h, frames, c)
    return found.transpose(0, 3, 2, 1, 4).reshape(x.shape)


def _normed(x: Any) -> Any:
    """A LayerNorm without numbers of its own."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5)


def _sequences() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    names = ("query", "key", "value", "out")
    return [
        (draw(n, f, c), _normed, frame_positions(f, c), {name: 0.5 * draw(c, c) for name in names})
        for n, f, c in ((3, 4, 6), (2, 5, 8))
    ]


def _look(x: Any, norm: Any, place: Any, layers: Any) -> Any:
    return x + _heard(norm(x) + place[None], layers)


def _heard(h: Any, layers: Any, values: Any = None) -> Any:
    q, k = h @ layers["query"], h @ layers["key"]
    return attention(q, k, (h if values is None else values) @ layers["value"], 1) @ layers["out"]


def _by_hand(width: Any, axis: int) -> Any:
    """Attention written out: logits divided by a function of the width, softmax along an axis."""

    def answer(x: Any, norm: Any, place: Any, layers: Any) -> Any:
        h = norm(x) + place[None]
        q, k, v = (h @ layers[name] for name in ("query", "key", "value"))
        weights = jax.nn.softmax(q @ k.mT / width(x.shape[-1]), axis=axis)
        return x + weights @ v @ layers["out"]

    return answer


def _noises() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(2)
    found: list[tuple[Any, ...]] = []
    shapes = ((4, 4, 3), 0.4, 0.25), ((2, 3), -0.5, 0.5), ((5, 2, 2), 0.0, 0.9)
    for shape, likeness, share in shapes:
        one, fresh = rng.standard_normal((2, *shape)).astype(np.float32)
        found.append((jnp.asarray(one), jnp.asarray(likeness * one + fresh), share))
    return found


def _slerp(one: Any, other: Any, share: float) -> Any:
    return film.slerp(one, other, jnp.float32(share))


def _arc(one: Any, other: Any, cosine: Any) -> Any:
    """The way from one to the other, with the angle whose cosine is given."""
    angle = jnp.arccos(cosine)
    return lambda share: (
        (jnp.sin((1 - share) * angle) * one + jnp.sin(share * angle) * other) / jnp.sin(angle)
    )


def _cosine(one: Any, other: Any) -> Any:
    return jnp.sum(one * other) / (jnp.linalg.norm(one) * jnp.linalg.norm(other))


def _sines(one: Any, other: Any, share: float) -> Any:
    angle = jnp.arccos(_cosine(one, other))
    return jnp.sin((1 - share) * angle) * one + jnp.sin(share * angle) * other


EXERCISES: Mapping[str, Exercise] = {
    "across_frames": Exercise(
        minutes=15,
        right=_across_frames,
        cases=_films,
        mistakes={
            "reshaped": _reshaped,
            "reshaped_back": _reshaped_back,
            "one_film": _one_film,
            "films_fastest": _films_fastest,
            "positions": _positions,
            "exchanged": _exchanged,
        },
    ),
    "look": Exercise(
        minutes=20,
        right=_look,
        cases=_sequences,
        mistakes={
            "no_place": lambda x, norm, place, layers: x + _heard(norm(x), layers),
            "place_first": lambda x, norm, place, layers: x + _heard(norm(x + place[None]), layers),
            "place_stays": lambda x, norm, place, layers: (
                x + place[None] + _heard(norm(x) + place[None], layers)
            ),
            "placeless_values": lambda x, norm, place, layers: (
                x + _heard(norm(x) + place[None], layers, norm(x))
            ),
            "no_norm": lambda x, norm, place, layers: x + _heard(x + place[None], layers),
            "no_shortcut": lambda x, norm, place, layers: _heard(norm(x) + place[None], layers),
            "unscaled": _by_hand(lambda width: 1.0, axis=-1),
            "width": _by_hand(lambda width: width, axis=-1),
            "axis": _by_hand(lambda width: width**0.5, axis=1),
            "positions": lambda x, norm, place, layers: (
                x + _heard((norm(x) + place[None]).swapaxes(0, 1), layers).swapaxes(0, 1)
            ),
        },
    ),
    "slerp": Exercise(
        minutes=12,
        right=_slerp,
        cases=_noises,
        mistakes={
            "straight": lambda one, other, share: (1 - share) * one + share * other,
            "exchanged": lambda one, other, share: _slerp(other, one, share),
            "rescaled": lambda one, other, share: (
                ((1 - share) * one + share * other) / np.hypot(1 - share, share)
            ),
            "right_angle": lambda one, other, share: _arc(one, other, 0.0)(share),
            "undivided": _sines,
            "product": lambda one, other, share: _arc(one, other, jnp.sum(one * other))(share),
            "each_alone": lambda one, other, share: _arc(
                one,
                other,
                jnp.sum(one * other, -1, keepdims=True)
                / jnp.linalg.norm(one, axis=-1, keepdims=True)
                / jnp.linalg.norm(other, axis=-1, keepdims=True),
            )(share),
        },
    ),
}
