"""What moves in a film, in numbers: the view, the clouds, the trees, and what should stand still.

Each measure takes the frames of one film as grey values. None of them was trained; what they say of
drawn films is part of each report (`diffusion.evaluation.films`).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

Frames = UInt8[np.ndarray, "f h w 3"]
Grey = Float[np.ndarray, "f h w"]
Plane = Float[np.ndarray, "h w"]

SCALES = (1 / 1.15, 1 / 1.1, 1 / 1.05, 1.0, 1.05, 1.1, 1.15)
FARTHEST = 0.11  # that a view is looked for, in sides of the picture
SKY = 0.42  # of the height: where clouds are
HORIZON = 0.55  # of the height: below, nothing moves while clouds drift
APART = 3  # frames between two whose clouds are compared
CLOUDS = 0.16  # the farthest that clouds drift between these, in sides


class View(NamedTuple):
    """How the view changes from the first frame to the last."""

    shift: float  # of what is seen, to the right, in sides of the picture
    scale: float  # above 1: it comes closer


def grey(film: Frames) -> Grey:
    """Brightness, 0 to 1."""
    return film.mean(axis=-1, dtype=np.float32) / np.float32(255)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two planes, -1 to 1; 0 where one has no contrast."""
    a, b = one - one.mean(), other - other.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def scaled(plane: Plane, scale: float) -> Plane:
    """A plane seen from nearer or farther; beyond its edge, the edge."""
    for _ in range(2):  # rows, then columns
        length = len(plane)
        middle = (length - 1) / 2
        asked = np.clip((np.arange(length) - middle) / scale + middle, 0, length - 1)
        low = np.floor(asked).astype(int)
        share = (asked - low)[:, None]
        plane = (plane[low] * (1 - share) + plane[np.minimum(low + 1, length - 1)] * share).T
    return plane


def view(film: Grey) -> View:
    """The shift and the scale under which the first frame is most like the last one.

    The upper quarter counts for nothing: there are clouds, the sun and the moon.
    """
    first, last = film[0], film[-1]
    height, width = first.shape
    edge, most = height // 8, round(FARTHEST * width)
    best = (-2.0, View(0.0, 1.0))
    for scale in SCALES:
        seen = scaled(first, scale)[height // 4 : height - edge, edge : width - edge]
        for shift in range(-most, most + 1):
            found = last[height // 4 : height - edge, edge + shift : width - edge + shift]
            best = max(best, (likeness(seen, found), View(shift / width, scale)))
    return best[1]


def drift(film: Grey) -> float:
    """How far the clouds drift to the right, in sides of the picture.

    Sun and moon are left out as what most frames agree on.
    """
    sky = film[:, : int(SKY * film.shape[1])]
    passing = sky - np.median(sky, axis=0)
    width, most, total = sky.shape[2], round(CLOUDS * sky.shape[2]), 0
    for i in range(0, len(film) - APART, APART):
        one, other = passing[i][:, most : width - most], passing[i + APART]
        shifts = range(-most, most + 1)
        likes = [likeness(one, other[:, most + x : width - most + x]) for x in shifts]
        total += shifts[int(np.argmax(likes))]
    return total / width


def swaying(film: Grey) -> float:
    """The share of all change that comes and goes twice in the film, 0 to 1."""
    power = np.abs(np.fft.rfft(film - film.mean(axis=0), axis=0)) ** 2
    each = power[1:].sum(axis=(1, 2))
    return float(each[1] / each.sum()) if each.sum() > 0 else 0.0


def change(film: Grey) -> float:
    """The mean change from the first frame to the last, of 1."""
    return float(np.abs(film[-1] - film[0]).mean())


def flicker(film: Grey) -> float:
    """The mean change from frame to frame below the horizon, of 1."""
    low = film[:, int(HORIZON * film.shape[1]) :]
    return float(np.abs(np.diff(low, axis=0)).mean())
