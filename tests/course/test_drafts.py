"""Lessons whose models are not there yet: their exercises are tried as all others are.

When its weights are there, a lesson moves from lessons/drafts to lessons, and its exercises from
`DRAFTS` to `EXERCISES`.
"""

import ast

import pytest

from diffusion.course.execution import CHECK, independent
from diffusion.course.exercise import check
from diffusion.course.exercises import film
from diffusion.course.source import LESSONS, Source, notebook
from diffusion.course.words import TABLE, Words
from tests.course import test_mutants as mutated

DRAFTS = {17: film.EXERCISES}
ALL = {name: exercise for lesson in DRAFTS.values() for name, exercise in lesson.items()}
MISTAKES = [(name, hint) for name, exercise in ALL.items() for hint in exercise.mistakes]
SOURCES = [Source.read(path) for path in sorted((LESSONS / "drafts").glob("*/[0-9]*.md"))]
WORDS = Words("en")


SOLUTIONS = mutated.solutions(SOURCES)


@pytest.mark.parametrize("name", ALL)
def test_the_right_answer_is_right_and_what_is_open_is_not(name):
    report = check(name, ALL[name], ALL[name].right, WORDS)
    assert report.solved, report
    assert not check(name, ALL[name], lambda *_: ..., WORDS).solved
    assert 1 <= ALL[name].minutes <= 30


@pytest.mark.parametrize(("name", "hint"), MISTAKES)
def test_every_mistake_is_caught_by_its_name(name, hint):
    report = check(name, ALL[name], ALL[name].mistakes[hint], WORDS)
    assert not report.solved
    assert TABLE["en"][f"hint.{name}.{hint}"] in report.text


def test_a_lesson_has_its_exercises_and_no_cell_needs_an_answer():
    assert [source.number for source in SOURCES] == sorted(DRAFTS)
    for source in SOURCES:
        made = [notebook(source, solved) for solved in (False, True)]
        code = [cell for cell in made[0].cells if cell.cell_type == "code"]
        names = [cell.metadata["exercise"] for cell in code if "exercise" in cell.metadata]
        checked = [asked[1] for cell in code if (asked := CHECK.search(cell.source))]
        assert names == checked
        assert set(names) == DRAFTS[source.number].keys()
        independent(source, *made)
        for cell in code:
            ast.parse(cell.source)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a mutant may do what it likes
@pytest.mark.parametrize("name", ALL)
def test_no_mutant_of_a_solution_passes(name, monkeypatch):
    monkeypatch.setattr(mutated, "BY_NAME", ALL)
    code, given = SOLUTIONS[name]
    assert mutated.solved(name, code, given)
    made = [(mutated.changed(code, mutant), mutant) for _, mutant in mutated.mutants(code)]
    equal = mutated.EQUAL.get(name, {})
    assert equal.keys() <= dict(made).keys()
    passed = {line for line, mutant in made if mutated.solved(name, mutant, given)}
    assert not passed - equal.keys()
