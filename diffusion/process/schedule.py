"""The noise schedule: how much of the picture is left at each timestep, and what to predict.

A clean latent x0 and standard normal noise e mix into the noisy latent that the network sees,

    z_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) e,

with alpha_bar falling from nearly 1 (t = 0, the picture) to nearly 0 (t = T - 1, the noise). The
squares of the two weights add up to 1, so z keeps unit variance: the "variance preserving" scale.

The functions state the equations in alpha_bar. `VariancePreserving` offers them by timestep, as
every process does: that is all that pipeline, samplers and training know of it.
"""

from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion.config import PREDICTIONS, VariancePreservingConfig

SPACINGS = ("leading", "trailing")  # of the timesteps, see `timesteps`
OFFSET = 1  # of leading timesteps: the reference sets it, whatever a model's scheduler says
Latents = Float[Array, "b h w c"]
AlphaBar = Float[Array, " b"]
Timesteps = Int[Array, " b"]


def betas(config: VariancePreservingConfig) -> Float[np.ndarray, " t"]:
    """Return the variance added at each of the T training timesteps, in float64.

    The "scaled linear" rule of Rombach et al. 2022: the square roots are evenly spaced.
    """
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_steps) ** 2


def alpha_bars(config: VariancePreservingConfig) -> Float[np.ndarray, " t"]:
    """Return the share of the signal's variance left at each timestep, in float64.

    The running product of 1 - beta (Ho et al. 2020, above eq. 4). In float64 the differences that
    samplers take of it stay exact.
    """
    return np.cumprod(1.0 - betas(config))


def alpha_bar_table(config: VariancePreservingConfig) -> Float[Array, " t"]:
    """Return `alpha_bars` in float32 on the device, to be indexed with timesteps there."""
    return jnp.asarray(alpha_bars(config), jnp.float32)


def snr(alpha_bar: Float[Array | np.ndarray, "*n"]) -> Float[Array | np.ndarray, "*n"]:
    """Return the signal-to-noise ratio of z_t, a ratio of variances (Kingma et al. 2021, eq. 2)."""
    return alpha_bar / (1.0 - alpha_bar)


def add_noise(latents: Latents, noise: Latents, alpha_bar: AlphaBar) -> Latents:
    """Jump from x0 straight to z_t (Ho et al. 2020, eq. 4)."""
    signal, spread = _weights(alpha_bar)
    return signal * latents + spread * noise


def velocity(latents: Latents, noise: Latents, alpha_bar: AlphaBar) -> Latents:
    """Return v = sqrt(alpha_bar) e - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, section 4)."""
    signal, spread = _weights(alpha_bar)
    return signal * noise - spread * latents


def target(latents: Latents, noise: Latents, alpha_bar: AlphaBar, kind: str) -> Latents:
    """Return what the network is trained to predict: the noise, or the velocity.

    Raises:
        ValueError: if `kind` is neither "epsilon" nor "v".
    """
    return noise if _is_epsilon(kind) else velocity(latents, noise, alpha_bar)


def to_x0(prediction: Latents, z: Latents, alpha_bar: AlphaBar, kind: str) -> Latents:
    """Read the network's estimate of the clean latent out of its prediction.

    Epsilon: Ho et al. 2020, eq. 15. Velocity: Salimans & Ho 2022, appendix D.

    Raises:
        ValueError: if `kind` is neither "epsilon" nor "v".
    """
    signal, spread = _weights(alpha_bar)
    if _is_epsilon(kind):
        return (z - spread * prediction) / signal
    return signal * z - spread * prediction


def to_epsilon(prediction: Latents, z: Latents, alpha_bar: AlphaBar, kind: str) -> Latents:
    """Read the network's estimate of the noise out of its prediction.

    Raises:
        ValueError: if `kind` is neither "epsilon" nor "v".
    """
    signal, spread = _weights(alpha_bar)
    if _is_epsilon(kind):
        return prediction
    return signal * prediction + spread * z


def check_steps(config: VariancePreservingConfig, steps: int) -> None:
    """Raise a ValueError unless `steps` is between 1 and the number of training timesteps."""
    if not 1 <= steps <= config.train_steps:
        raise ValueError(
            f"steps must be between 1 and {config.train_steps}, got {steps}; 25 is a good start"
        )


