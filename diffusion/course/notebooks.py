"""`make lessons`: notebooks from the lessons' sources, executed, and nothing drifts unnoticed.

A lesson is one Markdown file in lessons/LANGUAGE. From it come two notebooks: that of the student,
where exercises are open, and the solved one, where each exercise's cell holds the solution that
the text keeps folded away. Both are executed from a fresh kernel; the student's must say of every
check that it is not solved yet, the other's that it is right. What was measured is kept for the top
of the notebook, and README's index is written from the sources.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import psutil
import yaml
from nbclient import NotebookClient
from tqdm import tqdm

from diffusion.atomic_write import atomic_write
from diffusion.course.lesson import FACTS

LESSONS, NOTEBOOKS, README = Path("lessons"), Path("notebooks"), Path("README.md")
SETTINGS = LESSONS / "settings.toml"
SECONDS, GIB = 120, 4.0  # the budget of a notebook
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```py\n(.*?)\n```", re.DOTALL)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
FIGURES = re.compile(r"\n\*\[All figures[^\n]*\n")  # where the text is read without them
LINK = re.compile(r"\]\((\.\./\.\./)?([^)\s]+)\)")
BEGIN, END = "<!-- course: begin -->", "<!-- course: end -->"


@dataclass(frozen=True)
class Source:
    """A lesson, and what its first lines say of it."""

    path: Path
    language: str
    number: int
    title: str
    question: str
    figure: str  # in words: what there is to see
    minutes: int  # for a reader who solves the exercises
    text: str

    @classmethod
    def read(cls, path: Path) -> Source:
        """Raises ValueError where the first lines do not say what a lesson has to say of itself."""
        parts = re.match(r"---\n(.*?)\n---\n(.*)", path.read_text("utf-8"), re.DOTALL)
        facts = yaml.safe_load(parts[1]) if parts else {}
        names = ("lesson", "title", "question", "figure", "minutes")
        if missing := [name for name in names if name not in facts]:
            raise ValueError(f"{path} does not say its {', '.join(missing)} between the lines ---")
        assert parts is not None
        number, title, question, figure, minutes = (facts[name] for name in names)
        return cls(path, path.parent.name, number, title, question, figure, minutes, parts[2])


def sources() -> list[Source]:
    return [Source.read(path) for path in sorted(LESSONS.glob("*/[0-9]*.md"))]


def notebook(source: Source, solved: bool, repository: str = "") -> nbformat.NotebookNode:
    """The notebook of a lesson, not executed yet.

    Raises ValueError for an exercise that no solution follows.
    """
    made = jupytext.reads(_relinked(FIGURES.sub("", source.text), solved), fmt="md")
    made.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    open_: Any = None
    for cell in made.cells:
        name = cell.metadata.get("exercise")
        if name is not None:
            if open_ is not None:
                break
            open_ = cell
        if (found := SOLUTION.search(cell.source)) and open_ is not None:
            if solved:
                open_.source = found[1]
            open_ = None
    if open_ is not None:
        raise ValueError(f"{source.path}: exercise {open_.metadata['exercise']} has no solution")
    if repository:
        place = f"{NOTEBOOKS}/{source.language}/{source.path.stem}.ipynb"
        link = f"https://colab.research.google.com/github/{repository}/blob/main/{place}"
        badge = (
            f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"
        )
        made.cells[:0] = [
            nbformat.v4.new_markdown_cell(badge),
            nbformat.v4.new_code_cell(f"%pip install -q git+https://github.com/{repository}"),
        ]
    for i, cell in enumerate(made.cells):
        cell["id"] = f"{source.number:02d}-{i:03d}"
    return made


def _relinked(text: str, solved: bool) -> str:
    """From a notebook, other lessons are notebooks beside it, and a solved one lies deeper."""

    def link(found: re.Match[str]) -> str:
        root, target = found.groups()
        if root:
            return f"]({root}{'../' * solved}{target})"
        return f"]({target.removesuffix('.md') + '.ipynb' if target.endswith('.md') else target})"

    return LINK.sub(link, text)


def execute(made: nbformat.NotebookNode) -> tuple[float, float]:
    """Run a notebook from a fresh kernel. Returns seconds, and the memory it held, in GiB.

    The memory is that of the kernel after the cell that left it largest.

    Raises nbclient's CellExecutionError where a cell raises.
    """
    began, most = time.monotonic(), 0.0

    def watch(**_: Any) -> None:
        nonlocal most
        children = psutil.Process().children(recursive=True)
        most = max([most, *(child.memory_info().rss / 2**30 for child in children)])

    client = NotebookClient(
        made,
        timeout=SECONDS,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors alone
        on_cell_executed=watch,
    )
    client.execute(cwd=os.fspath(Path.cwd()))
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when it ran
    return time.monotonic() - began, most


def produce(
    source: Source, solved: bool, repository: str
) -> tuple[nbformat.NotebookNode, float, float]:
    """Make a notebook, run it, and hold it to its budget and its checks.

    Raises ValueError where it breaks one of them.
    """
    made = notebook(source, solved, repository)
    seconds, memory = execute(made)
    verify(source, made, solved)
    if seconds > SECONDS or memory > GIB:
        raise ValueError(f"{source.path} takes more than {SECONDS} s or {GIB} GiB")
    return made, seconds, memory


def checks(made: nbformat.NotebookNode) -> Iterator[str]:
    """What the checks of an executed notebook said."""
    for cell in made.cells:
        if cell.cell_type == "code" and "lesson.check(" in cell.source:
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    yield output["data"]["text/plain"]


def verify(source: Source, made: nbformat.NotebookNode, solved: bool) -> None:
    """Raises ValueError where a check does not say what it has to, or where there is none."""
    said = list(checks(made))
    asked = sum("lesson.check(" in c.source for c in made.cells if c.cell_type == "code")
    wanted = ": right, in" if solved else ": not solved yet."
    wrong = [text for text in said if wanted not in text]
    if wrong or len(said) != asked:
        kind = "solved" if solved else "student's"
        raise ValueError(
            f"{source.path}: {asked} checks in the {kind} notebook, {len(said)} answers; "
            f"not {wanted!r}: {wrong}"
        )


def stored(source: Source, solved: bool) -> Path:
    folder = NOTEBOOKS / source.language / ("solved" if solved else "")
    return folder / f"{source.path.stem}.ipynb"


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


def drifted(source: Source, solved: bool, repository: str) -> bool:
    """Is the stored notebook another than the one that the source gives?"""
    path = stored(source, solved)
    if not path.exists():
        return True
    cells = [
        [(cell.cell_type, cell.source) for cell in made.cells]
        for made in (nbformat.read(path, 4), notebook(source, solved, repository))
    ]
    return cells[0] != cells[1]


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
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time (%(default)s)")
    arguments = parser.parse_args()
    repository = tomllib.loads(SETTINGS.read_text("utf-8"))["repository"]
    found = sources()
    chosen = [s for s in found if not arguments.numbers or s.number in arguments.numbers]
    if missing := set(arguments.numbers) - {source.number for source in found}:
        parser.error(f"there is no lesson {min(missing)}; there are 0 to {len(found) - 1}")
    facts = json.loads(FACTS.read_text("utf-8"))
    for source in chosen:
        of_language = facts.setdefault(source.language, {})
        of_language.setdefault(str(source.number), {})["title"] = source.title
        for solved in (False, True):
            if arguments.check and drifted(source, solved, repository):
                raise ValueError(f"{stored(source, solved)} is not what {source.path} gives")
    if not arguments.check:
        _write_facts(facts)  # the title is printed by the notebook
    # The solved ones last: by then, what they have to compile has been compiled.
    jobs = [(source, solved) for solved in (False, True) for source in chosen]
    failed: list[Path] = []
    with ProcessPoolExecutor(arguments.jobs) as workers:
        running = {workers.submit(produce, *job, repository): job for job in jobs}
        for done in tqdm(as_completed(running), total=len(jobs), desc="lessons", unit="notebook"):
            source, solved = running[done]
            if error := done.exception():
                failed.append(stored(source, solved))
                tqdm.write(f"{failed[-1]}: {error}")
                continue
            made, seconds, memory = done.result()
            tqdm.write(f"{stored(source, solved)}: {seconds:.0f} s, {memory:.1f} GiB")
            if arguments.check:
                continue
            stored(source, solved).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(stored(source, solved)) as draft:
                nbformat.write(made, draft)
            if not solved:
                found_out = {"seconds": round(seconds), "memory": round(memory, 1)}
                facts[source.language][str(source.number)] |= found_out
                _write_facts(facts)
    page = README.read_text("utf-8")
    before, rest = page.split(BEGIN)
    new = f"{before}{BEGIN}\n{index(found)}\n{END}{rest.split(END)[1]}"
    if not arguments.check:
        README.write_text(new, "utf-8")
    elif new != page:
        raise ValueError("README's index of the course has drifted: make lessons")
    return min(len(failed), 1)


def _write_facts(facts: dict[str, Any]) -> None:
    with atomic_write(FACTS) as draft:  # a notebook may be reading it
        text = json.dumps(facts, indent=2, ensure_ascii=False, sort_keys=True)
        draft.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
