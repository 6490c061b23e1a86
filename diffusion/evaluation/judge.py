"""The judge: looks at a picture and says of every attribute of the garden which value it has.

A small residual network with one classifier an attribute. It is trained on pictures that the
renderer drew (`diffusion.evaluation.judge_training`) and on nothing that a generator painted. What
it sees before it answers, `features`, is also what distances between pictures are measured in.
"""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from tqdm import tqdm

from diffusion.datasets.garden import ATTRIBUTES
from diffusion.images import from_uint8
from diffusion.layers.convolution import Conv2d, Downsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock
from diffusion.runtime.parameters import Params, SameKey, shapes
from diffusion.weights.files import Weights, save_params
from diffusion.weights.folder import shipped
from diffusion.weights.names import RESIDUAL, NameMap, under
from diffusion.weights.places import regular

SIZE = 64  # pixels along the side of what the judge looks at
WIDTHS = (32, 64, 128, 192)  # channels at 32x32, 16x16, 8x8 and 4x4
FEATURES = 256
EPS = 1e-5
FILE = "judge.safetensors"
BATCH = 64  # pictures at a time
NAMES: NameMap = {  # in the file: PyTorch's layout and leaves, as in every other file
    "conv_in": "conv_in",
    **under("residuals.*", "residuals.*", RESIDUAL),
    "downs.*.conv": "downs.*.conv",
    "norm": "norm",
    "summary": "summary",
    "answers": "answers",
}


class Judge(nnx.Module):
    """Picture -> features, and the logits of all values of all attributes."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv_in = Conv2d(3, WIDTHS[0], stride=2, rngs=rngs)
        pairs = [(WIDTHS[0], WIDTHS[0]), *pairwise(WIDTHS)]
        self.residuals = nnx.List(
            ResidualBlock(a, b, groups=8, eps=EPS, rngs=rngs) for a, b in pairs
        )
        self.downs = nnx.List(Downsample(width, rngs=rngs) for width in WIDTHS[:-1])
        self.norm = GroupNorm(WIDTHS[-1], 8, eps=EPS)
        positions = (SIZE // 2 ** len(WIDTHS)) ** 2  # where a thing is matters, too
        self.summary = nnx.Linear(positions * WIDTHS[-1], FEATURES, rngs=rngs)
        self.answers = nnx.Linear(FEATURES, sum(map(len, ATTRIBUTES.values())), rngs=rngs)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b f"]:
        """What the judge keeps of pictures in [-1, 1] of any size."""
        if images.shape[1:3] != (SIZE, SIZE):
            images = jax.image.resize(images, (len(images), SIZE, SIZE, 3), "linear")
        h = self.residuals[0](self.conv_in(images))
        for down, residual in zip(self.downs, self.residuals[1:], strict=True):
            h = residual(down(h))
        flat = jax.nn.silu(self.norm(h)).reshape(len(h), -1)
        return jax.nn.silu(self.summary(flat))

    def __call__(self, images: Float[Array, "b h w 3"]) -> dict[str, Float[Array, "b k"]]:
        """The logits of each attribute's values."""
        return logits(self.answers(self.features(images)))


def logits(answers: Float[Array, "b n"]) -> dict[str, Float[Array, "b k"]]:
    """A row of answers, attribute by attribute."""
    ends = np.cumsum([len(values) for values in ATTRIBUTES.values()])[:-1]
    return dict(zip(ATTRIBUTES, jnp.split(answers, ends, axis=1), strict=True))


class Verdict(NamedTuple):
    """What the judge says of n pictures."""

    values: dict[str, Int[np.ndarray, " n"]]  # of each attribute, the position of its value
    features: Float[np.ndarray, "n f"]


class TrainedJudge:
    """A trained judge, ready to look at pictures."""

    def __init__(self, params: Params):
        structure, _ = shapes(lambda: Judge(rngs=SameKey(0)))

        def look(params: Params, images: Array) -> tuple[dict[str, Array], Array]:
            judge = nnx.merge(structure, params)
            features = judge.features(images)
            best = {name: x.argmax(1) for name, x in logits(judge.answers(features)).items()}
            return best, features

        self.params = params
        self._look = jax.jit(look)

    def __call__(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Verdict:
        """Look at pictures, some at a time."""
        found: list[tuple[dict[str, np.ndarray], np.ndarray]] = []
        for i in tqdm(range(0, len(pictures), BATCH), desc="judging", unit="batch", leave=False):
            some = pictures[i : i + BATCH]
            padded = np.concatenate([some, np.repeat(some[-1:], BATCH - len(some), axis=0)])
            found.append(jax.device_get(self._look(self.params, from_uint8(padded))))
        values, features = jax.tree.map(
            lambda *parts: np.concatenate(parts)[: len(pictures)], *found
        )
        return Verdict(values, features)


def load(place: Path | None = None) -> TrainedJudge:
    """The judge in a folder, or the one that ships.

    Raises FileNotFoundError, or ValueError where the file is of another judge.
    """
    root = shipped("judge") if place is None else place
    _, like = shapes(lambda: Judge(rngs=SameKey(0)))
    try:
        path = regular(root, root / FILE)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{root / FILE} is missing; `diffusion train judge --output FOLDER` trains a judge"
        ) from None
    return TrainedJudge(Weights.open([path], like, NAMES).read())


def save(place: Path, params: Params, dtype: str | None = None) -> None:
    save_params(place / FILE, params, NAMES, dtype=dtype)