def timesteps(
    config: VariancePreservingConfig, steps: int, spacing: str = "leading"
) -> Int[np.ndarray, " steps"]:
    """Choose `steps` of the training timesteps, from noisy to clean, as int32.

    Both spacings are those of Lin et al. 2024, table 2. "leading", i * (T // steps) + offset, is
    Stable Diffusion's own: with few steps it begins far below T, where x_t should still show some
    of the picture. Where the offset would push the first timestep past T - 1 (1000 steps of 1000),
    the whole grid slides back just enough to fit, so the timesteps stay distinct. "trailing",
    round(i T / steps) - 1, begins at T - 1, where there is next to nothing but noise.

    Raises:
        ValueError: if `steps` is not between 1 and T, or the spacing is unknown.
    """
    check_steps(config, steps)
    if spacing not in SPACINGS:
        raise ValueError(f"unknown spacing {spacing!r}; choose one of {', '.join(SPACINGS)}")
    train_steps = config.train_steps
    if spacing == "trailing":
        return (np.round(train_steps - np.arange(steps) * (train_steps / steps)) - 1).astype(
            np.int32
        )
    grid = np.arange(steps)[::-1] * (train_steps // steps)
    room = train_steps - 1 - int(grid[0])
    return (grid + min(OFFSET, room)).astype(np.int32)


class VariancePreserving:
    """x_t = alpha(t) x0 + sigma(t) noise; alpha^2 is alpha_bar, sigma^2 the rest.

    Args:
        config: the betas, and what the denoiser predicts.
    """

    def __init__(self, config: VariancePreservingConfig):
        self.config = config
        self.train_steps = config.train_steps
        self.prediction = config.prediction

    @cached_property
    def alpha_bars(self) -> Float[np.ndarray, " t"]:
        """In float64, for tables."""
        return alpha_bars(self.config)

    def alpha_bar(self, t: Timesteps) -> AlphaBar:
        """At each timestep, in float32."""
        return jnp.asarray(self.alpha_bars, jnp.float32)[t]

    def alpha(self, t: Timesteps) -> AlphaBar:
        """The weight of the clean latent at each timestep."""
        return jnp.sqrt(self.alpha_bar(t))

    def sigma(self, t: Timesteps) -> AlphaBar:
        """The weight of the noise at each timestep."""
        return jnp.sqrt(1.0 - self.alpha_bar(t))

    def snr(self, t: Timesteps) -> AlphaBar:
        """The signal-to-noise ratio at each timestep."""
        return jnp.asarray(snr(self.alpha_bar(t)))

    def levels(
        self, t: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """alpha and sigma in float64, for the tables of samplers."""
        return np.sqrt(self.alpha_bars[t]), np.sqrt(1.0 - self.alpha_bars[t])

    def timesteps(self, steps: int, spacing: str = "leading") -> Int[np.ndarray, " steps"]:
        """From noisy to clean; see `timesteps`."""
        return timesteps(self.config, steps, spacing)

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        return add_noise(x0, noise, self.alpha_bar(t))

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What the denoiser is trained to predict."""
        return target(x0, noise, self.alpha_bar(t), self.prediction)

    def to_x0(self, prediction: Latents, x_t: Latents, t: Timesteps) -> Latents:
        """The clean latent that a prediction amounts to."""
        return to_x0(prediction, x_t, self.alpha_bar(t), self.prediction)


def _weights(alpha_bar: AlphaBar) -> tuple[Float[Array, "b 1 1 1"], Float[Array, "b 1 1 1"]]:
    """Return the weights of signal and noise, shaped to multiply a batch of NHWC latents."""
    alpha_bar = alpha_bar[:, None, None, None]
    return jnp.sqrt(alpha_bar), jnp.sqrt(1.0 - alpha_bar)


def _is_epsilon(kind: str) -> bool:
    if kind not in PREDICTIONS:
        raise ValueError(f'unknown prediction {kind!r}; choose "epsilon" or "v"')
    return kind == "epsilon"
