"""What a person might say of a garden scene, in English or Turkish.

A caption names some attributes of its scene and leaves the rest open. Words live in tables keyed by
the values of `garden.ATTRIBUTES`; a language turns the chosen attributes into the parts of a
sentence (`_Parts`), and a few sentence forms put the parts in order. Everything said is true of the
scene, and `Caption.named` keeps what was said, so that an evaluation asks only for that.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from diffusion.datasets.garden import ATTRIBUTES, Scene, value

Words = Mapping[str, Sequence[str]]

# How many attributes a caption names: weights of 0, 1, 2, ... 13.
_HOW_MANY = np.array([3, 9, 16, 20, 18, 13, 8, 4, 3, 2, 1, 1, 1, 1], np.float64)
_HOW_MANY_BELOW = tuple(np.cumsum(_HOW_MANY / _HOW_MANY.sum()))
_DETAILED = (5, 14)  # attributes that a detailed caption names: from here to before there
_HOUSE_SHARE = 0.88  # of the captions that name anything, how many name the colour of the house
_KEYWORD_SHARE = 0.15  # "red house, two trees, night"
_CAPITAL_SHARE = 0.20
_FULL_STOP_SHARE = 0.20
_ASCII_SHARE = 0.10  # Turkish typed without Turkish letters
_DIGIT_SHARE = 0.06  # "2 pines"
_TO_ASCII = str.maketrans("çğıöşüÇĞİÖŞÜ", "cgiosuCGIOSU")


class Caption(NamedTuple):
    """A sentence about a scene."""

    text: str  # at most 60 words, mostly fewer than 30
    language: str  # "en" or "tr"
    named: frozenset[str]  # the attributes that the text states; the others are left open


class _Parts(NamedTuple):
    house: str  # noun phrase: "a red house"
    features: list[str]  # what belongs to the house: "a blue roof", "a green door"
    trees: str  # "two old trees", or nothing
    flowers: str  # "yellow flowers", or nothing
    settings: list[str]  # "at night", "in the rain"
    light: str  # "the moon on the left", or nothing
    style: str  # value of the attribute, or nothing


def captions(
    scenes: Scene,
    rng: np.random.Generator,
    turkish_share: float = 0.5,
    detailed_share: float = 0.0,
) -> list[Caption]:
    """One caption a scene, `turkish_share` of them (0 to 1) in Turkish.

    People name four attributes or so. `detailed_share` of the captions (0 to 1) name 5 to all 13:
    there is more to learn from a picture of which more is said.

    Raises ValueError if a share is outside [0, 1].
    """
    for name, share in (("turkish_share", turkish_share), ("detailed_share", detailed_share)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} is {share}; give a share from 0 to 1")
    scenes = Scene(*(np.asarray(field) for field in scenes))
    return [
        caption(
            scenes,
            index,
            rng,
            "tr" if rng.random() < turkish_share else "en",
            rng.random() < detailed_share,
        )
        for index in range(len(scenes.house))
    ]


def caption(
    scene: Scene,
    index: int,
    rng: np.random.Generator,
    language: str = "en",
    detailed: bool = False,
) -> Caption:
    """A caption of picture `index` of the batch, drawn from `rng`.

    Args:
        detailed: name 5 to all 13 attributes, in place of four or so.

    Raises ValueError if `language` is neither "en" nor "tr".
    """
    if language not in ("en", "tr"):
        raise ValueError(f'language is {language!r}; captions are written in "en" or "tr"')
    has = {name: value(scene, index, name) for name in ATTRIBUTES}
    named = _choose(has, rng, detailed)
    say = {name: has[name] for name in ATTRIBUTES if name in named}
    keywords = rng.random() < _KEYWORD_SHARE
    parts_of, sentence = (_english, _say_english) if language == "en" else (_turkish, _say_turkish)
    parts = parts_of(has, say, rng, keywords)
    text = _list_keywords(parts, language, rng) if keywords else sentence(parts, rng)
    if "light" in named and has["sky"] == "night":
        named |= {"sky"}  # whoever says moon says night
    return Caption(_spell(text, language, rng), language, frozenset(named))


def said_by(spoken: Sequence[Caption], scenes: Scene) -> Int[np.ndarray, "b attributes"]:
    """What captions say of their scenes: the position of each attribute's value, or of "open"."""
    columns = []
    for name, words in ATTRIBUTES.items():
        named = np.array([name in caption.named for caption in spoken])
        columns.append(np.where(named, getattr(scenes, name), len(words)))
    return np.stack(columns, axis=1).astype(np.int32)


