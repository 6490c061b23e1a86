"""Exercises that check themselves, and explain.

An exercise knows the right answer, which is always one of the package's own functions, and the
plausible wrong ones. An answer is tried on inputs; where it is wrong, it is held against the wrong
ones that are known, and if it does the same as one of them, that one's hint is given. So each hint
is also a test: tests/course hands every mistake in and expects to be caught by its own name.
"""

from __future__ import annotations

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

    Args:
        name: of the exercise, as in its hints: "noisy_latent" finds "hint.noisy_latent.swapped".
        answer: a function, or the value itself where the exercise has no inputs.
    """
    function = answer if callable(answer) else lambda *_: answer
    worst = 0.0
    cases = exercise.cases()
    for number, inputs in enumerate(cases, start=1):
        wanted = exercise.right(*inputs)
        try:
            found = function(*inputs)
        except NotImplementedError:
            return Report(False, words("unsolved", name=name))
        except Exception as error:  # whatever a student's function may raise
            said = f"{type(error).__name__}: {error}"
            return Report(False, words("raised", name=name, case=number, error=said))
        if found is None or found is ...:
            return Report(False, words("unsolved", name=name))
        difference = compare(found, wanted, exercise.tolerance, words)
        if isinstance(difference, str):
            lines = [words("wrong", name=name, case=number, cases=len(cases)), difference]
            if hint := recognised(exercise, inputs, found, words):
                lines.append(words("hint", hint=words(f"hint.{name}.{hint}")))
            return Report(False, "\n".join(lines))
        worst = max(worst, difference)
    return Report(True, words("solved", name=name, cases=len(cases), difference=f"{worst:.1e}"))


def compare(found: Any, wanted: Any, tolerance: float, words: Words) -> float | str:
    """The largest relative difference, or in words what is wrong."""
    theirs, ours = _leaves(found), _leaves(wanted)
    if len(theirs) != len(ours):
        return words("parts", found=len(theirs), wanted=len(ours))
    worst = 0.0
    for their, our in zip(theirs, ours, strict=True):
        if isinstance(our, str) or isinstance(their, str):
            if their != our:
                return words("text", found=repr(their), wanted=repr(our))
            continue
        a, b = np.asarray(their), np.asarray(our)
        if a.shape != b.shape:
            return words("shape", found=a.shape, wanted=b.shape)
        a, b = a.astype(np.float64), b.astype(np.float64)
        if not np.isfinite(a).all():
            return words("finite", count=int((~np.isfinite(a)).sum()), size=a.size)
        difference = np.abs(a - b)
        scale = np.abs(b).max() if b.size else 1.0
        if difference.size and difference.max() > tolerance * max(scale, 1e-12):
            place = np.unravel_index(difference.argmax(), difference.shape)
            return words(
                "value",
                shape=b.shape,
                difference=f"{difference.max():.3g}",
                place=[int(i) for i in place],
                found=f"{a[place]:.5g}",
                wanted=f"{b[place]:.5g}",
            )
        if difference.size:
            worst = max(worst, float(difference.max() / max(scale, 1e-12)))
    return worst


def recognised(exercise: Exercise, inputs: tuple[Any, ...], found: Any, words: Words) -> str | None:
    """The name of the mistake that does the same on these inputs, if there is one."""
    for name, mistake in exercise.mistakes.items():
        if isinstance(compare(found, mistake(*inputs), 10 * exercise.tolerance, words), float):
            return name
    return None


def _leaves(answer: Any) -> list[Any]:
    """Arrays and texts; numbers in a row, such as a shape, are one array."""

    def row(x: Any) -> bool:
        return isinstance(x, tuple | list) and all(isinstance(n, int | float) for n in x)

    return jax.tree.leaves(answer, is_leaf=row)
