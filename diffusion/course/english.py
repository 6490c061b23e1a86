"""What checks and notebooks say in English; hints for usual mistakes are in `english_hints.py`."""

from collections.abc import Mapping

from diffusion.course.english_hints import HINTS

SENTENCES: Mapping[str, str] = {
    "begin": "Lesson {number}, {title}. JAX finds {device}.",
    "measured": "On two cores it takes about {seconds} s and {memory} GiB.",
    "unsolved": "{name}: not solved yet.",
    "partly": "{name}: {right} of {all} are right so far.",
    "solved": "{name}: right{more}.",
    "cases": ", in {cases} of {cases} cases",
    "difference": "; largest difference {difference}",
    "wrong": "{name}: not right yet{place}.",
    "case": " (case {case} of {cases})",
    "raised": "{name}: your function raises an error in case {case}: {error}",
    "line": "\n  It is in line {number} of your cell: {code}",
    "untold": "  This is not right: {found}.",
    "parts": "  There should be {wanted} parts, yours are {found}.",
    "entries": "  There should be the entries {wanted}; yours are {found}.",
    "text": "  It should be {wanted}, yours is {found}.",
    "inside": "  In {where}:{said}",
    "shape": "  The shape should be {wanted}, yours is {found}.",
    "finite": "  {count} of {size} values are infinite or no numbers.",
    "value": "  The shape {shape} is right. The largest difference is {difference}, at "
    "{place}: it should be {wanted}, yours is {found}.",
    "hint": "  Hint: {hint}",
    "sign": "all of it has the other sign.",
    "factor": "all of it is {factor} times what it should be.",
    **HINTS,
}