def _choose(has: Mapping[str, str], rng: np.random.Generator, detailed: bool) -> set[str]:
    """Which attributes to name: any subset that makes sense together."""
    open_to_say = [name for name in ATTRIBUTES if name not in ("tree_kind", "flowers", "house")]
    if has["trees"] != "none":
        open_to_say.append("tree_kind")
    if has["flower_amount"] != "none":
        open_to_say += ["flowers"]
    draw = rng.random()
    count = next((n for n, below in enumerate(_HOW_MANY_BELOW) if draw < below), 0)
    if detailed:
        count = int(rng.integers(*_DETAILED))
    named: set[str] = set()
    if count and rng.random() < _HOUSE_SHARE:
        named.add("house")
    order = rng.permutation(len(open_to_say))
    named.update(open_to_say[i] for i in order[: count - len(named)] if count)
    if "tree_kind" in named and has["trees"] == "one":
        named.add("trees")  # "a pine" says that there is one
    return named


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.random() * len(options))]


def _spell(text: str, language: str, rng: np.random.Generator) -> str:
    """As people type: with or without a capital, a full stop, Turkish letters."""
    if rng.random() < _CAPITAL_SHARE:
        first = "İ" if language == "tr" and text[0] == "i" else text[0].upper()
        text = first + text[1:]
    if rng.random() < _FULL_STOP_SHARE:
        text += "."
    if language == "tr" and rng.random() < _ASCII_SHARE:
        text = text.translate(_TO_ASCII)
    return text


def _list_keywords(parts: _Parts, language: str, rng: np.random.Generator) -> str:
    style = {"en": _EN_STYLE, "tr": _TR_STYLE}[language]
    rest = [*parts.features, parts.trees, parts.flowers, *parts.settings, parts.light]
    rest += [_pick(style[parts.style], rng)] if parts.style else []
    rest = [part for part in rest if part]
    return ", ".join([parts.house, *(rest[i] for i in rng.permutation(len(rest)))])


# --- English -------------------------------------------------------------------------------------

