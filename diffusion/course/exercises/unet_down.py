"""Exercises of lesson 5, the small sketch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffusion.course.exercise import Exercise
from diffusion.layers.residual import ResidualBlock
from diffusion.layers.time_embedding import sinusoids


def _blocks() -> list[tuple[Any, ...]]:
    """A block whose layers all do something, at two sizes of the map."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    block = ResidualBlock(8, 8, groups=2, eps=1e-5, time_width=6, rngs=nnx.Rngs(0))
    block.conv2.kernel[...] = 0.2 * draw(3, 3, 8, 8)
    block.conv2.bias[...] = draw(8)
    for norm in (block.norm1, block.norm2):  # untrained, they would be one and the same
        norm.scale[...] = 1 + 0.5 * draw(8)
        norm.bias[...] = draw(8)
    for layer in (block.conv1, _linear(block)):
        assert layer.bias is not None
        layer.bias[...] = draw(8)
    return [(block, draw(1, 6, 6, 8), draw(1, 6)), (block, draw(2, 4, 4, 8), draw(2, 6))]


def _convolved(norm: Any, conv: Any, h: Any) -> Any:
    return conv(jax.nn.silu(norm(h)))


def _added(block: ResidualBlock, h: Any, t: Any) -> Any:
    return h + _linear(block)(jax.nn.silu(t))[:, None, None]


def _sum(block: ResidualBlock, h: Any, x: Any, t: Any) -> Any:
    return h + x


def _block(
    time: Callable[..., Any] = _added,
    last: Callable[..., Any] = _sum,
    part: Callable[..., Any] = _convolved,
    norms: tuple[str, str] = ("norm1", "norm2"),
) -> Callable[..., Any]:
    """A residual block with another place for time, another end, other parts or other norms."""

    def answer(block: ResidualBlock, x: Any, t: Any) -> Any:
        first, second = (getattr(block, name) for name in norms)
        h = time(block, part(first, block.conv1, x), t)
        return last(block, part(second, block.conv2, h), x, t)

    return answer


def _linear(block: ResidualBlock) -> nnx.Linear:
    assert block.time is not None
    return block.time


def _swapped_sinusoids(timesteps: Any, width: int) -> Any:
    cosine, sine = jnp.split(sinusoids(timesteps, width), 2, axis=-1)
    return jnp.concatenate([sine, cosine], axis=-1)


def _sinusoids_with(frequencies: Callable[[int], Any]) -> Callable[..., Any]:
    def answer(timesteps: Any, width: int) -> Any:
        angles = timesteps[:, None] * frequencies(width // 2)[None]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)

    return answer


def _windows() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    return [(draw(4, 5, 2), draw(3, 3, 2, 3), 1), (draw(6, 4, 3), draw(3, 3, 3, 2), 2)]


def _convolve(x: Any, kernel: Any, stride: int, edge: int = 1) -> Any:
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride, stride), [(edge, edge)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]  # fmt: skip


def _reach(layers: Any) -> int:
    """How many positions along a side one position after these convolutions has heard of."""
    reach, step = 1, 1
    for size, stride in layers:
        reach += (size - 1) * step
        step *= stride
    return reach


EXERCISES: Mapping[str, Exercise] = {
    "residual": Exercise(
        minutes=15,
        right=lambda block, x, t: block(x, t),
        cases=_blocks,
        mistakes={
            "no_shortcut": _block(last=lambda block, h, x, t: h),
            "no_time": _block(time=lambda block, h, t: h),
            "late_time": _block(
                time=lambda block, h, t: h, last=lambda block, h, x, t: _added(block, h, t) + x
            ),
            "raw_time": _block(time=lambda block, h, t: h + _linear(block)(t)[:, None, None]),
            "one_norm": _block(norms=("norm1", "norm1")),
            "norms": _block(norms=("norm2", "norm1")),
            "activation_first": _block(part=lambda norm, conv, h: conv(norm(jax.nn.silu(h)))),
            "convolution_first": _block(part=lambda norm, conv, h: jax.nn.silu(norm(conv(h)))),
            "no_activation": _block(part=lambda norm, conv, h: conv(norm(h))),
        },
    ),
    "sinusoids": Exercise(
        minutes=10,
        right=sinusoids,
        cases=lambda: [(jnp.asarray([0, 1, 500, 999]), 8), (jnp.arange(7), 32)],
        mistakes={
            "sine_first": _swapped_sinusoids,
            "last_frequency": _sinusoids_with(
                lambda half: 10_000.0 ** -(jnp.arange(half) / (half - 1))
            ),
            "interleaved": lambda timesteps, width: (
                sinusoids(timesteps, width)
                .reshape(len(timesteps), 2, width // 2)
                .swapaxes(1, 2)
                .reshape(len(timesteps), width)
            ),
            "whole_width": _sinusoids_with(
                lambda half: 10_000.0 ** -(jnp.arange(half) / (2 * half))
            ),
            "upside_down": _sinusoids_with(lambda half: 10_000.0 ** (jnp.arange(half) / half)),
        },
        tolerance=2e-4,
    ),
    "reach": Exercise(
        minutes=10,
        right=_reach,
        cases=lambda: [
            ([(3, 1)],),
            ([(3, 1), (3, 1)],),
            ([(3, 1), (3, 2), (3, 1)],),
            ([(3, 1), (3, 1), (3, 2)] * 3,),
        ],
        mistakes={
            "strides": lambda layers: 1 + sum(size - 1 for size, _ in layers),
            "sizes": lambda layers: sum(size for size, _ in layers),
            "product": lambda layers: int(np.prod([size for size, _ in layers])),
        },
    ),
    "convolve": Exercise(
        minutes=20,
        right=_convolve,
        cases=_windows,
        mistakes={
            "flipped": lambda x, kernel, stride: _convolve(x, kernel[::-1, ::-1], stride),
            "turned": lambda x, kernel, stride: _convolve(x, kernel.swapaxes(0, 1), stride),
            "no_edge": lambda x, kernel, stride: _convolve(x, kernel, stride, edge=0),
            "no_stride": lambda x, kernel, stride: _convolve(x, kernel, 1),
            "late": lambda x, kernel, stride: _convolve(x, kernel, 1)[
                stride - 1 :: stride, stride - 1 :: stride
            ],
        },
    ),
}
