"""Rectified flow: picture and noise at the two ends of a straight line.

With a level s from 0 (the picture) to 1 (the noise),

    x_t = (1 - s) x0 + s e,

and a denoiser says in which direction the line goes, v = e - x0, the same all along it (Liu et al.
2023, "Flow straight and fast", eq. 1; Esser et al. 2024). It is told t = T s, a number, not one of
T. The squares of the weights do not add up to 1, so x_t has less variance in the middle.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from diffusion.config import RectifiedFlowConfig
from diffusion.process.mixing import Mixing, wide
from diffusion.process.schedule import check_steps, evenly_drawn

Latents = Float[Array, "b h w c"]
Level = Float[Array, " b"]
Timesteps = Real[Array, " b"]
KNOWN = ("leading", "trailing")  # spacings; "leading" goes evenly from end to end here
S = TypeVar("S", float, Array, np.ndarray)


def shifted(s: S, shift: float) -> S:
    """Levels moved towards the noise: 0 and 1 stay where they are (Esser et al. 2024, eq. 23).

    The more positions a picture has, the more of it is seen through the same noise; `shift` is the
    root of how many times as many there are.
    """
    return shift * s / (1.0 + (shift - 1.0) * s)


class RectifiedFlow(Mixing):
    """x_t = alpha(t) x0 + sigma(t) noise; sigma is t / T, alpha the rest.

    Args:
        config: T, and how far levels are shifted in training and sampling.
    """

    def __init__(self, config: RectifiedFlowConfig):
        self.config = config
        self.train_steps = config.train_steps
        self.prediction = config.prediction

    def alpha(self, t: Timesteps) -> Level:
        """The weight of the clean latent at each timestep; 0 at T."""
        return 1.0 - self.sigma(t)

    def sigma(self, t: Timesteps) -> Level:
        """The weight of the noise at each timestep."""
        return t / self.train_steps

    def snr(self, t: Timesteps) -> Level:
        """The signal-to-noise ratio at each timestep, a ratio of variances: infinite at 0."""
        return jnp.square(self.alpha(t) / self.sigma(t))

    def levels(
        self, t: Real[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """alpha and sigma in float64, for the tables of samplers."""
        sigma = t.astype(np.float64) / self.train_steps
        return 1.0 - sigma, sigma

    def last_levels(self) -> tuple[Float[np.ndarray, "1"], Float[np.ndarray, "1"]]:
        """Where DDIM arrives: x0."""
        return np.ones(1), np.zeros(1)

    def timesteps(self, steps: int, spacing: str = "leading") -> Float[np.ndarray, " steps"]:
        """From T, pure noise, to clean, as float32: evenly spaced, then shifted.

        "trailing" ends a step above 0, as all others are apart. "leading" ends with the cleanest
        timestep of all, 1, as the reference does: with few steps the last one has nothing to do. A
        shift moves that one twice there, where the spacing is even and again with all the others.

        Raises ValueError if `steps` is not between 1 and T, or the spacing is unknown or "karras".
        """
        check_steps(self.train_steps, steps, spacing, KNOWN)
        cleanest = shifted(1.0 / self.train_steps, self.config.shift)
        end = 1.0 / steps if spacing == "trailing" else cleanest
        s = shifted(np.linspace(1.0, end, steps), self.config.shift)
        return (self.train_steps * s).astype(np.float32)

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        return wide(self.alpha(t)) * x0 + wide(self.sigma(t)) * noise

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What the denoiser is trained to predict: the velocity, whatever the timestep."""
        return noise - x0

    def to_x0(self, prediction: Latents, x_t: Latents, t: Timesteps) -> Latents:
        """The clean latent that a prediction amounts to: the end of the line."""
        return x_t - wide(self.sigma(t)) * prediction

    def draw_timesteps(self, key: Array, count: int) -> Float[Array, " count"]:
        """To train with, least noise first: the logit of s is normal (Esser et al. 2024, eq. 19).

        So most are from the middle, where a direction is hard to tell; at the ends it is the mean
        of all pictures, or of all noise. One is from each of `count` equally likely parts.
        """
        normal = jax.scipy.special.ndtri(evenly_drawn(key, count))
        return self.train_steps * shifted(jax.nn.sigmoid(normal), self.config.shift)

    def weight(self, t: Timesteps) -> Level:
        """Of a squared error in training: all alike, the times drawn are the weights."""
        return jnp.ones(t.shape)
