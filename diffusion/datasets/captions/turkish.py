"""Captions in Turkish. An adjective before the house says what belongs to it: "kırmızı çatılı ev"
is a house with a red roof. A noun after a number stays singular: "iki çam" is two pines.
"""

from collections.abc import Mapping

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

_HOUSE = ("ev", "ev", "ev", "ev", "kulübe")
_OF_HOUSE = {"ev": "evin", "kulübe": "kulübenin"}
_COLOUR = {
    "red": "kırmızı", "blue": "mavi", "yellow": "sarı", "white": "beyaz", "green": "yeşil",
    "purple": "mor", "orange": "turuncu", "pink": "pembe", "brown": "kahverengi", "grey": "gri",
}  # fmt: skip
_ROOF_SHAPE: Words = {
    "gabled": ("üçgen", "sivri", "beşik"),
    "flat": ("düz",),
    "dome": ("kubbeli", "yuvarlak", "kubbe"),
}
_NUMBER: Words = {"one": ("bir", "1"), "two": ("iki", "2"), "three": ("üç", "3")}
_TREE: Words = {
    "oak": ("yaşlı ağaç", "yaşlı ağaç", "meşe", "meşe ağacı", "yaşlı meşe"),
    "pine": ("çam", "çam ağacı"),
    "poplar": ("kavak", "kavak ağacı"),
    "apple": ("elma ağacı",),
}
_PLURAL = {
    "ağaç": "ağaçlar", "ağacı": "ağaçları", "meşe": "meşeler", "çam": "çamlar",
    "kavak": "kavaklar",
}  # fmt: skip
_WITH = {  # the noun as an adjective
    "ağaç": "ağaçlı", "ağacı": "ağaçlı", "meşe": "meşeli", "çam": "çamlı", "kavak": "kavaklı",
    "çiçekler": "çiçekli",
}  # fmt: skip
_AMOUNT: Words = {
    "few": ("birkaç", "birkaç", "az sayıda"),
    "many": ("bir sürü", "çok sayıda", "pek çok"),
}
_SETTINGS: dict[str, Words] = {
    "sky": {
        "day": ("gündüz", "gündüz vakti", "gün ışığında"),
        "sunset": ("gün batımında", "gün batarken"),
        "night": ("gece", "gece vakti", "geceleyin"),
    },
    "season": {
        "spring": ("ilkbaharda", "ilkbahar günlerinde"),
        "summer": ("yazın", "yaz mevsiminde"),
        "autumn": ("sonbaharda", "güz mevsiminde"),
        "winter": ("kışın", "kış mevsiminde", "karlar içinde"),
    },
    "weather": {
        "clear": ("açık havada", "bulutsuz havada"),
        "cloudy": ("bulutlu havada", "bulutların altında"),
        "rain": ("yağmurda", "yağmur altında", "yağmur yağarken"),
        "snow": ("kar yağarken", "kar yağışında"),
    },
}
_SETTING_KEYWORDS: dict[str, Words] = {
    "sky": {"day": ("gündüz",), "sunset": ("gün batımı",), "night": ("gece", "gece göğü")},
    "season": {
        "spring": ("ilkbahar",), "summer": ("yaz",), "autumn": ("sonbahar",),
        "winter": ("kış", "karlı zemin"),
    },
    "weather": {
        "clear": ("açık hava",), "cloudy": ("bulutlu", "bulutlar"),
        "rain": ("yağmur", "yağmurlu"), "snow": ("kar yağışı",),
    },
}  # fmt: skip
_LIGHT: Words = {"left": ("solda",), "right": ("sağda",), "middle": ("ortada",)}
_STYLE: Words = {
    "oil painting": ("yağlı boya tablo", "yağlı boya", "yağlı boya resim"),
    "pencil sketch": ("karakalem çizimi", "karakalem", "kurşun kalem çizimi"),
}


def _describe(scene: Values, named: Values, rng: np.random.Generator, keywords: bool) -> Parts:
    suffix = "" if keywords else "lı"  # "kırmızı çatı", "kırmızı çatılı"
    features = []
    roof = [_COLOUR[named["roof"]]] if "roof" in named else []
    shape = [pick(_ROOF_SHAPE[named["roof_shape"]], rng)] if "roof_shape" in named else []
    if roof or shape:
        # "kubbe çatı" and "beşik çatı" are compounds: no colour may come between their words.
        colour_first = shape == ["kubbe"] or rng.random() < 0.5 or shape == ["beşik"]
        words = roof + shape if colour_first else shape + roof
        features.append(" ".join([*words, f"çatı{suffix}"]))
    if "door" in named:
        features.append(f"{_COLOUR[named['door']]} kapı{suffix}")
    if named.get("trees") == "none":
        features.append("ağaçsız")
    if named.get("flower_amount") == "none":
        features.append("çiçeksiz")
    settings = pick_settings(named, _SETTING_KEYWORDS if keywords else _SETTINGS, rng)
    light = _light(scene, named, rng)
    colour = [_COLOUR[named["house"]]] if "house" in named else []
    return Parts(
        house=" ".join([*colour, pick(_HOUSE, rng)]),
        features=shuffle(features, rng),
        trees=_trees(named, rng),
        flowers=_flowers(named, rng),
        settings=shuffle(settings, rng),
        light=light,
        style=named.get("style", ""),
    )