_EN_HOUSE = ("house", "house", "house", "house", "cottage", "home")
_EN_ROOF_SHAPE: Words = {
    "gabled": ("gabled", "pointed", "triangular"),
    "flat": ("flat",),
    "dome": ("domed", "round", "dome-shaped"),
}
_EN_NUMBER: Words = {"one": ("one", "1"), "two": ("two", "2"), "three": ("three", "3")}
_EN_TREE: Words = {  # singular; the plural adds an s
    "oak": ("old tree", "old tree", "oak", "oak tree", "old oak"),
    "pine": ("pine", "pine tree"),
    "poplar": ("poplar", "poplar tree"),
    "apple": ("apple tree",),
}
_EN_AMOUNT: Words = {
    "few": ("a few", "a few", "few"),
    "many": ("many", "many", "lots of", "plenty of"),
}
_EN_SKY: Words = {
    "day": ("by day", "in daylight", "during the day", "in the daytime"),
    "sunset": ("at sunset", "under a sunset sky", "as the sun sets"),
    "night": ("at night", "under a night sky", "at night-time"),
}
_EN_SEASON: Words = {
    "spring": ("in spring", "in springtime"),
    "summer": ("in summer", "in summertime"),
    "autumn": ("in autumn", "in the fall"),
    "winter": ("in winter", "in the snow", "on snowy ground"),
}
_EN_WEATHER: Words = {
    "clear": ("under a clear sky", "in clear weather", "under a cloudless sky"),
    "cloudy": ("under a cloudy sky", "in cloudy weather", "under the clouds"),
    "rain": ("in the rain", "while it rains", "in rainy weather"),
    "snow": ("in falling snow", "while snow falls", "as it snows"),
}
_EN_SKY_KEYWORD: Words = {
    "day": ("day", "daytime"), "sunset": ("sunset", "sunset sky"), "night": ("night", "night sky"),
}  # fmt: skip
_EN_SEASON_KEYWORD: Words = {
    "spring": ("spring",), "summer": ("summer",), "autumn": ("autumn",),
    "winter": ("winter", "snowy ground"),
}  # fmt: skip
_EN_WEATHER_KEYWORD: Words = {
    "clear": ("clear sky",), "cloudy": ("cloudy", "clouds"), "rain": ("rain", "rainy"),
    "snow": ("falling snow", "snowfall"),
}  # fmt: skip
_EN_LIGHT: Words = {
    "left": ("on the left", "on the left", "at the top left"),
    "right": ("on the right", "on the right", "at the top right"),
    "middle": ("in the middle", "in the centre"),
}
_EN_STYLE: Words = {
    "oil painting": ("oil painting", "oil on canvas", "painted in oil"),
    "pencil sketch": ("pencil sketch", "pencil drawing", "drawn in pencil"),
}
_EN_STYLE_OF: Words = {
    "oil painting": ("an oil painting of", "a painting in oil of"),
    "pencil sketch": ("a pencil sketch of", "a pencil drawing of", "a sketch of"),
}


