"""Exercises that check themselves, and explain.

An exercise knows the right answer, where there is one the package's own function, and the
plausible wrong ones. An answer is tried on inputs; where it is wrong, it is held against the wrong
ones that are known, and if it does the same as one of them, that one's hint is given. So each hint
is also a test: tests/course hands every mistake in and expects to be caught by its own name.
"""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from diffusion.course.words import Words

Function = Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """A function to be written, or a value to be found (a function of nothing)."""

    minutes: int  # how long it should take
    right: Function
    cases: Callable[[], Sequence[tuple[Any, ...]]]  # the inputs that answers are tried on
    mistakes: Mapping[str, Function]  # plausible wrong answers, by the name of their hint
    tolerance: float = 1e-5  # of the largest value of the right answer


@dataclass(frozen=True)
class Report:
    """What a check found. Prints as an explanation."""

    solved: bool
    text: str

    def __repr__(self) -> str:
        return self.text


def check(name: str, exercise: Exercise, answer: Any, words: Words) -> Report:
    """Try an answer on all cases and say what is wrong with the first that fails.

    Products are in full precision, which accelerators give only when asked; their default rounding
    would make right answers wrong.

    Args:
        name: of the exercise, as in its hints: "add_noise" finds "hint.add_noise.swapped".
        answer: a function, or the value itself where the exercise has no inputs.
    """
    with jax.default_matmul_precision("highest"):
        return _tried(name, exercise, answer, words)


def _tried(name: str, exercise: Exercise, answer: Any, words: Words) -> Report:
    function = answer if callable(answer) else lambda *_: answer
    worst = 0.0
    cases = exercise.cases()
    for number, inputs in enumerate(cases, start=1):
        wanted = exercise.right(*inputs)
        try:
            found = function(*_own(inputs))
        except NotImplementedError:
            return Report(False, words("unsolved", name=name))
        except Exception as error:  # whatever a student's function may raise
            said = f"{type(error).__name__}: {error}{_line(error, function, words)}"
            return Report(False, words("raised", name=name, case=number, error=said))
        empty: set[Any] = set()
        if _open(found):
            if isinstance(found, dict) and isinstance(wanted, Mapping):
                empty = {key for key, value in found.items() if _open(value)}
            if not empty or empty == found.keys():
                return Report(False, words("unsolved", name=name))
            found, wanted = (
                {k: v for k, v in x.items() if k not in empty} for x in (found, wanted)
            )
        difference = compare(found, wanted, exercise.tolerance, words)
        if isinstance(difference, str):
            first = words("wrong", name=name, place=_place(number, len(cases), inputs, words))
            # A value that is looked for is not told: the next try would be right.
            lines = [first, difference if inputs else _untold(found, wanted, words)]
            if hint := recognised(name, exercise, inputs, found, words):
                lines.append(words("hint", hint=hint))
            return Report(False, "\n".join(lines))
        if empty:
            counts = {"right": len(wanted), "all": len(wanted) + len(empty)}
            return Report(False, words("partly", name=name, **counts))
        worst = max(worst, difference)
    more = words("cases", cases=len(cases)) if cases[0] else ""
    more += words("difference", difference=f"{worst:.1e}") if worst else ""
    return Report(True, words("solved", name=name, more=more))


def _open(found: Any, depth: int = 4) -> bool:
    """Is a place not filled in yet? To a depth only, since a list may hold itself."""
    if isinstance(found, dict | list | tuple) and depth:
        parts = found.values() if isinstance(found, dict) else found
        return any(_open(part, depth - 1) for part in parts)
    return found is None or found is ...


def _line(error: Exception, function: Function, words: Words) -> str:
    """The last line of the student's own that an error passed, if it has one."""
    code = inspect.unwrap(function).__code__ if inspect.isfunction(function) else None
    lines = traceback.extract_tb(error.__traceback__)
    own = [line for line in lines if code and line.filename == code.co_filename]
    return words("line", number=own[-1].lineno, code=own[-1].line) if own else ""


def _place(number: int, cases: int, inputs: tuple[Any, ...], words: Words) -> str:
    return words("case", case=number, cases=cases) if inputs else ""


