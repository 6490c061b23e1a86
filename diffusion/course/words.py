"""What checks and notebooks say, in every language of the course: one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion.course import english

TABLE: Mapping[str, Mapping[str, str]] = {"en": english.SENTENCES}
"""language -> name -> sentence."""


@dataclass(frozen=True)
class Words:
    """The sentences of one language: `Words("en")("unsolved", name="snr")`."""

    language: str

    def __post_init__(self) -> None:
        if self.language not in TABLE:
            known = ", ".join(TABLE)
            raise ValueError(f"the course does not speak {self.language!r}; it speaks {known}")

    def __call__(self, key: str, **values: Any) -> str:
        return TABLE[self.language][key].format(**values)
