"""What a comparison with the reference found: one row a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    block: str  # what was compared
    shape: tuple[int, ...]  # of its output
    absolute: float  # max |ours - theirs|
    relative: float  # max |ours - theirs| / max |theirs|
    bound: float  # of the relative error

    @property
    def ok(self) -> bool:
        """A comparison with NaN is never within the bound."""
        return self.relative <= self.bound


def compare(block: str, ours: np.ndarray, theirs: np.ndarray, bound: float) -> Row:
    """Compare in float64. Another shape, or a NaN on either side, is an infinite error."""
    if ours.shape != theirs.shape:
        return Row(f"{block}: {theirs.shape} expected", ours.shape, np.inf, np.inf, bound)
    theirs = np.asarray(theirs, np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity is a breach, not a warning
        absolute = float(np.max(np.abs(ours - theirs), initial=0.0))
    largest = float(np.max(np.abs(theirs), initial=0.0))
    if np.isnan(absolute):
        return Row(block, ours.shape, np.inf, np.inf, bound)
    relative = 0.0 if absolute == 0 else absolute / largest if largest else np.inf
    return Row(block, ours.shape, absolute, relative, bound)


def table(rows: Iterable[Row]) -> str:
    """Aligned text, one line a row."""
    lines = [("block", "shape", "max abs", "max rel", "bound", "")]
    for row in rows:
        shape = "x".join(map(str, row.shape))
        numbers = f"{row.absolute:.1e}", f"{row.relative:.1e}", f"{row.bound:.0e}"
        lines.append((row.block, shape, *numbers, "ok" if row.ok else "BREACH"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, 1, 5) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
