"""The tokenizer beside CLIPTokenizer of `transformers`: the same numbers for any text.

Both read the same folder, in each layout in which Stable Diffusion's tokenizers are found.
"""

from __future__ import annotations

import json
import random
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from diffusion.inspection.rows import Row, compare
from diffusion.text.tokenizer import BOS, EOS, PromptCutWarning, Tokenizer

LENGTH = 77
GOLDEN = "tokenizer.json"
GARDEN = Path(__file__).parents[1] / "data" / "garden" / "tokenizer"

MIXED = """
a painting of two old houses by the sea, oil on canvas, highly detailed, 4k
they'll paint what we've seen; it's the artist's own, isn't it? I'd say I'm sure you're right
İstanbul'da kırmızı çatılı eski evler, gece, ay ışığı; ILIK İĞNE ığdır şöyle böyle güzel
une forêt enchantée près d'un château, à l'aube; ein schöner großer Garten voller Blumen
старый дом у моря, ночь и луна; παλιό σπίτι δίπλα στη θάλασσα, ΟΔΟΣ και οδός
海边的老房子，油画，日落；古い家と満月、雪の夜に；바닷가의 오래된 집과 달
بيت قديم قرب البحر; בית ישן ליד הים; समुद्र के किनारे पुराना घर; บ้านเก่าริมทะเล
🏡🌙✨ 👩‍🎨 🇹🇷 1990 ¾ ² №5 $100 50% #art @home (((masterpiece))) [wide:0.5] -- ... !!!
"""
# Composed to ≯ and ≮ where a text is normalised first: then they are no markers.
STRUCK = f"{BOS}\u0338 ev {EOS}\u0338 house <\u0338{BOS[1:]}"

# What texts are made of: everything that is known to be treated in a way of its own.
PIECES = (
    *(BOS, EOS, BOS.upper(), "<|EndOfText|>", "<|startoftext", "oftext|>", "<|", "|>", "</w>"),
    *("!", "!!", "?", ",", "'", "'s", "'S", "'t", "'re", "'ve", "'m", "'ll", "'LL", "'d", "’s"),
    *" \t\n\r\v\f\0\x1b\x1c\x1f\x7f\x85\xa0\xad\u180e\u2003\u200b\u200d\u2028\u202e\u3000\ufeff",
    *("12", "٣", "Ⅷ", "½", "²", "a", "B", "house", "HOUSE", "evler", "naïve", "x" * 40),
    *("İ", "I", "ı", "i", "I\u0307", "i\u0307", "Σ", "ς", "ΟΔΟΣ", "ß", "ẞ", "ﬁ", "Ǆ", "ǅ", "K"),
    *("é", "e\u0301", "Å", "\u212b", "Ω", "한", "\u1112\u1161\u11ab", "가\u11a8", "\ufb1d"),
    *"\u0301\u0316\u0327\u0338\u0344\u0345\u05b0\u07fd\u0958\u3099\ufffd\ufffe\ufe0f",
    *("🏡", "👩‍🎨", "🇹🇷", "海边", "바다", "ночь", "بيت", "घर"),
    *("\U00011935\U00011930", "\U0010ffff", "\ue000", "\ud7ff"),
)

# Characters that Unicode versions 9 to 18 treat differently.
NEW = (0x7FD, 0x1C89, 0xA7CB, 0x10D50, 0x11935, 0x11DE0, 0x16EA0, 0x1ACF, 0x31350, 0x323B0, 0x3D000)


def texts(seed: int, count: int) -> list[str]:
    """Random texts of no to 300 pieces: those above, and characters of all planes."""
    draw = random.Random(seed)

    def character() -> str:
        code = draw.randrange(draw.choice((0x250, 0x3000, 0x20000, 0x110000)))
        # Half of a surrogate pair is no text to the reference.
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)

    def text() -> str:
        length = draw.choice((0, 1, 2, 4, 8, 16, 32, 300))
        odd = draw.choice((0.0, 0.2, 1.0))
        pick = (character() if draw.random() < odd else draw.choice(PIECES) for _ in range(length))
        return "".join(pick)

    return [text() for _ in range(count)]


def characters(codes: Iterable[int]) -> list[str]:
    """A text for each code point, beside letter, number, punctuation and accents."""
    return [f"A{c}1{c}! q\u0345{c}\u0334a{c}\u0301" for c in map(chr, codes)]


