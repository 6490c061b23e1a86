"""What every language has: words for the parts of a sentence, and an order for the parts."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

Words = Mapping[str, Sequence[str]]  # value of an attribute -> ways to say it
Values = Mapping[str, str]  # attribute -> its value in a scene, both as in `garden.ATTRIBUTES`

_DIGIT_SHARE = 0.06  # of the numbers: "2 pines"


class Parts(NamedTuple):
    """The parts of a sentence about a scene; a part that is not said is empty."""

    house: str  # noun phrase: "a red house"
    features: list[str]  # what belongs to the house: "a blue roof", "a green door"
    trees: str  # "two old trees"
    flowers: str  # "yellow flowers"
    settings: list[str]  # "at night", "in the rain"
    light: str  # "the moon on the left"
    style: str  # value of the attribute, for the language to put in words


class Language(NamedTuple):
    """How one language turns what a caption names into text."""

    name: str  # in English

    describe: Callable[[Values, Values, np.random.Generator, bool], Parts]
    """`describe(scene, named, rng, keywords)` puts the values of `named` into words. `scene` has
    the values of all attributes: whether a light is the sun or the moon depends on the hour. With
    `keywords`, the parts are to stand in a list, not in a sentence."""

    arrange: Callable[[Parts, np.random.Generator], str]
    """`arrange(parts, rng)` makes one sentence of them."""

    style: Words  # keywords for how a picture is painted
    capitals: Mapping[str, str] = {}  # letter -> its capital, where `str.upper` is wrong
    plain: Mapping[int, str | int | None] | None = None
    """For `str.translate`: what people type who lack the language's own letters."""

    motions: Words = MappingProxyType({})
    """Of `garden.motion.MOTIONS`: whole clauses, "it begins to snow"."""

    joints: Sequence[str] = (", ",)  # what stands between a scene and what happens in it


def speaker(
    words: Mapping[str, Words], named: Values, rng: np.random.Generator
) -> Callable[[str], str]:
    """`say(attribute)`: one of the words for its value; nothing for what is not named."""

    def say(attribute: str) -> str:
        return pick(words[attribute][named[attribute]], rng) if attribute in named else ""

    return say


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options, each as likely as the others."""
    return options[int(rng.random() * len(options))]


def pick_number(options: Sequence[str], rng: np.random.Generator) -> str:
    """A number as a word, or now and then as a digit."""
    word, digit = options
    return digit if rng.random() < _DIGIT_SHARE else word


def shuffle(items: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The items in random order."""
    return [items[i] for i in rng.permutation(len(items))]


def phrase(*words: str) -> str:
    """The words that are there, with a space between them."""
    return " ".join(word for word in words if word)
