"""Convolution, and the two that change the resolution. Pictures are NHWC, kernels HWIO."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, lecun_normal
from jaxtyping import Array, Float

from diffusion.kernels.convolution import convolve, convolve_strided, convolve_upsampled
from diffusion.kernels.plain import Padding


class Conv2d(nnx.Module):
    """y[i, j] = bias + sum over k, l of x[i + k, j + l] kernel[k, l]: a window, weighted.

    With a stride of 2, every second window is taken.

    Args:
        padding: rows and columns of zeros around the map; None: those that keep the size.
        downscale: the latent's side over that of the map. Given where the kernel may be brought to
            Winograd's points beforehand; see `diffusion.runtime.transformed_kernels`.
    """

    traced = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Literal[1, 3] = 3,
        *,
        stride: int = 1,
        padding: Padding | None = None,
        downscale: int | None = None,
        kernel_init: Initializer = lecun_normal(in_axis=(0, 1, 2)),  # noqa: B008 (a pure function)
        rngs: nnx.Rngs,
    ):
        shape = (size, size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.stride = stride
        self.keeps_size = stride == 1 and padding is None
        self.padding = padding or ((size // 2, size // 2),) * 2
        self.downscale = downscale

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kernel, bias = self.kernel[...], self.bias[None, None, None]
        if self.keeps_size:
            return convolve(x, kernel) + bias
        return convolve_strided(x, kernel, self.stride, self.padding) + bias


class PointwiseConv(nnx.Module):
    """A 1x1 convolution without bias: a Linear of each place."""

    traced = True

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        start = lecun_normal(in_axis=(0, 1, 2))
        shape = (1, 1, in_channels, out_channels)
        self.kernel = nnx.Param(start(rngs.params(), shape, jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        return x @ self.kernel[0, 0]


class DepthwiseConv(nnx.Module):
    """A 3x3 window for each channel by itself, without bias: nine shifted maps, weighted."""

    traced = True

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        start = lecun_normal(in_axis=(0, 1, 2))
        self.kernel = nnx.Param(start(rngs.params(), (3, 3, 1, channels), jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        _, h, w, _ = x.shape
        around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = (
            around[:, i : i + h, j : j + w] * self.kernel[i, j][None, None]
            for i in range(3)
            for j in range(3)
        )
        return sum(shifted, jnp.zeros_like(x))


class Downsample(nnx.Module):
    """Half the resolution by a 3x3 convolution of stride 2; of an odd map, the larger half.

    The U-Net pads on all four sides. The VAE's encoder pads at bottom and right alone, as "SAME"
    does in JAX and TensorFlow where the sides are even.
    """

    traced = True

    def __init__(self, channels: int, *, padding: Padding | None = None, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, stride=2, padding=padding, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Twice the resolution: each position four times (nearest), then a 3x3 convolution.

    An odd map was halved to one more than its half. So to come back to it, one less than twice the
    side can be asked for as `size`.
    """

    traced = True

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], size: tuple[int, int] | None = None
    ) -> Float[Array, "b h2 w2 c"]:
        bias = self.conv.bias[None, None, None]
        return convolve_upsampled(x, self.conv.kernel[...], size) + bias
