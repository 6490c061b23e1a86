"""The files of a tokenizer: vocabulary, merges and settings, in the layouts of Hugging Face.

A folder from the internet may hold anything: what is damaged, too large or not CLIP's is a
ValueError that names the file, and nothing but JSON and text is read.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.atomic_write import atomic_write
from diffusion.text.characters import BOS, EOS, WORD_END

Pair = tuple[str, str]

LARGEST_FILE = 64 * 2**20  # bytes; the vocabulary of CLIP has one million
SPACED = ("lstrip", "rstrip", "single_word")  # flags of a marker that all official files leave off
# What the model of a tokenizer.json may say; the first is what it means where it says nothing.
CLIP_MODEL: Mapping[str, tuple[object, ...]] = {
    "type": ("BPE",),
    "dropout": (None, 0),
    "continuing_subword_prefix": ("", None),
    "end_of_word_suffix": (WORD_END,),
    "byte_fallback": (False,),
    "ignore_merges": (False,),
}
WAY_OUT = "copy the model's tokenizer folder again, or make one with `diffusion train tokenizer`"


@dataclass(frozen=True)
class Files:
    """What the files of one folder say."""

    names: str  # of the files, for messages
    vocab: dict[str, int]
    merges: list[Pair]
    config: dict[str, Any]  # tokenizer_config.json
    named: dict[str, Any]  # "bos_token" and so on, each a text or, with flags, a table
    described: Any  # added tokens, each a table; where a marker is among them, its flags count
    added: list[str]  # tokens that no merge makes: markers, and those of embeddings

    def settings(self) -> dict[str, Any]:
        """The settings of a `Tokenizer`; an error of any kind where they are not as CLIP's are."""
        length = self.config.get("model_max_length", 77)
        if isinstance(length, int | float) and length > 1e9:
            length = 77  # Hugging Face writes 10^30 where no limit was set
        fold = self.config.get("fold_dotted_i", False)
        pad_token, any_case = _markers(self.named, self.described, self.added)
        added = [token for token in self.added if token not in (BOS, EOS, pad_token)]
        return dict(
            length=length,
            pad_token=pad_token,
            any_case=any_case,
            fold_dotted_i=fold,
            added=sorted(added, key=self.vocab.__getitem__),
        )


def read(folder: Path) -> Files:
    """Read `vocab.json` and `merges.txt` or, without them, `tokenizer.json`, and the settings.

    Raises FileNotFoundError; ValueError where a file is damaged, or holds what is not supported.
    """
    config = _read_json(folder / "tokenizer_config.json", optional=True)
    special = _read_json(folder / "special_tokens_map.json", optional=True)
    described: Any = []
    model, pair = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    if model.exists() and not all(path.exists() for path in pair):
        names = "tokenizer.json"
        vocab, merges, described = _read_one_file(model)
    else:
        names = "vocab.json, merges.txt"
        vocab, merges = _read_json(pair[0]), _read_merges(pair[1])
    named = config | special
    if "added_tokens_decoder" in config:
        # The newer kind: here `transformers` does not look into special_tokens_map.json.
        named, decoder = config, config["added_tokens_decoder"]
        described = list(decoder.values()) if isinstance(decoder, dict) else decoder
        told = {token["content"]: number for number, token in _tables(decoder)}
        vocab = {name: int(n) if str(n).isdigit() else n for name, n in told.items()} | vocab
    # Of older versions, and ours: the tokens of embeddings alone.
    extra = _read_json(folder / "added_tokens.json", optional=True)
    vocab |= extra
    added = list(dict.fromkeys([*extra, *(token["content"] for _, token in _tables(described))]))
    names += ", special_tokens_map.json and tokenizer_config.json"
    return Files(names, vocab, merges, config, named, described, added)


