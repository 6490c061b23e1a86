"""What all figures share: one style, pictures without ticks, feature maps as colours.

Colours are those of Okabe and Ito ("Color universal design", 2008), which people with any colour
vision tell apart; signed maps go from blue through white to red, amounts from white to dark green,
which also stay apart in grey print.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, PALE = "#333333", "#bbbbbb"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SIGNED, AMOUNT = "RdBu_r", "YlGn"
SMALL = 7  # points, of labels under pictures
DPI = 110


def pca_rgb(
    features: Float[Array | np.ndarray, "h w c"],
    like: Float[Array | np.ndarray, "*b h w c"] | None = None,
) -> Float[np.ndarray, "h w 3"]:
    """A feature map as colours: its three strongest directions as red, green and blue in [0, 1].

    Args:
        like: the maps whose directions and range are taken, so that several have common colours.
    """
    h, w, c = features.shape
    rows = np.asarray(features, np.float32).reshape(h * w, c)
    others = rows if like is None else np.asarray(like, np.float32).reshape(-1, c)
    mean = others.mean(axis=0)
    directions = np.linalg.svd(others - mean, full_matrices=False)[2][:3]
    low, high = np.percentile((others - mean) @ directions.T, [2, 98], axis=0)
    colours = (rows - mean) @ directions.T
    return np.clip((colours - low) / (high - low + 1e-6), 0, 1).reshape(h, w, 3)


def share_shown(features: Float[Array | np.ndarray, "h w c"]) -> float:
    """How much of a map's variance `pca_rgb` shows: that of its three strongest directions."""
    rows = np.asarray(features, np.float64).reshape(-1, features.shape[-1])
    strengths = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    return float(strengths[:3].sum() / strengths.sum())


def alike(maps: Sequence[Float[Array | np.ndarray, "h w c"]]) -> list[np.ndarray]:
    """Several maps in common colours."""
    like = np.stack([np.asarray(one, np.float32) for one in maps])
    return [pca_rgb(one, like) for one in like]


def amount(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 4"]:
    """Amounts in [0, 1] as colours, for a place among pictures."""
    return colormaps[AMOUNT](values)


def signed(values: Float[Array | np.ndarray, "h w"], most: float = 3.0) -> np.ndarray:
    """Values around zero as colours, red above and blue below; `most` is as dark as it gets."""
    return colormaps[SIGNED](0.5 + 0.5 * np.asarray(values) / most)


def show(axis: Axes, image: np.ndarray, label: str = "", **how: Any) -> None:
    """A picture or a map without ticks, its label below."""
    axis.imshow(image, **({"interpolation": "nearest"} | how))
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(label, fontsize=SMALL - 0.5, color=INK, labelpad=3)
    for spine in axis.spines.values():
        spine.set_color(PALE)


def plain(axis: Axes, size: float = SMALL) -> None:
    """A curve's axes in the common style: small numbers, no frame at the top and the right."""
    axis.tick_params(labelsize=size, colors=INK, which="both")
    axis.spines[["top", "right"]].set_visible(False)


def shape(array: Array | np.ndarray) -> str:
    """Of one picture: without the batch."""
    return "×".join(str(n) for n in array.shape[1:])


class Paper(Figure):
    """A figure that a notebook shows by itself, whatever the backend."""

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        self.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        return png.getvalue()


def paper(width: float, height: float, layout: str | None = "constrained") -> Paper:
    """An empty figure, in inches; a constrained layout arranges its axes by itself."""
    return Paper(figsize=(width, height), layout=layout, facecolor="white")  # type: ignore[arg-type]


def rows_of(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str], side: float = 1.0
) -> Figure:
    """Rows of pictures under common titles, each row with its name on the left.

    Args:
        side: of a picture, in inches.
    """
    columns = len(titles)
    figure = paper(side * columns + 1.0, side * len(rows) + 0.3)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (name, pictures) in zip(axes, rows, strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            show(axis, picture)
        row[0].set_ylabel(name, fontsize=SMALL, color=INK)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=SMALL, color=INK)
    return figure
