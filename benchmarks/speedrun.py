"""`make speedrun`: train everything from nothing, and say how right its pictures are, and when.

The minutes are those of training; judging is left out. Goes on where it was if it is stopped.
`--recipe first` is the one of the first record, with AdamW and the steps of `diffusion train`; what
each change since then has brought is in docs/training.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from diffusion.atomic_write import atomic_write
from diffusion.datasets.garden import ATTRIBUTES
from diffusion.evaluation import judge
from diffusion.evaluation.evaluate import answered, joined, marks, painted
from diffusion.evaluation.questions import LANGUAGES, questions
from diffusion.pipeline import Artist
from diffusion.presets import garden64
from diffusion.runtime.compilation_cache import keep_compilations
from diffusion.runtime.devices import described
from diffusion.runtime.parameters import Params
from diffusion.runtime.programs import Network
from diffusion.training.recipe import PARTS, train_part
from diffusion.weights import folder
from diffusion.weights.architectures import SLOTS, structure

PICTURES = 4  # of each caption
GOAL = 0.9  # of what captions name
RECIPES: dict[str, dict[str, tuple[str, ...]]] = {  # of each part, what is not as in its preset
    "now": {
        "text": ("steps=600", "optimizer=muon", "learning_rate=0.005"),
        "vae": ("steps=800", "optimizer=muon", "picture_every=400"),
        "unet": ("steps=2500", "optimizer=muon", "learning_rate=0.002", "picture_every=250"),
    },
    "first": {},
}


def earlier(output: Path) -> float:
    """Minutes that text encoder and VAE were trained for; a tokenizer takes seconds."""
    card = folder.load_card(output)
    return float(sum(card[part]["minutes"] for part in ("text", "vae")))


class Examiner:
    """Looks at the pictures of a denoiser in training, with as many captions as are asked for.

    Args:
        before: the minutes that came before this training.
    """

    def __init__(self, output: Path, captions: int, before: Callable[[Path], float] = earlier):
        self.output, self.before = output, before
        self.file = output / "speedrun.jsonl"
        self.judge = judge.load()
        self.asked = [questions(captions, language) for language in LANGUAGES]
        self.params: Params = {}
        self.artist: Artist | None = None

    def __call__(self, step: int, seconds: float, params: Params) -> None:
        """Judge the pictures of these parameters, which belong to the training."""
        self.params = params
        if self.artist is None:
            self.artist = self._artist()
        artist = self.artist
        paint = lambda asked: painted(artist, asked, PICTURES)  # noqa: E731
        group = joined([answered(asked, self.judge, paint) for asked in self.asked])
        found = marks(group.asked, group.values)
        self.params = {}
        artist.denoiser.release()  # training goes on with their memory
        minutes = self.before(self.output) + seconds / 60
        shares = {name: found[name].share for name in ("mean", "all at once", *ATTRIBUTES)}
        captions = sum(map(len, self.asked))
        line = {"step": step, "minutes": round(minutes, 1), "captions": captions}
        # What no caption names has no share.
        line |= {name: round(share, 3) for name, share in shares.items() if share == share}
        tqdm.write(json.dumps(line))
        # What came after the last checkpoint is lived through again.
        lines = [*(look for look in self.seen() if look["step"] < step), line]
        with atomic_write(self.file) as draft:
            draft.write_text("".join(json.dumps(look) + "\n" for look in lines), "utf-8")

    def seen(self) -> list[dict[str, float]]:
        """What the judge has seen, look by look."""
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text("utf-8").splitlines()]

    def _artist(self) -> Artist:
        config = folder.load_config(self.output)

        def network(slot: str) -> Network:
            if slot == "denoiser":
                return Network(structure(config.denoiser)[0], lambda: self.params)
            form, params = folder.load_part(self.output, config, slot)
            return Network(form, lambda: params)

        return Artist(config, folder.load_tokenizer(self.output), *map(network, SLOTS))


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options of a benchmark in which a judge looks at a training."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    output = Path(f"runs/{name}")
    parser.add_argument("--output", type=Path, default=output, metavar="FOLDER")
    parser.add_argument("--captions", type=captions, default=30, metavar="N", help="a language")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="as of `diffusion train`"
    )
    return parser


def minutes_to(goal: float, seen: Sequence[dict[str, float]]) -> float | None:
    """When the judge first saw so much of what captions name; None: never."""
    return next((line["minutes"] for line in seen if line["mean"] >= goal), None)


def captions(text: str) -> int:
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"captions is {number}; ask for 2 or more")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    options = parser("speedrun", __doc__)
    options.add_argument("--recipe", choices=RECIPES, default="now")
    arguments = options.parse_args(argv)
    keep_compilations()
    print(described())
    examiner = Examiner(arguments.output, arguments.captions)
    for part in PARTS:
        watch = examiner if part == "unet" else None
        settings = [*RECIPES[arguments.recipe].get(part, ()), *arguments.set]
        try:
            train_part(part, arguments.output, settings, watch, new=garden64())
        except ValueError as error:
            options.error(str(error))
    reached = minutes_to(GOAL, examiner.seen())
    when = "not reached" if reached is None else f"after {reached:.1f} minutes"
    print(f"{GOAL:.0%} of what captions name: {when}")


if __name__ == "__main__":
    main()
