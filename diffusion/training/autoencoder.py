"""Training an autoencoder: a picture comes back from its latent, and latents stay near N(0, 1)."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import ModelConfig
from diffusion.datasets.garden import Scene, render, sample_scenes
from diffusion.images import sheet, to_uint8
from diffusion.runtime.parameters import Params, split
from diffusion.training.loop import Metrics, TrainConfig
from diffusion.weights.architectures import architecture, create, structure

SQUARED_WEIGHT = 4.0  # of the squared error: a snowflake is a few pixels, but far off when missing
COST_WEIGHTS = {"kl": 5e-4}  # of what latents cost, beside an absolute error a pixel value
EDGE_WEIGHT = 0.5  # of the error of differences between neighbours, which keeps edges sharp
PREVIEW_SEED = (
    1_000_033  # seed of the pictures on sample sheets, which no training with a small one sees
)


def edges(images: Float[Array, "b h w c"]) -> tuple[Array, Array]:
    """Differences between neighbouring pixels, down and to the right."""
    return images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]


@dataclass
class AutoencoderTask:
    """Trains whatever fills the slot: it offers `reconstruct(images, key)`."""

    model: ModelConfig

    def __post_init__(self) -> None:
        self.name = architecture(self.model.autoencoder).folder
        self.structure, _ = structure(self.model.autoencoder)
        self.frozen: Params = {}
        self.reconstruct = jax.jit(self._reconstruct)

    def init(self, seed: int) -> Params:
        return split(create(self.model.autoencoder, nnx.Rngs(seed)))[1]

    def batch(self, rng: np.random.Generator, size: int) -> Scene:
        return sample_scenes(rng, size)

    def loss(
        self, params: Params, frozen: Params, batch: Scene, key: Array
    ) -> tuple[Array, Metrics]:
        """Error of pixels and of edges, and what the latents cost: a little KL, for a VAE."""
        autoencoder = nnx.merge(self.structure, params)
        images = render(batch, self.model.image_size)
        decoded, costs = autoencoder.reconstruct(images, key)
        pixel = jnp.mean(jnp.abs(decoded - images))
        squared = jnp.square(decoded - images)
        edge = sum(
            jnp.mean(jnp.abs(ours - theirs))
            for ours, theirs in zip(edges(decoded), edges(images), strict=True)
        )
        cost = sum(COST_WEIGHTS[name] * value for name, value in costs.items())
        loss = pixel + SQUARED_WEIGHT * squared.mean() + EDGE_WEIGHT * edge + cost
        error = jnp.mean(squared, axis=(1, 2, 3))
        psnr = jnp.mean(10.0 * jnp.log10(4.0 / error))  # dB; the range of a pixel value is 2
        return loss, {"pixel": pixel, "edge": jnp.asarray(edge), "psnr": psnr} | costs

    def picture(self, params: Params) -> np.ndarray:
        """Eight pictures, and what comes back of them."""
        images = render(
            sample_scenes(np.random.default_rng(PREVIEW_SEED), 8), self.model.image_size
        )
        decoded = self.reconstruct(params, images)
        return sheet(to_uint8(np.concatenate([images, decoded])), columns=8)

    def _reconstruct(
        self, params: Params, images: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        autoencoder = nnx.merge(self.structure, params)
        return autoencoder.decode(autoencoder.encode(images))


def measure_scale(config: ModelConfig, params: Params, count: int = 512, seed: int = 0) -> float:
    """1 / the standard deviation of the latents of `count` pictures: the scaling factor.

    Rombach et al. 2022, appendix G: diffusion wants latents of unit variance.
    """
    network: Any = config.autoencoder
    form, _ = structure(dataclasses.replace(network, scaling_factor=1.0))

    @jax.jit
    def encode(scenes: Scene, key: Array) -> Array:
        return nnx.merge(form, params).encode(render(scenes, config.image_size), key)

    rng = np.random.default_rng(seed)
    keys = jax.random.split(jax.random.key(seed), count // 64)
    latents = [np.asarray(encode(sample_scenes(rng, 64), key)) for key in keys]
    return float(1.0 / np.std(np.concatenate(latents)))


def preset() -> TrainConfig:
    return TrainConfig(steps=6000, batch_size=8, learning_rate=2e-3, ema=0.998, picture_every=200)
