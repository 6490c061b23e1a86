"""How few steps lose nothing? Samplers, spacings and steps beside each other, by the judge.

    python -m diffusion.evaluation.few_steps --captions 250 --output runs/few_steps.json
    python -m diffusion.evaluation.few_steps --model garden-fast --own --output runs/fast.json

Prints a row a case as it is done: named things right, pictures with all of them, squared Fréchet
distance to fresh drawings, and the standard deviation of the finished latents, which is 1 where
pictures are as strong as drawn ones.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion.config import SamplingConfig
from diffusion.datasets.garden import sample_scenes
from diffusion.evaluation import judge as judges
from diffusion.evaluation.answers import answered, drawn
from diffusion.evaluation.judge import TrainedJudge
from diffusion.evaluation.measures import frechet
from diffusion.evaluation.questions import LANGUAGES, Question, questions, stream
from diffusion.evaluation.scores import marks
from diffusion.loading import load
from diffusion.pipeline import Artist
from diffusion.runtime.parameters import fingerprint
from diffusion.weights.folder import write_json
from diffusion.weights.places import read_json

CASES = [
    SamplingConfig("dpm++2m", 25, "leading"),
    *(
        SamplingConfig(sampler, steps, spacing)
        for steps in (2, 3, 4, 6, 8)
        for sampler in ("euler", "dpm++2m")
        for spacing in ("leading", "trailing")
    ),
    *(SamplingConfig("heun", steps, "trailing") for steps in (2, 3, 4)),  # 3, 5 and 7 calls
    *(SamplingConfig("euler_a", steps, "trailing") for steps in (4, 8)),
]


def measure(
    artist: Artist,
    judge: TrainedJudge,
    asked: list[Question],
    features: np.ndarray,
    case: SamplingConfig,
    guidance: float | None = None,
) -> dict[str, float]:
    """One picture of each caption; question i is seed i.

    Args:
        features: the judge's, of fresh drawings.
        guidance: None: the model's own.
    """
    latents = []
    for seed, question in enumerate(tqdm(asked, desc=str(astuple(case)), leave=False)):
        *_, last = artist.sample(
            question.text, seed=seed, sampler=case.sampler, steps=case.steps, spacing=case.spacing,
            guidance=guidance,
        )  # fmt: skip
        latents.append(np.asarray(last.x_next))
    pictures = artist.decode(jnp.asarray(np.concatenate(latents)))[:, None]
    group = answered(asked, judge, lambda _: pictures)
    found = marks(asked, group.values)
    return {
        "right": found["mean"].share,
        "all at once": found["all at once"].share,
        "frechet": frechet(group.verdict.features, features),
        "deviation": float(np.std(latents)),
    }


def before(output: Path, asks: dict[str, Any]) -> dict[str, Any]:
    """The marks that a file holds already.

    Raises ValueError where they are those of another model, or of other captions.
    """
    if not output.exists():
        return {}
    known = read_json(output)
    if known.get("asks") != asks:
        raise ValueError(
            f"{output} holds the marks of another model, or of other captions; name another "
            "--output"
        )
    marks: dict[str, Any] = known["marks"]
    return marks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusion.evaluation.few_steps")
    parser.add_argument("--model", default="garden")
    parser.add_argument("--captions", type=int, default=250, help="of each language (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own", action="store_true", help="only as the model paints by itself")
    parser.add_argument("--output", type=Path, required=True, help="a JSON file; goes on with it")
    options = parser.parse_args(arguments)
    artist, judge = load(options.model), judges.load(None)
    asks = {
        "model": fingerprint([network.params for network in artist.networks]),
        "captions": options.captions,
        "seed": options.seed,
    }
    try:
        done = before(options.output, asks)
    except ValueError as error:
        parser.error(str(error))
    asked = [q for name in LANGUAGES for q in questions(options.captions, name, options.seed)]
    fresh = drawn(sample_scenes(stream(options.seed, 30), len(asked)), artist.config.image_size)
    features = judge(fresh).features
    print(
        "| sampler, steps, spacing | right | all at once | Fréchet | deviation |\n"
        + "| --- " * 5
        + "|"
    )
    for case in [artist.config.sampling] if options.own else CASES:
        name = ", ".join(map(str, astuple(case)))
        if name not in done:
            done[name] = measure(artist, judge, asked, features, case)
            write_json(options.output, {"asks": asks, "marks": done})
        row = done[name]
        print(
            f"| {name} | {row['right']:.1%} | {row['all at once']:.1%} | {row['frechet']:.0f} "
            f"| {row['deviation']:.3f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