def _light(scene: Values, named: Values, rng: np.random.Generator) -> str:
    if "light" not in named:
        return ""
    words = ["ay" if scene["sky"] == "night" else "güneş", pick(_LIGHT[named["light"]], rng)]
    return " ".join(words if rng.random() < 0.7 else reversed(words))


def _trees(named: Values, rng: np.random.Generator) -> str:
    number = named.get("trees")
    if number == "none" or (number is None and "tree_kind" not in named):
        return ""
    tree = pick(_TREE[named["tree_kind"]], rng) if "tree_kind" in named else "ağaç"
    if number is None:
        return _change_noun(tree, _PLURAL)
    if number == "one" and tree.startswith("yaşlı") and rng.random() < 0.7:
        return tree.replace("yaşlı", "yaşlı bir")
    return f"{pick_number(_NUMBER[number], rng)} {tree}"


def _flowers(named: Values, rng: np.random.Generator) -> str:
    amount = named.get("flower_amount")
    if amount == "none" or (amount is None and "flowers" not in named):
        return ""
    colour = [_COLOUR[named["flowers"]]] if "flowers" in named else []
    if amount is None:
        return " ".join([*colour, "çiçekler"])
    return " ".join([pick(_AMOUNT[amount], rng), *colour, "çiçek"])


def _arrange(parts: Parts, rng: np.random.Generator) -> str:
    text = _place_plants(parts, rng)
    around = [" ".join(parts.settings)] if parts.settings else []
    around += [parts.light] if parts.light else []
    if around and rng.random() < 0.75:  # "gece, ay solda, kırmızı ev"
        glue = " " if len(around) == 1 and parts.settings and rng.random() < 0.5 else ", "
        text = ", ".join(around) + glue + text
    elif around:
        text = ", ".join([text, *around])
    if parts.style:
        style = pick(_STYLE[parts.style], rng)
        form = rng.random()
        text = f"{text}, {style}" if form < 0.4 else f"{style}{', ' if form < 0.8 else ': '}{text}"
    return text


def _place_plants(parts: Parts, rng: np.random.Generator) -> str:
    """The house with all that belongs to it, and the plants around it."""
    trees, flowers, features = parts.trees, parts.flowers, list(parts.features)
    if trees and trees.split(" ")[-1] in _WITH and rng.random() < 0.35:
        trees = trees.replace("yaşlı bir", "bir yaşlı")  # or it is the house that is old
        features.insert(0, _change_noun(trees, _WITH))  # "iki çamlı"
        trees = ""
    if flowers.endswith("çiçekler") and rng.random() < 0.2:
        features.insert(0, _change_noun(flowers, _WITH))
        flowers = ""
    *colour, noun = parts.house.split(" ")
    if len(features) == 2 and rng.random() < 0.4:
        features = [" ve ".join(features)]
    described = " ".join([", ".join(features), *colour]).strip()
    one = "bir " if rng.random() < 0.4 else ""
    form = rng.random()
    if form < 0.25 and (trees or flowers):  # "beyaz bir evin yanında üç çam"
        text = f"{described} {one}{_OF_HOUSE[noun]}".strip()
        plants = [f"yanında {trees}"] if trees else []
        plants += [f"önünde {flowers}"] if flowers else []
        return f"{text} {', '.join(plants)}"
    text = f"{described} {one}{noun}".strip()
    placed = rng.random() < 0.5
    plants = [f"yanında {trees}" if placed else trees] if trees else []
    plants += [f"önünde {flowers}" if placed else flowers] if flowers else []
    glue = " ve " if rng.random() < 0.3 else ", "
    return ", ".join([text, glue.join(plants)]) if plants else text


def _change_noun(phrase: str, forms: Mapping[str, str]) -> str:
    """The phrase with another form of its last word."""
    *start, noun = phrase.split(" ")
    return " ".join([*start, forms[noun]])


TURKISH = Language(
    _describe,
    _arrange,
    _STYLE,
    capitals={"i": "İ"},
    plain=str.maketrans("çğıöşüÇĞİÖŞÜ", "cgiosuCGIOSU"),
)
