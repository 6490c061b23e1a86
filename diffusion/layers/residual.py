"""The residual block of U-Net and VAE (He et al. 2016; with time, Ho et al. 2020, appendix B)."""

import jax.numpy as jnp
from flax import nnx
from jax.nn import silu
from jax.nn.initializers import zeros
from jaxtyping import Array, Float

from diffusion.kernels.gradients import recomputed
from diffusion.layers.convolution import Conv2d
from diffusion.layers.linear import Linear
from diffusion.layers.normalisation import GroupNorm


class ResidualBlock(nnx.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))); a 1x1 shortcut where the channels change.

    The last convolution starts at zero, so that a new network begins as the identity.
    """

    traced = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        eps: float,
        time_width: int | None = None,  # None in the VAE, which knows no time
        downscale: int | None = None,  # of its two 3x3 convolutions
        rngs: nnx.Rngs,
    ):
        self.norm1 = GroupNorm(in_channels, groups, eps=eps)
        self.conv1 = Conv2d(in_channels, out_channels, downscale=downscale, rngs=rngs)
        self.time = None if time_width is None else Linear(time_width, out_channels, rngs=rngs)
        self.norm2 = GroupNorm(out_channels, groups, eps=eps)
        self.conv2 = Conv2d(
            out_channels, out_channels, downscale=downscale, kernel_init=zeros, rngs=rngs
        )
        changes = in_channels != out_channels
        self.shortcut = Conv2d(in_channels, out_channels, 1, rngs=rngs) if changes else None

    def __call__(
        self, x: Float[Array, "b h w c"], time: Float[Array, "b t"] | None = None
    ) -> Float[Array, "b h w d"]:
        h = self.conv1(recomputed(lambda: silu(self.norm1(x))))
        if self.time is not None:
            h = h + self.time(silu(jnp.asarray(time)))[:, None, None]
        h = self.conv2(recomputed(lambda: silu(self.norm2(h))))
        return h + (x if self.shortcut is None else self.shortcut(x))
