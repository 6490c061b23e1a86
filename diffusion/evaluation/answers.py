"""Pictures that answer questions: painted, drawn or decoded, and what the judge sees in them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from diffusion.atomic_write import atomic_write
from diffusion.datasets.garden import ATTRIBUTES, Scene, render
from diffusion.evaluation.judge import TrainedJudge, Verdict
from diffusion.evaluation.questions import Question
from diffusion.images import to_uint8
from diffusion.pipeline import Artist
from diffusion.runtime.parameters import fingerprint

Pictures = UInt8[np.ndarray, "captions pictures h w 3"]
Values = dict[str, Int[np.ndarray, "captions pictures"]]

RENDERED = 64  # scenes at a time
KEPT = 50  # captions whose pictures are kept at a time


class Group(NamedTuple):
    """Questions, and the pictures that answer them."""

    asked: list[Question]
    pictures: Pictures
    verdict: Verdict  # of all pictures in a row

    @property
    def in_a_row(self) -> UInt8[np.ndarray, "n h w 3"]:
        """The pictures of one caption after the other's."""
        return self.pictures.reshape(-1, *self.pictures.shape[2:])

    @property
    def values(self) -> Values:
        shape = self.pictures.shape[:2]
        return {name: found.reshape(shape) for name, found in self.verdict.values.items()}

    @property
    def features(self) -> np.ndarray:
        return self.verdict.features.reshape(*self.pictures.shape[:2], -1)


def drawn(scenes: Scene, size: int) -> UInt8[np.ndarray, "n h w 3"]:
    """The renderer's pictures of many scenes."""
    total = len(scenes.house)
    found = []
    for i in tqdm(range(0, total, RENDERED), desc="drawing", unit="batch", leave=False):
        some = Scene(*(field[np.arange(i, i + RENDERED) % total] for field in scenes))
        found.append(to_uint8(render(some, size)))
    return np.concatenate(found)[:total]


def reconstructed(
    artist: Artist, pictures: UInt8[np.ndarray, "n h w 3"]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Pictures that were encoded and decoded: what the VAE alone costs."""
    found = []
    total = len(pictures)
    for i in tqdm(range(0, total, RENDERED), desc="VAE", unit="batch", leave=False):
        some = pictures[np.arange(i, i + RENDERED) % total]
        latents = artist.encode(some)
        found.append(artist.decode(latents))
    return np.concatenate(found)[:total]


def painted(
    artist: Artist, asked: Sequence[Question], count: int, kept: Path | None = None
) -> Pictures:
    """`count` pictures of each caption, painted as `diffusion paint` does; question i is seed i.

    Args:
        kept: a folder that keeps them, and gives back those that this artist has painted of these
            captions before; so whoever is stopped goes on where that was.
    """
    weights = fingerprint([network.params for network in artist.networks])
    painter = [weights, repr(artist.config), count]
    found = []
    with tqdm(total=len(asked), desc="painting", unit="caption", leave=False) as progress:
        for start in range(0, len(asked), KEPT):
            texts = [question.text for question in asked[start : start + KEPT]]
            told = json.dumps([*painter, start, texts])
            file = kept and kept / f"{hashlib.sha256(told.encode()).hexdigest()}.npy"
            before = _read(file, len(texts), count) if file else None
            if before is not None:
                found.append(before)
                progress.update(len(texts))
                continue
            some = []
            for seed, text in enumerate(texts, start):
                some.append(artist.paint(text, seed=seed, count=count))
                progress.update()
            found.append(np.stack(some))
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(file) as draft:
                    np.save(draft, found[-1])
    return np.concatenate(found)


def _read(file: Path, captions: int, count: int) -> Pictures | None:
    """The pictures that a file keeps; None where it is missing or damaged."""
    try:
        pictures = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = pictures.dtype == np.uint8 and pictures.ndim == 5
    return pictures if whole and pictures.shape[:2] == (captions, count) else None


def forget(kept: Path) -> None:
    """Remove what `painted` has kept; a folder that holds anything else stays."""
    for file in kept.glob("*.npy"):
        file.unlink()
    if not any(kept.iterdir()):
        kept.rmdir()


def answered(
    asked: list[Question], judge: TrainedJudge, paint: Callable[[list[Question]], Pictures]
) -> Group:
    """The questions with their pictures, as `paint` gives them, seen by the judge."""
    pictures = paint(asked)
    return Group(asked, pictures, judge(pictures.reshape(-1, *pictures.shape[2:])))


def joined(groups: Sequence[Group]) -> Group:
    """Several groups as one."""
    values, features = zip(*(group.verdict for group in groups), strict=True)
    return Group(
        [question for group in groups for question in group.asked],
        np.concatenate([group.pictures for group in groups]),
        Verdict(
            {name: np.concatenate([v[name] for v in values]) for name in ATTRIBUTES},
            np.concatenate(features),
        ),
    )
