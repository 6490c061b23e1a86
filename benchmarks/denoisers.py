"""How soon does each denoiser paint rightly? U-Net and transformer, noise and straight paths.

    python -m benchmarks.denoisers --output runs/denoisers

Each begins with random weights and learns with the same settings, from the same captions, with the
garden's text encoder and VAE. A judge looks at its pictures on the way. The minutes are those of
the denoiser's training; judging is left out. Goes on where it was if it is stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.speedrun import GOAL, Examiner, minutes_to, parser
from diffusion.evaluation.tables import table
from diffusion.presets import garden, garden_dit
from diffusion.runtime.compilation_cache import keep_compilations
from diffusion.runtime.devices import described
from diffusion.training.beginning import copy_of
from diffusion.training.recipe import train_part
from diffusion.weights.architectures import architecture
from diffusion.weights.folder import load_config, shipped

CASES = {  # whose denoiser, and whose process
    "U-Net, noise": (garden(), garden()),
    "U-Net, straight paths": (garden(), garden_dit()),
    "transformer, straight paths": (garden_dit(), garden_dit()),
}
SETTINGS = (
    "steps=2500", "learning_rate=0.002", "warmup=200", "optimizer=muon", "picture_every=250",
)  # fmt: skip


def run(name: str, output: Path, captions: int, settings: Sequence[str]) -> list[dict[str, float]]:
    """Train one of `CASES` into the folder `output`; what the judge saw on the way."""
    network, paints = CASES[name]
    start = shipped("garden")
    model = replace(
        load_config(start), denoiser=network.denoiser, process=paints.process,
        guidance=paints.guidance, sampling=paints.sampling,
    )  # fmt: skip
    part = architecture(model.denoiser).part
    copy_of(start, output, model, part)
    examiner = Examiner(output, captions, before=lambda _: 0.0)
    train_part(part, output, [*SETTINGS, *settings], examiner)
    return examiner.seen()


def main(argv: Sequence[str] | None = None) -> None:
    options = parser("denoisers", __doc__)
    arguments = options.parse_args(argv)
    keep_compilations()
    print(described())
    rows = []
    for i, name in enumerate(CASES):
        try:
            seen = run(name, arguments.output / str(i), arguments.captions, arguments.set)
        except ValueError as error:
            options.error(str(error))
        reached, last = minutes_to(GOAL, seen), seen[-1]
        rows.append([
            name, "-" if reached is None else f"{reached:.1f}", f"{last['minutes']:.1f}",
            f"{last['step']}", f"{last['mean']:.1%}", f"{last['all at once']:.1%}",
        ])  # fmt: skip
    print(table(["", f"minutes to {GOAL:.0%}", "minutes", "steps", "named", "all"], rows))


if __name__ == "__main__":
    main()
