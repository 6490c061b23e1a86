"""The samplers beside those of `diffusers`: same timesteps, same latent after every call.

The network is played by a function of latent and timestep that any framework would compute alike,
and the noise that the stochastic samplers draw is given. The latents are brought to our scale,
z = alpha x, where the reference works with x = x0 + sigma e.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from diffusion.config import VariancePreservingConfig
from diffusion.inspection.rows import Row, compare
from diffusion.process import Process, VariancePreserving, samplers

BOUND = 1e-5  # of the error of a latent, relative to its largest number, in float32
SHAPE = (2, 4, 4, 4)
GOLDEN_SHAPE = (1, 2, 2, 4)  # enough for a fixture: every number of a latent is treated alike
GOLDEN = "samplers.safetensors"

# Our names and those of the reference. Euler and Heun work in the scale of x.
CLASSES = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
}
EXPLODING = ("euler", "euler_a", "heun")
KARRAS = ("euler", "heun", "dpm++2m")
KINDS = {"epsilon": "epsilon", "v": "v_prediction"}


class Sampled(Protocol):
    """Whatever has a table: a case here, or of another process."""

    @property
    def process(self) -> Process: ...

    def table(self) -> samplers.SamplerTable: ...


@dataclass(frozen=True)
class Case:
    """A sampler with all its settings."""

    name: str  # one of `samplers.SAMPLERS`
    eta: float
    kind: str  # what the network predicts, "epsilon" or "v"
    steps: int
    strength: float
    spacing: str = "leading"

    @property
    def sampler(self) -> str:
        name = f"ddim eta {self.eta}" if self.name == "ddim" else self.name
        return name if self.spacing == "leading" else f"{name} {self.spacing}"

    def __str__(self) -> str:
        return f"{self.sampler}, {self.kind}, {self.steps} steps, strength {self.strength}"

    @property
    def process(self) -> VariancePreserving:
        return process(self.kind)

    def table(self) -> samplers.SamplerTable:
        return samplers.table(
            self.name,
            self.process,
            self.steps,
            spacing=self.spacing,
            eta=self.eta,
            strength=self.strength,
        )


@dataclass(frozen=True)
class Trajectory:
    """What happened: one entry a call of the network."""

    timesteps: np.ndarray  # (calls,)
    latents: np.ndarray  # (calls + 1, *shape), before the first call, and after each


def cases(steps: tuple[int, ...], strengths: tuple[tuple[int, float], ...]) -> Iterator[Case]:
    """Each sampler and kind of prediction, with each number of steps and each (steps, strength).

    The spacing of Karras et al. with those that have it in the reference. There DPM-Solver++ tells
    the network rounded timesteps; here both tell it ours. From 3 steps on: where the reference
    begins with one is another matter, and two of Heun's magnify what float32 rounds 200 times.

    With trailing timesteps those steps that divide 1000: for others the reference's DDPM and DDIM
    land a timestep beside the one that they go on from.
    """
    settings = [(count, 1.0, "leading") for count in steps]
    settings += [(*setting, "leading") for setting in strengths]
    settings += [(count, 1.0, "trailing") for count in steps if 1000 % count == 0]
    for name in CLASSES:
        if name in KARRAS:
            for kind in KINDS:
                for count in filter(lambda count: count > 2, steps):
                    yield Case(name, 0.0, kind, count, 1.0, "karras")
        for eta in (0.0, 0.5, 1.0) if name == "ddim" else (0.0,):
            for kind in KINDS:
                for count, strength, spacing in settings:
                    if name != "lcm" or (count <= samplers.LCM_GRID and spacing == "leading"):
                        yield Case(name, eta, kind, count, strength, spacing)


# 50 x 0.58 is 28.999999999999996, and 28 steps; 3 does not divide 1000.
LIVE = ((1, 2, 3, 4, 25, 50, 100), ((25, 0.4), (10, 0.75), (4, 0.3), (50, 0.58), (2, 0.99)))
RECORDED = ((1, 2, 4, 25), ((10, 0.75), (4, 0.3)))


def network(z: np.ndarray, timestep: float) -> np.ndarray:
    """Predict something smooth that depends on every input, in float32."""
    shifted = np.roll(z, 1, axis=-1)
    return np.float32(0.9) * np.sin(z + np.float32(timestep / 300)) + np.float32(0.2) * shifted


def draw(shape: tuple[int, ...], calls: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The latent to begin with, and the noise of each call; of standard deviation one, float32."""
    random = np.random.default_rng(seed)
    z = random.standard_normal(shape, np.float32)
    return z, random.standard_normal((calls, *shape), np.float32)


