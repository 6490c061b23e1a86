"""Captions of scenes: which attributes a caption names, in which language, and how it is typed."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffusion.datasets.captions import english, turkish
from diffusion.datasets.captions.language import Language, Parts, Values, pick, shuffle
from diffusion.datasets.garden import ATTRIBUTES, GROWS, Scene, value
from diffusion.datasets.garden.motion import CHANGES, MOTIONS, Clips, possible

LANGUAGES: Mapping[str, Language] = {"en": english.ENGLISH, "tr": turkish.TURKISH}
"""The languages in which captions are written, by their ISO 639 codes."""

HALF_TURKISH: Mapping[str, float] = {"tr": 0.5, "en": 0.5}

# How many attributes a caption names: shares of 0, 1, 2, ... 13.
_HOW_MANY = np.array([3, 9, 16, 20, 18, 13, 8, 4, 3, 2, 1, 1, 1, 1]) / 100.0
_DETAILED = (5, 14)  # a detailed caption names at least 5 attributes, and fewer than 14
_HOUSE_SHARE = 0.88  # of the captions that name anything, how many name the colour of the house
_KEYWORD_SHARE = 0.15  # "red house, two trees, night"
_CAPITAL_SHARE = 0.20
_FULL_STOP_SHARE = 0.20
_OPENING_SHARE = 0.2  # of the captions that say what happens: it is said first
_PLAIN_SHARE = 0.10  # typed without the language's own letters


class Caption(NamedTuple):
    """A sentence about a scene."""

    text: str  # at most 60 words, mostly fewer than 30
    language: str  # its code in LANGUAGES
    named: frozenset[str]  # the attributes that the text states; it leaves the others open
    motion: str = ""  # what it says that happens, one of `garden.motion.MOTIONS`


class Travel(NamedTuple):
    """A sentence that says what happens, and what it says of the first and of the last picture."""

    text: str
    first: str
    last: str


def captions(
    scenes: Scene,
    rng: np.random.Generator,
    shares: Mapping[str, float] = HALF_TURKISH,
    detailed_share: float = 0.0,
    motion_share: float = 0.0,
) -> list[Caption]:
    """Write one caption for each scene.

    Args:
        shares: language -> its share of the captions. They add up to 1.
        detailed_share: the share of captions (0 to 1) that name 5 to 13 attributes, not the four
            or so that people name. A model learns more from a picture of which more is said.
        motion_share: the share of captions that say what happens, too.

    Raises ValueError if a language is not in `LANGUAGES` or the shares make no sense.
    """
    for language in shares:
        _check_language(language)
    if min(shares.values(), default=0.0) < 0.0 or not np.isclose(sum(shares.values()), 1.0):
        raise ValueError(f"shares is {dict(shares)}; give shares from 0 to 1 that add up to 1")
    for name, share in (("detailed_share", detailed_share), ("motion_share", motion_share)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} is {share}; give a share from 0 to 1")
    scenes = Scene(*(np.asarray(field) for field in scenes))
    languages, spoken = list(shares), np.array(list(shares.values()))
    written = []
    for i in range(len(scenes.house)):
        language, detailed = languages[_draw(spoken, rng)], rng.random() < detailed_share
        motion = ""
        if motion_share > 0.0 and rng.random() < motion_share:
            motion = any_motion(scenes, i, rng)
        written.append(caption(scenes, i, rng, language, detailed, motion))
    return written


def clip_captions(
    clips: Clips, rng: np.random.Generator, detailed_share: float = 0.0
) -> list[Caption]:
    """Write one caption for each clip, in all languages alike: its scene, and what happens."""
    names = [*MOTIONS, ""]
    return [
        caption(
            clips.scenes, i, rng, pick(list(LANGUAGES), rng), rng.random() < detailed_share,
            names[int(motion)],
        )
        for i, motion in enumerate(clips.motion)
    ]  # fmt: skip


def caption(
    scene: Scene,
    index: int,
    rng: np.random.Generator,
    language: str = "en",
    detailed: bool = False,
    motion: str = "",
) -> Caption:
    """Write a caption for picture `index` of the batch.

    Args:
        detailed: name 5 to 13 attributes.
        motion: what happens, one of `garden.motion.MOTIONS`; what it changes is not named.

    Raises ValueError if `language` is not in `LANGUAGES`.
    """
    _check_language(language)
    values = _values(scene, index)
    chosen = _choose(values, rng, detailed)
    if motion in CHANGES:
        chosen -= {CHANGES[motion][0]}
    speech = LANGUAGES[language]
    text, parts, keywords = _describe(values, chosen, speech, rng)
    if motion and motion in speech.motions:
        text = _with_clause(text, *_clause(motion, speech, parts, keywords, rng), rng)
    if "light" in chosen and values["sky"] == "night" and motion != "night falls":
        chosen |= {"sky"}  # whoever says moon says night
    return Caption(_as_typed(text, speech, rng), language, frozenset(chosen), motion)


def _describe(
    values: Values, chosen: Collection[str], speech: Language, rng: np.random.Generator
) -> tuple[str, Parts, bool]:
    """The words for what is chosen of a scene, their parts, and whether they are keywords."""
    named = {name: values[name] for name in ATTRIBUTES if name in chosen}
    keywords = rng.random() < _KEYWORD_SHARE
    parts = speech.describe(values, named, rng, keywords)
    text = _list_keywords(parts, speech, rng) if keywords else speech.arrange(parts, rng)
    return text, parts, keywords


def _clause(
    motion: str, speech: Language, parts: Parts, keywords: bool, rng: np.random.Generator
) -> tuple[str, str]:
    """What happens, in words, and what joins them to the scene's."""
    happens, joint = pick(speech.motions[motion], rng), pick(speech.joints, rng)
    # "pencil sketch while it snows" would be another thing
    return happens, ", " if keywords or parts.style else joint


