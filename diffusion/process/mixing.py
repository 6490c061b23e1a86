"""What the processes have in common that mix a picture with noise: x_t = alpha x0 + sigma noise.

What is predicted of the two, and at which timesteps, each says itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real, Shaped

Latents = Float[Array, "b h w c"]
Known = Float[Array, "_ h w c"]  # one for all pictures, or one each
Level = Float[Array, " b"]
Timesteps = Real[Array, " b"]


def wide(level: Shaped[Array, " b"]) -> Shaped[Array, "b 1 1 1"]:
    """A number a picture, shaped to multiply a batch of NHWC latents."""
    return level[:, None, None, None]


class Mixing(ABC):
    """alpha, sigma, and what they lead to, are the process's own; see `Process` for the rest."""

    samplers: Mapping[str, Callable[..., Any]] = MappingProxyType({})  # all that mix serve it
    train_steps: int

    @abstractmethod
    def alpha(self, t: Timesteps) -> Level: ...

    @abstractmethod
    def sigma(self, t: Timesteps) -> Level: ...

    @abstractmethod
    def snr(self, t: Timesteps) -> Level:
        """alpha^2 / sigma^2."""

    @abstractmethod
    def levels(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma in float64, for tables."""

    @abstractmethod
    def last_levels(self) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma that the last step of DDIM arrives at, an array of one each."""

    @abstractmethod
    def timesteps(self, steps: int, spacing: str = "leading") -> Real[np.ndarray, " steps"]: ...

    @abstractmethod
    def draw_timesteps(self, key: Array, count: int) -> Timesteps: ...

    @abstractmethod
    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents: ...

    @abstractmethod
    def weight(self, t: Timesteps) -> Level: ...

    @abstractmethod
    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What the denoiser is trained to predict."""

    @abstractmethod
    def to_x0(self, prediction: Latents, x_t: Latents, t: Timesteps) -> Latents:
        """The clean latent that a prediction amounts to."""

    def encode(self, autoencoder: Any, images: Float[Array, "b H W k"], *key: Array) -> Latents:
        """Pictures as what is mixed: latents."""
        return autoencoder.encode(images, *key)

    def begin(self, noise: Latents, known: Known, mask: Bool[Array, "_ _ _ 1"]) -> Latents:
        """A painting begins with noise, wherever it shall be painted."""
        return noise

    def kept(self, known: Known, noise: Latents, arrives: Real[Array, ""]) -> Latents:
        """What is known, as noisy as the canvas is at a timestep; clean at -1, after the last."""
        t = jnp.full(len(noise), jnp.maximum(arrives, 0))
        alpha = jnp.where(arrives < 0, 1.0, self.alpha(t))[:, None, None, None]
        sigma = jnp.where(arrives < 0, 0.0, self.sigma(t))[:, None, None, None]
        return alpha * jnp.broadcast_to(known, noise.shape) + sigma * noise

    def error(self, prediction: Latents, x0: Latents, noise: Latents, t: Timesteps) -> Level:
        """The mean squared error of a prediction (Ho et al. 2020, eq. 14), of each picture."""
        return jnp.square(prediction - self.target(x0, noise, t)).mean((1, 2, 3))
