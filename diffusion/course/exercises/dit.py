"""Exercises of lesson 15, one transformer for the whole U."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.inspection.transformer import looked_far
from diffusion.stages import dit_blocks


def _latents() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    shapes = (((3, 4, 6, 5), 2), ((1, 6, 3, 2), 3), ((2, 4, 8, 3), 4))
    return [(jnp.asarray(rng.standard_normal(shape, np.float32)), p) for shape, p in shapes]


def _cut(order: tuple[int, ...]) -> Any:
    """Axes of the squares: picture, row of patches, row, column of patches, column, channel."""

    def answer(z: Any, p: int) -> Any:
        b, h, w, c = z.shape
        squares = z.reshape(b, h // p, p, w // p, p, c).transpose(order)
        return squares.reshape(b, -1, p * p * c)

    return answer


def _scattered(z: Any, p: int) -> Any:
    b, h, w, c = z.shape
    squares = z.reshape(b, p, h // p, p, w // p, c).transpose(0, 2, 4, 1, 3, 5)
    return squares.reshape(b, -1, p * p * c)


def _normalised(x: Any) -> Any:
    """LayerNorm without scale and bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + dit_blocks.EPS)


def _blocks() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731

    def part(c: int) -> Any:
        here, there = draw(c, c), draw(c, c)
        return lambda x: jnp.tanh(x @ here + x.mean(axis=1, keepdims=True) @ there)

    return [
        (draw(b, n, c), draw(b, 6, c), _normalised, *(part(c) for _ in range(3)))
        for b, n, c in ((2, 3, 4), (1, 5, 8))
    ]


def _block(
    h: Any, six: Any, norm: Any, look: Any, listen: Any, think: Any,
    modulate: Any = dit_blocks.modulate, heard: Any = lambda norm, h: h,
    vectors: Any = (0, 1, 2, 3, 4, 5),
) -> Any:  # fmt: skip
    """PixArt's block; see `diffusion.stages.dit_blocks.DiTBlock`."""
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (six[:, i] for i in vectors)
    h = h + gate[:, None] * look(modulate(norm(h), shift, scale))
    h = h + listen(heard(norm, h))
    return h + mlp_gate[:, None] * think(modulate(norm(h), mlp_shift, mlp_scale))


def _parallel(h: Any, six: Any, norm: Any, look: Any, listen: Any, think: Any) -> Any:
    nothing = jnp.zeros_like
    looked = _block(h, six, norm, look, nothing, nothing)
    thought = _block(h, six, norm, nothing, nothing, think)
    return looked + listen(h) + thought - h


def _no_gate(h: Any, six: Any, norm: Any, look: Any, listen: Any, think: Any) -> Any:
    return _block(h, six.at[:, 2].set(1.0).at[:, 5].set(1.0), norm, look, listen, think)


def _gated_words(h: Any, six: Any, norm: Any, look: Any, listen: Any, think: Any) -> Any:
    gated = lambda x: six[:, 2][:, None] * listen(x)  # noqa: E731
    return _block(h, six, norm, look, gated, think)


def _no_norm(h: Any, six: Any, norm: Any, look: Any, listen: Any, think: Any) -> Any:
    return _block(h, six, lambda x: x, look, listen, think)


def _no_stream(h: Any, six: Any, norm: Any, look: Any, listen: Any, think: Any) -> Any:
    h = _block(h, six, norm, look, jnp.zeros_like, jnp.zeros_like) - h
    h = listen(h)
    return _block(h, six, norm, jnp.zeros_like, jnp.zeros_like, think) - h


def _attentions() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(2)
    return [
        (jax.nn.softmax(jnp.asarray(2 * rng.standard_normal((heads, n, n), np.float32))), columns)
        for heads, n, columns in ((3, 12, 4), (2, 10, 2))
    ]


def _weighed(distance: Any) -> Any:
    def answer(weights: Any, columns: int) -> Any:
        row, column = np.divmod(np.arange(weights.shape[1]), columns)
        apart = distance(row[:, None] - row[None], column[:, None] - column[None])
        return (weights * apart[None]).sum(axis=-1).mean(axis=-1)

    return answer


def _of_numbers(weights: Any, columns: int) -> Any:
    """As if the patches stood in one long row."""
    return looked_far(weights, weights.shape[1])


EXERCISES: Mapping[str, Exercise] = {
    "cut": Exercise(
        minutes=10,
        right=dit_blocks.cut,
        cases=_latents,
        mistakes={
            "rows": _cut((0, 1, 2, 3, 4, 5)),
            "columns": _cut((0, 3, 1, 2, 4, 5)),
            "channels": _cut((0, 1, 3, 5, 2, 4)),
            "turned": _cut((0, 1, 3, 4, 2, 5)),
            "scattered": _scattered,
        },
    ),
    "block": Exercise(
        minutes=20,
        right=_block,
        cases=_blocks,
        mistakes={
            "no_one": partial(_block, modulate=lambda x, b, g: x * g[:, None] + b[:, None]),
            "exchanged": partial(_block, vectors=(1, 0, 2, 4, 3, 5)),
            "gate_first": partial(_block, vectors=(1, 2, 0, 4, 5, 3)),
            "same_three": partial(_block, vectors=(0, 1, 2, 0, 1, 2)),
            "no_gate": _no_gate,
            "gated_words": _gated_words,
            "normed_words": partial(_block, heard=lambda norm, h: norm(h)),
            "no_norm": _no_norm,
            "no_stream": _no_stream,
            "parallel": _parallel,
        },
    ),
    "looked_far": Exercise(
        minutes=12,
        right=looked_far,
        cases=_attentions,
        mistakes={
            "numbers": _of_numbers,
            "squares": _weighed(lambda y, x: y**2 + x**2),
            "city": _weighed(lambda y, x: np.abs(y) + np.abs(x)),
            "sum": lambda weights, columns: looked_far(weights, columns) * weights.shape[1],
            "mean": lambda weights, columns: looked_far(weights, columns) / weights.shape[1],
            "one": lambda weights, columns: looked_far(weights, columns).mean(),
        },
    ),
}