def _with_clause(text: str, clause: str, joint: str, rng: np.random.Generator) -> str:
    return f"{clause}, {text}" if rng.random() < _OPENING_SHARE else f"{text}{joint}{clause}"


def travels(clips: Clips, rng: np.random.Generator, detailed_share: float = 0.0) -> list[Travel]:
    """Write for each clip a sentence of what happens, and one for either end.

    These say the same of the scene, and in place of the motion how things are before and
    afterwards: "a red house, the sun sets" -> "a red house, by day" and "a red house, at sunset".
    Where words cannot tell the ends apart (the view moves) both are silent of it.
    """
    names = [*MOTIONS, ""]
    return [
        _travel(_values(clips.scenes, i), names[int(motion)], rng, rng.random() < detailed_share)
        for i, motion in enumerate(clips.motion)
    ]


def _travel(values: Values, motion: str, rng: np.random.Generator, detailed: bool) -> Travel:
    speech = LANGUAGES[pick(list(LANGUAGES), rng)]
    changes, _, *states = CHANGES.get(motion, ("", "", "", ""))
    chosen = _choose(values, rng, detailed) - {changes}
    key, typed = rng.integers(2**32, size=2)  # so that the three have the same words for the same

    def scene(now: Values) -> tuple[str, Parts, bool]:
        return _describe(now, chosen, speech, np.random.default_rng(key))

    def finished(text: str) -> str:
        return _as_typed(text, speech, np.random.default_rng(typed))

    text, parts, keywords = scene(values)
    if not motion:
        return Travel(*[finished(text)] * 3)
    clause, joint = _clause(motion, speech, parts, keywords, rng)
    place = rng.integers(2**32)
    told = [_with_clause(text, clause, joint, np.random.default_rng(place))]
    for state in states:
        now = {**values, changes: state} if changes else values
        said = _implied(motion, chosen) | ({changes: state} if changes else {})
        clause = _state(said, now, speech, keywords)
        text = scene(now)[0]
        again = np.random.default_rng(place)
        told.append(_with_clause(text, clause, ", ", again) if clause else text)
    return Travel(*map(finished, told))


def _implied(motion: str, chosen: Collection[str]) -> dict[str, str]:
    """What a motion says without words, where they leave it open: clouds that drift are there."""
    trees = {"trees", "tree_kind"}
    known = trees | set(chosen) if trees & set(chosen) else set(chosen)
    return {name: words[0] for name, words in MOTIONS[motion].items() if name not in known}


def _state(said: Values, now: Values, speech: Language, keywords: bool) -> str:
    """The same words for the same state each time."""
    parts = speech.describe({**now, **said}, said, np.random.default_rng(0), keywords)
    settings = (", " if keywords else " ").join(parts.settings)
    return ", ".join(part for part in (settings, parts.trees) if part)


def any_motion(scene: Scene, index: int, rng: np.random.Generator) -> str:
    """What may happen in picture `index` of the batch."""
    return pick(possible(_values(scene, index)), rng)


def _values(scene: Scene, index: int) -> dict[str, str]:
    return {name: value(scene, index, name) for name in ATTRIBUTES}


def said_by(spoken: Sequence[Caption], scenes: Scene) -> Int[np.ndarray, "b attributes"]:
    """What captions say of their scenes: the position of each attribute's value, or of "open"."""
    columns = []
    for name, words in ATTRIBUTES.items():
        named = np.array([name in caption.named for caption in spoken])
        columns.append(np.where(named, getattr(scenes, name), len(words)))
    return np.stack(columns, axis=1).astype(np.int32)


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        known = " or ".join(f'"{code}"' for code in LANGUAGES)
        raise ValueError(f"language is {language!r}; captions are written in {known}")


def _draw(shares: Float[np.ndarray, " n"], rng: np.random.Generator) -> int:
    """A position, each as likely as its share; the shares add up to 1."""
    return int(np.searchsorted(np.cumsum(shares[:-1]), rng.random(), side="right"))


def _choose(values: Values, rng: np.random.Generator, detailed: bool) -> set[str]:
    """Which attributes to name: any subset that makes sense together."""
    others = [name for name in ATTRIBUTES if name not in ("house", *GROWS)]
    others += [name for name, grower in GROWS.items() if values[grower] != "none"]
    count = _draw(_HOW_MANY, rng)
    if detailed:
        count = int(rng.integers(*_DETAILED))
    named: set[str] = set()
    if count and rng.random() < _HOUSE_SHARE:
        named.add("house")
    order = shuffle(others, rng)
    named.update(order[: count - len(named)])
    if "tree_kind" in named and values["trees"] == "one":
        named.add("trees")  # "a pine" says that there is one
    return named


def _list_keywords(parts: Parts, speech: Language, rng: np.random.Generator) -> str:
    """Keywords, as in "red house, two trees, night": the house first, the rest in any order."""
    rest = [*parts.features, parts.trees, parts.flowers, *parts.settings, parts.light]
    rest += [pick(speech.style[parts.style], rng)] if parts.style else []
    return ", ".join([parts.house, *shuffle([part for part in rest if part], rng)])


def _as_typed(text: str, speech: Language, rng: np.random.Generator) -> str:
    """As people type: with or without a capital, a full stop, the language's own letters."""
    if rng.random() < _CAPITAL_SHARE:
        text = speech.capitals.get(text[0], text[0].upper()) + text[1:]
    if rng.random() < _FULL_STOP_SHARE:
        text += "."
    if speech.plain and rng.random() < _PLAIN_SHARE:
        text = text.translate(speech.plain)
    return text