def _a(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeio" else f"a {phrase}"


def _and(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]


def _english(
    has: Mapping[str, str], say: Mapping[str, str], rng: np.random.Generator, keywords: bool
) -> _Parts:
    article = (lambda phrase: phrase) if keywords else _a
    adjectives = [say["house"]] if "house" in say else []
    features = []
    shape = [_pick(_EN_ROOF_SHAPE[say["roof_shape"]], rng)] if "roof_shape" in say else []
    roof = [_en_colour(say["roof"], rng)] if "roof" in say else []
    if roof and not shape and rng.random() < 0.2:
        adjectives.insert(0, f"{roof[0]}-roofed")
    elif roof or shape:
        words = roof + shape if rng.random() < 0.5 else shape + roof
        features.append(article(" ".join([*words, "roof"])))
    if "door" in say:
        features.append(article(f"{say['door']} door"))
    if len(features) == 2 and rng.random() < 0.4:
        features.reverse()

    settings = [
        _pick(table[say[name]], rng)
        for name, table in (
            ("sky", _EN_SKY_KEYWORD if keywords else _EN_SKY),
            ("season", _EN_SEASON_KEYWORD if keywords else _EN_SEASON),
            ("weather", _EN_WEATHER_KEYWORD if keywords else _EN_WEATHER),
        )
        if name in say
    ]
    light = ""
    if "light" in say:
        body = "moon" if has["sky"] == "night" else "sun"
        the = "" if keywords or rng.random() < 0.4 else "the "
        light = f"{the}{body} {_pick(_EN_LIGHT[say['light']], rng)}"
    return _Parts(
        house=article(" ".join([*adjectives, _pick(_EN_HOUSE, rng)])),
        features=features,
        trees=_english_trees(has, say, rng),
        flowers=_english_flowers(say, rng),
        settings=[settings[i] for i in rng.permutation(len(settings))],
        light=light,
        style=say.get("style", ""),
    )


def _en_colour(colour: str, rng: np.random.Generator) -> str:
    return "gray" if colour == "grey" and rng.random() < 0.4 else colour


def _english_trees(has: Mapping[str, str], say: Mapping[str, str], rng: np.random.Generator) -> str:
    if say.get("trees") == "none":
        return "no trees"
    if "trees" not in say and "tree_kind" not in say:
        return ""
    tree = _pick(_EN_TREE[say["tree_kind"]], rng) if "tree_kind" in say else "tree"
    if "trees" not in say:
        return f"{tree}s"
    if say["trees"] == "one" and rng.random() < 0.7:
        return _a(tree)
    number = _EN_NUMBER[has["trees"]][rng.random() < _DIGIT_SHARE]
    return f"{number} {tree}" if say["trees"] == "one" else f"{number} {tree}s"


def _english_flowers(say: Mapping[str, str], rng: np.random.Generator) -> str:
    if say.get("flower_amount") == "none":
        return "no flowers"
    if "flower_amount" not in say and "flowers" not in say:
        return ""
    amount = [_pick(_EN_AMOUNT[say["flower_amount"]], rng)] if "flower_amount" in say else []
    colour = [say["flowers"]] if "flowers" in say else []
    return " ".join([*amount, *colour, "flowers"])


def _say_english(parts: _Parts, rng: np.random.Generator) -> str:
    plants = [part for part in (parts.trees, parts.flowers) if part]
    if len(plants) == 2 and rng.random() < 0.3:
        plants.reverse()
    house = f"{parts.house} with {_and(parts.features)}" if parts.features else parts.house
    absent = any(part.startswith("no ") for part in plants)
    form = rng.random()
    if not plants:
        text = house
    elif form < 0.25 and not absent:  # "three pines beside a white house"
        flowers_first = plants[0] == parts.flowers
        where = "in front of" if flowers_first else _pick(("beside", "next to"), rng)
        text = f"{plants[0]} {where} {house}"
        if len(plants) == 2:
            text += f", with {plants[1]}"
    elif form < 0.45:  # "a white house with a red roof, two pines"
        text = f"{house}, {_and(plants)}"
    else:
        text = f"{parts.house} with {_and([*parts.features, *plants])}"

    opening = bool(parts.settings) and not parts.style and rng.random() < 0.2
    settings = parts.settings[1:] if opening else parts.settings
    if settings:
        text += (", " if rng.random() < 0.3 else " ") + " ".join(settings)
    if parts.light:
        text += (", with " if rng.random() < 0.3 else ", ") + parts.light
    if opening:
        text = f"{parts.settings[0]}, {text}"
    if parts.style and rng.random() < 0.65:
        text = f"{_pick(_EN_STYLE_OF[parts.style], rng)} {text}"
    elif parts.style:
        text = f"{text}, {_pick(_EN_STYLE[parts.style], rng)}"
    return text


# --- Turkish: what belongs to a house is an adjective before it, and counted nouns stay singular --

_TR_HOUSE = ("ev", "ev", "ev", "ev", "kulübe")
_TR_OF = {"ev": "evin", "kulübe": "kulübenin"}
_TR_COLOUR = {
    "red": "kırmızı", "blue": "mavi", "yellow": "sarı", "white": "beyaz", "green": "yeşil",
    "purple": "mor", "orange": "turuncu", "pink": "pembe", "brown": "kahverengi", "grey": "gri",
}  # fmt: skip
_TR_ROOF_SHAPE: Words = {
    "gabled": ("üçgen", "sivri", "beşik"),
    "flat": ("düz",),
    "dome": ("kubbeli", "yuvarlak", "kubbe"),
}
_TR_NUMBER: Words = {"one": ("bir", "1"), "two": ("iki", "2"), "three": ("üç", "3")}
_TR_TREE: Words = {
    "oak": ("yaşlı ağaç", "yaşlı ağaç", "meşe", "meşe ağacı", "yaşlı meşe"),
    "pine": ("çam", "çam ağacı"),
    "poplar": ("kavak", "kavak ağacı"),
    "apple": ("elma ağacı",),
}
_TR_PLURAL = {
    "ağaç": "ağaçlar", "ağacı": "ağaçları", "meşe": "meşeler", "çam": "çamlar",
    "kavak": "kavaklar",
}  # fmt: skip
_TR_HAVING = {  # "with": the noun as an adjective
    "ağaç": "ağaçlı", "ağacı": "ağaçlı", "meşe": "meşeli", "çam": "çamlı", "kavak": "kavaklı",
    "çiçekler": "çiçekli",
}  # fmt: skip
_TR_AMOUNT: Words = {
    "few": ("birkaç", "birkaç", "az sayıda"),
    "many": ("bir sürü", "çok sayıda", "pek çok"),
}
_TR_SKY: Words = {
    "day": ("gündüz", "gündüz vakti", "gün ışığında"),
    "sunset": ("gün batımında", "gün batarken"),
    "night": ("gece", "gece vakti", "geceleyin"),
}
_TR_SEASON: Words = {
    "spring": ("ilkbaharda", "ilkbahar günlerinde"),
    "summer": ("yazın", "yaz mevsiminde"),
    "autumn": ("sonbaharda", "güz mevsiminde"),
    "winter": ("kışın", "kış mevsiminde", "karlar içinde"),
}
_TR_WEATHER: Words = {
    "clear": ("açık havada", "bulutsuz havada"),
    "cloudy": ("bulutlu havada", "bulutların altında"),
    "rain": ("yağmurda", "yağmur altında", "yağmur yağarken"),
    "snow": ("kar yağarken", "kar yağışında"),
}
_TR_SKY_KEYWORD: Words = {
    "day": ("gündüz",), "sunset": ("gün batımı",), "night": ("gece", "gece göğü"),
}  # fmt: skip
_TR_SEASON_KEYWORD: Words = {
    "spring": ("ilkbahar",), "summer": ("yaz",), "autumn": ("sonbahar",),
    "winter": ("kış", "karlı zemin"),
}  # fmt: skip
_TR_WEATHER_KEYWORD: Words = {
    "clear": ("açık hava",), "cloudy": ("bulutlu", "bulutlar"), "rain": ("yağmur", "yağmurlu"),
    "snow": ("kar yağışı",),
}  # fmt: skip
_TR_LIGHT: Words = {"left": ("solda",), "right": ("sağda",), "middle": ("ortada",)}
_TR_STYLE: Words = {
    "oil painting": ("yağlı boya tablo", "yağlı boya", "yağlı boya resim"),
    "pencil sketch": ("karakalem çizimi", "karakalem", "kurşun kalem çizimi"),
}


def _turkish(
    has: Mapping[str, str], say: Mapping[str, str], rng: np.random.Generator, keywords: bool
) -> _Parts:
    suffix = "" if keywords else "lı"  # "kırmızı çatı", "kırmızı çatılı"
    features = []
    roof = [_TR_COLOUR[say["roof"]]] if "roof" in say else []
    shape = [_pick(_TR_ROOF_SHAPE[say["roof_shape"]], rng)] if "roof_shape" in say else []
    if roof or shape:
        # "kubbe çatı" and "beşik çatı" are compounds, with no room for a colour inside.
        first = shape == ["kubbe"] or rng.random() < 0.5 or shape == ["beşik"]
        words = roof + shape if first else shape + roof
        features.append(" ".join([*words, f"çatı{suffix}"]))
    if "door" in say:
        features.append(f"{_TR_COLOUR[say['door']]} kapı{suffix}")
    if say.get("trees") == "none":
        features.append("ağaçsız")
    if say.get("flower_amount") == "none":
        features.append("çiçeksiz")

    settings = [
        _pick(table[say[name]], rng)
        for name, table in (
            ("sky", _TR_SKY_KEYWORD if keywords else _TR_SKY),
            ("season", _TR_SEASON_KEYWORD if keywords else _TR_SEASON),
            ("weather", _TR_WEATHER_KEYWORD if keywords else _TR_WEATHER),
        )
        if name in say
    ]
    light = ""
    if "light" in say:
        words = ["ay" if has["sky"] == "night" else "güneş", _pick(_TR_LIGHT[say["light"]], rng)]
        light = " ".join(words if rng.random() < 0.7 else reversed(words))
    colour = [_TR_COLOUR[say["house"]]] if "house" in say else []
    return _Parts(
        house=" ".join([*colour, _pick(_TR_HOUSE, rng)]),
        features=[features[i] for i in rng.permutation(len(features))],
        trees=_turkish_trees(say, rng),
        flowers=_turkish_flowers(say, rng),
        settings=[settings[i] for i in rng.permutation(len(settings))],
        light=light,
        style=say.get("style", ""),
    )


def _turkish_trees(say: Mapping[str, str], rng: np.random.Generator) -> str:
    if say.get("trees") == "none" or ("trees" not in say and "tree_kind" not in say):
        return ""
    tree = _pick(_TR_TREE[say["tree_kind"]], rng) if "tree_kind" in say else "ağaç"
    if "trees" not in say:
        return _change_last(tree, _TR_PLURAL)
    if say["trees"] == "one" and tree.startswith("yaşlı") and rng.random() < 0.7:
        return tree.replace("yaşlı", "yaşlı bir")
    return f"{_TR_NUMBER[say['trees']][rng.random() < _DIGIT_SHARE]} {tree}"


def _turkish_flowers(say: Mapping[str, str], rng: np.random.Generator) -> str:
    amount = say.get("flower_amount")
    if amount == "none" or (amount is None and "flowers" not in say):
        return ""
    colour = [_TR_COLOUR[say["flowers"]]] if "flowers" in say else []
    if amount is None:
        return " ".join([*colour, "çiçekler"])
    return " ".join([_pick(_TR_AMOUNT[amount], rng), *colour, "çiçek"])


def _change_last(phrase: str, forms: Mapping[str, str]) -> str:
    *start, noun = phrase.split(" ")
    return " ".join([*start, forms[noun]])


def _say_turkish(parts: _Parts, rng: np.random.Generator) -> str:
    trees, flowers, features = parts.trees, parts.flowers, list(parts.features)
    if trees and trees.split(" ")[-1] in _TR_HAVING and rng.random() < 0.35:
        trees = trees.replace("yaşlı bir", "bir yaşlı")  # or it is the house that is old
        features.insert(0, _change_last(trees, _TR_HAVING))  # "iki çamlı"
        trees = ""
    if flowers.endswith("çiçekler") and rng.random() < 0.2:
        features.insert(0, _change_last(flowers, _TR_HAVING))
        flowers = ""
    *colour, noun = parts.house.split(" ")
    if len(features) == 2 and rng.random() < 0.4:
        features = [" ve ".join(features)]
    described = " ".join([", ".join(features), *colour]).strip()
    one = "bir " if rng.random() < 0.4 else ""
    form = rng.random()
    if trees and form < 0.25:  # "beyaz bir evin yanında üç çam"
        text = f"{described} {one}{_TR_OF[noun]} yanında {trees}".strip()
        text += f", önünde {flowers}" if flowers else ""
    elif flowers and not trees and form < 0.25:
        text = f"{described} {one}{_TR_OF[noun]} önünde {flowers}".strip()
    else:
        text = f"{described} {one}{noun}".strip()
        placed = rng.random() < 0.5
        plants = [f"yanında {trees}" if placed else trees] if trees else []
        plants += [f"önünde {flowers}" if placed else flowers] if flowers else []
        glue = " ve " if rng.random() < 0.3 else ", "
        text = ", ".join([text, glue.join(plants)]) if plants else text

    around = [" ".join(parts.settings)] if parts.settings else []
    around += [parts.light] if parts.light else []
    if around and rng.random() < 0.75:  # "gece, ay solda, kırmızı ev"
        glue = " " if len(around) == 1 and parts.settings and rng.random() < 0.5 else ", "
        text = ", ".join(around) + glue + text
    elif around:
        text = ", ".join([text, *around])
    if parts.style:
        style = _pick(_TR_STYLE[parts.style], rng)
        form = rng.random()
        text = f"{text}, {style}" if form < 0.4 else f"{style}{', ' if form < 0.8 else ': '}{text}"
    return text
