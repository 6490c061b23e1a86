"""Words to numbers: byte-pair encoding with the conventions of CLIP.

A network cannot read letters, so a sentence is cut into *tokens*, each with a number. Whole words
would need an endless dictionary, single letters would make endless sentences. Byte-pair encoding
learns the middle way: start from bytes, then again and again glue the two neighbours that meet
most often. Frequent words become one token, rare words a few, and no text is unknown.

Sources: Sennrich et al. 2016 (arXiv:1508.07909) for the merges, Radford et al. 2019 (GPT-2) for
the bytes, Radford et al. 2021 (CLIP, arXiv:2103.00020) for lower case, `</w>` and the markers.
"""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import count as numbered
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Self

import numpy as np
import regex
from jaxtyping import Int32

from diffusion.text import clip_files
from diffusion.text.characters import BOS, CHUNK, EOS, WORD, WORD_END, normalise

Word = tuple[str, ...]  # the symbols that a word is made of at the moment
Pair = tuple[str, str]

LONGEST_CACHED_WORD, CACHED_WORDS = 64, 65_536
LONGEST_ADDED = 100  # characters

# A visible character for each byte, as in GPT-2: `merges.txt` stays readable, split by spaces.
# Bytes that print in Latin-1 stand for themselves, the others get U+0100, U+0101, ... in order.
PRINTING = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
HIDDEN = sorted({*range(0x100)} - PRINTING)
BYTE_SYMBOLS = tuple(chr(b if b in PRINTING else 0x100 + HIDDEN.index(b)) for b in range(0x100))
# The first 512 tokens of CLIP: each byte inside a word, then each byte that ends a word.
BASE_TOKENS = (*sorted(BYTE_SYMBOLS), *(symbol + WORD_END for symbol in sorted(BYTE_SYMBOLS)))


class PromptCutWarning(UserWarning):
    """A prompt is too long for the text encoder; the message names the words that were cut."""


def word_symbols(word: str) -> Word:
    """The bytes of a word as symbols, the last one marked: "ev" -> ("e", "v</w>")."""
    *body, last = (BYTE_SYMBOLS[byte] for byte in word.encode("utf-8"))
    return (*body, last + WORD_END)


def count_pairs(words: Mapping[Word, int]) -> Counter[Pair]:
    """How often each two symbols are neighbours; `words` says how often each word was seen."""
    pairs: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            pairs[pair] += count
    return pairs


def merge_pair(word: Word, pair: Pair) -> Word:
    """Glue the pair wherever it occurs, from the left: (l, o, w) and (l, o) -> (lo, w)."""
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def learn_merges(words: Mapping[Word, int], new_tokens: int) -> list[Pair]:
    """Glue the most frequent pair everywhere, then the most frequent of what is now there, ...

    Of equally frequent pairs the first in code point order wins, so the order of the texts does
    not matter. Ends after `new_tokens` different new tokens, or when each word is one token.
    """
    words, pairs, tokens = dict(words), count_pairs(words), set[str]()
    merges: list[Pair] = []
    where: defaultdict[Pair, set[Word]] = defaultdict(set)  # words that hold, or once held, a pair
    for word in words:
        for pair in pairwise(word):
            where[pair].add(word)
    while pairs and len(tokens) < new_tokens:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens.add("".join(best))
        before = {word: words.pop(word) for word in where.pop(best) if word in words}
        after = {merge_pair(word, best): count for word, count in before.items()}
        for word in after:
            for pair in pairwise(word):
                where[pair].add(word)
        words |= after
        pairs.update(count_pairs(after))
        pairs.subtract(count_pairs(before))
        pairs = +pairs  # without the pairs that are gone
    return merges