def ours(case: Sampled, z: np.ndarray, noise: np.ndarray) -> Trajectory:
    """The trajectory of our own sampler, from `z` as noisy as the first timestep."""
    table, step = case.table(), _step(case.process)
    latents, memory = [z], jnp.zeros_like(z)
    for call in range(len(table.step)):
        row = table.row(call)
        prediction = network(latents[-1], row.timestep.item())
        moved, memory = step(row, latents[-1], memory, noise[call], prediction)
        latents.append(np.asarray(moved))
    told = table.timestep
    if getattr(case, "spacing", "") == "karras":
        told = np.rint(told).astype(np.int32)  # as the reference does
    return Trajectory(told, np.stack(latents))


@cache
def process(kind: str) -> VariancePreserving:
    return VariancePreserving(VariancePreservingConfig(prediction=kind))


@cache
def _step(process: Process) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """A compiled step on noise that is given."""

    @jax.jit
    def step(
        row: samplers.SamplerTable,
        z: jax.Array,
        memory: jax.Array,
        noise: jax.Array,
        said: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        x0 = process.to_x0(said, z, jnp.full(len(z), row.timestep))
        return samplers.update(row, z, x0, memory, noise)

    return step


def reference(case: Case, z: np.ndarray, noise: np.ndarray) -> Trajectory:
    """The same of `diffusers`, with the settings of Stable Diffusion, as its pipelines call it."""
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline

    scheduler = _scheduler(case)
    scheduler.set_timesteps(case.steps)
    timesteps, _ = StableDiffusionImg2ImgPipeline.get_timesteps(
        SimpleNamespace(scheduler=scheduler), case.steps, case.strength, None
    )
    begin = len(scheduler.timesteps) - len(timesteps)
    scales = np.ones(len(timesteps) + 1)
    if case.name in EXPLODING:  # alpha = 1 / sqrt(1 + sigma^2)
        scales = 1.0 / np.sqrt(1.0 + scheduler.sigmas[begin:].double().numpy() ** 2)
    x = torch.from_numpy(z / scales[0]).float()
    latents, told = [z], timesteps.numpy()
    if case.spacing == "karras":
        told = case.table().timestep
    for call, timestep in enumerate(timesteps):
        shown = scheduler.scale_model_input(x, timestep).numpy()
        prediction = torch.from_numpy(network(shown, told[call].item()))
        module = f"{type(scheduler).__module__}.randn_tensor"  # not in every one
        drawn = torch.from_numpy(noise[call])
        with mock.patch(module, return_value=drawn, create=True, new_callable=mock.Mock):
            options = {"eta": case.eta} if case.name == "ddim" else {}
            x = scheduler.step(prediction, timestep, x, **options).prev_sample
        latents.append((x.double().numpy() * scales[call + 1]).astype(np.float32))
    return Trajectory(timesteps.numpy().round().astype(np.int32), np.stack(latents))


def _scheduler(case: Case) -> Any:
    import diffusers

    # As in the scheduler_config.json of Stable Diffusion.
    config = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": KINDS[case.kind],
        "timestep_spacing": case.spacing,
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    }
    if case.spacing == "karras":
        config |= {"timestep_spacing": "linspace", "use_karras_sigmas": True}
    return getattr(diffusers, CLASSES[case.name]).from_config(config)


def compare_latents(block: str, one: Trajectory, other: Trajectory) -> Row:
    """The row of the latent that differs most, measured by its own size."""
    latents = zip(one.latents, other.latents, strict=True)
    return max((compare(block, *pair, BOUND) for pair in latents), key=badness)


def badness(row: Row) -> tuple[bool, float]:
    return not row.ok, row.relative


def rows(seed: int) -> list[Row]:
    """One row a sampler and kind of prediction, the worst of its latents; and the timesteps."""
    worst: dict[str, Row] = {}
    timesteps: list[tuple[np.ndarray, np.ndarray]] = []
    for case in cases(*LIVE):
        z, noise = draw(SHAPE, len(case.table().step), seed)
        one, other = ours(case, z, noise), reference(case, z, noise)
        timesteps.append((one.timesteps, other.timesteps))
        row = compare_latents(f"sampler {case.sampler}, {case.kind}", one, other)
        worst[row.block] = max(worst.get(row.block, row), row, key=badness)
    told = [np.concatenate(side) for side in zip(*timesteps, strict=True)]
    return [compare("timesteps of all samplers", *told, bound=0.0), *worst.values()]


def write_golden(folder: Path) -> None:
    """Record trajectories of the reference for the tests, which have no PyTorch."""
    recorded = list(cases(*RECORDED))
    z, noise = draw(GOLDEN_SHAPE, max(len(case.table().step) for case in recorded), seed=0)
    arrays = {"z": z, "noise": noise}
    for case in recorded:
        trajectory = reference(case, z, noise)
        arrays[f"{case}: timesteps"] = trajectory.timesteps
        arrays[f"{case}: latents"] = trajectory.latents
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / GOLDEN)
