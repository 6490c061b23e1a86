"""A folder of full size: it loads, paints with every sampler, and comes back unchanged."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open

import diffusion
from diffusion.inspection.blocks import PARTS
from diffusion.inspection.rows import Row
from diffusion.process.samplers import SAMPLERS
from diffusion.text.tokenizer import BASE_TOKENS, BOS, EOS, Tokenizer
from diffusion.weights import folder, places
from diffusion.weights.architectures import Architecture

SIDE = 256  # pixels; the networks are of full size, the picture need not be


def synthetic_tokenizer(vocab_size: int, length: int = 77) -> Tokenizer:
    """A vocabulary of any size, up to 131,586 tokens, whose merges are pairs of bytes."""
    count = vocab_size - len(BASE_TOKENS) - 2
    merges = list(itertools.islice(itertools.product(BASE_TOKENS[:256], BASE_TOKENS), count))
    tokens = (*BASE_TOKENS, *map("".join, merges), BOS, EOS)
    return Tokenizer({token: i for i, token in enumerate(tokens)}, merges, length=length)


def rows(model: Path) -> Iterator[Row]:
    """A row a sampler (numbers of the picture that are not finite), and one a network: how many of
    its tensors are not the same, bit for bit, after loading and saving."""
    config = folder.load_config(model)
    text = config.text_encoder
    synthetic_tokenizer(text.vocab_size, text.length).save(model / "tokenizer")
    artist = diffusion.load(model)
    for sampler in SAMPLERS:
        *_, last = artist.sample("a castle", steps=2, sampler=sampler, height=SIDE, width=SIDE)
        picture = np.asarray(artist.autoencoder.decode(last.x_next))
        wrong = float(np.sum(~np.isfinite(picture)))
        yield Row(f"painted by {sampler}: not finite", picture.shape, wrong, wrong, 0.0)
    with tempfile.TemporaryDirectory() as place:
        artist.save(place)
        for part, architecture in PARTS.items():
            yield changed(part, architecture, model, Path(place))


def changed(part: str, architecture: Architecture, model: Path, saved: Path) -> Row:
    """How many tensors of a network are not the same, bit for bit, in two folders."""
    one, other = (_tensors(root, architecture) for root in (model, saved))
    names = one.keys() | other.keys()
    wrong = float(sum(not _same(one.get(name), other.get(name)) for name in names))
    return Row(f"{part}: tensors that saving changed", (len(names),), wrong, wrong, 0.0)


def _tensors(model: Path, architecture: Architecture) -> dict[str, tuple[Path, str]]:
    found = {}
    for path in places.find(model, architecture.folder, architecture.stem):
        with safe_open(path, "numpy") as file:
            found |= {key: (path, key) for key in file.keys()}  # noqa: SIM118
    return found


def _same(one: tuple[Path, str] | None, other: tuple[Path, str] | None) -> bool:
    if one is None or other is None:
        return False
    with safe_open(one[0], "numpy") as first, safe_open(other[0], "numpy") as second:
        ours, theirs = first.get_tensor(one[1]), second.get_tensor(other[1])
    return (
        ours.dtype == theirs.dtype and ours.shape == theirs.shape and bool((ours == theirs).all())
    )
