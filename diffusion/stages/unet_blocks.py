"""What the three parts of the U are built of: residual blocks, and transformers that listen."""

from collections.abc import Callable
from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import UNetConfig
from diffusion.layers.attention import SpatialTransformer
from diffusion.layers.residual import ResidualBlock

EPS = 1e-5  # of the normalisations in the U-Net's residual blocks

Skips = tuple[Float[Array, "b _h _w _c"], ...]  # what the way up remembers of the way down
Look = Callable[[Array], Array]  # of a map, (b, h, w, c) in and out


class Motion(NamedTuple):
    """What a film does after each residual block and its transformer, where a picture does nothing.

    One entry a level, in the order in which the levels come.
    """

    down: tuple[tuple[Look, ...], ...]
    middle: Look | None
    up: tuple[tuple[Look, ...], ...]


def residual(config: UNetConfig, level: int, in_channels: int, *, rngs: nnx.Rngs) -> ResidualBlock:
    """A residual block of a level."""
    return ResidualBlock(
        in_channels,
        config.block_out_channels[level],
        groups=config.norm_groups,
        eps=EPS,
        time_width=config.time_width,
        downscale=2**level,
        rngs=rngs,
    )


def transformer(config: UNetConfig, level: int, *, rngs: nnx.Rngs) -> SpatialTransformer:
    """A transformer of a level, which looks around in its map and listens to the words."""
    return SpatialTransformer(
        config.block_out_channels[level],
        config.heads[level],
        config.context_width,
        groups=config.norm_groups,
        rngs=rngs,
    )


def pairs(
    config: UNetConfig, level: int, widths: list[int], *, rngs: nnx.Rngs
) -> tuple[list[ResidualBlock], list[SpatialTransformer | None]]:
    """The residual blocks of a level, and what follows each: a transformer if the level listens.

    Args:
        widths: channels that go into each residual block.
    """
    residuals = [residual(config, level, width, rngs=rngs) for width in widths]
    listens = config.attention[level]
    return residuals, [transformer(config, level, rngs=rngs) if listens else None for _ in widths]
