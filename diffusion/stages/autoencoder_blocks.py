"""Encoder and decoder that the autoencoders of stage 5 share: the VAE's and the discrete one's.

The architecture of Rombach et al. 2022, section 3.1 and appendix G.
"""

from typing import Protocol, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Float

from diffusion.layers.attention import Attention
from diffusion.layers.convolution import Conv2d, Downsample, Upsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock

EPS = 1e-6  # of every normalisation


@runtime_checkable
class Sizes(Protocol):
    """What encoder and decoder read of a configuration."""

    @property
    def image_channels(self) -> int: ...

    @property
    def block_out_channels(self) -> tuple[int, ...]: ...

    @property
    def layers_per_block(self) -> int: ...

    @property
    def norm_groups(self) -> int: ...


class ImageAttention(nnx.Module):
    """Self-attention with one head as wide as the feature map."""

    traced = True

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, groups, eps=EPS)
        self.attention = Attention(channels, heads=1, qkv_bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        return x + self.attention(self.norm(x).reshape(b, h * w, c)).reshape(b, h, w, c)


class Middle(nnx.Module):
    """Residual block, attention (if it `attends`), residual block at the coarsest level."""

    traced = True

    def __init__(self, channels: int, groups: int, attends: bool, *, rngs: nnx.Rngs):
        self.residual1 = ResidualBlock(channels, channels, groups=groups, eps=EPS, rngs=rngs)
        self.attention = ImageAttention(channels, groups, rngs=rngs) if attends else None
        self.residual2 = ResidualBlock(channels, channels, groups=groups, eps=EPS, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = self.residual1(x)
        return self.residual2(x if self.attention is None else self.attention(x))


class Level(nnx.Module):
    """The residual blocks of one resolution, then the change to the next (none at the last)."""

    traced = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int,
        change: Downsample | Upsample | None,
        *,
        groups: int,
        rngs: nnx.Rngs,
    ):
        widths = [in_channels] + [out_channels] * (depth - 1)
        self.residuals = nnx.List(
            ResidualBlock(width, out_channels, groups=groups, eps=EPS, rngs=rngs)
            for width in widths
        )
        self.change = change

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        for residual in self.residuals:
            x = residual(x)
        return x if self.change is None else self.change(x)


class Encoder(nnx.Module):
    """Picture -> a map of `out_channels`, from which the latents are made."""

    def __init__(self, config: Sizes, out_channels: int, *, attends: bool = True, rngs: nnx.Rngs):
        widths = config.block_out_channels
        groups = config.norm_groups
        self.conv_in = Conv2d(config.image_channels, widths[0], rngs=rngs)
        self.levels: nnx.List[Level] = nnx.List()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            change = None if last else Downsample(width, padding=((0, 1), (0, 1)), rngs=rngs)
            self.levels.append(
                Level(
                    widths[max(i - 1, 0)],
                    width,
                    config.layers_per_block,
                    change,
                    groups=groups,
                    rngs=rngs,
                )
            )
        self.middle = Middle(widths[-1], groups, attends, rngs=rngs)
        self.norm_out = GroupNorm(widths[-1], groups, eps=EPS)
        self.conv_out = Conv2d(widths[-1], out_channels, rngs=rngs)

    def __call__(self, images: Float[Array, "b H W k"]) -> Float[Array, "b h w c"]:
        h = self.conv_in(images)
        for level in self.levels:
            h = level(h)
        return self.conv_out(jax.nn.silu(self.norm_out(self.middle(h))))


class Decoder(nnx.Module):
    """Latent -> picture, one residual block more a level than the encoder."""

    def __init__(self, config: Sizes, in_channels: int, *, attends: bool = True, rngs: nnx.Rngs):
        widths = config.block_out_channels[::-1]
        groups = config.norm_groups
        self.conv_in = Conv2d(in_channels, widths[0], rngs=rngs)
        self.middle = Middle(widths[0], groups, attends, rngs=rngs)
        self.levels: nnx.List[Level] = nnx.List()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            change = None if last else Upsample(width, rngs=rngs)
            self.levels.append(
                Level(
                    widths[max(i - 1, 0)],
                    width,
                    config.layers_per_block + 1,
                    change,
                    groups=groups,
                    rngs=rngs,
                )
            )
        self.norm_out = GroupNorm(widths[-1], groups, eps=EPS)
        self.conv_out = Conv2d(widths[-1], config.image_channels, rngs=rngs)

    def __call__(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b H W k"]:
        h = self.middle(self.conv_in(latents))
        for level in self.levels:
            h = level(h)
        return self.conv_out(jax.nn.silu(self.norm_out(h)))
