"""No check lets a mutant of its solution pass, except those that are no other answer."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.course.execution import CHECK
from diffusion.course.exercise import check
from diffusion.course.exercises import EXERCISES
from diffusion.course.source import notebook, sources
from diffusion.course.words import Words
from tests.course.mutants import TICK, mutants, ticking

LOOPS = 20_000  # rounds that an answer may go before it counts as endless


def solutions():
    """Lesson, exercise, the code of its solution, and the expression that its check is given."""
    for source in sources():
        made = notebook(source, solved=True)
        given = {
            found[1]: ast.unparse(ast.parse(cell.source).body[-1].value.args[1])
            for cell in made.cells
            if cell.cell_type == "code" and (found := CHECK.search(cell.source))
        }
        for cell in made.cells:
            if name := cell.metadata.get("exercise"):
                yield source.number, name, cell.source, given[name]


SOLUTIONS = {name: rest for *_, name, code, answer in solutions() for rest in [(code, answer)]}


def solved(name, code, answer):
    """Does the check say that this code is right?"""
    left = LOOPS

    def tick():
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("endless")

    names = {"jax": jax, "jnp": jnp, "np": np, TICK: tick}
    exercise = next(found[name] for found in EXERCISES.values() if name in found)
    try:
        exec(compile(ticking(code), "<answer>", "exec"), names)
        given = eval(answer, names)
    except Exception:
        return False
    return check(name, exercise, given, Words("en")).solved