def apply_merges(word: Word, ranks: Mapping[Pair, int]) -> Word:
    """Glue the pair learned first (lowest rank, then leftmost) until no known pair is left.

    The same answer as `merge_pair` rank by rank. A heap and a linked list make it n log n steps,
    not n^2: a "word" may have 100,000 letters. The heap holds `rank * size + place`, one number,
    because that compares faster than a tuple.
    """
    symbols = [*word, ""]  # "" pairs with nothing: a guard at both ends, and a symbol that is gone
    size, end = len(symbols), len(word)
    left, right = [*range(-1, end)], [*range(1, size), end]
    heap = [ranks[pair] * size + at for at, pair in enumerate(pairwise(word)) if pair in ranks]
    heapify(heap)
    while heap:
        rank, place = divmod(heappop(heap), size)
        other = right[place]
        if ranks.get((symbols[place], symbols[other])) != rank:
            continue  # one of the two was glued to somebody else meanwhile
        symbols[place], symbols[other] = symbols[place] + symbols[other], ""
        right[place] = right[other]
        left[right[place]] = place
        for start in (left[place], place):
            new_rank = ranks.get((symbols[start], symbols[right[start]]))
            if new_rank is not None:
                heappush(heap, new_rank * size + start)
    return tuple(filter(None, symbols))


