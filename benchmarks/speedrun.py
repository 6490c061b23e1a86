"""`make speedrun`: train everything from nothing, and say how right its pictures are, and when.

The minutes are those of training; judging is left out. Goes on where it was if it is stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from diffusion.art_class import Artist, TextEncoderStage, UNetStages, VAEStages
from diffusion.cli import keep_compilations
from diffusion.datasets.garden import ATTRIBUTES
from diffusion.evaluation import judge
from diffusion.evaluation.evaluate import answered, joined, marks, painted
from diffusion.evaluation.questions import LANGUAGES, questions
from diffusion.layers.machine import described
from diffusion.training.recipe import PARTS, train_part
from diffusion.weights import folder
from diffusion.weights.files import Params, read_json

PICTURES = 4  # of each caption
STAGES: dict[str, Any] = {"text_encoder": TextEncoderStage, "vae": VAEStages}


class Examiner:
    """Looks at the pictures of a U-Net in training, with as many captions as are asked for."""

    def __init__(self, output: Path, captions: int):
        self.output = output
        self.judge = judge.load()
        self.asked = [questions(captions, language) for language in LANGUAGES]
        self.params: Params = {}
        self.artist: Artist | None = None

    def __call__(self, step: int, seconds: float, params: Params) -> None:
        self.params = params
        if self.artist is None:
            self.artist = self._artist()
        self.artist.unet.release()  # the next picture reads them anew
        artist = self.artist
        paint = lambda asked: painted(artist, asked, PICTURES)  # noqa: E731
        group = joined([answered(asked, self.judge, paint) for asked in self.asked])
        found = marks(group.asked, group.values)
        minutes = before(self.output) + seconds / 60
        shares = {name: found[name].share for name in ("mean", "all at once", *ATTRIBUTES)}
        line = {"step": step, "minutes": round(minutes, 1)}
        line |= {name: round(share, 3) for name, share in shares.items()}
        print(json.dumps(line), flush=True)
        with (self.output / "speedrun.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _artist(self) -> Artist:
        config = folder.load_config(self.output)

        def stage(part: str) -> Any:
            structure, _ = folder.structure_of(config, part)
            params = folder.load_part(self.output, config, part)[1]
            return STAGES[part](structure, lambda: params)

        return Artist(
            config,
            folder.load_tokenizer(self.output),
            stage("text_encoder"),
            UNetStages(folder.structure_of(config, "unet")[0], lambda: self.params),
            stage("vae"),
        )


def before(output: Path) -> float:
    """Minutes that the parts before the U-Net were trained for."""
    card = read_json(output / "training.json")
    return float(sum(part.get("minutes", 0.0) for name, part in card.items() if name != "unet"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speedrun", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/speedrun"), metavar="FOLDER")
    parser.add_argument("--captions", type=int, default=30, metavar="N", help="in each language")
    arguments = parser.parse_args()
    keep_compilations()
    print(described())
    examiner = Examiner(arguments.output, arguments.captions)
    for part in PARTS:
        train_part(part, arguments.output, watch=examiner if part == "unet" else None)


if __name__ == "__main__":
    main()
