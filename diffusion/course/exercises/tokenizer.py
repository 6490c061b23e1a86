"""Exercises of lesson 1, the brief."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.text.tokenizer import apply_merges, count_pairs, learn_merges, merge_pair


def _words() -> list[tuple[Any, ...]]:
    return [
        (("h", "o", "u", "s", "e</w>"), ("o", "u")),
        (("b", "a", "n", "a", "n", "a</w>"), ("a", "n")),
        (("a", "a", "a", "b</w>"), ("a", "a")),
        (("r", "e", "d</w>"), ("o", "u")),
        (("lo", "u", "d</w>"), ("o", "u")),
    ]


def _first_only(word: Any, pair: Any) -> Any:
    for i in range(len(word) - 1):
        if (word[i], word[i + 1]) == pair:
            return (*word[:i], word[i] + word[i + 1], *word[i + 2 :])
    return word


def _anywhere(word: Any, pair: Any) -> Any:
    return tuple("+".join(word).replace("+".join(pair), "".join(pair)).split("+"))


def _kept(word: Any, pair: Any) -> Any:
    """The glued pair is added, and its second half stays."""
    out: list[str] = []
    for i, symbol in enumerate(word):
        nxt = word[i + 1] if i + 1 < len(word) else None
        out.append(symbol + nxt if nxt is not None and (symbol, nxt) == pair else symbol)
    return tuple(out)


LEARNED = "o u, h ou, s e</w>, hou se</w>, r e, e e, t r, tr ee, t re, tree s</w>, e s</w>"
RANKS = {tuple(pair.split(" ")): rank for rank, pair in enumerate(LEARNED.split(", "))}


def _first_found(word: Any, ranks: Any) -> Any:
    """From the left, whatever can be glued."""
    word = tuple(word)
    while True:
        for i in range(len(word) - 1):
            if (word[i], word[i + 1]) in ranks:
                word = (*word[:i], word[i] + word[i + 1], *word[i + 2 :])
                break
        else:
            return word


def _one_round(word: Any, ranks: Any) -> Any:
    known = [pair for pair in pairwise(word) if pair in ranks]
    return merge_pair(word, min(known, key=ranks.__getitem__)) if known else word


def _last_learned(word: Any, ranks: Any) -> Any:
    word = tuple(word)
    while known := [pair for pair in pairwise(word) if pair in ranks]:
        word = merge_pair(word, max(known, key=ranks.__getitem__))
    return word


def _row(ids: Any, length: int, bos: int, eos: int) -> Any:
    row = np.full(length, eos)
    ids = list(ids)[: length - 2]
    row[: len(ids) + 2] = [bos, *ids, eos]
    return row


def _cut_end(ids: Any, length: int, bos: int, eos: int) -> Any:
    return np.array(([bos, *ids, eos] + [eos] * length)[:length])


def _zeros(ids: Any, length: int, bos: int, eos: int) -> Any:
    row = np.zeros(length, int)
    ids = list(ids)[: length - 2]
    row[: len(ids) + 2] = [bos, *ids, eos]
    return row


def _spelt(words: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(*word[:-1], f"{word[-1]}</w>"): often for word, often in words.items()}


def _seen() -> list[tuple[Any, ...]]:
    houses = _spelt({"house": 10, "houses": 4, "mouse": 3, "red": 8, "tree": 6, "trees": 5})
    return [
        (_spelt({"ab": 3, "abc": 1, "cc": 2}), 1),
        (houses, 5),
        (_spelt({"ba": 1, "ab": 1, "ca": 1}), 3),  # all are as frequent
        (_spelt({"aab": 2, "ab": 1}), 9),  # ends when each word is one piece
    ]


def _learn(
    words: Mapping[Any, int], count: int, best: Callable[[Any], Any], often: Callable[[int], int]
) -> list[Any]:
    merges: list[Any] = []
    while len(merges) < count:
        pairs = count_pairs({word: often(n) for word, n in words.items()})
        if not pairs:
            break
        merges.append(best(pairs))
        words = {merge_pair(word, merges[-1]): n for word, n in words.items()}
    return merges


def _most(pairs: Counter[Any]) -> Any:
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


EXERCISES: Mapping[str, Exercise] = {
    "merge_pair": Exercise(
        minutes=10,
        right=merge_pair,
        cases=_words,
        mistakes={"first_only": _first_only, "twice_used": _kept, "anywhere": _anywhere},
    ),
    "apply_merges": Exercise(
        minutes=15,
        right=apply_merges,
        cases=lambda: [
            (("h", "o", "u", "s", "e</w>"), RANKS),
            (("t", "r", "e", "e", "s</w>"), RANKS),
            (("r", "e", "d</w>"), {}),
        ],
        mistakes={
            "one_round": _one_round,
            "first_found": _first_found,
            "last_learned": _last_learned,
        },
    ),
    "row": Exercise(
        minutes=8,
        right=_row,
        cases=lambda: [
            ([5, 6], 6, 98, 99),
            ([1, 2, 3, 4, 5, 6, 7], 6, 98, 99),
            ([], 4, 98, 99),
            ([1, 2, 3, 4], 6, 98, 99),  # with no room to spare
            ([1, 2, 3, 4, 5], 6, 98, 99),  # with one token too many
        ],
        mistakes={
            "cut_end": _cut_end,
            "zeros": _zeros,
            "no_begin": lambda ids, length, bos, eos: np.array(
                ([*list(ids)[: length - 1], eos] + [eos] * length)[:length]
            ),
        },
    ),
    "learn": Exercise(
        minutes=20,
        right=learn_merges,
        cases=_seen,
        mistakes={
            "once": lambda words, count: _learn(words, count, _most, lambda n: 1),
            "counted_once": lambda words, count: sorted(
                (pairs := count_pairs(words)), key=lambda pair: (-pairs[pair], pair)
            )[:count],
            "ties": lambda words, count: _learn(
                words, count, lambda pairs: max(pairs, key=lambda p: (pairs[p], p)), lambda n: n
            ),
        },
    ),
}
