"""Does what is said happen, and does the rest stand still? Films, seen by the judge of pictures.

    python -m diffusion.evaluation.films --model runs/film --captions 100 --output runs/films.json

Stopped, it goes on where it was. Prints a row a group: captions in each language, those of
combinations of motion and scene that training never saw, and pairs of captions of which one goes
over into the other. Each stands beside drawn films that went through the VAE, and the painted films
beside captions of others, which is chance.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from diffusion.datasets.garden import ATTRIBUTES, Clips, render_clips, sample_clips
from diffusion.datasets.garden.motion import CHANGES, MOTIONS
from diffusion.evaluation import film_measures as measures
from diffusion.evaluation import judge as judges
from diffusion.evaluation.film_measures import Frames, View
from diffusion.evaluation.judge import TrainedJudge
from diffusion.evaluation.questions import LANGUAGES, ask, scene_of, stream
from diffusion.evaluation.tables import table
from diffusion.filming import FilmArtist
from diffusion.images import to_uint8
from diffusion.loading import load
from diffusion.picture_files import check_writable
from diffusion.runtime.parameters import fingerprint
from diffusion.weights.folder import write_json

LENGTH = 16  # frames
KEPT = 25  # films of which is kept at a time what was seen in them
MOVED = 0.04  # sides of the picture, from which on a view has moved
DRIFTED = 0.2  # the same for clouds
SWAYS = 0.2  # share of the change that comes and goes
STANDS = 0.055  # mean change from first to last frame of what stands still, rain included
FALLS = ("rain", "snow")
SHARES = (  # of a report, in per cent
    "named, right in all frames",
    "stays from first to last frame",
    "named motion happens",
    "still scenes stay still",
)

Paint = Callable[["FilmQuestion", int], Frames]


@dataclass(frozen=True)
class FilmQuestion:
    """A caption of a clip that nobody was trained on, and what it says."""

    text: str
    named: Mapping[str, int]  # attribute -> position of the value that the words name
    motion: str  # one of MOTIONS; "": nothing happens
    clip: Clips  # one that fits, a batch of one
    to: str | None = None  # the caption at the end, where words tell the motion by changing


class Seen(NamedTuple):
    """What is seen in a film."""

    values: Mapping[str, Int[np.ndarray, " f"]]  # of each attribute, frame by frame
    view: View
    drift: float
    sways: float
    change: float
    flicker: float


def questions(
    count: int, language: str, seed: int = 0, *, held_out: bool = False
) -> list[FilmQuestion]:
    """`count` captions of clips, a fifth of them of gardens in which nothing happens."""
    rng = stream(seed, 50 + 10 * held_out + LANGUAGES.index(language))
    found: list[FilmQuestion] = []
    for clip, motion in _clips(rng, held_out):
        said = ask(clip.scenes, rng, language, motion)
        if said.named:
            found.append(FilmQuestion(said.text, said.named, motion, clip))
        if len(found) == count:
            break
    return found


def journeys(count: int, language: str, seed: int = 0) -> list[FilmQuestion]:
    """`count` pairs of captions: of a garden as it is before something happens, and afterwards."""
    rng = stream(seed, 70 + LANGUAGES.index(language))
    found: list[FilmQuestion] = []
    for clip, motion in _clips(rng):
        if motion in CHANGES:
            found += _journey(clip, motion, rng, language)
        if len(found) == count:
            break
    return found


def _clips(rng: np.random.Generator, held_out: bool = False) -> Iterator[tuple[Clips, str]]:
    """Clips without end, a batch of one each, and what happens in it."""
    names = [*MOTIONS, ""]
    while True:
        clips = sample_clips(rng, 8, held_out=held_out)
        for i, position in enumerate(clips.motion):
            yield Clips(scene_of(clips.scenes, i), clips.motion[i : i + 1]), names[int(position)]


def _journey(
    clip: Clips, motion: str, rng: np.random.Generator, language: str
) -> list[FilmQuestion]:
    """Two captions that differ in what changes, and name something else; none after 50 tries."""
    name, _, *ends = CHANGES[motion]
    values = [ATTRIBUTES[name].index(end) for end in ends]
    scenes = [clip.scenes._replace(**{name: np.full(1, value, np.int32)}) for value in values]
    for key in rng.integers(2**32, size=50):
        first, last = (ask(scene, np.random.default_rng(key), language) for scene in scenes)
        stays = {each: value for each, value in first.named.items() if each != name}
        said = [stays | {name: value} for value in values]
        if stays and [first.named, last.named] == said:
            return [FilmQuestion(first.text, stays, motion, clip, last.text)]
    return []


def look(film: Frames, judge: TrainedJudge) -> Seen:
    grey = measures.grey(film)
    return Seen(
        judge(film).values,
        measures.view(grey),
        measures.drift(grey),
        measures.swaying(grey),
        measures.change(grey),
        measures.flicker(grey),
    )


def _changed(seen: Seen, motion: str) -> bool:
    """Has the first frame what is there before, and the last what is there afterwards?"""
    name, _, before, after = CHANGES[motion]
    values, words = seen.values[name], ATTRIBUTES[name]
    return words[values[0]] == before and words[values[-1]] == after


def happens(seen: Seen, motion: str) -> bool:
    """Does it happen in this film?"""
    if motion in CHANGES:
        return _changed(seen, motion)
    shift, scale = seen.view
    return {
        "clouds drift left": seen.drift <= -DRIFTED,
        "clouds drift right": seen.drift >= DRIFTED,
        "trees sway": seen.sways >= SWAYS,
        # What is seen goes to the other side.
        "view moves left": shift >= MOVED,
        "view moves right": shift <= -MOVED,
        "view comes closer": scale > 1,
        "view widens": scale < 1,
    }[motion]


def stands_still(seen: Seen) -> bool:
    """Nothing happens: view, hour, season and weather stay, and little else changes."""
    stays = all(seen.values[name][0] == seen.values[name][-1]
                for name in ("sky", "season", "weather"))  # fmt: skip
    still = abs(seen.view.shift) < MOVED and seen.view.scale == 1
    return stays and still and seen.change <= STANDS


def report(asked: Sequence[FilmQuestion], seen: Sequence[Seen]) -> dict[str, Any]:
    """Shares of what is right; None where nothing was asked."""
    both = list(zip(asked, seen, strict=True))
    right = [(one.values[name] == value) for question, one in both
             for name, value in question.named.items()
             if name not in _changing(question)]  # fmt: skip
    stays = [one.values[name][0] == one.values[name][-1] for question, one in both
             for name in ATTRIBUTES if name not in _changing(question)]  # fmt: skip
    moving = {motion: [happens(one, motion) for question, one in both if question.motion == motion]
              for motion in MOTIONS}  # fmt: skip
    still = [stands_still(one) for question, one in both if not question.motion]
    calm = [one.flicker for question, one in both if _below_is_calm(question, one)]
    return {
        "films": len(both),
        "named, right in all frames": _mean([frames.all() for frames in right]),
        "named, right in a frame": _mean([frames.mean() for frames in right]),
        "stays from first to last frame": _mean(stays),
        "named motion happens": _mean([found for each in moving.values() for found in each]),
        "still scenes stay still": _mean(still),
        "flicker": _mean(calm),
        "motions": {name: [int(sum(found)), len(found)] for name, found in moving.items()},
    }


def _mean(found: Sequence[Any]) -> float | None:
    return float(np.mean(found)) if found else None


def _changing(question: FilmQuestion) -> tuple[str, ...]:
    """What may be another at the end: what changes; with the hour, where sun and moon stand."""
    if question.motion not in CHANGES:
        return ()
    name = CHANGES[question.motion][0]
    return (name, "light") if name == "sky" else (name,)


def _below_is_calm(question: FilmQuestion, seen: Seen) -> bool:
    falls = [ATTRIBUTES["weather"].index(name) for name in FALLS]
    calm = question.motion in ("clouds drift left", "clouds drift right")
    return calm and not np.isin(seen.values["weather"], falls).any()


def painter(artist: FilmArtist) -> Paint:
    """Question i is seed i."""
    return lambda question, seed: artist.film(
        question.text, to=question.to, seed=seed, frames=LENGTH
    )


def drawer(artist: FilmArtist) -> Paint:
    """The clip itself, after the VAE: the most that can be asked for."""
    size = artist.config.image_size
    draw = jax.jit(lambda clip: render_clips(clip, LENGTH, size)[0])
    return lambda question, _: artist.decode(artist.encode(to_uint8(draw(question.clip))))


def answered(
    asked: Sequence[FilmQuestion],
    paint: Paint,
    judge: TrainedJudge,
    name: str,
    kept: Path | None = None,
) -> list[Seen]:
    """What is seen in the film of each question; question i is seed i.

    Args:
        kept: a folder that keeps what was seen, and gives it back; so whoever is stopped goes on
            where that was. All that `paint` and `judge` depend on is to be in its name.
    """
    found: list[Seen] = []
    with tqdm(total=len(asked), desc=name, unit="film", leave=False) as shown:
        for start in range(0, len(asked), KEPT):
            some = asked[start : start + KEPT]
            told = json.dumps([name, start, [(one.text, one.to, one.motion) for one in some]])
            file = kept and kept / f"{hashlib.sha256(told.encode()).hexdigest()}.json"
            seen = _read(file) if file and file.exists() else None
            if seen is None:
                seen = []
                for seed, question in enumerate(some, start):
                    seen.append(look(paint(question, seed), judge))
                    shown.update()
                if file:
                    write_json(file, {"seen": [_written(one) for one in seen]})
            else:
                shown.update(len(some))
            found += seen
    return found


def _written(seen: Seen) -> dict[str, Any]:
    values = {name: each.tolist() for name, each in seen.values.items()}
    return seen._asdict() | {"values": values, "view": list(seen.view)}


def _read(file: Path) -> list[Seen] | None:
    """What a file keeps; None where it is damaged."""
    try:
        rows = json.loads(file.read_text("utf-8"))["seen"]
        return [
            Seen(**row | {"values": {name: np.array(each) for name, each in row["values"].items()},
                          "view": View(*row["view"])})
            for row in rows
        ]  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _mark(artist: FilmArtist, judge: TrainedJudge) -> str:
    """Tells an artist and a judge from all others."""
    networks = [*artist.networks]
    networks += [artist.motion.adapter] if artist.motion else []
    networks += [artist.travel.network] if artist.travel else []
    params = [network.params for network in networks]
    told = fingerprint([*params, judge.params]) + repr(artist.film_config)
    return hashlib.sha256(told.encode()).hexdigest()


def evaluate(
    artist: FilmArtist, judge: TrainedJudge, captions: int, seed: int, kept: Path
) -> dict[str, Any]:
    """A report for each group.

    Args:
        kept: a folder for what was seen until all is; it is removed then.
    """
    groups = {language: questions(captions, language, seed) for language in LANGUAGES}
    few = max(2, captions // 4)
    unseen = [questions(few, language, seed, held_out=True) for language in LANGUAGES]
    groups["held out"] = [question for some in unseen for question in some]
    changing = [journeys(few, language, seed) for language in LANGUAGES]
    groups["words change"] = [question for some in changing for question in some]
    found, paint, draw = {}, painter(artist), drawer(artist)
    place = kept / _mark(artist, judge)
    for name, asked in groups.items():
        seen = answered(asked, paint, judge, f"painting, {name}", place)
        found[name] = report(asked, seen)
        drawn = answered(asked, draw, judge, f"drawing, {name}", place)
        found[f"{name}, drawn"] = report(asked, drawn)
        others = stream(seed, 80).permutation(len(asked))
        found[f"{name}, captions shuffled"] = report([asked[i] for i in others], seen)
    shutil.rmtree(place)
    if not any(kept.iterdir()):
        kept.rmdir()
    return found


def page(found: Mapping[str, Any]) -> str:
    """A table of all groups, and one of what happens: motion by motion, of so many films."""

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def times(right: int, total: int) -> str:
        return f"{right} of {total}" if total else "-"

    rows = [
        [name, str(row["films"]), *(share(row[measure]) for measure in SHARES),
         "-" if row["flicker"] is None else f"{row['flicker']:.4f}"]
        for name, row in found.items()
    ]  # fmt: skip
    motions = [
        [motion, *(times(*row["motions"][motion]) for row in found.values())] for motion in MOTIONS
    ]
    return "\n\n".join(
        [table(["", "films", *SHARES, "flicker"], rows), table(["happens", *found], motions)]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusion.evaluation.films")
    parser.add_argument("--model", default="garden")
    parser.add_argument("--captions", type=int, default=100, help="of each language (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="a JSON file")
    options = parser.parse_args()
    if options.captions < 2:
        parser.error(f"captions is {options.captions}; ask for 2 or more in each language")
    try:
        check_writable(options.output.parent)
    except OSError as error:
        parser.error(str(error))
    artist = load(options.model)
    if artist.motion is None:
        parser.error(f"--model {options.model} has no motion modules, so its films are walks")
    kept = options.output.with_suffix(".unfinished")
    found = evaluate(artist, judges.load(None), options.captions, options.seed, kept)
    write_json(options.output, found)
    print(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
