"""`make lessons`: notebooks from the lessons' sources, executed, and nothing drifts unnoticed.

The solved notebooks are stored with their outputs, the student's without. What was measured is kept
for the top of a notebook, and README's index is written from the sources.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import nbformat
from tqdm import tqdm

from diffusion.atomic_write import atomic_write
from diffusion.course.execution import SECONDS, Produced, produce
from diffusion.course.lesson import FACTS
from diffusion.course.source import LESSONS, Source, drifted, retold, sources, stored
from diffusion.course.storage import bare, light, write
from diffusion.course.words import Words

README, SETTINGS = Path("README.md"), LESSONS / "settings.toml"
BEGIN, END = "<!-- course: begin -->", "<!-- course: end -->"


def index(found: list[Source]) -> str:
    """The course as a table, for README."""
    lines = [
        "| | lesson | its question | what there is to see | minutes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for s in found:
        links = f"[text]({s.path}), [notebook]({stored(s, False)}), [solved]({stored(s, True)})"
        lines.append(
            f"| {s.number} | **{s.title}**: {links} | {s.question} | {s.figure} | {s.minutes} |"
        )
    return "\n".join(lines)


def headed(made: nbformat.NotebookNode, measured: str) -> None:
    """Let the head of an executed notebook say what this run took, not what the last one did."""
    first = next(cell for cell in made.cells if "= Lesson(" in cell.source)
    for output in first.outputs:
        if output.output_type == "stream":
            output.text = f"{output.text.splitlines()[0]}\n{measured}\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m diffusion.course.notebooks", description=__doc__
    )
    parser.add_argument("numbers", nargs="*", type=int, help="of the lessons; all if there is none")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing: fail where a stored notebook has drifted",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="execute nothing: only the text has changed, and outputs stay",
    )
    parser.add_argument(
        "--jobs", type=int, help="lessons at a time (1, which measures time; 2 with --check)"
    )
    arguments = parser.parse_args()
    jobs = arguments.jobs
    repository = tomllib.loads(SETTINGS.read_text("utf-8"))["repository"]
    found = sources()
    chosen = [s for s in found if not arguments.numbers or s.number in arguments.numbers]
    if missing := set(arguments.numbers) - {source.number for source in found}:
        parser.error(f"there is no lesson {min(missing)}; there are 0 to {len(found) - 1}")
    if arguments.text:
        try:
            _retell(chosen, found, repository)
        except ValueError as error:
            parser.error(str(error))
        return 0
    if arguments.check:
        _check_stored(chosen, found, repository)
        return min(1, sum(made is None for _, made in _executed(chosen, repository, jobs or 2)))
    return _renew(chosen, found, repository, jobs or 1)


def _check_stored(chosen: list[Source], found: list[Source], repository: str) -> None:
    """Raises ValueError that names what the lessons do not give."""
    for source in chosen:
        for solved in (False, True):
            if drifted(source, solved, repository):
                raise ValueError(f"{stored(source, solved)} is not what {source.path} gives")
    page = README.read_text("utf-8")
    if _indexed(page, found) != page:
        raise ValueError("README's index of the course has drifted: make lessons")


def _retell(chosen: list[Source], found: list[Source], repository: str) -> None:
    """Write the new text of lessons into their notebooks, and the index."""
    for source in chosen:
        both = [
            (stored(source, solved), retold(source, solved, repository)) for solved in (False, True)
        ]
        for path, made in both:
            write(path, made)
    README.write_text(_indexed(README.read_text("utf-8"), found), "utf-8")


def _renew(chosen: list[Source], found: list[Source], repository: str, jobs: int) -> int:
    """Write notebooks, facts and index; returns 1 where a lesson fails or exceeds its budget."""
    facts = json.loads(FACTS.read_text("utf-8"))
    for source in chosen:
        of_language = facts.setdefault(source.language, {})
        of_language.setdefault(str(source.number), {})["title"] = source.title
    _write_facts(facts)  # the title is printed by the notebook
    failed = 0
    for source, made in _executed(chosen, repository, jobs):
        if made is None:
            failed = 1
            continue
        if made.seconds > SECONDS:
            failed = 1
            tqdm.write(f"{source.path} takes more than {SECONDS} s")
        measured = {"seconds": round(made.seconds), "memory": round(made.memory, 1)}
        headed(made.solved, Words(source.language)("measured", **measured))
        write(stored(source, False), bare(made.student))
        write(stored(source, True), light(made.solved))
        facts[source.language][str(source.number)] |= measured
        _write_facts(facts)
    README.write_text(_indexed(README.read_text("utf-8"), found), "utf-8")
    return failed


def _executed(
    chosen: list[Source], repository: str, jobs: int
) -> Iterator[tuple[Source, Produced | None]]:
    """The lessons as they are done; one that failed is told of, and comes with None."""
    with ProcessPoolExecutor(jobs) as workers:
        running = {workers.submit(produce, source, repository): source for source in chosen}
        for done in tqdm(as_completed(running), total=len(chosen), desc="lessons", unit="lesson"):
            source, error = running[done], done.exception()
            if error:
                tqdm.write(f"{source.path}: {error}")
                yield source, None
                continue
            made = done.result()
            tqdm.write(f"{source.path}: {made.seconds:.0f} s, {made.memory:.1f} GiB")
            yield source, made


def _indexed(page: str, found: list[Source]) -> str:
    """README with the index as the lessons give it."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{index(found)}\n{END}{rest.split(END)[1]}"


def _write_facts(facts: dict[str, Any]) -> None:
    with atomic_write(FACTS) as draft:  # a notebook may be reading it
        text = json.dumps(facts, indent=2, ensure_ascii=False, sort_keys=True)
        draft.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
