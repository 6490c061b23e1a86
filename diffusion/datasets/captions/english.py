"""Captions in English."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from diffusion.datasets.captions.language import (
    Language,
    Parts,
    Values,
    Words,
    phrase,
    pick,
    pick_number,
    shuffle,
    speaker,
)

_HOUSE = ("house", "house", "house", "house", "cottage", "home")
_NUMBER: Words = {"one": ("one", "1"), "two": ("two", "2"), "three": ("three", "3")}
_WORDS: Mapping[str, Words] = {
    "roof_shape": {
        "gabled": ("gabled", "pointed", "triangular"),
        "flat": ("flat",),
        "dome": ("domed", "round", "dome-shaped"),
    },
    "tree_kind": {  # singular; the plural adds an s
        "oak": ("old tree", "old tree", "oak", "oak tree", "old oak"),
        "pine": ("pine", "pine tree"),
        "poplar": ("poplar", "poplar tree"),
        "apple": ("apple tree",),
    },
    "flower_amount": {
        "few": ("a few", "a few", "few"),
        "many": ("many", "many", "lots of", "plenty of"),
    },
    "sky": {
        "day": ("by day", "in daylight", "during the day", "in the daytime"),
        "sunset": ("at sunset", "under a sunset sky", "as the sun sets"),
        "night": ("at night", "under a night sky", "at night-time"),
    },
    "season": {
        "spring": ("in spring", "in springtime"),
        "summer": ("in summer", "in summertime"),
        "autumn": ("in autumn", "in the fall"),
        "winter": ("in winter", "in the snow", "on snowy ground"),
    },
    "weather": {
        "clear": ("under a clear sky", "in clear weather", "under a cloudless sky"),
        "cloudy": ("under a cloudy sky", "in cloudy weather", "under the clouds"),
        "rain": ("in the rain", "while it rains", "in rainy weather"),
        "snow": ("in falling snow", "while snow falls", "as it snows"),
    },
    "light": {
        "left": ("on the left", "on the left", "at the top left"),
        "right": ("on the right", "on the right", "at the top right"),
        "middle": ("in the middle", "in the centre"),
    },
}
_KEYWORDS: Mapping[str, Words] = dict(_WORDS) | {
    "sky": {
        "day": ("day", "daytime"), "sunset": ("sunset", "sunset sky"),
        "night": ("night", "night sky"),
    },
    "season": {
        "spring": ("spring",), "summer": ("summer",), "autumn": ("autumn",),
        "winter": ("winter", "snowy ground"),
    },
    "weather": {
        "clear": ("clear sky",), "cloudy": ("cloudy", "clouds"), "rain": ("rain", "rainy"),
        "snow": ("falling snow", "snowfall"),
    },
}  # fmt: skip
_STYLE: Words = {
    "oil painting": ("oil painting", "oil on canvas", "painted in oil"),
    "pencil sketch": ("pencil sketch", "pencil drawing", "drawn in pencil"),
}
_STYLE_OF: Words = {
    "oil painting": ("an oil painting of", "a painting in oil of"),
    "pencil sketch": ("a pencil sketch of", "a pencil drawing of", "a sketch of"),
}


_MOTIONS: Words = {
    "sun rises": ("the sun rises", "the sun is rising", "the sun comes up"),
    "sun sets": ("the sun sets", "the sun goes down", "the sun is going down", "the sun sinks"),
    "night falls": ("night falls", "it gets dark", "it is getting dark", "night is coming"),
    "rain begins": ("it begins to rain", "it starts to rain", "it starts raining"),
    "rain ends": ("it stops raining", "the rain stops", "the rain ends"),
    "snow begins": ("it begins to snow", "it starts to snow", "snow begins to fall"),
    "snow ends": ("it stops snowing", "the snow stops falling", "no more snow falls"),
    "clouds drift left": ("clouds drift to the left", "the clouds move left"),
    "clouds drift right": ("clouds drift to the right", "the clouds move right"),
    "leaves turn": ("the leaves turn", "the leaves change colour", "leaves are turning"),
    "trees sway": ("the trees sway", "trees sway in the wind", "the wind moves the trees"),
    "view moves left": ("the camera moves left", "the camera pans left", "the view moves left"),
    "view moves right": ("the camera moves right", "the camera pans right", "the view moves right"),
    "view comes closer": ("the camera zooms in", "the camera comes closer", "zooming in"),
    "view widens": ("the camera zooms out", "the camera moves away", "zooming out"),
}


def _describe(scene: Values, named: Values, rng: np.random.Generator, keywords: bool) -> Parts:
    say = speaker(_KEYWORDS if keywords else _WORDS, named, rng)
    shape, roof = say("roof_shape"), named.get("roof", "")
    if roof == "grey" and rng.random() < 0.4:
        roof = "gray"
    adjectives, features = named.get("house", ""), []
    if roof and not shape and rng.random() < 0.2:
        adjectives = phrase(f"{roof}-roofed", adjectives)
    elif roof or shape:
        first, second = (roof, shape) if rng.random() < 0.5 else (shape, roof)
        features.append(phrase(first, second, "roof"))
    if "door" in named:
        features.append(f"{named['door']} door")
    if len(features) == 2 and rng.random() < 0.4:
        features.reverse()
    settings = [say(name) for name in ("sky", "season", "weather") if name in named]
    light = ""
    if "light" in named:
        article = "" if keywords or rng.random() < 0.4 else "the"
        light = phrase(article, "moon" if scene["sky"] == "night" else "sun", say("light"))
    house = phrase(adjectives, pick(_HOUSE, rng))
    if not keywords:
        house, features = _a(house), [_a(feature) for feature in features]
    trees, flowers = _trees(named, say, rng), _flowers(named, say)
    style = named.get("style", "")
    return Parts(house, features, trees, flowers, shuffle(settings, rng), light, style)


def _trees(named: Values, say: Callable[[str], str], rng: np.random.Generator) -> str:
    number = named.get("trees")
    if number == "none":
        return "no trees"
    if number is None and "tree_kind" not in named:
        return ""
    tree = say("tree_kind") or "tree"
    if number is None:
        return f"{tree}s"
    if number == "one" and rng.random() < 0.7:
        return _a(tree)
    return f"{pick_number(_NUMBER[number], rng)} {tree if number == 'one' else tree + 's'}"


def _flowers(named: Values, say: Callable[[str], str]) -> str:
    amount, colour = named.get("flower_amount"), named.get("flowers")
    if amount == "none":
        return "no flowers"
    return phrase(say("flower_amount"), colour or "", "flowers") if amount or colour else ""


def _arrange(parts: Parts, rng: np.random.Generator) -> str:
    text = _place_plants(parts, rng)
    opening = bool(parts.settings) and not parts.style and rng.random() < 0.2
    settings = parts.settings[1:] if opening else parts.settings
    if settings:
        text += (", " if rng.random() < 0.3 else " ") + " ".join(settings)
    if parts.light:
        text += (", with " if rng.random() < 0.3 else ", ") + parts.light
    if opening:  # "at night, a white house"
        text = f"{parts.settings[0]}, {text}"
    if parts.style and rng.random() < 0.65:
        text = f"{pick(_STYLE_OF[parts.style], rng)} {text}"
    elif parts.style:
        text = f"{text}, {pick(_STYLE[parts.style], rng)}"
    return text


def _place_plants(parts: Parts, rng: np.random.Generator) -> str:
    """The house with all that belongs to it, and the plants around it."""
    plants = [part for part in (parts.trees, parts.flowers) if part]
    if len(plants) == 2 and rng.random() < 0.3:
        plants.reverse()
    house = f"{parts.house} with {_and(parts.features)}" if parts.features else parts.house
    form = rng.random()
    if not plants:
        return house
    if form < 0.25 and not any(part.startswith("no ") for part in plants):
        where = "in front of" if plants[0] == parts.flowers else pick(("beside", "next to"), rng)
        text = f"{plants[0]} {where} {house}"  # "three pines beside a white house"
        return f"{text}, with {plants[1]}" if len(plants) == 2 else text
    if form < 0.45:  # "a white house with a red roof, two pines"
        return f"{house}, {_and(plants)}"
    return f"{parts.house} with {_and([*parts.features, *plants])}"


def _a(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeio" else f"a {phrase}"


def _and(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]


ENGLISH = Language(
    "English", _describe, _arrange, _STYLE, motions=_MOTIONS,
    joints=(", ", ", ", " while ", " and "),
)  # fmt: skip
