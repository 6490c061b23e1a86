"""5. The exhibition: the VAE hangs a latent as a picture, and takes a picture back to a latent.

Kingma & Welling 2014; the architecture of Rombach et al. 2022, section 3.1 and appendix G.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import VAEConfig
from diffusion.kernels.data_dependency import rounded
from diffusion.layers.attention import Attention
from diffusion.layers.convolution import Conv2d, Downsample, Upsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock

EPS = 1e-6  # of every normalisation in the VAE


class Posterior(NamedTuple):
    """The latents that the encoder finds plausible for a picture: a Gaussian at each position."""

    mean: Float[Array, "b h w z"]
    log_variance: Float[Array, "b h w z"]  # within [-30, 20]

    def sample(self, key: Array) -> Float[Array, "b h w z"]:
        """mean + sigma * noise (Kingma & Welling 2014, section 2.4), in float32.

        The same latents from the same key, whether compiled or not; see `rounded`.
        """
        noise = jax.random.normal(key, self.mean.shape)
        spread = rounded(jnp.exp(0.5 * self.log_variance.astype(jnp.float32)) * noise)
        return self.mean.astype(jnp.float32) + spread

    def kl(self) -> Float[Array, " b"]:
        """KL divergence from the standard normal, in nats a picture (appendix B)."""
        mean, log_variance = self.mean.astype(jnp.float32), self.log_variance.astype(jnp.float32)
        each = jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance
        return 0.5 * jnp.sum(each, axis=(1, 2, 3))


class ImageAttention(nnx.Module):
    """Self-attention with one head as wide as the feature map."""

    traced = True

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, groups, eps=EPS)
        self.attention = Attention(channels, heads=1, qkv_bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        return x + self.attention(self.norm(x).reshape(b, h * w, c)).reshape(b, h, w, c)


class Middle(nnx.Module):
    """Residual block, attention, residual block at the coarsest level."""

    traced = True

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
        self.residual1 = ResidualBlock(channels, channels, groups=groups, eps=EPS, rngs=rngs)
        self.attention = ImageAttention(channels, groups, rngs=rngs)
        self.residual2 = ResidualBlock(channels, channels, groups=groups, eps=EPS, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return self.residual2(self.attention(self.residual1(x)))


class Level(nnx.Module):
    """The residual blocks of one resolution, then the change to the next (none at the last)."""

    traced = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int,
        change: Downsample | Upsample | None,
        *,
        groups: int,
        rngs: nnx.Rngs,
    ):
        widths = [in_channels] + [out_channels] * (depth - 1)
        self.residuals = nnx.List(
            ResidualBlock(width, out_channels, groups=groups, eps=EPS, rngs=rngs)
            for width in widths
        )
        self.change = change

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        for residual in self.residuals:
            x = residual(x)
        return x if self.change is None else self.change(x)


class Encoder(nnx.Module):
    """Picture -> parameters of the latent's Gaussian."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        widths = config.block_out_channels
        groups = config.norm_groups
        self.conv_in = Conv2d(config.image_channels, widths[0], rngs=rngs)
        self.levels: nnx.List[Level] = nnx.List()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            change = None if last else Downsample(width, padding=((0, 1), (0, 1)), rngs=rngs)
            self.levels.append(
                Level(
                    widths[max(i - 1, 0)],
                    width,
                    config.layers_per_block,
                    change,
                    groups=groups,
                    rngs=rngs,
                )
            )
        self.middle = Middle(widths[-1], groups, rngs=rngs)
        self.norm_out = GroupNorm(widths[-1], groups, eps=EPS)
        self.conv_out = Conv2d(widths[-1], 2 * config.latent_channels, rngs=rngs)

    def __call__(self, images: Float[Array, "b H W k"]) -> Float[Array, "b h w c"]:
        h = self.conv_in(images)
        for level in self.levels:
            h = level(h)
        return self.conv_out(jax.nn.silu(self.norm_out(self.middle(h))))


class Decoder(nnx.Module):
    """Latent -> picture, one residual block more a level than the encoder."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        widths = config.block_out_channels[::-1]
        groups = config.norm_groups
        self.conv_in = Conv2d(config.latent_channels, widths[0], rngs=rngs)
        self.middle = Middle(widths[0], groups, rngs=rngs)
        self.levels: nnx.List[Level] = nnx.List()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            change = None if last else Upsample(width, rngs=rngs)
            self.levels.append(
                Level(
                    widths[max(i - 1, 0)],
                    width,
                    config.layers_per_block + 1,
                    change,
                    groups=groups,
                    rngs=rngs,
                )
            )
        self.norm_out = GroupNorm(widths[-1], groups, eps=EPS)
        self.conv_out = Conv2d(widths[-1], config.image_channels, rngs=rngs)

    def __call__(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b H W k"]:
        h = self.middle(self.conv_in(latents))
        for level in self.levels:
            h = level(h)
        return self.conv_out(jax.nn.silu(self.norm_out(h)))


class VAE(nnx.Module):
    """Pictures in [-1, 1] and latents of unit variance, each from the other.

    The encoder's own latents have another variance; `scaling_factor` is 1 over their deviation.
    """

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        z = config.latent_channels
        self.encoder = Encoder(config, rngs=rngs)
        self.quant_conv = Conv2d(2 * z, 2 * z, 1, rngs=rngs)
        self.post_quant_conv = Conv2d(z, z, 1, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.scaling_factor = config.scaling_factor

    def posterior(self, images: Float[Array, "b H W k"]) -> Posterior:
        """Images in [-1, 1] (b, H, W, 3) -> mean and log variance (b, H/f, W/f, 4), unscaled."""
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(images)), 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))

    def encode(
        self, images: Float[Array, "b H W k"], key: Array | None = None
    ) -> Float[Array, "b h w z"]:
        """Images in [-1, 1] (b, H, W, 3) -> latents (b, H/f, W/f, 4).

        Args:
            key: to draw from the posterior; None: its mean.
        """
        posterior = self.posterior(images)
        latents = posterior.mean if key is None else posterior.sample(key)
        return latents * self.scaling_factor

    def decode(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b H W k"]:
        """Latents (b, h, w, 4) -> images (b, f h, f w, 3), about [-1, 1], not clipped."""
        return self.decoder(self.post_quant_conv(latents / self.scaling_factor))

    def draw(
        self, images: Float[Array, "b H W k"], key: Array
    ) -> tuple[Float[Array, "b h w z"], dict[str, Float[Array, ""]]]:
        """Latents from the posterior, for training, and their KL in nats a pixel value."""
        posterior = self.posterior(images)
        latents = posterior.sample(key) * self.scaling_factor
        return latents, {"kl": jnp.mean(posterior.kl()) / images[0].size}