def _untold(found: Any, wanted: Any, words: Words) -> str:
    """Where a value is wrong, without the right one."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping) and found.keys() == wanted.keys():
        wrong = [
            key for key in wanted if isinstance(compare(found[key], wanted[key], 0, words), str)
        ]
        return words("untold", found=", ".join(f"{key}: {found[key]!r}" for key in wrong))
    if isinstance(wanted, Mapping):
        return str(compare(found, wanted, 0, words))
    return words("untold", found=repr(found))


def _own(inputs: Any) -> Any:
    """The same inputs in new containers, for an answer that empties a list or writes an array."""
    if isinstance(inputs, tuple | list):
        return type(inputs)(_own(value) for value in inputs)
    if isinstance(inputs, dict):
        return {name: _own(value) for name, value in inputs.items()}
    return inputs.copy() if isinstance(inputs, np.ndarray) else inputs


def compare(found: Any, wanted: Any, tolerance: float, words: Words) -> float | str:
    """The largest relative difference, or in words what is wrong and in which part."""
    if isinstance(wanted, Mapping):
        if not isinstance(found, Mapping) or found.keys() != wanted.keys():
            theirs = ", ".join(map(str, found)) if isinstance(found, Mapping) else repr(found)
            return words("entries", wanted=", ".join(map(str, wanted)), found=theirs)
        return _worst([(key, found[key], wanted[key]) for key in wanted], tolerance, words)
    if isinstance(wanted, list | tuple) and not _plain(wanted):
        if not isinstance(found, list | tuple):
            return words("text", wanted=type(wanted).__name__, found=type(found).__name__)
        if len(found) != len(wanted):
            return words("parts", wanted=len(wanted), found=len(found))
        pairs = enumerate(zip(found, wanted, strict=True))
        return _worst([(i, a, b) for i, (a, b) in pairs], tolerance, words)
    if isinstance(wanted, str | tuple | list | bool):
        return _exactly(found, wanted, words)
    return _numbers(found, wanted, tolerance, words)


def _worst(parts: Sequence[tuple[Any, Any, Any]], tolerance: float, words: Words) -> float | str:
    worst = 0.0
    for where, found, wanted in parts:
        difference = compare(found, wanted, tolerance, words)
        if isinstance(difference, str):
            return words("inside", where=repr(where), said=difference.removeprefix(" "))
        worst = max(worst, difference)
    return worst


def _plain(values: Sequence[Any]) -> bool:
    """A row of numbers, such as a shape, or of texts: as a whole right or wrong."""
    return all(isinstance(value, int | float | str) for value in values)


def _exactly(found: Any, wanted: Any, words: Words) -> float | str:
    """A text or a row is right or wrong as a whole. Of a long row, the first place is told."""
    found_, wanted_ = _listed(found), _listed(wanted)
    if _equal(found_, wanted_):
        return 0.0
    if not isinstance(wanted, list) or not isinstance(found_, list):
        return words("text", wanted=repr(wanted), found=repr(found))
    if len(found_) != len(wanted_):
        return words("parts", wanted=len(wanted_), found=len(found_))
    pairs = enumerate(zip(found_, wanted_, strict=True))
    place, (a, b) = next((place, pair) for place, pair in pairs if not _equal(*pair))
    said = words("text", wanted=repr(b), found=repr(a)).removeprefix(" ")
    return words("inside", where=place, said=said)


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except ValueError:  # of a whole array in place of one value
        return False


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray | jax.Array):
        value = value.tolist()
    return list(value) if isinstance(value, tuple | list) else value


def _numbers(found: Any, wanted: Any, tolerance: float, words: Words) -> float | str:
    b = np.asarray(wanted).astype(np.float64)
    if isinstance(found, str):  # "42" is no number
        return words("text", wanted=f"{b.shape}", found=repr(found))
    try:
        a = np.asarray(found).astype(np.float64)
    except (TypeError, ValueError):
        return words("text", wanted=f"{b.shape}", found=repr(found))
    if a.shape != b.shape:
        return words("shape", found=a.shape, wanted=b.shape)
    if not np.isfinite(a).all():
        return words("finite", count=int((~np.isfinite(a)).sum()), size=a.size)
    difference = np.abs(a - b)
    scale = max(float(np.abs(b).max(initial=0.0)), 1e-12)
    if difference.max(initial=0.0) <= tolerance * scale:
        return float(difference.max(initial=0.0) / scale)
    place = np.unravel_index(difference.argmax(), difference.shape)
    return words(
        "value",
        shape=b.shape,
        difference=f"{difference.max():.3g}",
        place=[int(i) for i in place],
        found=f"{a[place]:.5g}",
        wanted=f"{b[place]:.5g}",
    )


def recognised(
    name: str, exercise: Exercise, inputs: tuple[Any, ...], found: Any, words: Words
) -> str | None:
    """The hint of the mistake that does the same on these inputs, if there is one.

    In a dictionary each entry may have a mistake of its own; the first that is known is told.
    Without a known mistake, a constant factor is noticed, too.
    """
    wanted, tolerance = exercise.right(*inputs), 10 * exercise.tolerance

    def same(a: Any, b: Any) -> bool:
        return isinstance(compare(_finite(a), _finite(b), tolerance, words), float)

    for mistake, function in exercise.mistakes.items():
        theirs = function(*inputs)
        if isinstance(wanted, dict) and isinstance(found, dict):
            known = any(
                same(found[key], theirs[key]) and not same(found[key], wanted[key])
                for key in found.keys() & wanted.keys()
            )
        else:
            known = same(found, theirs)
        if known:
            return words(f"hint.{name}.{mistake}")
    return _factor(found, wanted, same, words)


def _finite(value: Any) -> Any:
    """With 0 for what is no number, or infinite: a known mistake may have such, too."""
    arrays = isinstance(value, np.ndarray | jax.Array)
    return np.nan_to_num(np.asarray(value), posinf=0.0, neginf=0.0) if arrays else value


def _factor(found: Any, wanted: Any, same: Callable[[Any, Any], bool], words: Words) -> str | None:
    """Is all of it too large by one factor?"""
    if not all(isinstance(x, np.ndarray | jax.Array | float) for x in (found, wanted)):
        return None
    a, b = (np.asarray(x, np.float64) for x in (found, wanted))
    if a.shape != b.shape or not a.any() or not np.isfinite(a).all():
        return None
    factor = float((a * b).sum() / (b * b).sum())
    if not factor or not same(a / factor, b):
        return None
    return words("sign") if round(factor, 4) == -1 else words("factor", factor=f"{factor:.3g}")
