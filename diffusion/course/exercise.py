"""Exercises that check themselves, and explain.

An exercise knows the right answer, where there is one the package's own function, and the
plausible wrong ones. An answer is tried on inputs; where it is wrong, it is held against the wrong
ones that are known, and if it does the same as one of them, that one's hint is given. So each hint
is also a test: tests/course hands every mistake in and expects to be caught by its own name.
"""

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
            unsolved = found is None or any(part is ... for part in jax.tree.leaves(found))
        except NotImplementedError:
            return Report(False, words("unsolved", name=name))
        except Exception as error:  # whatever a student's function may raise
            said = f"{type(error).__name__}: {error}"
            return Report(False, words("raised", name=name, case=number, error=said))
        if unsolved:
            return Report(False, words("unsolved", name=name))
        difference = compare(found, wanted, exercise.tolerance, words)
        if isinstance(difference, str):
            lines = [words("wrong", name=name, case=number, cases=len(cases)), difference]
            if hint := recognised(exercise, inputs, found, words):
                lines.append(words("hint", hint=words(f"hint.{name}.{hint}")))
            return Report(False, "\n".join(lines))
        worst = max(worst, difference)
    return Report(True, words("solved", name=name, cases=len(cases), difference=f"{worst:.1e}"))


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
        same = _listed(found) == _listed(wanted)
        return 0.0 if same else words("text", wanted=repr(wanted), found=repr(found))
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


def recognised(exercise: Exercise, inputs: tuple[Any, ...], found: Any, words: Words) -> str | None:
    """The name of the mistake that does the same on these inputs, if there is one."""
    for name, mistake in exercise.mistakes.items():
        if isinstance(compare(found, mistake(*inputs), 10 * exercise.tolerance, words), float):
            return name
    return None
