"""3A, 3B and 4 composed: the U (Ronneberger et al. 2015; with attention, Rombach et al. 2022)."""

from flax import nnx
from jaxtyping import Array, Float, Real

from diffusion.config import UNetConfig
from diffusion.layers.time_embedding import TimeEmbedding
from diffusion.stages.unet_blocks import Motion
from diffusion.stages.unet_bottleneck import UNetBottleneck
from diffusion.stages.unet_down import UNetDown
from diffusion.stages.unet_up import UNetUp


class UNet(nnx.Module):
    """One glance at the canvas: what in z_t is noise?"""

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        self.time_embedding = TimeEmbedding(
            config.block_out_channels[0], config.time_width, config.guidance_width, rngs=rngs
        )
        self.down = UNetDown(config, rngs=rngs)
        self.bottleneck = UNetBottleneck(config, rngs=rngs)
        self.up = UNetUp(config, rngs=rngs)

    def __call__(
        self,
        latents: Float[Array, "b h w c"],  # of an inpainting model: and what lies beside them
        timesteps: Real[Array, " b"],
        context: Float[Array, "b n d"],
        guidance: Float[Array, " b"] | None = None,  # for a network that is told the scale
        motion: Motion | None = None,  # of a film, whose frames are a batch
    ) -> Float[Array, "b h w z"]:
        time = self.time_embedding(timesteps, guidance)
        h, skips = self.down(latents, time, context, motion)
        h = self.bottleneck(h, time, context, motion)
        return self.up(h, skips, time, context, motion)
