"""The noise schedule: how much of the picture is left at each timestep, and what to predict.

A clean latent x0 and standard normal noise e mix into the noisy latent that the network sees,

    z_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) e,

with alpha_bar falling from nearly 1 (t = 0, the picture) to nearly 0 (t = T - 1, the noise). The
squares of the two weights add up to 1, so z keeps unit variance: the "variance preserving" scale.

The functions state the equations in alpha_bar. `VariancePreserving` offers them by timestep, as
every process does: that is all that pipeline, samplers and training know of it.
"""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from diffusion.config import PREDICTIONS, VariancePreservingConfig
from diffusion.process.mixing import Mixing

SPACINGS = ("leading", "trailing", "linspace", "karras")  # of the timesteps, see `timesteps`
RHO = 7.0  # of "karras": how much closer the steps are where the noise is low
OFFSET = 1  # of leading timesteps: the reference sets it, whatever a model's scheduler says
GAMMA = 5.0  # in training, the largest weight of a squared error of x0
TIMES = ((0.0, 0.15, 0.75, 1.0), (0.0, 0.3, 0.7, 1.0))  # share of the draws, of the schedule: half
# as many again from the middle, where small things that words name, such as flowers, are decided
Latents = Float[Array, "b h w c"]
AlphaBar = Float[Array, " b"]
Timesteps = Real[Array, " b"]  # whole numbers; between them with the spacing "karras"


def betas(config: VariancePreservingConfig) -> Float[np.ndarray, " t"]:
    """Return the variance added at each of the T training timesteps, in float64.

    "linear": evenly spaced (Ho et al. 2020, section 4). "scaled_linear", the rule of Rombach et al.
    2022: their square roots are.
    """
    if config.beta_rule == "linear":
        return np.linspace(config.beta_start, config.beta_end, config.train_steps)
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_steps) ** 2


def alpha_bars(config: VariancePreservingConfig) -> Float[np.ndarray, " t"]:
    """Return the share of the signal's variance left at each timestep, in float64.

    The running product of 1 - beta (Ho et al. 2020, above eq. 4). In float64 the differences that
    samplers take of it stay exact.
    """
    return np.cumprod(1.0 - betas(config))


def log_ratios(config: VariancePreservingConfig) -> Float[np.ndarray, " t"]:
    """Return log(sigma / alpha) at each timestep, in float64; between them it is interpolated."""
    alpha_bar = alpha_bars(config)
    return 0.5 * np.log((1.0 - alpha_bar) / alpha_bar)


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


def check_steps(
    train_steps: int, steps: int, spacing: str, known: tuple[str, ...] = SPACINGS
) -> None:
    """Raise a ValueError unless `steps` is from 1 to `train_steps`, and the spacing is known."""
    if not 1 <= steps <= train_steps:
        raise ValueError(
            f"steps must be between 1 and {train_steps}, got {steps}; 25 is a good start"
        )
    if spacing not in known:
        raise ValueError(f"unknown spacing {spacing!r}; choose one of {', '.join(known)}")


