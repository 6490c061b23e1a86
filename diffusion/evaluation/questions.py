"""What an evaluation asks a model to paint, and which pictures would have been right answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from diffusion.datasets.captions import caption
from diffusion.datasets.garden import (
    ATTRIBUTES,
    GROWS,
    HELD_OUT,
    Scene,
    is_held_out,
    is_there,
    sample_scenes,
)

Marks = dict[str, Bool[np.ndarray, "captions pictures"]]  # by attribute

LANGUAGES = ("en", "tr")
SEED = 2_000_003  # of questions: no training has it
DRAWN = 64  # scenes at a time, of which those are kept that fit


@dataclass(frozen=True)
class Question:
    """A caption of a scene that nobody was trained on, and what it says."""

    text: str
    language: str
    named: Mapping[str, int]  # attribute -> position of the value that the words name
    scene: Scene  # one that fits, a batch of one


def scene_of(scenes: Scene, index: int) -> Scene:
    return Scene(*(field[index : index + 1] for field in scenes))


def ask(scene: Scene, rng: np.random.Generator, language: str) -> Question:
    said = caption(scene, 0, rng, language)
    named = {name: int(getattr(scene, name)[0]) for name in ATTRIBUTES if name in said.named}
    return Question(said.text, language, named, scene)


def questions(count: int, language: str, seed: int = SEED) -> list[Question]:
    """`count` captions that name anything at all, as people speak, of scenes of their own."""
    rng = np.random.default_rng([seed, LANGUAGES.index(language)])
    found: list[Question] = []
    while len(found) < count:
        scenes = sample_scenes(rng, DRAWN)
        asked = [ask(scene_of(scenes, i), rng, language) for i in range(DRAWN)]
        found += [question for question in asked if question.named]
    return found[:count]


def held_out_pairs(
    count: int, language: str, seed: int = SEED
) -> tuple[list[Question], list[Question]]:
    """Captions that name a held-out combination in full, and their twins, which were seen.

    The twin of "a purple house with a green roof" is, say, "a purple house with a red roof": one
    attribute of the combination has another value, and the sentence is nearly always the same.
    """
    rng = np.random.default_rng([seed, len(LANGUAGES) + LANGUAGES.index(language)])
    held: list[Question] = []
    twins: list[Question] = []
    while len(held) < count:
        scenes = sample_scenes(rng, DRAWN, held_out=True)
        for i in range(DRAWN):
            scene, wanted = scene_of(scenes, i), HELD_OUT[len(held) % len(HELD_OUT)]
            wording = int(rng.integers(2**32))
            question = ask(scene, np.random.default_rng(wording), language)
            if not _says(question, wanted):
                continue
            other = _twin(scene, wanted, rng)
            if other is None:
                continue
            twin = ask(other, np.random.default_rng(wording), language)
            if twin.named.keys() == question.named.keys() and len(held) < count:
                held.append(question)
                twins.append(twin)
    return held, twins


def _says(question: Question, combination: Mapping[str, str]) -> bool:
    return all(
        question.named.get(name) == ATTRIBUTES[name].index(word)
        for name, word in combination.items()
    )


def _twin(scene: Scene, combination: Mapping[str, str], rng: np.random.Generator) -> Scene | None:
    """The scene with the combination's last colour, kind or hour changed, until it is not held out.

    The season stays: it decides what may fall from the sky. None: the scene has another held-out
    combination as well, and stays held out whatever that one becomes.
    """
    name = [name for name in combination if name != "season"][-1]

    def changed(value: int) -> Scene:
        return scene._replace(**{name: np.full(1, value, np.int32)})

    fit = [not is_held_out(changed(value))[0] for value in range(len(ATTRIBUTES[name]))]
    if not any(fit):
        return None
    while not fit[value := int(rng.integers(len(fit), size=1)[0])]:
        pass
    return changed(value)


def others(question: Question, count: int, rng: np.random.Generator) -> Scene:
    """Scenes that are right answers, too: what the caption names is kept, the rest is drawn anew.

    Drawn as all scenes are, and then dressed in what was named, until nothing contradicts: no rain
    in winter, no snow in summer, no colour of flowers that are not there, no moon for a sun.
    """
    kept: list[Scene] = []
    found = 0
    while found < count:
        drawn = sample_scenes(rng, DRAWN)
        named = {name: np.full(DRAWN, value, np.int32) for name, value in question.named.items()}
        scenes = drawn._replace(**named)
        fits = np.flatnonzero(possible(scenes) & implied(scenes, question.named))[: count - found]
        kept.append(Scene(*(field[fits] for field in scenes)))
        found += len(fits)
    return Scene(*(np.concatenate(fields) for fields in zip(*kept, strict=True)))


def possible(scenes: Scene) -> Bool[np.ndarray, " b"]:
    """Which scenes have a weather of their season."""
    winter = np.asarray(scenes.season) == ATTRIBUTES["season"].index("winter")
    rain, snow = (
        np.asarray(scenes.weather) == ATTRIBUTES["weather"].index(name) for name in ("rain", "snow")
    )
    return ~(winter & rain) & ~(~winter & snow)


def implied(scenes: Scene, named: Collection[str]) -> Bool[np.ndarray, " b"]:
    """Which scenes fit what is meant, but not named, by whoever names these attributes.

    What has a kind or a colour is there, "pines" are more than one, and the sun is no moon.
    """
    fits = np.ones(np.shape(scenes.house), bool)
    for name in named:
        fits &= is_there(scenes, name)
    if "tree_kind" in named and "trees" not in named:
        fits &= np.asarray(scenes.trees) >= ATTRIBUTES["trees"].index("two")
    if "light" in named and "sky" not in named:
        fits &= np.asarray(scenes.sky) != ATTRIBUTES["sky"].index("night")
    return fits


def right(
    asked: Sequence[Question], values: Mapping[str, Int[np.ndarray, "captions pictures"]]
) -> tuple[Marks, Marks]:
    """Of each attribute: which pictures show what their caption names, and which have to.

    A tree has a kind only where there is a tree, a flower its colour only where there is a flower.
    """
    shown = {name: values[amount] > 0 for name, amount in GROWS.items()}
    matches, named = {}, {}
    for name, found in values.items():
        wanted = np.array([question.named.get(name, -1) for question in asked])[:, None]
        named[name] = np.broadcast_to(wanted >= 0, found.shape)
        matches[name] = (found == wanted) & shown.get(name, True)
    return matches, named
