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
from diffusion.layers.convolution import Conv2d
from diffusion.stages.autoencoder_blocks import Decoder, Encoder


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


class VAE(nnx.Module):
    """Pictures in [-1, 1] and latents of unit variance, each from the other.

    The encoder's own latents have another variance; `scaling_factor` is 1 over their deviation.
    """

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        z = config.latent_channels
        self.encoder = Encoder(config, 2 * z, rngs=rngs)
        self.quant_conv = Conv2d(2 * z, 2 * z, 1, rngs=rngs)
        self.post_quant_conv = Conv2d(z, z, 1, rngs=rngs)
        self.decoder = Decoder(config, z, rngs=rngs)
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
