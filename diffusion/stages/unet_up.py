"""4. The oil painting: level by level back to full size, the sketch of each size at hand."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import zeros
from jaxtyping import Array, Float

from diffusion.config import UNetConfig
from diffusion.layers.convolution import Conv2d, Upsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.stages.unet_blocks import EPS, Look, Motion, Skips, pairs


class UpBlock(nnx.Module):
    """One level: residual blocks over [h; skip], with transformers where it listens; upsample."""

    def __init__(
        self,
        config: UNetConfig,
        level: int,
        in_channels: int,
        skip_channels: list[int],  # in the order in which they are used
        *,
        rngs: nnx.Rngs,
    ):
        channels = config.block_out_channels[level]
        widths = [in_channels] + [channels] * (len(skip_channels) - 1)
        inputs = [width + skip for width, skip in zip(widths, skip_channels, strict=True)]
        residuals, transformers = pairs(config, level, inputs, rngs=rngs)
        self.residuals, self.transformers = nnx.List(residuals), nnx.List(transformers)
        self.upsample = None if level == 0 else Upsample(channels, rngs=rngs)

    def __call__(
        self,
        h: Float[Array, "b h w c"],
        skips: Skips,  # this level's, in the order in which they are used
        time: Float[Array, "b t"],
        context: Float[Array, "b n d"],
        motion: tuple[Look, ...] = (),
        size: tuple[int, int] | None = None,  # of the next level's skips; None: twice this one's
    ) -> Float[Array, "b h2 w2 c2"]:
        for i, (residual, transformer, skip) in enumerate(
            zip(self.residuals, self.transformers, skips, strict=True)
        ):
            h = residual(jnp.concatenate([h, skip], axis=-1), time)
            if transformer is not None:
                h = transformer(h, context)
            if motion:
                h = motion[i](h)
        return h if self.upsample is None else self.upsample(h, size)


class UNetUp(nnx.Module):
    """Coarsest map and skips -> prediction of the noise (or velocity), shaped like z_t."""

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        widths = config.block_out_channels
        self.depth = config.layers_per_block + 1
        self.blocks: nnx.List[UpBlock] = nnx.List()
        h_channels = widths[-1]
        for level in reversed(range(len(widths))):
            # The last skip used at a level is the first made there: it has the finer level's width.
            skips = [widths[level]] * config.layers_per_block + [widths[max(level - 1, 0)]]
            self.blocks.append(UpBlock(config, level, h_channels, skips, rngs=rngs))
            h_channels = widths[level]
        self.norm_out = GroupNorm(widths[0], config.norm_groups, eps=EPS)
        self.conv_out = Conv2d(widths[0], config.latent_channels, kernel_init=zeros, rngs=rngs)

    def __call__(
        self,
        h: Float[Array, "b h w c"],
        skips: Skips,
        time: Float[Array, "b t"],
        context: Float[Array, "b n d"],
        motion: Motion | None = None,  # of a film
    ) -> Float[Array, "b h2 w2 z"]:
        latest_first = skips[::-1]
        for i, block in enumerate(self.blocks):
            here, after = (latest_first[j * self.depth : (j + 1) * self.depth] for j in (i, i + 1))
            size = (after[0].shape[1], after[0].shape[2]) if after else None
            h = block(h, here, time, context, motion.up[i] if motion else (), size)
        return self.conv_out(jax.nn.silu(self.norm_out(h)))
