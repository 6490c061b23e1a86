"""Training the decoder alone: the same latents, shown more sharply.

A decoder guesses what latents do not hold, and the guess with the least error is a mean: too
smooth. So one more error asks for as much fine detail as the drawing has, wherever that is. The
encoder stays as it is. So do all latents, and every denoiser that has learnt to paint them.

Stability AI trained the decoders of SD 1 once more, too, with other errors (`sd-vae-ft-mse`, 2022).
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffusion.datasets.garden import Scene, render
from diffusion.runtime.parameters import Params, precision
from diffusion.training.autoencoder import AutoencoderTask, edges, errors, pooled, psnr, weighed
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig

TRAINED = ("post_quant_conv", "decoder")  # what makes a picture of a latent
DETAIL_WEIGHT = 1.0
SQUARE = 8  # pixels a side, within which detail is counted
FAINTEST = 1e-5  # added to a square's energy: without it, an empty square has no slope


def detail(images: Float[Array, "b h w c"]) -> list[Array]:
    """How much neighbouring pixels differ in each square, down and to the right: the root of the
    mean square. What hangs over the last whole square is left out."""
    found = []
    for differences in edges(images):
        _, high, wide, _ = differences.shape
        side = min(SQUARE, high, wide)
        whole = differences[:, : high // side * side, : wide // side * side]
        found.append(jnp.sqrt(pooled(jnp.square(whole), side) + FAINTEST))
    return found


def detail_error(decoded: Float[Array, "b h w c"], images: Float[Array, "b h w c"]) -> Array:
    """The absolute error of `detail`, wherever in a square that is."""
    pairs = zip(detail(decoded), detail(images), strict=True)
    return jnp.asarray(sum(jnp.abs(a - b).mean() for a, b in pairs))


@dataclass
class DecoderTask(AutoencoderTask):
    """Trains what makes pictures of the latents of a trained autoencoder."""

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

    def _reconstruct(
        self, params: Params, images: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        return super()._reconstruct(self.frozen["kept"] | params, images)


def preset() -> TrainConfig:
    return TrainConfig(
        steps=2000, batch_size=4, learning_rate=1e-3, optimizer="muon", ema=0.998, picture_every=200
    )
