"""What a training leaves behind for those who watch it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from diffusion.atomic_write import atomic_write
from diffusion.runtime import hosts
from diffusion.runtime.parameters import Params

Metrics = dict[str, jax.Array]
Watch = Callable[[int, float, Params], None]  # step, seconds, (averaged) parameters


class Log:
    """The history of a run: log.jsonl (step, seconds, metrics), its curves, and sample sheets."""

    def __init__(self, folder: Path, task: Any, start: int):
        self.folder, self.task, self.path = folder, task, folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        # What was logged after the last checkpoint is lived through again.
        self.rows = [row for line in lines if (row := json.loads(line))["step"] <= start]
        self.began = time.monotonic() - (self.rows[-1]["seconds"] if self.rows else 0.0)

    def add(self, step: int, window: list[Metrics]) -> dict[str, float]:
        """Note the means of the last steps, and return them."""
        means = {name: float(np.mean([metrics[name] for metrics in window])) for name in window[0]}
        if not np.isfinite([means["loss"], means["gradient_norm"]]).all():
            raise FloatingPointError(
                f"{self.task.name}: loss or gradient is not finite at step {step}; "
                "start again with a lower learning_rate"
            )
        seconds = round(time.monotonic() - self.began, 2)
        self.rows.append({"step": step, "seconds": seconds} | means)
        return means

    def flush(self) -> None:
        if not hosts.writes():
            return
        with atomic_write(self.path) as draft:
            draft.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def show(self, step: int, params: Params, watch: Watch | None) -> None:
        if not hosts.writes():
            return
        self.plot()
        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        Image.fromarray(self.task.picture(params)).save(samples / f"{step:06d}.png")
        if watch is not None:
            asked = time.monotonic()
            watch(step, asked - self.began, params)
            self.began += time.monotonic() - asked

    def plot(self) -> None:
        from matplotlib.figure import Figure  # imported late: training starts without it

        if not self.rows:
            return
        names = [name for name in self.rows[-1] if name not in ("step", "seconds")]
        figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for axis, name in zip(axes, names, strict=True):
            values = [row[name] for row in self.rows]
            axis.plot([row["step"] for row in self.rows], values)
            scale = "log" if min(values) > 0 else "linear"
            axis.set(title=name.replace("_", " "), xlabel="step", yscale=scale)
        figure.suptitle(self.task.name)
        figure.savefig(self.folder / "loss.png", dpi=120)