def timesteps(
    config: VariancePreservingConfig, steps: int, spacing: str = "leading"
) -> Real[np.ndarray, " steps"]:
    """Choose `steps` of the training timesteps, from noisy to clean, as int32.

    The spacings are those of Lin et al. 2024, table 2. "leading", i * (T // steps) + offset, is
    Stable Diffusion's own: with few steps it begins far below T, where x_t should still show some
    of the picture. Where the offset would push the first timestep past T - 1 (1000 steps of 1000),
    the whole grid slides back just enough to fit, so the timesteps stay distinct. "trailing",
    round(i T / steps) - 1, begins at T - 1, where there is next to nothing but noise. "linspace"
    goes evenly from T - 1 to 0; AnimateDiff's adapters are sampled like this.

    "karras" goes from the noisiest timestep to the cleanest so that the seventh root of sigma /
    alpha is evenly spaced (Karras et al. 2022, eq. 5): float32, between the timesteps of training.

    Raises:
        ValueError: if `steps` is not between 1 and T, or the spacing is unknown.
    """
    train_steps = config.train_steps
    check_steps(train_steps, steps, spacing)
    if spacing == "linspace":
        return np.linspace(0, train_steps - 1, steps).round()[::-1].astype(np.int32)
    if spacing == "karras":
        logs = log_ratios(config)
        most, least = np.exp(logs[[-1, 0]] / RHO)
        spaced = RHO * np.log(np.linspace(most, least, steps))
        return np.interp(spaced, logs, np.arange(train_steps)).astype(np.float32)
    if spacing == "trailing":
        return (np.round(train_steps - np.arange(steps) * (train_steps / steps)) - 1).astype(
            np.int32
        )
    grid = np.arange(steps)[::-1] * (train_steps // steps)
    room = train_steps - 1 - int(grid[0])
    return (grid + min(OFFSET, room)).astype(np.int32)


def weight(ratio: Float[Array | np.ndarray, " b"], kind: str) -> Float[Array, " b"]:
    """How much the squared error of a prediction counts at a signal-to-noise ratio.

    The error of x0 counts as SNR, but at least 1, so that the words are learnt where only they tell
    what will be there (Salimans & Ho 2022, section 4), and at most gamma, as nobody sees what
    happens where the noise has nearly gone (min-SNR, Hang et al. 2023). The squared error of
    epsilon is SNR times, that of v SNR + 1 times the one of x0.
    """
    return jnp.clip(ratio, 1.0, GAMMA) / (ratio + (kind == "v"))


def draw_timesteps(key: Array, count: int, train_steps: int) -> Int[Array, " count"]:
    """One timestep from each of `count` equally likely parts of the schedule, least noise first.

    Less variance than `count` free draws have, and the same mean. So each of a picture's views is
    from another part, and none of them sees it twice. More of them are from the middle (`TIMES`),
    as Esser et al. 2024, section 3.1, draw theirs.
    """
    t = jnp.interp(evenly_drawn(key, count), *map(jnp.asarray, TIMES)) * train_steps
    return jnp.minimum(t.astype(jnp.int32), train_steps - 1)  # a draw may round to 1


def evenly_drawn(key: Array, count: int) -> Float[Array, " count"]:
    """A number from each of `count` equal parts of [0, 1], in order."""
    return (jnp.arange(count) + jax.random.uniform(key, (count,))) / count


class VariancePreserving(Mixing):
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

    @cached_property
    def log_ratios(self) -> Float[np.ndarray, " t"]:
        """See `log_ratios`."""
        return log_ratios(self.config)

    def alpha_bar(self, t: Timesteps) -> AlphaBar:
        """At each timestep, in float32."""
        if jnp.issubdtype(t.dtype, jnp.integer):
            return jnp.asarray(self.alpha_bars, jnp.float32)[t]
        whole = jnp.arange(self.train_steps, dtype=jnp.float32)
        logs = jnp.interp(t, whole, jnp.asarray(self.log_ratios, jnp.float32))
        return jax.nn.sigmoid(-2.0 * logs)

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
        self, t: Real[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """alpha and sigma in float64, for the tables of samplers."""
        if not np.issubdtype(t.dtype, np.integer):
            ratio = np.exp(np.interp(t, np.arange(self.train_steps), self.log_ratios))
            alpha = 1.0 / np.sqrt(1.0 + ratio**2)
            return alpha, ratio * alpha
        return np.sqrt(self.alpha_bars[t]), np.sqrt(1.0 - self.alpha_bars[t])

    def last_levels(self) -> tuple[Float[np.ndarray, "1"], Float[np.ndarray, "1"]]:
        """Where DDIM arrives: x0, or the first timestep."""
        return (np.ones(1), np.zeros(1)) if self.config.clean_end else self.levels(np.zeros(1, int))

    def timesteps(self, steps: int, spacing: str = "leading") -> Real[np.ndarray, " steps"]:
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

    def draw_timesteps(self, key: Array, count: int) -> Int[Array, " count"]:
        """To train with; see `draw_timesteps`."""
        return draw_timesteps(key, count, self.train_steps)

    def weight(self, t: Timesteps) -> Float[Array, " b"]:
        """Of a squared error in training; see `weight`."""
        return weight(self.snr(t), self.prediction)


def _weights(alpha_bar: AlphaBar) -> tuple[Float[Array, "b 1 1 1"], Float[Array, "b 1 1 1"]]:
    """Return the weights of signal and noise, shaped to multiply a batch of NHWC latents."""
    alpha_bar = alpha_bar[:, None, None, None]
    return jnp.sqrt(alpha_bar), jnp.sqrt(1.0 - alpha_bar)


def _is_epsilon(kind: str) -> bool:
    if kind not in PREDICTIONS:
        raise ValueError(f'unknown prediction {kind!r}; choose "epsilon" or "v"')
    return kind == "epsilon"
