"""Motion modules: the frames of a film look at each other (AnimateDiff, Guo et al. 2023).

Everything else of the denoiser paints each frame for itself; frames are so many pictures in a
batch. A motion module turns that: each position becomes a sequence of its frames. Its exit begins
at zero, so a film that has learnt nothing is a row of single pictures.
"""

import math
from collections.abc import Iterable
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import zeros
from jaxtyping import Array, Float

from diffusion.layers.attention import Attention, FeedForward
from diffusion.layers.linear import Linear
from diffusion.layers.normalisation import GroupNorm
from diffusion.motion_config import MotionConfig
from diffusion.stages.unet_blocks import Look, Motion


def frame_positions(frames: int, width: int) -> Float[Array, "{frames} {width}"]:
    """Sine and cosine of the frame's number in turns (Vaswani et al. 2017, section 3.5)."""
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(0, width, 2) / width)
    angles = jnp.arange(frames)[:, None] * frequencies[None]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(frames, -1)[:, :width]


def to_sequences(x: Float[Array, "bf h w c"], frames: int) -> Float[Array, "bhw f c"]:
    """Maps of all frames -> at each position, the sequence of its frames."""
    _, h, w, c = x.shape
    x = x.reshape(-1, frames, h, w, c)
    return x.transpose(0, 2, 3, 1, 4).reshape(-1, frames, c)


def to_maps(x: Float[Array, "bhw f c"], height: int, width: int) -> Float[Array, "bf h w c"]:
    """The way back of `to_sequences`."""
    _, frames, c = x.shape
    x = x.reshape(-1, height, width, frames, c)
    return x.transpose(0, 3, 1, 2, 4).reshape(-1, height, width, c)


class TemporalBlock(nnx.Module):
    """Look at the other frames, look again, think: each added to what was there.

    The place in time is added after each normalisation: queries, keys and values have it, what goes
    on from block to block has not.

    A new block's first look goes to frames that are like its own, most of all itself (queries and
    keys begin as what they are made of); so it can tell at once what time it is. The second begins
    by asking all alike.
    """

    traced = True

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.attention1 = Attention(width, heads, qkv_bias=False, rngs=rngs)
        for asked in (self.attention1.query, self.attention1.key):
            asked.kernel[...] = jnp.eye(width)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.attention2 = Attention(width, heads, qkv_bias=False, rngs=rngs)
        self.norm3 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.feed_forward = FeedForward(width, rngs=rngs)

    def __call__(self, x: Float[Array, "n f c"]) -> Float[Array, "n f c"]:
        place = frame_positions(*x.shape[1:])[None].astype(x.dtype)
        x = x + self.attention1(self.norm1(x) + place)
        x = x + self.attention2(self.norm2(x) + place)
        return x + self.feed_forward(self.norm3(x))


class MotionModule(nnx.Module):
    """Every position of a map hears of the same position in the other frames of its film."""

    traced = True

    def __init__(self, channels: int, heads: int, groups: int, length: int, *, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, groups, eps=1e-6)
        self.project_in = Linear(channels, channels, rngs=rngs)
        self.block = TemporalBlock(channels, heads, rngs=rngs)
        self.project_out = Linear(channels, channels, kernel_init=zeros, rngs=rngs)
        self.length = length

    def __call__(self, x: Float[Array, "bf h w c"], frames: int) -> Float[Array, "bf h w c"]:
        """Add what is heard.

        Args:
            frames: of a film; those of the next film follow.

        Raises ValueError for more frames than the module has learnt places in time.
        """
        if frames > self.length:
            raise ValueError(
                f"{frames} frames at once; these motion modules have learnt {self.length}"
            )
        bf, h, w, c = x.shape
        film = x.reshape(-1, frames * h, w, c)  # all frames have one mean and one variance
        normed = self.norm(film).reshape(bf, h, w, c)
        sequences = self.block(self.project_in(to_sequences(normed, frames)))
        return x + to_maps(self.project_out(sequences), h, w)


class MotionAdapter(nnx.Module):
    """The motion modules of a whole U-Net, in a file of their own."""

    def __init__(self, config: MotionConfig, *, rngs: nnx.Rngs):
        levels = range(len(config.block_out_channels))

        def modules(level: int, count: int) -> list[MotionModule]:
            return [_module(config, level, rngs) for _ in range(count)]

        per_level = config.layers_per_block
        self.down = nnx.List(nnx.List(modules(level, per_level)) for level in levels)
        self.middle = _module(config, levels[-1], rngs) if config.middle else None
        self.up = nnx.List(nnx.List(modules(level, per_level + 1)) for level in reversed(levels))

    def over(self, frames: int) -> Motion:
        """What a U-Net does after each of its pairs, for films of so many frames."""

        def bound(modules: Iterable[MotionModule]) -> tuple[Look, ...]:
            return tuple(partial(module, frames=frames) for module in modules)

        return Motion(
            down=tuple(map(bound, self.down)),
            middle=None if self.middle is None else partial(self.middle, frames=frames),
            up=tuple(map(bound, self.up)),
        )


def _module(config: MotionConfig, level: int, rngs: nnx.Rngs) -> MotionModule:
    channels, heads = config.block_out_channels[level], config.heads[level]
    return MotionModule(channels, heads, config.norm_groups, config.length, rngs=rngs)
