"""3A. The small sketch: level by level the picture gets smaller and its meaning richer."""

from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import UNetConfig
from diffusion.layers.convolution import Conv2d, Downsample
from diffusion.stages.unet_blocks import Look, Motion, Skips, pairs


class DownBlock(nnx.Module):
    """One level: residual blocks, each with a transformer where the level listens; downsample."""

    def __init__(self, config: UNetConfig, level: int, in_channels: int, *, rngs: nnx.Rngs):
        channels = config.block_out_channels[level]
        widths = [in_channels] + [channels] * (config.layers_per_block - 1)
        residuals, transformers = pairs(config, level, widths, rngs=rngs)
        self.residuals, self.transformers = nnx.List(residuals), nnx.List(transformers)
        last = level == len(config.block_out_channels) - 1
        self.downsample = None if last else Downsample(channels, rngs=rngs)

    def __call__(
        self,
        h: Float[Array, "b h w c"],
        time: Float[Array, "b t"],
        context: Float[Array, "b n d"],
        motion: tuple[Look, ...] = (),
    ) -> tuple[Float[Array, "b h2 w2 c2"], Skips]:
        skips: Skips = ()
        for i, (residual, transformer) in enumerate(
            zip(self.residuals, self.transformers, strict=True)
        ):
            h = residual(h, time)
            if transformer is not None:
                h = transformer(h, context)
            if motion:
                h = motion[i](h)
            skips += (h,)
        if self.downsample is not None:
            h = self.downsample(h)
            skips += (h,)
        return h, skips


class UNetDown(nnx.Module):
    """z_t -> the coarsest feature map, and every map on the way for the way up."""

    traced = True

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        widths = config.block_out_channels
        self.conv_in = Conv2d(config.in_channels, widths[0], rngs=rngs)
        self.blocks = nnx.List(
            DownBlock(config, level, widths[max(level - 1, 0)], rngs=rngs)
            for level in range(len(widths))
        )

    def __call__(
        self,
        latents: Float[Array, "b h w z"],
        time: Float[Array, "b t"],
        context: Float[Array, "b n d"],
        motion: Motion | None = None,  # of a film
    ) -> tuple[Float[Array, "b h2 w2 c"], Skips]:
        h = self.conv_in(latents)
        skips: Skips = (h,)
        for i, block in enumerate(self.blocks):
            h, more = block(h, time, context, motion.down[i] if motion else ())
            skips += more
        return h, skips
