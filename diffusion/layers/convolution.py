"""Convolution, and the two that change the resolution. Pictures are NHWC, kernels HWIO."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import Initializer, lecun_normal
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


class Conv2d(nnx.Module):
    """A convolution with bias; `padding` defaults to the symmetric one that keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int = 3,
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
        self.padding = padding or ((size // 2, size // 2),) * 2

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        y = lax.conv_general_dilated(
            x,
            self.kernel[...],
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[None, None, None]


class Downsample(nnx.Module):
    """Half the resolution by a 3x3 convolution of stride 2.

    The U-Net pads on all four sides, the VAE's encoder only at bottom and right; "SAME" is neither.
    """

    def __init__(self, channels: int, *, padding: Padding = ((1, 1), (1, 1)), rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, stride=2, padding=padding, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Twice the resolution: each position four times (nearest), then a 3x3 convolution."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        b, h, w, c = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
        return self.conv(x.reshape(b, 2 * h, 2 * w, c))
