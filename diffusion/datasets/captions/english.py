"""Captions in English."""

from collections.abc import Sequence

import numpy as np

from diffusion.datasets.captions.language import (
    Language,
    Parts,
    Values,
    Words,
    pick,
    pick_number,
    pick_settings,
    shuffle,
)

_HOUSE = ("house", "house", "house", "house", "cottage", "home")
_ROOF_SHAPE: Words = {
    "gabled": ("gabled", "pointed", "triangular"),
    "flat": ("flat",),
    "dome": ("domed", "round", "dome-shaped"),
}
_NUMBER: Words = {"one": ("one", "1"), "two": ("two", "2"), "three": ("three", "3")}
_TREE: Words = {  # singular; the plural adds an s
    "oak": ("old tree", "old tree", "oak", "oak tree", "old oak"),
    "pine": ("pine", "pine tree"),
    "poplar": ("poplar", "poplar tree"),
    "apple": ("apple tree",),
}
_AMOUNT: Words = {
    "few": ("a few", "a few", "few"),
    "many": ("many", "many", "lots of", "plenty of"),
}
_SETTINGS: dict[str, Words] = {
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
}
_SETTING_KEYWORDS: dict[str, Words] = {
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
_LIGHT: Words = {
    "left": ("on the left", "on the left", "at the top left"),
    "right": ("on the right", "on the right", "at the top right"),
    "middle": ("in the middle", "in the centre"),
}
_STYLE: Words = {
    "oil painting": ("oil painting", "oil on canvas", "painted in oil"),
    "pencil sketch": ("pencil sketch", "pencil drawing", "drawn in pencil"),
}
_STYLE_OF: Words = {
    "oil painting": ("an oil painting of", "a painting in oil of"),
    "pencil sketch": ("a pencil sketch of", "a pencil drawing of", "a sketch of"),
}


def _describe(scene: Values, named: Values, rng: np.random.Generator, keywords: bool) -> Parts:
    adjectives = [named["house"]] if "house" in named else []
    features = []
    shape = [pick(_ROOF_SHAPE[named["roof_shape"]], rng)] if "roof_shape" in named else []
    roof = [_spell_colour(named["roof"], rng)] if "roof" in named else []
    if roof and not shape and rng.random() < 0.2:
        adjectives.insert(0, f"{roof[0]}-roofed")
    elif roof or shape:
        words = roof + shape if rng.random() < 0.5 else shape + roof
        features.append(" ".join([*words, "roof"]))
    if "door" in named:
        features.append(f"{named['door']} door")
    if len(features) == 2 and rng.random() < 0.4:
        features.reverse()
    settings = pick_settings(named, _SETTING_KEYWORDS if keywords else _SETTINGS, rng)
    light = _light(scene, named, rng, keywords)
    house = " ".join([*adjectives, pick(_HOUSE, rng)])
    return Parts(
        house=house if keywords else _a(house),
        features=features if keywords else [_a(feature) for feature in features],
        trees=_trees(named, rng),
        flowers=_flowers(named, rng),
        settings=shuffle(settings, rng),
        light=light,
        style=named.get("style", ""),
    )


def _spell_colour(colour: str, rng: np.random.Generator) -> str:
    return "gray" if colour == "grey" and rng.random() < 0.4 else colour


def _light(scene: Values, named: Values, rng: np.random.Generator, keywords: bool) -> str:
    if "light" not in named:
        return ""
    article = "" if keywords or rng.random() < 0.4 else "the "
    body = "moon" if scene["sky"] == "night" else "sun"
    return f"{article}{body} {pick(_LIGHT[named['light']], rng)}"


def _trees(named: Values, rng: np.random.Generator) -> str:
    number = named.get("trees")
    if number == "none":
        return "no trees"
    if number is None and "tree_kind" not in named:
        return ""
    tree = pick(_TREE[named["tree_kind"]], rng) if "tree_kind" in named else "tree"
    if number is None:
        return f"{tree}s"
    if number == "one" and rng.random() < 0.7:
        return _a(tree)
    return f"{pick_number(_NUMBER[number], rng)} {tree if number == 'one' else tree + 's'}"


def _flowers(named: Values, rng: np.random.Generator) -> str:
    amount = named.get("flower_amount")
    if amount == "none":
        return "no flowers"
    if amount is None and "flowers" not in named:
        return ""
    words = [pick(_AMOUNT[amount], rng)] if amount else []
    words += [named["flowers"]] if "flowers" in named else []
    return " ".join([*words, "flowers"])


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
    absent = any(part.startswith("no ") for part in plants)
    form = rng.random()
    if not plants:
        return house
    if form < 0.25 and not absent:  # "three pines beside a white house"
        flowers_first = plants[0] == parts.flowers
        where = "in front of" if flowers_first else pick(("beside", "next to"), rng)
        text = f"{plants[0]} {where} {house}"
        return f"{text}, with {plants[1]}" if len(plants) == 2 else text
    if form < 0.45:  # "a white house with a red roof, two pines"
        return f"{house}, {_and(plants)}"
    return f"{parts.house} with {_and([*parts.features, *plants])}"


def _a(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeio" else f"a {phrase}"


def _and(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]


ENGLISH = Language(_describe, _arrange, _STYLE)
