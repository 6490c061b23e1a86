"""Training the decoder alone: the same latents, shown more sharply.

Latents do not hold every detail. The decoder guesses the rest, and the guess with the least error
is a mean, which is too smooth. So one more error compares how much fine detail there is in each
small square, wherever in the square it lies. The encoder stays as it is. So do all latents, and
every denoiser that has learnt to paint them.

The error is like that of Abrahamyan et al. 2022 (https://arxiv.org/abs/2202.00997), eq. 3, which
compares the variance of differences, squared. Stability AI trained the decoder of SD 1 alone, too,
with other errors (`sd-vae-ft-mse`, 2022).
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffusion.datasets.garden import Scene, render
from diffusion.runtime.parameters import Params, precision
from diffusion.training.autoencoder import AutoencoderTask, edges, errors, pooled, psnr, weighed
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig

TRAINED = ("post_quant_conv", "decoder")  # from a latent to a picture
DETAIL_WEIGHT = 1.0
SQUARE = 8  # pixels a side, within which detail is counted
FAINTEST = 1e-5  # added to a mean square: the slope of a root is infinite at 0


def detail(images: Float[Array, "b h w c"]) -> list[Array]:
    """How much neighbouring pixels differ, down and to the right: (b, h / 8, w / 8, c) each.

    The root mean square of each square and channel. What is beyond the last whole square is left
    out.
    """
    found = []
    for differences in edges(images):
        _, high, wide, _ = differences.shape
        side = max(1, min(SQUARE, high, wide))
        whole = differences[:, : high // side * side, : wide // side * side]
        found.append(jnp.sqrt(pooled(jnp.square(whole), side) + FAINTEST))
    return found


def detail_error(decoded: Float[Array, "b h w c"], images: Float[Array, "b h w c"]) -> Array:
    """The mean absolute error of `detail`, summed over both directions."""
    pairs = zip(detail(decoded), detail(images), strict=True)
    return jnp.asarray(sum(jnp.abs(a - b).mean() for a, b in pairs))


@dataclass
class DecoderTask(AutoencoderTask):
    """Trains the decoder of a trained autoencoder, whose encoder stays as it is."""

    known: Params = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name, self.tend_every = "decoder", 0  # codes stay, too
        self.frozen = {"kept": {k: v for k, v in self.known.items() if k not in TRAINED}}

    def init(self, seed: int) -> Params:
        return {name: self.known[name] for name in TRAINED}

    def anneal(self, done: Float[Array, ""]) -> Params:
        return {}

    def loss(
        self, params: Params, frozen: Params, batch: Scene, key: Array
    ) -> tuple[Array, Metrics]:
        """Errors of the pictures, and of how much detail they have."""
        autoencoder = nnx.merge(self.structure, frozen["kept"] | params)
        images, dtype = render(batch, self.model.image_size), precision(params)
        latents = jax.lax.stop_gradient(autoencoder.encode(images.astype(dtype), key))
        decoded = autoencoder.decode(latents.astype(dtype)).astype(jnp.float32)
        error = errors(decoded, images) | {"detail": detail_error(decoded, images)}
        loss = weighed(error) + DETAIL_WEIGHT * error["detail"]
        return loss, error | {"psnr": psnr(decoded, images)}

    def picture(self, params: Params) -> np.ndarray:
        return super().picture(self.frozen["kept"] | params)


def preset() -> TrainConfig:
    return TrainConfig(
        steps=2000, batch_size=4, learning_rate=1e-3, optimizer="muon", ema=0.998, picture_every=200
    )
