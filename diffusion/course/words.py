"""What checks and figures say, in every language of the course: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TABLE: Mapping[str, Mapping[str, str]] = {
    "en": {
        "begin": "Lesson {number}, {title}. JAX finds {device}.",
        "measured": "On two cores it takes about {seconds} s and {memory} GiB.",
        "unsolved": "{name}: not solved yet.",
        "solved": "{name}: right, in {cases} of {cases} cases; largest difference {difference}.",
        "wrong": "{name}: not right yet (case {case} of {cases}).",
        "raised": "{name}: your function raises an error in case {case}: {error}",
        "parts": "  There should be {wanted} arrays, yours are {found}.",
        "text": "  It should be {wanted}, yours is {found}.",
        "shape": "  The shape should be {wanted}, yours is {found}.",
        "finite": "  {count} of {size} values are infinite or no numbers.",
        "value": "  The shape {shape} is right. The largest difference is {difference}, at "
        "{place}: it should be {wanted}, yours is {found}.",
        "hint": "  Hint: {hint}",
        "hint.add_noise.swapped": "did you swap sqrt(alpha_bar) and sqrt(1 - alpha_bar)?",
        "hint.add_noise.variance": "alpha_bar is a share of the variance; what multiplies the "
        "values is its square root.",
        "hint.add_noise.amount": "the two weights need not sum to 1, their squares do.",
        "hint.add_noise.signal": "the picture has to become fainter, too: it has a weight of its "
        "own.",
        "hint.snr.upside_down": "that is noise to signal: it should fall with the timestep.",
        "hint.snr.standard_deviation": "the ratio is one of variances, not of standard deviations.",
        "hint.many_steps.sums": "the shares that are left multiply: what is left of what was left.",
        "hint.many_steps.betas": "beta is what one step takes away; 1 - beta is what it leaves.",
        "hint.many_steps.late": "after step t, its own beta has been taken away, too.",
    },
}


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