def _tables(tokens: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Added tokens that are told as tables, each with its number if that is told beside it."""
    if isinstance(tokens, list):
        tokens = dict(enumerate(tokens))
    return [
        (number, token)
        for number, token in (tokens.items() if isinstance(tokens, dict) else ())
        if isinstance(token, dict) and isinstance(token.get("content"), str)
    ]


def write(
    folder: Path,
    vocab: Mapping[str, int],
    merges: Iterable[Pair],
    config: Mapping[str, Any],
    any_case: Collection[str],
    added: Mapping[str, int],
) -> None:
    """Write what `read` reads; each file appears whole or not at all."""
    flags = {**dict.fromkeys(SPACED, False), "normalized": True}
    special = {
        role: {"content": marker, **flags} if marker in any_case else marker
        for role, marker in config.items()
        if role.endswith("_token")
    }
    texts = {
        "vocab.json": json.dumps(vocab, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges)]),
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
    if added:
        texts["added_tokens.json"] = json.dumps(added, indent=2, ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with atomic_write(folder / name) as draft:
            draft.write_text(text + "\n", encoding="utf-8", newline="\n")


def _markers(
    named: Mapping[str, Any], described: list[Mapping[str, Any]], added: list[str]
) -> tuple[str, set[str]]:
    """The padding token, and the markers and added tokens that count in any case; see `Files`.

    Raises ValueError where there are other markers than BOS, EOS, padding and those that are added,
    or where they take up white space.
    """
    roles = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    entries = [named.get(role) or usual for role, usual in roles.items()]
    tables = [{"content": entry} if isinstance(entry, str) else entry for entry in entries]
    *usual, pad_token = (table["content"] for table in tables)
    if usual != [BOS, EOS, EOS]:
        raise ValueError(f"the markers are {usual}, and only {[BOS, EOS, EOS]} are supported")
    more = named.get("additional_special_tokens") or named.get("extra_special_tokens") or []
    more = [token if isinstance(token, str) else token["content"] for token in more]
    if others := [token for token in more if token not in (*added, BOS, EOS, pad_token)]:
        raise ValueError(f"the added token {others[0]!r} has no number")
    if spaced := [t for t in (*tables, *described) if any(t.get(flag) for flag in SPACED)]:
        raise ValueError(f"flags of a marker are not supported: {spaced[0]}")
    # What is said of an added token is said in a table; else it is one of words, in any case.
    special = {table["content"]: not table.get("normalized", True) for table in described}
    any_case = {token for token in added if not special.get(token, token in more)}
    any_case -= {BOS, EOS, pad_token}
    for marker in (BOS, EOS, pad_token):
        found = [table for table in described if table["content"] == marker]
        found = found or [table for table in tables if table["content"] == marker]
        # Where a marker has several roles, `transformers` adds each form of it (a text, a table
        # with this flag or that) once, in the order in which they come up; the last one counts.
        forms = (("normalized" in table, bool(table.get("normalized"))) for table in found)
        *_, (_, last) = dict.fromkeys(forms)
        if last:
            any_case.add(marker)
    return pad_token, any_case


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; {WAY_OUT}")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} is no part of a tokenizer (more than 64 MiB); {WAY_OUT}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged (no UTF-8 text); {WAY_OUT}") from error


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    text = _read(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits; deep nesting
        raise ValueError(f"{path} is damaged (no JSON: {error}); {WAY_OUT}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged (no table of names and values); {WAY_OUT}")
    return value


def _read_merges(path: Path) -> list[Pair]:
    lines = _read(path).split("\n")
    if lines[0].startswith("#version"):
        lines[0] = ""
    return [_pair(line, path, f"line {i}") for i, line in enumerate(lines, start=1) if line]


def _pair(merge: object, path: Path, place: str) -> Pair:
    match merge.split(" ") if isinstance(merge, str) else merge:
        case [str(first), str(second)] if first and second:
            return first, second
    raise ValueError(f"{path} is damaged ({place} is no pair); {WAY_OUT}")


def _read_one_file(path: Path) -> tuple[dict[str, int], list[Pair], list[dict[str, Any]]]:
    """Vocabulary, merges and the table of each added token, from the one file of `transformers` 5.

    How the file would have a text normalised and split is not read: `transformers` does not either.
    """
    data = _read_json(path)
    match data:
        case {"model": {"vocab": dict(vocab), "merges": list(pairs), **options}}:
            for option, usual in CLIP_MODEL.items():
                if options.get(option, usual[0]) not in usual:
                    unlike = f"{option} = {options[option]!r} in place of {usual[0]!r}"
                    raise ValueError(f"{path} is not supported: {unlike}; {WAY_OUT}")
        case {"model": {"type": str(kind)}} if kind != "BPE":
            raise ValueError(f"{path} is not supported: a model {kind!r}, not 'BPE'; {WAY_OUT}")
        case _:
            raise ValueError(f"{path} is damaged (no model with vocab and merges); {WAY_OUT}")
    merges = [_pair(pair, path, f"merge {place}") for place, pair in enumerate(pairs)]
    added = data.get("added_tokens", [])
    try:
        return vocab | {token["content"]: token["id"] for token in added}, merges, added
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged (in added_tokens: {error}); {WAY_OUT}") from error
