"""Captions: true, varied, and honest about what they name."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from diffusion.datasets.captions import (
    LANGUAGES,
    Caption,
    caption,
    captions,
    grammar,
    travels,
)
from diffusion.datasets.captions.language import Language, Parts
from diffusion.datasets.garden import ATTRIBUTES, Scene, sample_clips, sample_scenes, value
from diffusion.datasets.garden.motion import CHANGES, MOTIONS

COUNT = 3_000
TURKISH_ASCII = str.maketrans("çğıöşüâ", "cgiosua")

# A reader that shares no table with the writer: for every attribute, a pattern that finds the
# value's words where they speak of that attribute. Turkish is read without its own letters.
EN_COLOUR = {
    c: c
    for c in (
        *("red", "blue", "yellow", "white", "green"),
        *("purple", "orange", "pink", "brown"),
    )
} | {"grey": "gr[ae]y"}
EN_SHAPE = "(?:gabled|pointed|triangular|flat|domed|round|dome-shaped)"
EN_ANY = f"(?:{'|'.join(EN_COLOUR.values())})"
EN_HOUSE = "(?:house|cottage|home)"
EN_TREE = "(?:old |apple )?(?:tree|oak|pine|poplar)"
ENGLISH = {
    "house": {c: rf"\b{p} {EN_HOUSE}" for c, p in EN_COLOUR.items()},
    "roof": {c: rf"\b{p} (?:{EN_SHAPE} )?roof\b|\b{p}-roofed" for c, p in EN_COLOUR.items()},
    "roof_shape": {
        s: rf"\b(?:{p}) (?:{EN_ANY} )?roof"
        for s, p in {
            "gabled": "gabled|pointed|triangular",
            "flat": "flat",
            "dome": "domed|round|dome-shaped",
        }.items()
    },
    "door": {c: rf"{p} door" for c, p in EN_COLOUR.items()},
    "trees": {
        "none": "no trees",
        "one": r"\b(?:an?|one|1) (?:(?:old )?oak|old tree|pine|poplar|apple tree|tree)\b",
        "two": rf"\b(?:two|2) {EN_TREE}",
        "three": rf"\b(?:three|3) {EN_TREE}",
    },
    "tree_kind": {"oak": r"\bold\b|\boak", "pine": r"\bpine", "poplar": "poplar", "apple": "apple"},
    "flowers": {c: rf"{p} flowers" for c, p in EN_COLOUR.items()},
    "flower_amount": {
        "none": "no flowers",
        "few": rf"\bfew (?:{EN_ANY} )?flowers",
        "many": rf"(?:many|lots of|plenty of) (?:{EN_ANY} )?flowers",
    },
    "sky": {
        "day": r"\bday\b|daylight|daytime",
        "sunset": r"sunset|sun sets",
        "night": r"\bnight|\bmoon\b",
    },
    "light": {
        side: rf"\b(?:sun|moon) (?:on the|in the|at the top) (?:{word})"
        for side, word in {"left": "left", "right": "right", "middle": "middle|centre"}.items()
    },
    "season": {
        "spring": r"spring",
        "summer": r"summer",
        "autumn": r"autumn|\bfall\b",
        "winter": r"winter|in the snow\b|snowy ground",
    },
    "weather": {
        "clear": "clear|cloudless",
        "cloudy": "cloudy|clouds",
        "rain": r"\brain",
        "snow": "falling snow|snow falls|it snows|snowfall",
    },
    "style": {"oil painting": r"\boil\b", "pencil sketch": "pencil|sketch"},
}
TR_COLOUR = dict(
    red="kirmizi", blue="mavi", yellow="sari", white="beyaz", green="yesil", purple="mor",
    orange="turuncu", pink="pembe", brown="kahverengi", grey="gri",
)  # fmt: skip
TR_SHAPE = "(?:ucgen|sivri|besik|duz|kubbeli|kubbe|yuvarlak)"
TR_ANY = f"(?:{'|'.join(TR_COLOUR.values())})"
TR_TREE = "(?:yasli |elma )?(?:agac|mese|cam|kavak)"
TURKISH = {
    "house": {c: rf"\b{p} (?:bir )?(?:ev|kulube)(?:in|nin)?\b" for c, p in TR_COLOUR.items()},
    "roof": {c: rf"\b{p} (?:{TR_SHAPE} )?cati" for c, p in TR_COLOUR.items()},
    "roof_shape": {
        s: rf"\b(?:{p}) (?:{TR_ANY} )?cati"
        for s, p in {
            "gabled": "ucgen|sivri|besik",
            "flat": "duz",
            "dome": "kubbeli|kubbe|yuvarlak",
        }.items()
    },
    "door": {c: rf"\b{p} kapi" for c, p in TR_COLOUR.items()},
    "trees": {
        "none": "agacsiz",
        "one": rf"\b(?:bir|1) {TR_TREE}",
        "two": rf"\b(?:iki|2) {TR_TREE}",
        "three": rf"\b(?:uc|3) {TR_TREE}",
    },
    "tree_kind": {
        "oak": r"\byasli\b|\bmese",
        "pine": r"\bcam",
        "poplar": r"\bkavak",
        "apple": r"\belma",
    },
    "flowers": {c: rf"\b{p} cicek" for c, p in TR_COLOUR.items()},
    "flower_amount": {
        "none": "ciceksiz",
        "few": "birkac|az sayida",
        "many": "bir suru|cok sayida|pek cok",
    },
    "sky": {
        "day": r"gunduz|gun isig",
        "sunset": r"gun batimi|gun batarken",
        "night": r"\bgece|\bay\b",
    },
    "light": {"left": r"\bsolda\b", "right": r"\bsagda\b", "middle": r"\bortada\b"},
    "season": {
        "spring": "ilkbahar",
        "summer": r"\byaz(?:in)?\b",
        "autumn": r"sonbahar|\bguz\b",
        "winter": r"\bkis(?:in)?\b|karlar icinde|karli zemin",
    },
    "weather": {
        "clear": "acik hava|bulutsuz",
        "cloudy": "bulutlu|bulutlar",
        "rain": "yagmur",
        "snow": r"\bkar yag",
    },
    "style": {"oil painting": "yagli boya", "pencil sketch": "karakalem|kursun kalem"},
}
PATTERNS = {
    language: {
        name: {word: re.compile(pattern) for word, pattern in values.items()}
        for name, values in table.items()
    }
    for language, table in (("en", ENGLISH), ("tr", TURKISH))
}
ASCII = str.maketrans("çğıöşüÇĞİÖŞÜI", "cgiosuCGIOSUI")


def read_back(said: Caption) -> dict[str, set[str]]:
    text = said.text.translate(ASCII).lower()
    found = {
        name: {word for word, pattern in values.items() if pattern.search(text)}
        for name, values in PATTERNS[said.language].items()
    }
    return {name: words for name, words in found.items() if words}


@pytest.fixture(scope="module")
def scenes() -> Scene:
    return sample_scenes(np.random.default_rng(0), COUNT)


@pytest.fixture(scope="module")
def written(scenes: Scene) -> list[Caption]:
    return captions(scenes, np.random.default_rng(1))


def test_captions_say_what_is_named_and_nothing_else(scenes: Scene, written: list[Caption]):
    for index, said in enumerate(written):
        truth = {name: {value(scenes, index, name)} for name in said.named}
        assert read_back(said) == truth, said


def test_same_seed_same_captions(scenes: Scene, written: list[Caption]):
    some = Scene(*(field[:200] for field in scenes))
    assert captions(some, np.random.default_rng(1)) == written[:200]
    assert captions(some, np.random.default_rng(2)) != written[:200]


def test_captions_name_any_subset(written: list[Caption]):
    sizes = Counter(len(said.named) for said in written)
    assert set(range(len(ATTRIBUTES) + 1)) <= set(sizes)
    assert sum(sizes[n] for n in range(2, 7)) > 0.6 * COUNT
    assert len({said.named for said in written}) > COUNT / 4
    named = Counter(name for said in written for name in said.named)
    assert named["house"] > 0.8 * COUNT
    assert min(named[name] for name in ATTRIBUTES) > 0.15 * COUNT


def test_captions_are_varied_and_short(written: list[Caption]):
    assert len({said.text for said in written}) > 0.8 * COUNT
    lengths = np.array([len(said.text.split()) for said in written])
    assert lengths.min() >= 1
    assert lengths.max() <= 60
    assert np.mean(lengths < 30) > 0.9


@pytest.mark.parametrize("turkish", [0.0, 0.5, 1.0])
def test_languages_are_shared_as_asked(scenes: Scene, turkish: float):
    some = Scene(*(field[:200] for field in scenes))
    shares = {"tr": turkish, "en": 1.0 - turkish}
    spoken = Counter(said.language for said in captions(some, np.random.default_rng(0), shares))
    assert set(spoken) == {language for language, share in shares.items() if share}
    assert abs(spoken["tr"] / 200 - turkish) < 0.15


def test_a_third_language_needs_one_line(scenes: Scene, monkeypatch: pytest.MonkeyPatch):
    def describe(scene, named, rng, keywords):
        return Parts("ein Haus", [], "", "", [], "", named.get("style", ""))

    style = {"oil painting": ["Ölbild"], "pencil sketch": ["Skizze"]}
    german = Language(
        "German", describe, lambda parts, rng: parts.house, style, capitals={"e": "E"}
    )
    monkeypatch.setattr(grammar, "LANGUAGES", {**LANGUAGES, "de": german})
    some = Scene(*(field[:100] for field in scenes))
    said = captions(some, np.random.default_rng(0), {"de": 0.5, "tr": 0.25, "en": 0.25})
    assert {caption.language for caption in said} == {"de", "tr", "en"}
    texts = {caption.text for caption in said if caption.language == "de"}
    assert {"ein Haus", "Ein Haus", "ein Haus."} <= texts
    assert any("Ölbild" in text for text in texts)


def test_grammar(written: list[Caption]):
    for said in written:
        assert not re.search(r"  |, ,|^ | $", said.text), said
        text = said.text.lower()
        if said.language == "en":
            assert not re.search(r"\ba [aeio]|\ban [^aeio]", text), said
            assert not re.search(
                r"\b(two|three|2|3) (old |apple )?(oak |pine |poplar )?tree\b", text
            )
            assert text.count("house") + text.count("cottage") + text.count("home") == 1, said
        else:
            number = r"\b(?:iki|üç|2|3|birkaç|sayıda|bir sürü|pek çok)"
            assert not re.search(rf"{number} (?:\w+ )?(?:\w+)l[ae]r[ıi]?\b", text), said
            assert len(re.findall(r"\b(?:ev|kul[üu]be)(?:in|nin)?\b", text)) == 1, said


def test_ways_of_typing_occur_now_and_then(written: list[Caption]):
    english = [said.text for said in written if said.language == "en"]
    turkish = [said.text for said in written if said.language == "tr"]
    assert 0.1 < np.mean([text[0].isupper() for text in english]) < 0.3
    assert 0.1 < np.mean([text.endswith(".") for text in english]) < 0.3
    assert any(text.startswith("İ") for text in turkish)
    plain = [text for text in turkish if text.isascii()]
    assert any("kirmizi" in text for text in plain)
    assert any("sari" in text for text in plain)
    assert any(re.search(r"\b[23] ", text) for text in english)


def test_one_scene_is_described_in_many_ways(scenes: Scene):
    rng = np.random.default_rng(5)
    ways = defaultdict(set)
    for _ in range(100):
        for language in ("en", "tr"):
            ways[language].add(caption(scenes, 7, rng, language).text)
    assert min(len(texts) for texts in ways.values()) > 80


def test_bad_input_is_explained(scenes: Scene):
    with pytest.raises(ValueError, match="language is 'xx'"):
        caption(scenes, 0, np.random.default_rng(0), "xx")
    with pytest.raises(ValueError, match="language is 'xx'; captions are written in \"en\" or"):
        captions(scenes, np.random.default_rng(0), {"xx": 1.0})
    for shares in ({}, {"tr": 0.5}, {"tr": 1.5, "en": -0.5}):
        with pytest.raises(ValueError, match=r"shares is .*; give shares from 0 to 1 that"):
            captions(scenes, np.random.default_rng(0), shares)


def test_detailed_captions_name_more_and_are_as_true():
    scenes = sample_scenes(np.random.default_rng(0), 400)
    plain, detailed = (
        captions(scenes, np.random.default_rng(1), detailed_share=share) for share in (0.0, 1.0)
    )
    assert 3.5 < np.mean([len(said.named) for said in plain]) < 4.5
    assert np.mean([len(said.named) for said in detailed]) > 8
    assert min(len(said.named) for said in detailed) >= 5
    with pytest.raises(ValueError, match=r"detailed_share is 1\.5; give a share from 0 to 1"):
        captions(scenes, np.random.default_rng(1), detailed_share=1.5)


@pytest.fixture(scope="module")
def moving(scenes: Scene) -> list[Caption]:
    return captions(scenes, np.random.default_rng(3), detailed_share=0.3, motion_share=1.0)


EN_MOTION = {
    "sun rises": r"sun (rises|is rising|comes up)",
    "sun sets": r"(?<!as the )sun (sets|goes down|is going down|sinks)",  # "as" tells the hour
    "night falls": r"night falls|dark\b|night is coming",
    "rain begins": r"(begins|starts) (to rain|raining)",
    "rain ends": r"stops raining|rain (stops|ends)",
    "snow begins": r"(begins|starts) to (snow|fall)",
    "snow ends": r"stops snowing|snow stops|no more snow",
    "clouds drift left": r"clouds (drift to the|move) left",
    "clouds drift right": r"clouds (drift to the|move) right",
    "leaves turn": r"leaves (turn|change|are turning)",
    "trees sway": r"trees sway|moves the trees",
    "view moves left": r"(camera|view) (moves|pans) left",
    "view moves right": r"(camera|view) (moves|pans) right",
    "view comes closer": r"zooms in|zooming in|closer",
    "view widens": r"zooms out|zooming out|moves away",
}
TR_MOTION = {
    "sun rises": r"gunes (doguyor|yukseliyor)",
    "sun sets": r"gunes (batiyor|alcaliyor)",
    "night falls": r"gece oluyor|kararıyor|karariyor|karanlik",
    "rain begins": r"yagmur (yagmaya )?basliyor",
    "rain ends": r"yagmur (diniyor|duruyor)",
    "snow begins": r"kar (yagmaya )?basliyor",
    "snow ends": r"kar (diniyor|duruyor)",
    "clouds drift left": r"bulutlar sola",
    "clouds drift right": r"bulutlar saga",
    "leaves turn": r"yapraklar",
    "trees sway": r"sallaniyor",
    "view moves left": r"kamera sola",
    "view moves right": r"kamera saga",
    "view comes closer": r"yaklasiyor",
    "view widens": r"uzaklasiyor",
}


def test_captions_say_what_happens_and_nothing_else_of_it(moving: list[Caption]):
    for said in moving:
        patterns = EN_MOTION if said.language == "en" else TR_MOTION
        text = said.text.replace("İ", "i").lower().translate(TURKISH_ASCII)
        assert [name for name, p in patterns.items() if re.search(p, text)] == [said.motion], said
    told = Counter((said.language, said.motion) for said in moving)
    assert set(told) == {(code, name) for code in LANGUAGES for name in MOTIONS}


def test_a_travel_says_what_happens_and_then_how_things_are():
    clips = sample_clips(np.random.default_rng(0), 400)
    told = travels(clips, np.random.default_rng(1))
    assert told == travels(clips, np.random.default_rng(1))
    names = [*MOTIONS, ""]
    seen = set()
    for position, travel in zip(clips.motion, told, strict=True):
        name = names[position]
        text, *ends = (said.replace("İ", "i").lower().translate(TURKISH_ASCII) for said in travel)
        for patterns in (EN_MOTION, TR_MOTION):
            if found := [one for one, p in patterns.items() if re.search(p, text)]:
                assert found == [name]
                seen.add((name, patterns is TR_MOTION))
            assert not any(re.search(p, end) for p in patterns.values() for end in ends)
        assert (travel.first != travel.last) == (name in CHANGES)
        assert (text in ends) == (not name)
    assert len(seen) == 2 * len(MOTIONS)


def test_what_moves_is_there():
    """Who says that clouds drift says that it is cloudy."""
    clips = sample_clips(np.random.default_rng(0), 400)
    names = [*MOTIONS, ""]
    for position, travel in zip(
        clips.motion, travels(clips, np.random.default_rng(1)), strict=True
    ):
        if names[position].startswith("clouds"):
            assert re.search("cloud|rain|snow|bulut|yağ|yag|kar", travel.first.lower()), travel
        if names[position] in ("trees sway", "leaves turn"):
            kinds = "tree|oak|pine|poplar|ağa|aga|meşe|mese|çam|cam|kava|elma"
            assert re.search(kinds, travel.first.lower()), travel
        if names[position].startswith("snow"):
            assert re.search("winter|snow|kış|kis|kar", travel.last.lower()), travel


def test_a_picture_can_be_a_moment_of_what_happens(moving: list[Caption], scenes: Scene):
    for i, said in enumerate(moving):
        for name, words in MOTIONS[said.motion].items():
            assert value(scenes, i, name) in words, said


def test_captions_are_the_same_where_nothing_happens(scenes: Scene):
    some = Scene(*(field[:50] for field in scenes))
    still, rare = (
        captions(some, np.random.default_rng(0), motion_share=share) for share in (0.0, 1e-9)
    )
    assert not any(said.motion for said in still + rare)
    assert still == captions(some, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"motion_share is 1\.5; give a share from 0 to 1"):
        captions(some, np.random.default_rng(0), motion_share=1.5)
