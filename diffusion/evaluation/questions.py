"""What an evaluation asks a model to paint, and which pictures would have been right answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from diffusion.datasets import captions
from diffusion.datasets.garden import (
    ATTRIBUTES,
    GROWS,
    HELD_OUT,
    Scene,
    draw_scenes,
    is_held_out,
    is_there,
    sample_scenes,
    shows,
)

Marks = dict[str, Bool[np.ndarray, "captions pictures"]]  # by attribute

LANGUAGES = tuple(captions.LANGUAGES)
SEED = 2_000_003  # with two numbers more: a training has one, so none draws the same scenes
DRAWN = 64  # scenes at a time, of which those are kept that fit
TRIED = 1024  # the same, where few fit
ALONE = ("house", "roof", "roof_shape", "door", "sky", "light", "style")  # drawn without regard
# to anything else; of the others, the season decides the weather and what grows


@dataclass(frozen=True)
class Question:
    """A caption of a scene that nobody was trained on, and what it says."""

    text: str
    language: str
    named: Mapping[str, int]  # attribute -> position of the value that the words name
    scene: Scene  # one that fits, a batch of one


def stream(seed: int, use: int) -> np.random.Generator:
    """The random numbers of one use in an evaluation: never those of a training."""
    return np.random.default_rng([SEED, seed, use + 1])  # (zeros at the end count for nothing)


def scene_of(scenes: Scene, index: int) -> Scene:
    return Scene(*(field[index : index + 1] for field in scenes))


def ask(scene: Scene, rng: np.random.Generator, language: str, motion: str = "") -> Question:
    said = captions.caption(scene, 0, rng, language, motion=motion)
    named = {name: int(getattr(scene, name)[0]) for name in ATTRIBUTES if name in said.named}
    return Question(said.text, language, named, scene)


def questions(count: int, language: str, seed: int = 0) -> list[Question]:
    """`count` captions that name anything at all, as people speak, of scenes of their own."""
    rng = stream(seed, LANGUAGES.index(language))
    found: list[Question] = []
    while len(found) < count:
        scenes = sample_scenes(rng, DRAWN)
        asked = [ask(scene_of(scenes, i), rng, language) for i in range(DRAWN)]
        found += [question for question in asked if question.named]
    return found[:count]


def held_out_pairs(
    count: int, language: str, seed: int = 0
) -> tuple[list[Question], list[Question]]:
    """Captions that name a held-out combination in full, and their twins, which were seen.

    The twin of "a purple house with a green roof" is, say, "a purple house with a red roof": one
    attribute of the combination has another value, and the sentence is nearly always the same.
    """
    rng = stream(seed, len(LANGUAGES) + LANGUAGES.index(language))
    held: list[Question] = []
    twins: list[Question] = []
    while len(held) < count:
        wanted = HELD_OUT[len(held) % len(HELD_OUT)]
        scenes = sample_scenes(rng, TRIED, held_out=True)
        for i in np.flatnonzero(shows(scenes, wanted)):
            scene = scene_of(scenes, int(i))
            wording = int(rng.integers(2**32))
            question = ask(scene, np.random.default_rng(wording), language)
            if not _says(question, wanted):
                continue
            other = _twin(scene, wanted, rng)
            if other is None:
                continue
            twin = ask(other, np.random.default_rng(wording), language)
            if twin.named.keys() == question.named.keys():
                held.append(question)
                twins.append(twin)
                break
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
    """Scenes that are right answers, too: those that fit the words, each as likely as it is.

    What is drawn alone, such as a colour of the house, is set to what was named. What hangs
    together is drawn until it fits: so a flower whose colour is left open has any, and winter its
    own weather. Held-out combinations are answers to captions of such scenes alone.
    """
    held_out = bool(is_held_out(question.scene)[0])
    kept: list[Scene] = []
    found = 0
    while found < count:
        drawn = draw_scenes(rng, TRIED)
        named = {name: value for name, value in question.named.items() if name in ALONE}
        scenes = drawn._replace(
            **{name: np.full(TRIED, value, np.int32) for name, value in named.items()}
        )
        fits = implied(scenes, question.named) & (is_held_out(scenes) == held_out)
        for name, value in question.named.items():
            fits &= getattr(scenes, name) == value
        index = np.flatnonzero(fits)[: count - found]
        kept.append(Scene(*(field[index] for field in scenes)))
        found += len(index)
    return Scene(*(np.concatenate(fields) for fields in zip(*kept, strict=True)))


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