def _flagged(marker: str) -> dict[str, Any]:
    off = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    return {"content": marker, "normalized": True, **off}


def _official(pad_token: str) -> dict[str, dict[str, Any]]:
    """The settings beside vocab.json and merges.txt in Stable Diffusion 1.x and 2.x."""
    special = {role: _flagged(EOS) for role in ("eos_token", "unk_token")}
    special = {"bos_token": _flagged(BOS), **special}
    typed = {role: {"__type": "AddedToken", **entry} for role, entry in special.items()}
    config = {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer", "pad_token": EOS}
    return {
        "special_tokens_map.json": {**special, "pad_token": pad_token},
        "tokenizer_config.json": {**config, **typed},
    }


LAYOUTS: Mapping[str, dict[str, dict[str, Any]]] = MappingProxyType(
    {
        "two files alone": {},
        "as SD 1.x": _official(EOS),
        "as SD 2.x": _official("!"),
    }
)


def write_folder(folder: Path, vocab: Any, merges: Any, layout: str) -> Path:
    """Write a tokenizer's folder in one of `LAYOUTS`."""
    folder.mkdir(parents=True)
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    for name, content in {"vocab.json": vocab, **LAYOUTS[layout]}.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def ours(folder: Path, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Our numbers of some texts: rows (n, 77), and all of every text in one line."""
    tokenizer = Tokenizer.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptCutWarning)
        return tokenizer(texts), np.array([id for text in texts for id in tokenizer.encode(text)])


def reference(folder: Path, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The same of `transformers`."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder)
    rows = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH)["input_ids"]
    whole = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return np.array(rows), np.array([id for ids in whole for id in ids])


def rows(seed: int) -> list[Row]:
    """One row a vocabulary and layout, and one for the characters of all planes."""
    garden = Tokenizer.load(GARDEN)
    mixed = Tokenizer.train(MIXED.splitlines(), 1500)
    some = [*texts(seed, 400), *MIXED.splitlines(), STRUCK, "".join(texts(seed + 1, 400))]
    codes = [code for code in range(seed % 16, 0x110000, 16) if not 0xD800 <= code < 0xE000]
    found = []
    with tempfile.TemporaryDirectory() as place:
        for name, tokenizer in {"garden": garden, "mixed": mixed}.items():
            for layout in LAYOUTS:
                folder = Path(place) / f"{name} {layout}"
                write_folder(folder, tokenizer.vocab, tokenizer.merges, layout)
                found += _compare(f"tokenizer {name}, {layout}", folder, some)
            one_file = Path(place) / f"{name} one file"
            _one_file(folder, one_file)
            found += _compare(f"tokenizer {name}, one file", one_file, some)
        found += _compare("tokenizer, every 16th character", folder, characters(codes))
    return found


def _compare(block: str, folder: Path, texts: list[str]) -> list[Row]:
    one, other = ours(folder, texts), reference(folder, texts)
    return [
        compare(block, one[0], other[0], bound=0.0),
        compare(f"{block}, uncut", one[1], other[1], bound=0.0),
    ]


def _one_file(folder: Path, target: Path) -> None:
    """Write a folder as `transformers` 5 does: tokenizer.json and tokenizer_config.json."""
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(folder).save_pretrained(target)


def write_golden(folder: Path) -> None:
    """Record numbers of the reference for the tests, which have no `transformers`.

    The vocabulary is in the tokenizer.json that the reference writes; every layout is made of it.
    """
    mixed = Tokenizer.train(MIXED.splitlines(), 900)
    some = [*texts(0, 30), *MIXED.splitlines(), STRUCK, *characters(NEW)]
    record: dict[str, Any] = {"texts": some, "ids": {}}
    with tempfile.TemporaryDirectory() as place:
        for layout in LAYOUTS:
            source = write_folder(Path(place) / layout, mixed.vocab, mixed.merges, layout)
            record["ids"][layout] = [whole.tolist() for whole in reference(source, some)]
        _one_file(source, Path(place) / "one file")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            path = Path(place) / "one file" / name
            record[name] = json.loads(path.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GOLDEN).write_text(json.dumps(record) + "\n", encoding="utf-8")
