"""The numbers of an evaluation, each with how far it can be trusted. NumPy alone."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Z = 1.96  # standard deviations of a 95 % interval
RARE = 10  # pictures or mentions: of fewer, nobody can say how they scatter


class Share(NamedTuple):
    """How many of something, as a share of all, with a 95 % confidence interval."""

    share: float
    low: float
    high: float
    total: int


def share(
    right: Bool[np.ndarray, "captions pictures"], asked: Bool[np.ndarray, "captions pictures"]
) -> Share:
    """The share of `right` among what was `asked`; nan where nothing was.

    Pictures of one caption are right or wrong together more often than strangers are. So the
    interval of Wilson (1927) is taken for as many independent pictures as would scatter as much as
    the captions do (the ratio estimator of a cluster sample; Cochran 1977, eq. 3.31 and 2.47).
    Where less than `RARE` are wrong, or right, it is taken for as many as there are captions, as if
    all pictures of a caption were alike: rather too wide, so ten failures may have a narrower
    interval than nine.
    """
    total = int(asked.sum())
    if not total:
        return Share(np.nan, np.nan, np.nan, 0)
    per_caption = (right & asked).sum(axis=1), asked.sum(axis=1)
    count = int(per_caption[0].sum())
    p = count / total
    captions = int((per_caption[1] > 0).sum())
    n: float = captions
    if min(count, total - count) >= RARE and captions > 1:
        squares = np.sum(np.square(per_caption[0] - p * per_caption[1]))
        variance = float(captions / (captions - 1) * squares / total**2)
        n = min(total, p * (1 - p) / variance) if variance > 0 else total
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Share(p, float(max(middle - half, 0.0)), float(min(middle + half, 1.0)), total)


def frechet(one: Float[np.ndarray, "n f"], other: Float[np.ndarray, "m f"]) -> float:
    """Squared Fréchet distance between the Gaussians of two sets of features, as FID is one.

    |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) (Heusel et al. 2017, eq. 6). The root's trace is
    that of the symmetric (A^(1/2) B A^(1/2))^(1/2). Of two samples of one distribution it is not 0,
    and the more the fewer they are.
    """
    a, b = (np.cov(x.astype(np.float64), rowvar=False) for x in (one, other))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0.0)).sum()
    difference = one.mean(axis=0, dtype=np.float64) - other.mean(axis=0, dtype=np.float64)
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2.0 * cross)


def spread(features: Float[np.ndarray, "captions pictures f"]) -> float:
    """The mean distance between two pictures of one caption."""
    count = features.shape[1]
    pairs = [(i, j) for i in range(count) for j in range(i)]
    return float(
        np.mean([np.linalg.norm(features[:, i] - features[:, j], axis=1) for i, j in pairs])
    )


def nearest(
    points: Float[np.ndarray, "n f"], others: Float[np.ndarray, "m f"]
) -> tuple[Float[np.ndarray, " n"], np.ndarray]:
    """Root mean square distance of each point to the nearest of the others, and which that is."""
    squares = np.square(others).sum(axis=1)
    distances, which = [], []
    for some in np.array_split(points, max(1, len(points) // 256)):
        products = some @ others.T
        square = np.square(some).sum(axis=1)[:, None] - 2.0 * products + squares
        best = square.argmin(axis=1)
        which.append(best)
        distances.append(np.sqrt(np.maximum(square[np.arange(len(some)), best], 0.0)))
    scale = np.sqrt(points.shape[1])
    return np.concatenate(distances) / scale, np.concatenate(which)
