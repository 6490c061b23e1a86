"""Which form a convolution takes, by its shape and the device. Pictures NHWC, kernels HWIO.

The forms were measured on a CPU in float32; elsewhere, and in other precisions, XLA has a fast
convolution of its own. See docs/speed.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.kernels.device import suits_a_cpu
from diffusion.kernels.gathered import gathered
from diffusion.kernels.phases import upsampled
from diffusion.kernels.plain import Padding, plain
from diffusion.kernels.products import product
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

    A 1x1 convolution is a matrix product everywhere (0.5 to 0.8). Narrow ones gain nothing; see
    `learnt` for when they are trained.
    """
    b, h, w, c = x.shape
    if kernel.ndim == 3:
        return winograd(x, kernel)
    if len(kernel) == 1:
        return product(x, kernel[0, 0])
    width = min(c, kernel.shape[-1])
    if not suits_a_cpu(x) or width < NARROW:
        return plain(x, kernel)
    if b * h * w < FEW:
        return (gathered if width >= WIDE else plain)(x, kernel)
    return (winograd if width >= MEDIUM else learnt)(x, kernel)


def convolve_strided(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 d"]:
    """A convolution with any stride and padding.

    Gathered, 16x16 with 1,280 channels takes 0.25 of the plain form's time, 32x32 with 640 0.77.
    """
    form = gathered if suits_a_cpu(x) and min(kernel.shape[2:]) >= BROAD else plain
    return form(x, kernel, stride, padding)


def convolve_upsampled(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "3 3 c d"],
    size: tuple[int, int] | None = None,
) -> Float[Array, "b h2 w2 d"]:
    """`convolve` of x with each position repeated twice in both directions.

    On a CPU in one: 0.5 to 0.6 of the time of the two, one after the other.

    Args:
        size: height and width of the result, each twice that of x or one less: then the last row
            or column is repeated once.
    """
    b, h, w, c = x.shape
    height, width = size or (2 * h, 2 * w)
    if suits_a_cpu(x) and (height, width) == (2 * h, 2 * w):
        return upsampled(x, kernel, gathered if c > MEDIUM and x.size <= SMALL else plain)
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return convolve(x.reshape(b, 2 * h, 2 * w, c)[:, :height, :width], kernel)


@jax.custom_vjp
def learnt(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """The plain form; where a gradient is asked for, Winograd's in its place.

    Winograd's form is a product between two linear maps, so its gradients are such products too, on
    a map that is at points already. XLA's gradients of the plain form cost more. Time of a
    convolution and both its gradients beside that (batch 8 and 32, 2 cores, 2026-11-24):

        VAE    64x64, 16 channels   1.01    32x32, 32   0.69    16x16, 64   0.54
        U-Net  16x16, 32 channels   0.61     8x8, 96    0.38     4x4, 160   0.80
    """
    return plain(x, kernel)


learnt.defvjp(
    lambda x, kernel: jax.vjp(winograd, x, kernel),
    lambda gradients, of_output: gradients(of_output),
)
