"""Characters and words as the tokenizer of CLIP sees them.

Unicode grows every year, and a program knows it as of the year when its tables were made. Those of
the reference (Hugging Face `tokenizers` 0.23) are of several years: it composes accents by Unicode
9, knows the letters of Unicode 16 and the capitals of Unicode 17. The lists here make up for that,
so every text has the reference's numbers, on any Python. Without them, 17,605 of the 1,112,064
characters would be read otherwise (Python 3.11, regex 2026.11), all of them in rare scripts.
"""

import unicodedata

import regex

BOS, EOS, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def _ranges(table: str) -> str:  # for the [...] of a regular expression
    ends = ([chr(int(end, 16)) for end in entry.split("-")] for entry in table.split())
    return "".join(map("-".join, ends))


# Letters and numbers of Unicode 17 and 18.
LATER_LETTERS = _ranges(
    """
    0558 058b-058c 088f 0c5c 0cdc 208f 209d-209f a7ce-a7cf a7d2 a7d4 a7dd-a7f1 ab6c-ab6d
    107bb-107bf 10940-10959 10ec5-10eee 11b0a 11db0-11df1 1246f-1247f 12550-12686 16ea0-16ed3
    16ff2-16ff6 187f8-187ff 18cd6-18cda 18d09-191d2 1b123-1b128 1b168 1d6a6 1df1f-1df24
    1df2b-1dfff 1e6c0-1e6ff 2b73a-2b73f 2b81e 2cea2-2cead 323b0-33479 3d000-3fc3f
    """
)
# Accents, and letters that compose with them, of Unicode 10 and later.
LATER_ACCENTS = _ranges(
    """
    05c8-05c9 07fd 0897-08d3 09fe 0c3c 0d3b-0d3c 0eba 1715 1abf-1af0 1df6-1dfa a82c 105c9-105e4
    10d24-10f85 11070 1133b 11382-113d0 1145e 11839-11a99 11d42-11f42 1611e-1612f 16d63-16ff1
    1d127-1d128 1d250-1d281 1e08f-1e6f5
    """
)
# Capitals of Unicode 15 to 17, and Σ, which Python writes ς at the end of a word, CLIP never.
LOWER_CASE = {
    0xA7CB: 0x264,
    0xA7DC: 0x19B,
    **{capital: capital + 1 for capital in (0x1C89, 0xA7CC, 0xA7CE, 0xA7D2, 0xA7D4, 0xA7DA)},
    **{capital: capital + 0x20 for capital in (0x3A3, *range(0x10D50, 0x10D66))},
    **{capital: capital + 0x1B for capital in range(0x16EA0, 0x16EB9)},
}

WORD = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d"
    rf"|[^\P{{L}}{LATER_LETTERS}]+"
    rf"|[^\P{{N}}{LATER_LETTERS}]"
    rf"|(?:[^\s\p{{L}}\p{{N}}]|[{LATER_LETTERS}])+"
)
# A marker in capitals is no marker, but the pieces of one stay apart from what stands around it.
CHUNK = regex.compile(rf"{regex.escape(BOS)}|{regex.escape(EOS)}|{WORD.pattern}")
SPACE = regex.compile(r"\s+")
SURROGATE = regex.compile("[\ud800-\udfff]")
COMPOSABLE = regex.compile(f"[^{LATER_ACCENTS}]+")
MANY_ACCENTS = regex.compile(r"\P{ccc=0}{30,}")


def normalise(text: str, fold_dotted_i: bool = False) -> str:
    """The text as the tokenizer sees it: NFC, each run of white space one space, lower case.

    Half of a surrogate pair is no character and has no UTF-8 bytes: it becomes U+FFFD. Lower case
    is taken letter by letter, without a locale, as in CLIP: a final Greek sigma is σ, not ς, and
    KIRMIZI reads "kirmizi" (our captions contain that too, as many people write Turkish without its
    letters); ı stays ı. The Turkish İ becomes i and a separate dot, three tokens for one letter.
    `fold_dotted_i` drops that dot: "İKİ EV" is then "iki ev". The official files do not fold.
    """
    text = COMPOSABLE.sub(lambda run: _compose(run[0]), SURROGATE.sub("\ufffd", text))
    text = SPACE.sub(" ", text).strip(" ").translate(LOWER_CASE).lower()
    return text.replace("i\u0307", "i") if fold_dotted_i else text


def _compose(text: str) -> str:
    # NFC sorts accents by their class; Python's own sort takes minutes for 100,000 in a row.
    text = MANY_ACCENTS.sub(lambda run: "".join(sorted(run[0], key=unicodedata.combining)), text)
    return unicodedata.normalize("NFC", text)
