"""3B. The essential shape: the whole scene on the smallest canvas, where all sees all."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import UNetConfig
from diffusion.layers.attention import SpatialTransformer
from diffusion.layers.residual import ResidualBlock
from diffusion.stages.unet_down import EPS


class UNetBottleneck(nnx.Module):
    """Residual block, transformer, residual block; the shape stays."""

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        channels = config.block_out_channels[-1]
        groups = config.norm_groups
        time_width = config.time_width
        self.residual1 = ResidualBlock(
            channels, channels, groups=groups, eps=EPS, time_width=time_width, rngs=rngs
        )
        self.transformer = SpatialTransformer(
            channels, config.heads[-1], config.context_width, groups=groups, rngs=rngs
        )
        self.residual2 = ResidualBlock(
            channels, channels, groups=groups, eps=EPS, time_width=time_width, rngs=rngs
        )

    def __call__(
        self,
        h: Float[Array, "b h w c"],
        time: Float[Array, "b t"],
        context: Float[Array, "b n d"],
    ) -> Float[Array, "b h w c"]:
        return self.residual2(self.transformer(self.residual1(h, time), context), time)
