"""Messages that cannot stop the work that they tell of."""

import io
from typing import TextIO


class Lasting(io.TextIOBase):
    """A stream for messages that never fails: what cannot be written is lost, and nothing else.

    The terminal may be gone, or the disk behind a log full; the pictures are more important.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream

    def write(self, text: str) -> int:
        if self.stream is not None:
            try:
                return self.stream.write(text)
            except (OSError, ValueError):  # a closed stream raises ValueError
                self.stream = None
        return len(text)

    def flush(self) -> None:
        if self.stream is not None:
            try:
                self.stream.flush()
            except (OSError, ValueError):
                self.stream = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("nobody reads it")
        return self.stream.fileno()
