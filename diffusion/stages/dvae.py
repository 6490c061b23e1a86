"""5, in another way: a picture is written in codes, one of a codebook at each position.

Trained as the VAE is, with a choice among codes in place of a Gaussian (Ramesh et al. 2021, section
2.1 and appendix A). How likely a code is falls with its squared distance from what the encoder
says, so the likeliest is the nearest. A VQ autoencoder takes just that one (van den Oord et al.
2017; Esser et al. 2021), so one network holds both. The denoiser works on what the encoder says,
and the decoder takes the nearest codes of what it gets (Rombach et al. 2022, section 3.1, VQ-reg.).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from diffusion.config import DVAEConfig
from diffusion.layers.codebook import (
    Codebook,
    counts,
    gumbel_softmax,
    k_means,
    kl_to_uniform,
    perplexity,
    revived,
    squared_distances,
)
from diffusion.layers.convolution import Conv2d
from diffusion.stages.autoencoder_blocks import Decoder, Encoder

HOTTEST, COLDEST = 1.0, 1 / 16  # the temperature at the beginning and at the end (appendix A.2)
COOLING = 0.5  # the share of the training in which it falls, on a cosine
WARMING = 0.1  # the share in which the KL gets its whole weight
CLEARNESS = 4.0  # in the beginning: the mean squared distance between a code and its neighbour


class DVAE(nnx.Module):
    """Pictures in [-1, 1], latents of unit variance, and codes: each from the others.

    The encoder's own latents have another variance; `scaling_factor` is 1 over their deviation.
    """

    def __init__(self, config: DVAEConfig, *, rngs: nnx.Rngs):
        z, inner = config.latent_channels, config.inner_channels or config.latent_channels
        attends = config.middle_attention
        self.encoder = Encoder(config, inner, attends=attends, rngs=rngs)
        self.quant_conv = Conv2d(inner, z, 1, rngs=rngs)
        self.codebook = Codebook(config.codes, z, rngs=rngs)
        self.post_quant_conv = Conv2d(z, inner, 1, rngs=rngs)
        self.decoder = Decoder(config, inner, attends=attends, rngs=rngs)
        self.scaling_factor, self.from_zero = config.scaling_factor, config.from_zero

    def encode(
        self, images: Float[Array, "b H W k"], key: Array | None = None
    ) -> Float[Array, "b h w z"]:
        """Images in [-1, 1] -> latents before they become codes. They are not drawn: no key."""
        return self._seen(images) * self.scaling_factor

    def decode(
        self, latents: Float[Array, "b h w z"] | Int[Array, "b h w 1"]
    ) -> Float[Array, "b H W k"]:
        """The nearest codes of latents, or codes by their numbers -> images, about [-1, 1]."""
        if jnp.issubdtype(latents.dtype, jnp.integer):
            return self.from_codes(latents[..., 0])
        return self._shown(self.codebook(latents / self.scaling_factor))

    def soft_decode(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b H W k"]:
        """Latents as they are, also between the codes -> images: what training learns from."""
        return self._shown(latents / self.scaling_factor)

    def codes(self, images: Float[Array, "b H W k"]) -> Int[Array, "b h w"]:
        """Images in [-1, 1] -> the number of the code at each position."""
        return self.codebook.nearest(self._seen(images))

    def from_codes(self, codes: Int[Array, "b h w"]) -> Float[Array, "b H W k"]:
        """The numbers of codes -> images, about [-1, 1], not clipped.

        A number beyond the codebook, such as that of a mask, is shown as the mean of all codes.
        """
        known, vectors = codes < len(self.codebook.codes), self.codebook.codes
        middle = vectors.mean(axis=0)[None, None, None]
        return self._shown(jnp.where(known[..., None], vectors[jnp.where(known, codes, 0)], middle))

    def _seen(self, images: Float[Array, "b H W k"]) -> Float[Array, "b h w z"]:
        """What the encoder says, in its own unit."""
        return self.quant_conv(self.encoder((images + 1) / 2 if self.from_zero else images))

    def _shown(self, vectors: Float[Array, "b h w z"]) -> Float[Array, "b H W k"]:
        images = self.decoder(self.post_quant_conv(vectors))
        return 2 * images - 1 if self.from_zero else images

    def draw(
        self,
        images: Float[Array, "b H W k"],
        key: Array,
        temperature: Float[Array, ""] | float = COLDEST,
        warmth: Float[Array, ""] | float = 1.0,
    ) -> tuple[Float[Array, "b h w z"], dict[str, Float[Array, ""]]]:
        """Latents for training: mixtures of codes, nearly one code where the temperature is low.

        Gumbel-softmax (Jang et al. 2017, eq. 2). The costs are the KL divergence from all codes
        being as likely, in nats a pixel value; and, to be watched, how many codes the pictures
        use, and their perplexity.

        Args:
            temperature: of the mixtures.
            warmth: the share of its weight that the KL already has.
        """
        x = self._seen(images)
        logits = -squared_distances(x, self.codebook.codes)
        mixture = gumbel_softmax(logits, jax.random.gumbel(key, logits.shape), temperature)
        latents = mixture @ self.codebook.codes.astype(jnp.float32) * self.scaling_factor
        kl = kl_to_uniform(logits).sum() / images.size
        counted = counts(logits.argmax(axis=-1), logits.shape[-1])
        costs = {"code_kl": warmth * kl, "used": jnp.mean(counted > 0)}
        return latents, costs | {"perplexity": perplexity(counted)}

    @staticmethod
    def anneal(done: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
        """What `draw` is given besides, when that share of the training is done."""
        falls = 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.minimum(done / COOLING, 1.0))
        rises = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(done / WARMING, 1.0))
        return {"temperature": COLDEST + (HOTTEST - COLDEST) * falls, "warmth": rises}

    def begin(self, images: Float[Array, "b H W k"], key: Array) -> None:
        """Before the training: codes where the latents of these pictures are.

        The latents are stretched so that a code and its nearest neighbour are `CLEARNESS` apart:
        the distances are logits, and should be neither all alike nor decided.

        Raises ValueError where the pictures have fewer positions than there are codes.
        """
        x = self._seen(images)
        codes = k_means(x.reshape(-1, x.shape[-1]), len(self.codebook.codes), key)
        apart = squared_distances(codes[None, None], codes)[0, 0]
        nearest = jnp.where(jnp.eye(len(codes), dtype=bool), jnp.inf, apart).min(axis=1)
        stretch = jnp.sqrt(CLEARNESS / jnp.maximum(nearest.mean(), 1e-12))
        self.codebook.vectors.embedding[...] = codes * stretch
        for parameter in (self.quant_conv.kernel, self.quant_conv.bias):
            parameter[...] = parameter[...] * stretch
        self.post_quant_conv.kernel[...] = self.post_quant_conv.kernel[...] / stretch

    def tend(self, images: Float[Array, "b H W k"], key: Array) -> None:
        """In training, now and then: a code that no picture uses becomes one of their latents."""
        x, codes = self._seen(images), self.codebook.codes
        fresh = jax.random.choice(key, x.reshape(-1, x.shape[-1]), (len(codes),))
        self.codebook.vectors.embedding[...] = revived(codes, x, fresh)
