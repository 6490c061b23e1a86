"""How a picture disappears and comes back: processes, samplers, one loop.

Two of the processes mix a clean latent with noise, x_t = alpha(t) x0 + sigma(t) noise (`Mixing`);
the third hides codes behind masks. Pipeline, loop and training know no more than `Process`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Real, Shaped

from diffusion.config import ProcessConfig, RectifiedFlowConfig, VariancePreservingConfig
from diffusion.config_codes import MaskingConfig
from diffusion.process.flow import RectifiedFlow
from diffusion.process.masked import Masking
from diffusion.process.mixing import Mixing
from diffusion.process.schedule import VariancePreserving

__all__ = [
    "PROCESSES", "Masking", "Mixing", "Process", "RectifiedFlow", "VariancePreserving", "mixing",
    "process",
]  # fmt: skip

Known = Shaped[Array, "_ h w c"]  # of all pictures, or of each
State = Shaped[Array, "b h w c"]  # latents; or numbers of codes, int32 with c = 1
Noise = Float[Array, "b h w c"]  # standard normal
Level = Float[Array, " b"]
Timesteps = Real[Array, " b"]  # whole numbers, or any: as the process has them


@runtime_checkable
class Process(Protocol):
    """What everybody may know of a process; `t` is a timestep a picture."""

    train_steps: int
    prediction: str
    samplers: Mapping[str, Callable[..., Any]]  # its own; none: those of `process.samplers`

    def timesteps(self, steps: int, spacing: str = "leading") -> Real[np.ndarray, " steps"]:
        """`steps` of the timesteps, from noisy to clean: int32 or float32.

        "leading" timesteps end with the cleanest, "trailing" ones begin with the noisiest.

        Raises ValueError beyond `train_steps`, or where the spacing is unknown.
        """

    def encode(self, autoencoder: Any, images: Float[Array, "b H W k"], *key: Array) -> State:
        """Pictures in [-1, 1] as the x0 of this process."""

    def begin(self, noise: Noise, known: Known, mask: Bool[Array, "_ _ _ 1"]) -> State:
        """What a painting begins with, where nothing but noise is given for the masked places."""

    def add_noise(self, x0: State, noise: Noise, t: Timesteps) -> State: ...

    def kept(self, known: Known, noise: Noise, arrives: Real[Array, ""]) -> State:
        """What x_t is where nothing is painted: what is known, at a timestep; -1: at the end."""

    def error(
        self, prediction: Float[Array, "b h w k"], x0: State, noise: Noise, t: Timesteps
    ) -> Level:
        """How wrong a prediction is, of each picture; `noise` is what `add_noise` was given."""

    def draw_timesteps(self, key: Array, count: int) -> Timesteps:
        """`count` timesteps to train with, least noise first."""

    def weight(self, t: Timesteps) -> Level:
        """How much the error of a prediction counts in training."""


PROCESSES: dict[type[Any], Callable[[Any], Process]] = {
    VariancePreservingConfig: VariancePreserving,
    RectifiedFlowConfig: RectifiedFlow,
    MaskingConfig: Masking,
}


def process(config: ProcessConfig) -> Process:
    """The process of a configuration. Raises KeyError where there is none."""
    return PROCESSES[type(config)](config)


def mixing(process: Process) -> Mixing:
    """The same, where noise is mixed in. Raises ValueError where codes are masked instead."""
    if not isinstance(process, Mixing):
        raise ValueError(
            f"{type(process).__name__} masks codes; take a model that mixes latents with noise"
        )
    return process
