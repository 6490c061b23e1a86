"""Training the VAE: a picture comes back from its latent, and latents stay near N(0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import ModelConfig
from diffusion.datasets.garden import Scene, render, sample_scenes
from diffusion.images import sheet, to_uint8
from diffusion.stages.vae import VAE
from diffusion.training.loop import Metrics, TrainConfig
from diffusion.weights.files import Params, shapes, split

SQUARED_WEIGHT = 4.0  # of the squared error: a snowflake is a few pixels, but far off when missing
KL_WEIGHT = 5e-4  # a latent value, beside an absolute error a pixel value
EDGE_WEIGHT = 0.5  # of the error of differences between neighbours, which keeps edges sharp
SHOWN = 1_000_033  # seed of the pictures on sample sheets, which no training with a small one sees


def edges(images: Float[Array, "b h w c"]) -> tuple[Array, Array]:
    """Differences between neighbouring pixels, down and to the right."""
    return images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]


@dataclass
class VAETask:
    model: ModelConfig
    name: str = "vae"

    def __post_init__(self) -> None:
        self.create = lambda seed: VAE(self.model.vae, rngs=nnx.Rngs(seed))
        self.structure, _ = shapes(partial(self.create, 0))

    def init(self, seed: int) -> Params:
        return split(self.create(seed))[1]

    def batch(self, rng: np.random.Generator, size: int) -> Scene:
        return sample_scenes(rng, size)

    def loss(self, params: Params, batch: Scene, key: Array) -> tuple[Array, Metrics]:
        """Error of pixels and of edges, and a little KL (Kingma & Welling 2014)."""
        vae = nnx.merge(self.structure, params)
        images = render(batch, self.model.image_size)
        posterior = vae.encode(images)
        decoded = vae.decode(posterior.sample(key))
        pixel = jnp.mean(jnp.abs(decoded - images))
        squared = jnp.square(decoded - images)
        edge = sum(
            jnp.mean(jnp.abs(ours - theirs))
            for ours, theirs in zip(edges(decoded), edges(images), strict=True)
        )
        kl = jnp.mean(posterior.kl()) / posterior.mean[0].size
        loss = pixel + SQUARED_WEIGHT * squared.mean() + EDGE_WEIGHT * edge + KL_WEIGHT * kl
        error = jnp.mean(squared, axis=(1, 2, 3))
        psnr = jnp.mean(10.0 * jnp.log10(4.0 / error))  # dB; the range of a pixel value is 2
        return loss, {"pixel": pixel, "edge": jnp.asarray(edge), "kl": kl, "psnr": psnr}

    def picture(self, params: Params) -> np.ndarray:
        """Eight pictures, and what comes back of them."""
        images = render(sample_scenes(np.random.default_rng(SHOWN), 8), self.model.image_size)
        decoded = reconstruct(self.structure, params, images)
        return sheet(to_uint8(np.concatenate([images, decoded])), columns=8)


@partial(jax.jit, static_argnums=0)
def reconstruct(
    structure: nnx.GraphDef[VAE], params: Params, images: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    vae = nnx.merge(structure, params)
    return vae.decode(vae.encode(images).mean)


def measure_scale(config: ModelConfig, params: Params, count: int = 512, seed: int = 0) -> float:
    """1 / the standard deviation of the latents of `count` pictures: the VAE's scaling factor.

    Rombach et al. 2022, appendix G: diffusion wants latents of unit variance.
    """
    structure = VAETask(config).structure

    @jax.jit
    def encode(scenes: Scene, key: Array) -> Array:
        vae = nnx.merge(structure, params)
        return vae.encode(render(scenes, config.image_size)).sample(key)

    rng = np.random.default_rng(seed)
    keys = jax.random.split(jax.random.key(seed), count // 64)
    latents = [np.asarray(encode(sample_scenes(rng, 64), key)) for key in keys]
    return float(1.0 / np.std(np.concatenate(latents)))


def preset() -> TrainConfig:
    return TrainConfig(steps=6000, batch_size=8, learning_rate=2e-3, ema=0.998, picture_every=200)
