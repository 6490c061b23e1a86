"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place near `path` to write to; what lies there takes the place of `path` at the end.

    Where the writing fails, what was at `path` before is still there, and the draft is gone. The
    draft lies in a new folder with a random name, so that no link can wait for it.
    """
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        yield draft
        os.replace(draft, path)