class Tokenizer:
    """Text to token numbers and back: `tokenizer(["a red house"])` is what the text encoder reads.

    The order of a vocabulary is CLIP's: 512 byte tokens, the merges, BOS, EOS. A marker written
    out in a prompt becomes its number, as in Hugging Face's CLIPTokenizer; so does the padding
    token: SD 2.x pads with "!", and each "!" of its prompts is token 0.

    Args:
        vocab: token -> number; the numbers are 0..n-1.
        merges: the pairs in the order in which they were learned.
        length: numbers in a row of a batch, with BOS and EOS; at least 3.
        pad_token: fills a row up; a token of the vocabulary.
        fold_dotted_i: read İ as i; see `normalise`.
        any_case: the markers that count in capitals too. Hugging Face calls them "normalized";
            the files of SD 1.x say so of BOS, those of SD 2.x of BOS and EOS.
        added: tokens that no merge makes; what embeddings add are found like markers. Where there
            are `<cat>_1`, `<cat>_2`, ..., too, `<cat>` stands for all of them in a row.

    Raises ValueError where vocabulary and merges do not fit together, or a setting is out of range.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[Pair],
        *,
        length: int = 77,
        pad_token: str = EOS,
        fold_dotted_i: bool = False,
        any_case: Iterable[str] = (),
        added: Iterable[str] = (),
    ) -> None:
        self.vocab, self.merges = dict(vocab), tuple(merges)
        self.length, self.pad_token, self.fold_dotted_i = length, pad_token, fold_dotted_i
        self.any_case, self.added = frozenset(any_case), tuple(added)
        self._check()
        self.vocab_size = len(self.vocab)  # with BOS and EOS
        self.bos, self.eos, self.pad = (self.vocab[token] for token in (BOS, EOS, pad_token))
        self._markers: dict[str, tuple[int, ...]] = {
            BOS: (self.bos,), EOS: (self.eos,), pad_token: (self.pad,),
            **{token: self._vectors(token) for token in self.added},
        }  # fmt: skip
        self._exact = _one_of(self._markers.keys() - self.any_case)
        self._lower = {normalise(marker): self._markers[marker] for marker in self.any_case}
        self._lower_pattern = _one_of(self._lower)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._cached = lru_cache(CACHED_WORDS)(self._numbers)
        byte_of = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}
        self._bytes = [b""] * self.vocab_size  # markers stay empty
        for token in self.vocab.keys() - (self._markers.keys() - set(BASE_TOKENS)):
            body = token.removesuffix(WORD_END)
            spelled = bytes(byte_of[symbol] for symbol in body) + b" " * (body != token)
            self._bytes[self.vocab[token]] = spelled
        for token in self.added:
            self._bytes[self.vocab[token]] = token.encode("utf-8") + b" "

    def _vectors(self, token: str) -> tuple[int, ...]:
        """The numbers that an added token stands for."""
        more = (f"{token}_{i}" for i in numbered(1))
        names = (token, *takewhile(self.added.__contains__, more))
        return tuple(self.vocab[name] for name in names)

    def extended(self, tokens: Sequence[str]) -> "Tokenizer":
        """With more added tokens, which count in any case.

        Raises ValueError where one is empty, or in the vocabulary already.
        """
        for token in tokens:
            if token in self.vocab or not normalise(token).strip() or len(token) > LONGEST_ADDED:
                raise ValueError(f"the token {token[:LONGEST_ADDED]!r} is empty, too long or taken")
        numbers = dict(zip(tokens, numbered(self.vocab_size), strict=False))
        return Tokenizer(
            self.vocab | numbers,
            self.merges,
            length=self.length,
            pad_token=self.pad_token,
            fold_dotted_i=self.fold_dotted_i,
            any_case=self.any_case | numbers.keys(),
            added=(*self.added, *tokens),
        )

    def _check(self) -> None:
        if type(self.length) is not int or self.length < 3:
            raise ValueError(f"length is {self.length!r}: choose a whole number of 3 or more")
        if type(self.fold_dotted_i) is not bool:
            raise ValueError(f"fold_dotted_i is {self.fold_dotted_i!r}: choose true or false")
        if not self.pad_token.strip():
            raise ValueError("the padding token is empty")
        if unknown := sorted(self.any_case - {BOS, EOS, self.pad_token, *self.added}):
            raise ValueError(f"{unknown[0]!r} is no marker, and cannot be one in any case")
        if sorted(self.vocab.values()) != list(range(len(self.vocab))):
            raise ValueError("the numbers of the vocabulary are not 0, 1, 2, ... without a gap")
        reached = {*BASE_TOKENS, BOS, EOS, self.pad_token, *self.added}
        if missing := sorted(reached - self.vocab.keys()):
            raise ValueError(f"the vocabulary lacks {missing[0]!r} ({len(missing)} such tokens)")
        for first, second in self.merges:
            if not {first, second, first + second} <= self.vocab.keys():
                raise ValueError(f"the merge {first!r} + {second!r} is not in the vocabulary")
            reached.add(first + second)
        if lost := sorted(self.vocab.keys() - reached):
            raise ValueError(f"no merge makes the token {lost[0]!r} ({len(lost)} such tokens)")

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, length: int = 77, fold_dotted_i: bool = True
    ) -> Self:
        """Learn a vocabulary of at most `vocab_size` tokens; the same texts give the same one.

        Raises ValueError where `vocab_size` is below 514, or `texts` is a single string.
        """
        smallest = len(BASE_TOKENS) + 2
        if vocab_size < smallest:
            raise ValueError(
                f"vocab_size is {vocab_size}: choose {smallest} (512 byte tokens, BOS, EOS) or more"
            )
        if isinstance(texts, str):
            raise ValueError("texts is a single string: give a list of texts")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(WORD.findall(normalise(text, fold_dotted_i)))
        words = {word_symbols(word): count for word, count in counts.items()}
        merges = learn_merges(words, vocab_size - smallest)
        # A token may be built in two ways (ab + c, a + bc): two merges, one number.
        tokens = dict.fromkeys((*BASE_TOKENS, *map("".join, merges), BOS, EOS))
        vocab = {token: number for number, token in enumerate(tokens)}
        return cls(vocab, merges, length=length, fold_dotted_i=fold_dotted_i)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read `vocab.json` and `merges.txt` or, without them, `tokenizer.json`, and the settings.

        `special_tokens_map.json` or `tokenizer_config.json` names the padding token (else EOS).
        Where they differ, as in SD 2.x, the first counts, unless the second is of the newer kind
        with `added_tokens_decoder`; `transformers` does the same.

        Raises FileNotFoundError; ValueError where a file is damaged, holds what this tokenizer
        cannot do, or does not fit the others.
        """
        files = clip_files.read(Path(folder))
        try:
            return cls(files.vocab, files.merges, **files.settings())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"{files.names} in {folder} do not fit together"
            raise ValueError(f"{what}: {error}; {clip_files.WAY_OUT}") from error

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what `load` reads; each file appears whole or not at all."""
        roles = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": self.pad_token}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.length}
        config |= {"fold_dotted_i": self.fold_dotted_i, **roles}
        added = {token: self.vocab[token] for token in self.added}
        vocab = {token: number for token, number in self.vocab.items() if token not in added}
        clip_files.write(Path(folder), vocab, self.merges, config, self.any_case, added)

    def __call__(self, texts: str | Sequence[str]) -> Int32[np.ndarray, "b length"]:
        """A row a text: BOS, tokens, EOS, padding. A single string is a batch of one.

        A text of more than `length - 2` tokens is cut with a `PromptCutWarning`. Raises ValueError
        where something in `texts` is not a string.
        """
        texts = [texts] if isinstance(texts, str) else texts
        batch = np.full((len(texts), self.length), self.pad, np.int32)
        for row, text in zip(batch, texts, strict=True):
            ids, cut = self._fit(text)
            row[: len(ids) + 2] = [self.bos, *ids, self.eos]
            if cut:
                shown = cut if len(cut) <= 300 else f"{cut[:300]}... ({len(cut):,} characters)"
                message = f"the prompt has more than {self.length - 2} tokens; cut: {shown}"
                warnings.warn(message, PromptCutWarning, stacklevel=2)
        return batch

    def encode(self, text: str) -> list[int]:
        """The tokens of a text of any length, without BOS, EOS and padding."""
        spans = self._spans(text)
        return [number for span in spans for _, piece in self._pieces(*span) for number in piece]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of one row, up to its first EOS; bytes that are no UTF-8 give U+FFFD.

        `decode(encode(text))` is `normalise(text)` up to white space, for any text in which no
        marker is written out (BOS vanishes, EOS ends the text). Raises ValueError for a number that
        is not in the vocabulary.
        """
        text = bytearray()
        for number in ids:
            if not 0 <= number < self.vocab_size:
                raise ValueError(f"token {number} is not one of 0 to {self.vocab_size - 1}")
            if number == self.eos:
                break
            text += self._bytes[number]
        return text.decode("utf-8", "replace").strip(" ")

    def tokens(self, text: str) -> list[str]:
        """The pieces, to look at: ["house", "s</w>"]; a part of a character shows as byte \\xc4."""
        names = {self.vocab[marker]: marker for marker in self._markers}
        return [
            self._bytes[number].decode("utf-8", "backslashreplace").replace(" ", WORD_END)
            or names[number]
            for number in self.encode(text)
        ]

    def cut(self, text: str) -> str:
        """The normalised words that a row has no place for, a half word included; "" if none."""
        return self._fit(text)[1]

    def _fit(self, text: str) -> tuple[list[int], str]:
        ids: list[int] = []
        room, spans = self.length - 2, self._spans(text)
        for span, marker in spans:
            for start, piece in self._pieces(span, marker):
                ids += piece
                if len(ids) > room:
                    rest = [span[start:], *(later for later, _ in spans)]
                    return ids[:room], " ".join(part.strip(" ") for part in rest)
        return ids, ""

    def _spans(self, text: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
        """Split a text into markers, with their numbers, and the normalised text between them.

        Markers are found first, and those that count in any case next, in the lower-case text.
        """
        if not isinstance(text, str):
            raise ValueError(f"a prompt must be a string, not {type(text).__name__}")
        for place, part in enumerate(self._exact.split(text)):
            if place % 2:
                yield part, self._markers[part]
                continue
            for span in self._lower_pattern.split(normalise(part, self.fold_dotted_i)):
                if span:
                    yield span, self._lower.get(span)

    def _pieces(
        self, span: str, marker: tuple[int, ...] | None
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The numbers of each word of a span, with its place."""
        if marker is not None:
            yield 0, marker
            return
        for chunk in CHUNK.finditer(span):
            for word in WORD.finditer(span, chunk.start(), chunk.end()):
                numbers = self._cached if len(word[0]) <= LONGEST_CACHED_WORD else self._numbers
                yield word.start(), numbers(word[0])

    def _numbers(self, word: str) -> tuple[int, ...]:
        return tuple(map(self.vocab.__getitem__, apply_merges(word_symbols(word), self._ranks)))


def _one_of(markers: Collection[str]) -> regex.Pattern[str]:
    """What splits a text so that every second part is one of the markers, the longest that fits."""
    longest_first = sorted(markers, key=len, reverse=True)
    return regex.compile(f"({'|'.join(map(regex.escape, longest_first))})" if markers else "(?!)")
