r"""Prompts as web interfaces write them: words that weigh more or less, and several rows of tokens.

    (word)         1.1 times, ((word)) 1.21 times
    (word:1.3)     1.3 times
    [word]         1 / 1.1 times
    \( \) \[ \]    brackets that are meant as such
    BREAK          what follows begins another row

The conventions are those of Stable Diffusion web UI (AUTOMATIC1111), which others took over. A
bracket that is never closed counts to the end. A row that is full ends after its last comma, if
that is near, and what follows fills another row.
"""

import math
import re
import warnings
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from jaxtyping import Float32, Int32

from diffusion.text.tokenizer import Tokenizer

BRACKETS = {"(": 1.1, "[": 1 / 1.1}
CLOSING = {")": "(", "]": "["}
NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
PIECE = re.compile(
    rf"\\[\\()\[\]]|\\|[(\[]|:\s*(?P<weight>{NUMBER})\s*\)|[)\]]|[^\\()\[\]:]+|:", re.DOTALL
)
BREAK = re.compile(r"\bBREAK\b")
FILE = re.compile(rf"<(?:lora|lyco|hypernet):([^<>:]+)(?::({NUMBER}))?[^<>]*>")
LOOKS = re.compile(rf"[(\[][^()\[\]]*[)\]]|{BREAK.pattern}")
# Words that change or take turns on the way, and pictures of several prompts.
OTHERS = re.compile(rf"(?<!\\)\[[^\[\]]*:\s*{NUMBER}\s*\]|(?<!\\)\[[^\[\]|]*\|[^\[\]]*\]|\bAND\b")
DEEPEST = 100  # brackets in brackets
HEAVIEST = 100.0
MOST_ROWS = 6
NEAR = 20  # tokens between a comma and the end of a full row
COMMA = ",</w>"
LONG = 40  # letters of a prompt that a note repeats

Part = tuple[str, float]  # a text and its weight


class EmphasisWarning(UserWarning):
    """A prompt has signs that mean something elsewhere, and not what they say here."""


def tell(prompts: Sequence[str]) -> None:
    """Warn of prompts that look as if they had signs, where these are told as words."""
    signs = [found[0][:LONG] for text in prompts if (found := LOOKS.search(text))]
    read = "{!r} is read as words; --emphasis weighs (words:1.3) and [words]"
    _warn(
        [read.format(sign) for sign in signs[:1]]
        + [note for text in prompts for note in files(text)]
    )


def files(prompt: str) -> list[str]:
    """The files that a prompt asks for, each with the way to add it."""
    return [
        f"{found[0][:LONG]} adds no file here; name it: --lora {found[1][:LONG]}.safetensors"
        + (f"={found[2]}" if found[2] else "")
        for found in FILE.finditer(prompt)
    ]


def without_files(prompt: str) -> str:
    return FILE.sub("", prompt)


def _warn(notes: list[str]) -> None:
    if notes:
        warnings.warn("; ".join(notes), EmphasisWarning, stacklevel=4)


def parse(prompt: str) -> list[list[Part]]:
    """What a prompt says between each two BREAKs, in parts of one weight.

    Raises ValueError for brackets too deep, a weight beyond 100 either way, and for words that
    change on the way ("[from:to:0.5]", "[one|other]") or prompts that are added up ("AND").
    """
    if found := OTHERS.search(prompt):
        raise ValueError(
            f"{found[0]!r}: words that change on the way and prompts that are added up are not "
            "supported; write one of them"
        )
    breaks: list[list[Part]] = [[]]
    for text, weight in _weighed(prompt):
        if not abs(weight) <= HEAVIEST:
            raise ValueError(f"{text[:30]!r} weighs {weight:g}; give up to {HEAVIEST:g}")
        for i, said in enumerate(BREAK.split(text)):
            if i:
                breaks.append([])
            breaks[-1].append((said, weight))
    return [
        [
            (said, weight)
            for weight, alike in groupby(parts, key=itemgetter(1))
            if (said := "".join(text for text, _ in alike))
        ]
        for parts in breaks
    ]


def _weighed(prompt: str) -> list[Part]:
    """The texts between the signs. Round and square brackets do not know of each other."""
    factors: list[float] = []  # of each pair of brackets
    opened: dict[str, list[int]] = {bracket: [] for bracket in BRACKETS}
    parts: list[tuple[str, list[int]]] = []  # each with the brackets around it
    for match in PIECE.finditer(prompt):
        piece, weight = match[0], match["weight"]
        pair = opened.get(CLOSING.get(piece[-1], ""))
        if piece in BRACKETS:
            opened[piece].append(len(factors))
            factors.append(BRACKETS[piece])
            if sum(map(len, opened.values())) > DEEPEST:
                raise ValueError(f"there are brackets more than {DEEPEST} deep; write (words:1.3)")
        elif pair and piece[0] != "\\":
            last = pair.pop()
            factors[last] = factors[last] if weight is None else float(weight)
        else:
            text = piece[1:] if piece[0] == "\\" else piece
            parts.append((text, [i for pairs in opened.values() for i in pairs]))
    return [(text, math.prod((factors[i] for i in around), start=1.0)) for text, around in parts]


def escape(text: str) -> str:
    """A text whose brackets mean nothing but themselves."""
    return re.sub(r"([\\()\[\]])", r"\\\1", text)


def rows(
    tokenizer: Tokenizer, prompt: str
) -> tuple[Int32[np.ndarray, "r n"], Float32[np.ndarray, "r n"]]:
    """Rows of tokens, as many as a prompt needs, and the weight of each token.

    The marks of beginning and end, and the filling, weigh 1. Raises ValueError as `parse`, and for
    more than 6 rows.
    """
    room, comma = tokenizer.length - 2, tokenizer.vocab.get(COMMA)
    found: list[list[tuple[int, float]]] = []
    _warn(files(prompt))
    for parts in parse(without_files(prompt)):
        rest = [(number, weight) for text, weight in parts for number in tokenizer.encode(text)]
        while len(rest) > room:
            near = range(max(room - NEAR, 0), room)
            commas = [i for i in near if rest[i][0] == comma and rest[room][0] != comma]
            end = commas[-1] + 1 if commas else room
            found.append(rest[:end])
            rest = rest[end:]
        found.append(rest)
    if len(found) > 1 and not found[-1]:
        found.pop()
    if len(found) > MOST_ROWS:
        raise ValueError(
            f"the prompt needs {len(found)} rows of {room} tokens; {MOST_ROWS} is the most"
        )
    tokens = np.full((len(found), tokenizer.length), tokenizer.pad, np.int32)
    weights = np.ones(tokens.shape, np.float32)
    for place, weight, row in zip(tokens, weights, found, strict=True):
        place[: len(row) + 2] = [tokenizer.bos, *(number for number, _ in row), tokenizer.eos]
        weight[1 : len(row) + 1] = [one for _, one in row]
    return tokens, weights
