"""Training the Keras sample: pictures in, the same pictures out; adam and mean squared error."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from diffusion.config import ConvAutoencoderConfig
from diffusion.datasets.garden import Scene, render, sample_scenes
from diffusion.images import sheet, to_uint8
from diffusion.runtime.parameters import Params, precision, split
from diffusion.training.autoencoder import PREVIEW_SEED
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import architecture, create, structure

SIZE = 64  # pixels along the side of the pictures: 256 take sixteen times as long
BETA1, BETA2, EPS = 0.9, 0.999, 1e-7  # what Keras takes


class Moments(NamedTuple):
    steps: Array
    mean: Params
    square: Params


def keras_adam(learning_rate: float) -> optax.GradientTransformation:
    """Adam as Keras has it, in the order in which Keras rounds.

    Kingma & Ba 2015, the faster form at the end of section 2: eps is added before the second moment
    is corrected for its beginning at zero, in optax after. In the first step the correction is a
    factor of 32, so Keras' eps of 1e-7 does what 3e-6 would do there.
    """

    def init(params: Params) -> Moments:
        mean, square = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return Moments(jnp.zeros((), jnp.int32), mean, square)

    def update(
        gradients: Params, state: Moments, params: Params | None = None
    ) -> tuple[Params, Moments]:
        step = (state.steps + 1).astype(jnp.float32)
        rate = learning_rate * jnp.sqrt(1.0 - BETA2**step) / (1.0 - BETA1**step)
        mean = jax.tree.map(lambda m, g: m + (g - m) * (1.0 - BETA1), state.mean, gradients)
        square = jax.tree.map(
            lambda v, g: v + (jnp.square(g) - v) * (1.0 - BETA2), state.square, gradients
        )
        changes = jax.tree.map(lambda m, v: -(m * rate) / (jnp.sqrt(v) + EPS), mean, square)
        return changes, Moments(state.steps + 1, mean, square)

    return optax.GradientTransformation(init, update)


def mean_squared_error(
    decoded: Float[Array, "b h w c"], images: Float[Array, "b h w c"]
) -> Float[Array, ""]:
    """The sample's loss, in the order in which Keras takes the mean: channels first."""
    return jnp.square(images - decoded).mean(axis=-1).mean()


@dataclass
class ConvAutoencoderTask:
    network: ConvAutoencoderConfig
    size: int  # pixels along the side of a picture

    def __post_init__(self) -> None:
        self.name = architecture(self.network).folder
        self.structure, _ = structure(self.network)
        self.frozen: Params = {}
        self.batch = sample_scenes
        self.reconstruct = jax.jit(self._reconstruct)

    def optimizer(self, config: TrainConfig) -> optax.GradientTransformation:
        """The sample's: no warm-up, no decay, no clipping."""
        return keras_adam(config.learning_rate)

    def init(self, seed: int) -> Params:
        return split(create(self.network, nnx.Rngs(seed)))[1]

    def loss(
        self, params: Params, frozen: Params, batch: Scene, key: Array
    ) -> tuple[Array, Metrics]:
        images = render(batch, self.size)
        decoded = self._reconstruct(params, images.astype(precision(params)))
        loss = mean_squared_error(decoded.astype(jnp.float32), images)
        return loss, {"psnr": 10.0 * jnp.log10(4.0 / loss)}  # dB; the range of a value is 2

    def picture(self, params: Params) -> np.ndarray:
        """Eight pictures, what comes back of them, and what random codes decode to."""
        images = render(sample_scenes(np.random.default_rng(PREVIEW_SEED), 8), self.size)
        autoencoder = nnx.merge(self.structure, params)
        codes = autoencoder.encode(images)
        noise = jax.random.normal(jax.random.key(0), codes.shape)
        random = autoencoder.decode(codes.mean() + codes.std() * noise)
        shown = np.concatenate([images, self.reconstruct(params, images), random])
        return sheet(to_uint8(shown), columns=8)

    def _reconstruct(
        self, params: Params, images: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        autoencoder = nnx.merge(self.structure, params)
        return autoencoder.decode(autoencoder.encode(images))


def preset() -> TrainConfig:
    """Keras' learning rate, which stays; the loop's warm-up, decay and clipping are not used."""
    return TrainConfig(steps=500, batch_size=16, learning_rate=1e-3, picture_every=250)
