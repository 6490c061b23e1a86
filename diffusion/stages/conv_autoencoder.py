"""5, as it may have begun: the Keras autoencoder that this project's first text shows.

    Input(256, 256, 3)
    Conv2D(32, (3, 3), relu)
    MaxPooling2D((2, 2))
    ...
    Conv2D(32, (3, 3), relu)
    UpSampling2D((2, 2))
    ...
    compile(adam, mean_squared_error)

Each "..." is left out there: further levels, the last layer, the data. As printed it makes pictures
of 256x256x3 into maps of 250x250x32, as a convolution of Keras takes two rows and columns away: no
error between the two can be computed. Completed here by two things, the fewest that make it train:
zeros around each map (`padding="same"`), and a last convolution to three channels.

Between its halves are 128x128x32 numbers, 2.7 times those of the picture. And it learns to repeat
pictures, not which codes are likely, so it paints nothing; for that there is the denoiser.
"""

from itertools import pairwise

import jax
from flax import nnx
from jax.nn.initializers import glorot_uniform
from jaxtyping import Array, Float

from diffusion.config import ConvAutoencoderConfig


def conv2d(channels: int, out_channels: int, padding: str, rngs: nnx.Rngs) -> nnx.Conv:
    """`Conv2D(out_channels, (3, 3))` as it begins in Keras: glorot_uniform, bias of zeros."""
    return nnx.Conv(
        channels,
        out_channels,
        (3, 3),
        padding=padding,
        kernel_init=glorot_uniform(),
        rngs=rngs,
    )


class Shrink(nnx.Module):
    """`Conv2D(out_channels, (3, 3), relu)`, then `MaxPooling2D((2, 2))`."""

    traced = True

    def __init__(self, channels: int, out_channels: int, padding: str, *, rngs: nnx.Rngs):
        self.conv = conv2d(channels, out_channels, padding, rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return nnx.max_pool(jax.nn.relu(self.conv(x)), (2, 2), (2, 2))


class Grow(nnx.Module):
    """`Conv2D(out_channels, (3, 3), relu)`, then `UpSampling2D((2, 2))`: each place four times."""

    traced = True

    def __init__(self, channels: int, out_channels: int, padding: str, *, rngs: nnx.Rngs):
        self.conv = conv2d(channels, out_channels, padding, rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return jax.nn.relu(self.conv(x)).repeat(2, axis=1).repeat(2, axis=2)


def as_printed(channels: int = 3, width: int = 32, *, rngs: nnx.Rngs) -> nnx.Sequential:
    """The four layers of the sample and nothing else: (b, 256, 256, 3) -> (b, 250, 250, 32)."""
    return nnx.Sequential(
        Shrink(channels, width, "VALID", rngs=rngs), Grow(width, width, "VALID", rngs=rngs)
    )


class ConvAutoencoder(nnx.Module):
    """The sample, completed: pictures to codes and back, without chance and without a prior.

    The codes are not negative; `scaling_factor` gives them a unit variance, not a mean of zero.
    """

    def __init__(self, config: ConvAutoencoderConfig, *, rngs: nnx.Rngs):
        widths, colours = config.block_out_channels, config.image_channels
        there, back = (colours, *widths), (widths[-1], *widths[::-1])
        self.shrinks = nnx.List(Shrink(a, b, "SAME", rngs=rngs) for a, b in pairwise(there))
        self.grows = nnx.List(Grow(a, b, "SAME", rngs=rngs) for a, b in pairwise(back))
        self.conv_out = conv2d(widths[0], colours, "SAME", rngs)
        self.scaling_factor = config.scaling_factor

    def encode(
        self, images: Float[Array, "b H W k"], key: Array | None = None
    ) -> Float[Array, "b h w z"]:
        """Images in [-1, 1] -> latents; there is nothing to draw, so no key."""
        for shrink in self.shrinks:
            images = shrink(images)
        return images * self.scaling_factor

    def decode(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b H W k"]:
        """Latents -> images, about [-1, 1], not clipped."""
        x = latents / self.scaling_factor
        for grow in self.grows:
            x = grow(x)
        return self.conv_out(x)

    def draw(
        self, images: Float[Array, "b H W k"], key: Array
    ) -> tuple[Float[Array, "b h w z"], dict[str, Float[Array, ""]]]:
        """Latents for training; they cost nothing, which is what the VAE improved on."""
        return self.encode(images), {}
