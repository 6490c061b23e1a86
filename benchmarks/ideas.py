"""What does each idea of the speedrun's U-Net buy? One at a time, all for as long, under two seeds.

    python -m benchmarks.ideas --minutes 10 --output runs/ideas

The U-Net begins with random weights and learns with garden64's text encoder and VAE, by the recipe
of `make speedrun` with one change. When its minutes are over, a judge looks at its pictures. Goes
on where it was if it is stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.speedrun import RECIPES, Examiner, parser
from diffusion.config import SamplingConfig
from diffusion.evaluation.tables import table
from diffusion.runtime.compilation_cache import keep_compilations
from diffusion.runtime.devices import described
from diffusion.runtime.parameters import Params
from diffusion.training.beginning import copy_of
from diffusion.training.recipe import train_part
from diffusion.weights.folder import load_config, shipped

CASES: dict[str, tuple[str, ...]] = {  # what each changes in the recipe
    "the recipe: Muon at 0.002, batches of 8": (),
    "AdamW at 0.001": ("optimizer=adamw", "learning_rate=0.001"),
    "Muon at 0.005": ("learning_rate=0.005",),
    "batches of 4": ("batch_size=4",),
}
SEEDS = (0, 1)
LOOKS_EVERY = 50  # steps: whether the minutes are over
COLUMNS = (("step", "{:.0f}"), ("mean", "{:.1%}"), ("all at once", "{:.1%}"))
QUICK = SamplingConfig("dpm++2m", 8, "trailing")  # how the judge's pictures are painted


class TimeIsUp(Exception):
    """Ends a training."""


class Deadline:
    """Ends a training after its minutes, when an examiner has looked."""

    def __init__(self, examiner: Examiner, minutes: float):
        self.examiner, self.minutes = examiner, minutes

    def __call__(self, step: int, seconds: float, params: Params) -> None:
        if seconds >= 60 * self.minutes:
            self.examiner(step, seconds, params)
            raise TimeIsUp


def run(
    name: str, seed: int, output: Path, minutes: float, captions: int, settings: Sequence[str] = ()
) -> dict[str, float]:
    """Train one of `CASES` into the folder `output`; what the judge saw at the end.

    Raises ValueError where the training ends before its minutes do.
    """
    start = shipped("garden64")
    copy_of(start, output, replace(load_config(start), sampling=QUICK), "unet")
    examiner = Examiner(output, captions, before=lambda _: 0.0)
    if not examiner.seen():
        chosen = [*RECIPES["now"]["unet"], f"picture_every={LOOKS_EVERY}", f"seed={seed}"]
        try:
            train_part("unet", output, [*chosen, *CASES[name], *settings],
                       Deadline(examiner, minutes))  # fmt: skip
        except TimeIsUp:
            pass
        else:
            raise ValueError(
                f"{name}: all steps are done before the {minutes:g} minutes are; ask for fewer "
                "with --minutes, or name another --output"
            )
    return examiner.seen()[-1]


def main(argv: Sequence[str] | None = None) -> None:
    options = parser("ideas", __doc__)
    options.add_argument("--minutes", type=float, default=10.0, help="of each (%(default)s)")
    arguments = options.parse_args(argv)
    keep_compilations()
    print(described())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for seed in SEEDS:
        for i, name in enumerate(CASES):
            output = arguments.output / f"{i}-{seed}"
            try:
                seen = run(name, seed, output, arguments.minutes, arguments.captions, arguments.set)
            except ValueError as error:
                options.error(str(error))
            found[name].append(seen)
    rows = [
        [name, *(" and ".join(form.format(one[of]) for one in seen) for of, form in COLUMNS)]
        for name, seen in found.items()
    ]
    print(table([f"after {arguments.minutes:g} minutes", "steps", "named", "all at once"], rows))


if __name__ == "__main__":
    main()
