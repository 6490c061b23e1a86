"""Convolution, and the two that change the resolution. Pictures are NHWC, kernels HWIO."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, lecun_normal
from jaxtyping import Array, Float

from diffusion.layers.forms.gathered import gathered
from diffusion.layers.forms.phases import upsampled
from diffusion.layers.forms.plain import Padding, plain
from diffusion.layers.forms.winograd import winograd
from diffusion.layers.machine import suits_a_cpu

WIDE = 128  # channels, in and out, from which a product over them is worth some copying
FEW = 512  # positions of all maps of a batch, from which on Winograd's tiles are


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"]
) -> Float[Array, "b h w d"]:
    """The convolution that keeps the size, in the form that is fastest for its shape.

    Time beside the plain form on two cores, 2026-11-24 (float32, c = d = 1,280, 640, 320, 512):

        8x8, gathered      0.27    32x32, Winograd    0.57    VAE, 64x64, Winograd     0.59
        16x16, gathered    0.57    64x64, Winograd    0.58    VAE, 128x128, Winograd   0.54

    A 1x1 convolution is a matrix product everywhere (0.5 to 0.8). Other platforms have fast
    convolutions of their own, and narrow ones gain nothing. See docs/speed.md.
    """
    b, h, w, c = x.shape
    if len(kernel) == 1:
        return x @ kernel[0, 0]
    if not suits_a_cpu(x) or min(c, kernel.shape[-1]) < WIDE:
        return plain(x, kernel)
    return (gathered if b * h * w < FEW else winograd)(x, kernel)


class Conv2d(nnx.Module):
    """A convolution with bias; `padding` defaults to the symmetric one that keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Literal[1, 3] = 3,
        *,
        stride: int = 1,
        padding: Padding | None = None,
        kernel_init: Initializer = lecun_normal(in_axis=(0, 1, 2)),  # noqa: B008 (a pure function)
        rngs: nnx.Rngs,
    ):
        shape = (size, size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kernel = self.kernel[...]
        keeps_size = self.stride == 1 and self.padding is None
        y = convolve(x, kernel) if keeps_size else plain(x, kernel, self.stride, self.padding)
        return y + self.bias[None, None, None]


class Downsample(nnx.Module):
    """Half the resolution by a 3x3 convolution of stride 2.

    The U-Net pads on all four sides, the VAE's encoder only at bottom and right; "SAME" is neither.
    """

    def __init__(self, channels: int, *, padding: Padding | None = None, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, stride=2, padding=padding, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Twice the resolution: each position four times (nearest), then a 3x3 convolution."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        if suits_a_cpu(x):  # 0.5 to 0.6 of the time of the two
            return upsampled(x, self.conv.kernel[...]) + self.conv.bias[None, None, None]
        b, h, w, c = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
        return self.conv(x.reshape(b, 2 * h, 2 * w, c))
