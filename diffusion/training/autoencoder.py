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
from diffusion.runtime.parameters import Params, precision, split
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import architecture, create, structure

SQUARED_WEIGHT = 4.0  # of the squared error: a snowflake is a few pixels, but far off when missing
COST_WEIGHTS = {  # of what latents cost, beside the absolute error of a pixel value
    "kl": 6e-3,
    "code_kl": 6e-3,
    "used": 0.0,  # only to be watched
    "perplexity": 0.0,
    "near": 0.5,  # squared distance from the latents of the VAE that it grew from
}
TEND_EVERY = 100  # steps
SEEN = 64  # pictures where codes are begun, and where a code is used or dead
EDGE_WEIGHT = 0.5  # of the error of differences between neighbours, which keeps edges sharp
EDGE_SCALES = (1, 2, 4)  # sides of the squares whose means are such neighbours
PREVIEW_SEED = 1_000_033  # of the pictures on sample sheets: no training with a small seed sees it


def edges(images: Float[Array, "b h w c"]) -> tuple[Array, Array]:
    """Differences between neighbouring pixels, down and to the right."""
    return images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]


def pooled(maps: Float[Array, "b h w c"], side: int) -> Float[Array, "b h2 w2 c"]:
    """The means of squares of `side` x `side` positions."""
    b, h, w, c = maps.shape
    return maps.reshape(b, h // side, side, w // side, side, c).mean((2, 4))


def errors(decoded: Float[Array, "b h w c"], images: Float[Array, "b h w c"]) -> Metrics:
    """How far apart pictures are: absolute and squared error of pixels, absolute error of edges."""
    difference = decoded - images
    scales = [side for side in EDGE_SCALES if side < difference.shape[1]]
    edge = sum(jnp.abs(e).mean() for side in scales for e in edges(pooled(difference, side)))
    return {
        "pixel": jnp.abs(difference).mean(),
        "squared": jnp.square(difference).mean(),
        "edge": jnp.asarray(edge),
    }


def weighed(error: Metrics) -> Array:
    return error["pixel"] + SQUARED_WEIGHT * error["squared"] + EDGE_WEIGHT * error["edge"]


def psnr(decoded: Float[Array, "b h w c"], images: Float[Array, "b h w c"]) -> Array:
    """The mean peak signal-to-noise ratio in dB; the range of a pixel value is 2."""
    each = jnp.square(decoded - images).mean((1, 2, 3))
    return jnp.mean(10.0 * jnp.log10(4.0 / each))


@dataclass
class AutoencoderTask:
    """Trains whatever fills the slot: it offers `draw(images, key)`, `encode` and `decode`.

    One with codes may also offer `soft_decode`, which decodes what `draw` gives; `anneal(done)`,
    what `draw` is given besides when that share of the training is done; and, in place,
    `begin(images, key)` before the training and `tend(images, key)` now and then in it.
    """

    model: ModelConfig
    grown_from: tuple[Any, Params] | None = None  # the smaller autoencoder: configuration, weights

    def __post_init__(self) -> None:
        self.name = architecture(self.model.autoencoder).part
        self.structure, like = structure(self.model.autoencoder)
        self.kind: Any = type(nnx.merge(self.structure, like))
        self.tend_every = TEND_EVERY if hasattr(self.kind, "tend") else 0
        self.frozen: Params = {}
        if self.grown_from is not None:
            config, self.frozen["smaller"] = self.grown_from
            self.smaller, _ = structure(config)
            self.shrunk = self.model.autoencoder.downscale // config.downscale
        self.batch = sample_scenes
        self.reconstruct = jax.jit(self._reconstruct)
        self.after = jax.jit(self._after, static_argnums=0)

    def init(self, seed: int) -> Params:
        params = split(create(self.model.autoencoder, nnx.Rngs(seed)))[1]
        return params if self.grown_from else self.begun(params, seed)  # else once it has grown

    def begun(self, params: Params, seed: int) -> Params:
        """Ready for the first step, with what the autoencoder learns of a few pictures before."""
        return self._set_right("begin", params, seed) if hasattr(self.kind, "begin") else params

    def tend(self, params: Params, step: int) -> Params:
        return self._set_right("tend", params, step)

    def anneal(self, done: Float[Array, ""]) -> Params:
        return {"annealed": self.kind.anneal(done)} if hasattr(self.kind, "anneal") else {}

    def _set_right(self, method: str, params: Params, number: int) -> Params:
        """What a method of the autoencoder makes of them, at pictures of that number."""
        scenes = sample_scenes(np.random.default_rng([PREVIEW_SEED, number]), SEEN)
        return self.after(method, params, scenes, jax.random.key(number))

    def _after(self, method: str, params: Params, scenes: Scene, key: Array) -> Params:
        autoencoder = nnx.merge(self.structure, params)
        getattr(autoencoder, method)(render(scenes, self.model.image_size), key)
        return split(autoencoder)[1]

    def loss(
        self, params: Params, frozen: Params, batch: Scene, key: Array
    ) -> tuple[Array, Metrics]:
        """Errors of the pictures, and what the latents cost (for a VAE: KL).

        The first channels of one that grew stay near the latents of the one it grew from: so a
        denoiser that has learnt to paint those can go on.
        """
        autoencoder = nnx.merge(self.structure, params)
        decode = getattr(autoencoder, "soft_decode", autoencoder.decode)
        images, dtype = render(batch, self.model.image_size), precision(params)
        annealed = frozen.get("annealed", {})
        latents, costs = autoencoder.draw(images.astype(dtype), key, **annealed)
        decoded = decode(latents.astype(dtype)).astype(jnp.float32)
        error = errors(decoded, images)
        if "smaller" in frozen:
            small = pooled(images, self.shrunk).astype(dtype)
            before = nnx.merge(self.smaller, frozen["smaller"]).encode(small)
            now = autoencoder.encode(images.astype(dtype))[..., : before.shape[-1]]
            costs = costs | {"near": jnp.square((now - before).astype(jnp.float32)).mean()}
        cost = sum(COST_WEIGHTS[name] * value for name, value in costs.items())
        loss = weighed(error) + cost
        return loss, error | {"psnr": psnr(decoded, images)} | costs

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
