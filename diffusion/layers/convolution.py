"""Convolution, and the two that change the resolution. Pictures are NHWC, kernels HWIO."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, lecun_normal
from jaxtyping import Array, Float

from diffusion.kernels.device import suits_a_cpu
from diffusion.kernels.gathered import gathered
from diffusion.kernels.phases import upsampled
from diffusion.kernels.plain import Padding, plain
from diffusion.kernels.winograd import winograd

FEW = 512  # positions of all maps of a batch, from which on Winograd's tiles are
WIDE = 128  # channels, in and out, from which the copies of `gathered` pay,
MEDIUM = 64  # those of Winograd's form,
NARROW = 32  # and those of its gradients
BROAD = 512  # channels from which convolutions of stride 2 are gathered,
SMALL = 2**18  # values of a map up to which those of an upsampling are, if it is not narrow


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"] | Float[Array, "36 c d"]
) -> Float[Array, "b h w d"]:
    """The convolution that keeps the size, in the form that is fastest for its shape.

    Args:
        kernel: as it is, or at Winograd's points (see `diffusion.runtime.transformed_kernels`).

    Time beside the plain form on two cores, 2026-11-24 (float32, c = d = 1,280, 640, 320, 512):

        8x8, gathered      0.27    32x32, Winograd    0.57    VAE, 64x64, Winograd     0.59
        16x16, gathered    0.57    64x64, Winograd    0.58    VAE, 128x128, Winograd   0.54

    A 1x1 convolution is a matrix product everywhere (0.5 to 0.8). Other platforms have fast
    convolutions of their own, and narrow ones gain nothing; see `learnt` for when they are trained.
    See docs/speed.md.
    """
    b, h, w, c = x.shape
    if kernel.ndim == 3:
        return winograd(x, kernel)
    if len(kernel) == 1:
        return x @ kernel[0, 0]
    width = min(c, kernel.shape[-1])
    if not suits_a_cpu(x) or width < NARROW:
        return plain(x, kernel)
    if b * h * w < FEW:
        return (gathered if width >= WIDE else plain)(x, kernel)
    return (winograd if width >= MEDIUM else learnt)(x, kernel)


@jax.custom_vjp
def learnt(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """The plain form; where a gradient is asked for, Winograd's in its place.

    Winograd's form is a product between two linear maps, so its gradients are such products too, on
    a map that is at points already. XLA's gradients of the plain form cost the more. Time of a
    convolution and both its gradients beside that (batch 8 and 32, 2 cores, 2026-11-24):

        VAE    64x64, 16 channels   1.01    32x32, 32   0.69    16x16, 64   0.54
        U-Net  16x16, 32 channels   0.61     8x8, 96    0.38     4x4, 160   0.80
    """
    return plain(x, kernel)


learnt.defvjp(
    lambda x, kernel: jax.vjp(winograd, x, kernel),
    lambda gradients, of_output: gradients(of_output),
)


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
        self.keeps_size = stride == 1 and padding is None
        self.padding = padding or ((size // 2, size // 2),) * 2

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kernel = self.kernel[...]
        if self.keeps_size:
            y = convolve(x, kernel)
        else:  # 16x16, 1,280 channels: 0.25 of the plain form's time, 32x32, 640: 0.77
            form = gathered if suits_a_cpu(x) and min(kernel.shape[2:]) >= BROAD else plain
            y = form(x, kernel, self.stride, self.padding)
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
        b, h, w, c = x.shape
        if suits_a_cpu(x):  # 0.5 to 0.6 of the time of the two, one after the other
            form = gathered if c > MEDIUM and x.size <= SMALL else plain
            return upsampled(x, self.conv.kernel[...], form) + self.conv.bias[None, None, None]
        x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
        return self.conv(x.reshape(b, 2 * h, 2 * w, c))
