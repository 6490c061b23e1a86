"""How a picture becomes noise and noise a picture: processes, samplers, one loop.

A process mixes a clean latent with noise, x_t = alpha(t) x0 + sigma(t) noise, and says what a
denoiser predicts of the two. Pipeline, samplers and training know no more of it than `Process`.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Real

from diffusion.config import ProcessConfig, RectifiedFlowConfig, VariancePreservingConfig
from diffusion.process.flow import RectifiedFlow
from diffusion.process.schedule import VariancePreserving

__all__ = ["PROCESSES", "Process", "RectifiedFlow", "VariancePreserving", "process"]

Latents = Float[Array, "b h w c"]
Level = Float[Array, " b"]
Timesteps = Real[Array, " b"]  # whole numbers, or any: as the process has them


@runtime_checkable
class Process(Protocol):
    """What everybody may know of a process; `t` is a timestep a picture."""

    train_steps: int
    prediction: str

    def alpha(self, t: Timesteps) -> Level: ...

    def sigma(self, t: Timesteps) -> Level: ...

    def snr(self, t: Timesteps) -> Level:
        """alpha^2 / sigma^2."""

    def levels(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma in float64, for tables."""

    def last_levels(self) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma that the last step of DDIM arrives at, an array of one each."""

    def timesteps(self, steps: int, spacing: str = "leading") -> Real[np.ndarray, " steps"]:
        """`steps` of the timesteps, from noisy to clean: int32 or float32.

        "leading" timesteps end with the cleanest, "trailing" ones begin with the noisiest.

        Raises ValueError beyond `train_steps`, or where the spacing is unknown.
        """

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents: ...

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What the denoiser is trained to predict."""

    def to_x0(self, prediction: Latents, x_t: Latents, t: Timesteps) -> Latents:
        """The clean latent that a prediction amounts to."""

    def draw_timesteps(self, key: Array, count: int) -> Timesteps:
        """`count` timesteps to train with, least noise first."""

    def weight(self, t: Timesteps) -> Level:
        """How much the squared error of a prediction counts in training."""


PROCESSES: dict[type[Any], Callable[[Any], Process]] = {
    VariancePreservingConfig: VariancePreserving,
    RectifiedFlowConfig: RectifiedFlow,
}


def process(config: ProcessConfig) -> Process:
    """The process of a configuration. Raises KeyError where there is none."""
    return PROCESSES[type(config)](config)
