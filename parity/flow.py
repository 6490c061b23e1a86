"""Samplers of a rectified flow beside those of `diffusers`: same timesteps, same latents.

The reference has one for flows, Euler's method. Its DPM-Solver++ spaces the levels in another way,
so it is given ours, to compare the steps. The network is that of `parity.samplers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from diffusion.config import RectifiedFlowConfig
from diffusion.inspection.rows import Row, compare
from diffusion.process import RectifiedFlow
from diffusion.process.samplers import SamplerTable, table
from parity.samplers import (
    BOUND,
    GOLDEN_SHAPE,
    SHAPE,
    Trajectory,
    badness,
    compare_latents,
    draw,
    network,
    ours,
)

GOLDEN = "flow.safetensors"
ROUNDED = 2e-7  # of timesteps that are no whole numbers, in float32
CLASSES = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "ddim": "FlowMatchEulerDiscreteScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
}
SHIFTS = (0.5, 1.0, 3.0)
LIVE = ((1, 2, 3, 4, 28, 100), ((25, 0.4), (4, 0.5)))
RECORDED = ((1, 4, 28), ((4, 0.5),))


@dataclass(frozen=True)
class Case:
    """A sampler with all its settings."""

    name: str  # one of `CLASSES`
    shift: float
    steps: int
    strength: float

    def __str__(self) -> str:
        return f"{self.name}, shift {self.shift}, {self.steps} steps, strength {self.strength}"

    @property
    def process(self) -> RectifiedFlow:
        return process(self.shift)

    def table(self) -> SamplerTable:
        return table(self.name, self.process, self.steps, strength=self.strength)


@cache
def process(shift: float) -> RectifiedFlow:
    return RectifiedFlow(RectifiedFlowConfig(shift=shift))


def cases(steps: tuple[int, ...], strengths: tuple[tuple[int, float], ...]) -> Iterator[Case]:
    """Each sampler and shift, with each number of steps and each (steps, strength)."""
    for name in CLASSES:
        for shift in SHIFTS:
            for count, strength in (*((count, 1.0) for count in steps), *strengths):
                yield Case(name, shift, count, strength)


def reference(case: Case, z: np.ndarray) -> Trajectory:
    """The trajectory of `diffusers`, from `z` as noisy as the first timestep."""
    import torch

    scheduler, begin = _scheduler(case), case.steps - len(case.table().step)
    timesteps = scheduler.timesteps[begin:]
    scheduler.set_begin_index(begin)
    x, latents = torch.from_numpy(z), [z]
    for timestep in timesteps:
        prediction = torch.from_numpy(network(x.numpy(), timestep.item()))
        x = scheduler.step(prediction, timestep, x).prev_sample
        latents.append(x.numpy())
    return Trajectory(timesteps.numpy(), np.stack(latents))


def _scheduler(case: Case) -> Any:
    import diffusers
    import torch

    if case.name != "dpm++2m":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=case.shift)
        scheduler.set_timesteps(case.steps)
        return scheduler
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    )
    scheduler.set_timesteps(case.steps)
    whole = table(case.name, case.process, case.steps)
    scheduler.timesteps = torch.from_numpy(whole.timestep)
    scheduler.sigmas = torch.cat([scheduler.timesteps / 1000, torch.zeros(1)])
    return scheduler


def noised(case: Case, z: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture's latent under the noise of the first timestep: ours, and the reference's."""
    import torch

    scheduler, timestep = _scheduler(case), case.table().timestep[:1]
    theirs = scheduler.scale_noise(
        torch.from_numpy(z), scheduler.timesteps[-len(case.table().step) :][:1],
        torch.from_numpy(noise),
    )  # fmt: skip
    t = jnp.full(len(z), timestep[0])
    return np.asarray(case.process.add_noise(jnp.asarray(z), jnp.asarray(noise), t)), theirs.numpy()


def rows(seed: int) -> list[Row]:
    """One row a sampler and shift, the worst of its latents; a picture's noise; the timesteps."""
    worst: dict[str, Row] = {}
    timesteps: list[tuple[np.ndarray, np.ndarray]] = []
    for case in cases(*LIVE):
        z, noise = draw(SHAPE, len(case.table().step), seed)
        one, other = ours(case, z, noise), reference(case, z)
        timesteps.append((one.timesteps, other.timesteps))
        found = [compare_latents(f"flow, {case.name}, shift {case.shift}", one, other)]
        if case.name == "euler":
            found.append(compare("flow, a picture under noise", *noised(case, z, noise[0]), BOUND))
        for row in found:
            worst[row.block] = max(worst.get(row.block, row), row, key=badness)
    told = [np.concatenate(side) for side in zip(*timesteps, strict=True)]
    return [compare("timesteps of all flows", *told, bound=ROUNDED), *worst.values()]


def write_golden(folder: Path) -> None:
    """Record trajectories of the reference for the tests, which have no PyTorch."""
    z, _ = draw(GOLDEN_SHAPE, 1, seed=0)
    arrays = {"z": z}
    for case in cases(*RECORDED):
        trajectory = reference(case, z)
        arrays[f"{case}: timesteps"] = trajectory.timesteps
        arrays[f"{case}: latents"] = trajectory.latents
    save_file(arrays, folder / GOLDEN)
