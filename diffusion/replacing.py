"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; what lies there takes the place of `path` at the end.

    Where the writing fails, what was at `path` before is still there, and the draft is gone.
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):  # the failure that led here is the one to hear of
            draft.unlink(missing_ok=True)
