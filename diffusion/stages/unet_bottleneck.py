"""3B. The essential shape: the whole scene on the smallest canvas, where all sees all."""

from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import UNetConfig
from diffusion.stages.unet_blocks import Motion, residual, transformer


class UNetBottleneck(nnx.Module):
    """Residual block, transformer, residual block; the shape stays."""

    traced = True

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        level, channels = len(config.block_out_channels) - 1, config.block_out_channels[-1]
        self.residual1 = residual(config, level, channels, rngs=rngs)
        self.transformer = transformer(config, level, rngs=rngs)
        self.residual2 = residual(config, level, channels, rngs=rngs)

    def __call__(
        self,
        h: Float[Array, "b h w c"],
        time: Float[Array, "b t"],
        context: Float[Array, "b n d"],
        motion: Motion | None = None,  # of a film
    ) -> Float[Array, "b h w c"]:
        h = self.transformer(self.residual1(h, time), context)
        if motion and motion.middle:
            h = motion.middle(h)
        return self.residual2(h, time)
