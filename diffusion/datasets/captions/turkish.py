"""Captions in Turkish. An adjective before the house says what belongs to it: "kırmızı çatılı ev"
is a house with a red roof. A noun after a number stays singular: "iki çam" is two pines.
"""

from collections.abc import Callable, Mapping

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

_HOUSE = ("ev", "ev", "ev", "ev", "kulübe")
_OF_HOUSE = {"ev": "evin", "kulübe": "kulübenin"}
_COLOUR = {
    "red": "kırmızı", "blue": "mavi", "yellow": "sarı", "white": "beyaz", "green": "yeşil",
    "purple": "mor", "orange": "turuncu", "pink": "pembe", "brown": "kahverengi", "grey": "gri",
}  # fmt: skip
_NUMBER: Words = {"one": ("bir", "1"), "two": ("iki", "2"), "three": ("üç", "3")}
_PLURAL = {
    "ağaç": "ağaçlar", "ağacı": "ağaçları", "meşe": "meşeler", "çam": "çamlar",
    "kavak": "kavaklar",
}  # fmt: skip
_WITH = {  # the noun as an adjective
    "ağaç": "ağaçlı", "ağacı": "ağaçlı", "meşe": "meşeli", "çam": "çamlı", "kavak": "kavaklı",
    "çiçekler": "çiçekli",
}  # fmt: skip
_WORDS: Mapping[str, Words] = {
    "roof_shape": {
        "gabled": ("üçgen", "sivri", "beşik"),
        "flat": ("düz",),
        "dome": ("kubbeli", "yuvarlak", "kubbe"),
    },
    "tree_kind": {
        "oak": ("yaşlı ağaç", "yaşlı ağaç", "meşe", "meşe ağacı", "yaşlı meşe"),
        "pine": ("çam", "çam ağacı"),
        "poplar": ("kavak", "kavak ağacı"),
        "apple": ("elma ağacı",),
    },
    "flower_amount": {
        "few": ("birkaç", "birkaç", "az sayıda"),
        "many": ("bir sürü", "çok sayıda", "pek çok"),
    },
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
    "light": {"left": ("solda",), "right": ("sağda",), "middle": ("ortada",)},
}
_KEYWORDS: Mapping[str, Words] = dict(_WORDS) | {
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
_STYLE: Words = {
    "oil painting": ("yağlı boya tablo", "yağlı boya", "yağlı boya resim"),
    "pencil sketch": ("karakalem çizimi", "karakalem", "kurşun kalem çizimi"),
}


_MOTIONS: Words = {
    "sun rises": ("güneş doğuyor", "güneş yükseliyor"),
    "sun sets": ("güneş batıyor", "güneş alçalıyor"),
    "night falls": ("gece oluyor", "hava kararıyor", "karanlık çöküyor"),
    "rain begins": ("yağmur başlıyor", "yağmur yağmaya başlıyor"),
    "rain ends": ("yağmur diniyor", "yağmur duruyor"),
    "snow begins": ("kar yağmaya başlıyor", "kar başlıyor"),
    "snow ends": ("kar diniyor", "kar duruyor"),
    "clouds drift left": ("bulutlar sola kayıyor", "bulutlar sola gidiyor"),
    "clouds drift right": ("bulutlar sağa kayıyor", "bulutlar sağa gidiyor"),
    "leaves turn": ("yapraklar sararıyor", "yapraklar renk değiştiriyor"),
    "trees sway": ("ağaçlar sallanıyor", "ağaçlar rüzgârda sallanıyor"),
    "view moves left": ("kamera sola kayıyor", "kamera sola dönüyor"),
    "view moves right": ("kamera sağa kayıyor", "kamera sağa dönüyor"),
    "view comes closer": ("kamera yaklaşıyor", "görüntü yaklaşıyor"),
    "view widens": ("kamera uzaklaşıyor", "görüntü uzaklaşıyor"),
}


def _describe(scene: Values, named: Values, rng: np.random.Generator, keywords: bool) -> Parts:
    say = speaker(_KEYWORDS if keywords else _WORDS, named, rng)
    colours = {name: _COLOUR.get(value, "") for name, value in named.items()}
    suffix = "" if keywords else "lı"  # "kırmızı çatı", "kırmızı çatılı"
    features = []
    roof, shape = colours.get("roof", ""), say("roof_shape")
    if roof or shape:
        # "kubbe çatı" and "beşik çatı" are compounds: no colour may come between their words.
        colour_first = shape == "kubbe" or rng.random() < 0.5 or shape == "beşik"
        first, second = (roof, shape) if colour_first else (shape, roof)
        features.append(phrase(first, second, f"çatı{suffix}"))
    if "door" in named:
        features.append(f"{colours['door']} kapı{suffix}")
    if named.get("trees") == "none":
        features.append("ağaçsız")
    if named.get("flower_amount") == "none":
        features.append("çiçeksiz")
    settings = [say(name) for name in ("sky", "season", "weather") if name in named]
    light = ""
    if "light" in named:
        words = ["ay" if scene["sky"] == "night" else "güneş", say("light")]
        light = phrase(*(words if rng.random() < 0.7 else reversed(words)))
    house = phrase(colours.get("house", ""), pick(_HOUSE, rng))
    features = shuffle(features, rng)
    trees, flowers = _trees(named, say, rng), _flowers(named, say)
    style = named.get("style", "")
    return Parts(house, features, trees, flowers, shuffle(settings, rng), light, style)


def _trees(named: Values, say: Callable[[str], str], rng: np.random.Generator) -> str:
    number = named.get("trees")
    if number == "none" or (number is None and "tree_kind" not in named):
        return ""
    tree = say("tree_kind") or "ağaç"
    if number is None:
        return _change_noun(tree, _PLURAL)
    if number == "one" and tree.startswith("yaşlı") and rng.random() < 0.7:
        return tree.replace("yaşlı", "yaşlı bir")
    return f"{pick_number(_NUMBER[number], rng)} {tree}"


def _flowers(named: Values, say: Callable[[str], str]) -> str:
    amount, colour = named.get("flower_amount"), named.get("flowers")
    if amount == "none" or not (amount or colour):
        return ""
    noun = "çiçek" if amount else "çiçekler"
    return phrase(say("flower_amount"), _COLOUR[colour] if colour else "", noun)


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
    described = phrase(", ".join(features), *colour, "bir" if rng.random() < 0.4 else "")
    beside = rng.random() < 0.25 and bool(trees or flowers)  # "beyaz bir evin yanında üç çam"
    placed = beside or rng.random() < 0.5
    plants = [phrase("yanında" if placed else "", trees)] if trees else []
    plants += [phrase("önünde" if placed else "", flowers)] if flowers else []
    if beside:
        return phrase(described, _OF_HOUSE[noun], ", ".join(plants))
    text, glue = phrase(described, noun), " ve " if rng.random() < 0.3 else ", "
    return ", ".join([text, glue.join(plants)]) if plants else text


def _change_noun(phrase: str, forms: Mapping[str, str]) -> str:
    """The phrase with another form of its last word."""
    *start, noun = phrase.split(" ")
    return " ".join([*start, forms[noun]])


_PLAIN = str.maketrans("çğıöşüâÇĞİÖŞÜÂ", "cgiosuaCGIOSUA")
TURKISH = Language(
    "Turkish", _describe, _arrange, _STYLE, capitals={"i": "İ"}, plain=_PLAIN, motions=_MOTIONS
)
