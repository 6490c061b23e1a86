"""`make lessons`: notebooks from the lessons' sources, executed, and nothing drifts unnoticed.

A lesson is one Markdown file in lessons/LANGUAGE. From it come two notebooks: that of the student,
where exercises are open, and the solved one, where each exercise's cell holds the solution that
the text keeps folded away. They differ in these cells alone, and no other cell needs an answer
(`independent`). So one fresh kernel executes both: it tries every exercise open first, when its
check must say that it is not solved yet, and then solved, when its check must say that it is right.

The solved notebook is stored with its outputs, each figure in at most `FIGURE` bytes; the student's
without. What was measured is kept for the top of the notebook, and README's index is written from
the sources.
"""

from __future__ import annotations

import argparse
import ast
import base64
import copy
import json
import math
import os
import re
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import psutil
import yaml
from nbclient import NotebookClient
from PIL import Image
from tqdm import tqdm
from traitlets.config import Config

from diffusion.atomic_write import atomic_write
from diffusion.course.lesson import FACTS

LESSONS, NOTEBOOKS, README = Path("lessons"), Path("notebooks"), Path("README.md")
SETTINGS = LESSONS / "settings.toml"
SECONDS, GIB = 120, 4.0  # the budget of a notebook; of its time, when nothing else runs
HANGS = 10 * SECONDS  # seconds of one cell
FIGURE, COLOURS = 100_000, 256  # of a stored figure: bytes, different colours
CHECK = re.compile(r"""lesson\.check\(["'](\w+)["']""")
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


def independent(source: Source, student: Any, solved: Any) -> None:
    """Can a reader who solves nothing run the rest?

    Raises ValueError where a cell needs what only the answer to an exercise defines.
    """
    code = [
        pair
        for pair in zip(student.cells, solved.cells, strict=True)
        if pair[0].cell_type == "code"
    ]
    ordinary = set().union(*(_bound(cell)[0] for cell, _ in code if not _exercise(cell)))
    answers: dict[str, str] = {}  # name -> exercise
    for cells in code:
        if name := _exercise(cells[0]):
            (imported, defined), (also_imported, also_defined) = map(_bound, cells)
            for_one = (imported ^ also_imported) - ordinary
            answers |= dict.fromkeys(defined | also_defined | for_one, name)
    for cell, _ in code:
        own = _exercise(cell) or _checked(cell)
        if needed := sorted(name for name in _used(cell) if answers.get(name, own) != own):
            said = ", ".join(f"{name} of exercise {answers[name]}" for name in needed)
            raise ValueError(f"{source.path}: a cell needs {said}:\n{cell.source}")


def _parsed(cell: Any) -> ast.Module:
    """The Python of a cell, without lines such as %pip, which are Jupyter's own."""
    return ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))


def _bound(cell: Any) -> tuple[set[str], set[str]]:
    """The names that a cell imports, and those that it defines in other ways."""
    imported: set[str] = set()
    defined: set[str] = set()
    for statement in _parsed(cell).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imported |= {(a.asname or a.name).partition(".")[0] for a in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            defined.add(statement.name)
        else:
            defined |= {
                node.id
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
    return imported, defined


def _used(cell: Any) -> set[str]:
    nodes = ast.walk(_parsed(cell))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _exercise(cell: Any) -> str | None:
    """The exercise whose answer a cell holds."""
    name: str | None = cell.metadata.get("exercise")
    return name


def _checked(cell: Any) -> str | None:
    """The exercise that a cell checks."""
    found = CHECK.search(cell.source) if cell.cell_type == "code" else None
    return found[1] if found else None


def rehearsal(student: Any, solved: Any) -> nbformat.NotebookNode:
    """Both notebooks in one: before the solution of an exercise, its open cell and its checks.

    The cells are those of the two notebooks themselves, so that each gets its own outputs.
    """
    both = copy.copy(solved)
    both.cells = []
    for open_, cell in zip(student.cells, solved.cells, strict=True):
        if name := _exercise(open_):
            both.cells += [open_, *(c for c in student.cells if _checked(c) == name)]
        both.cells.append(cell)
    return both


def execute(made: nbformat.NotebookNode) -> tuple[float, float]:
    """Run a notebook from a fresh kernel. Returns seconds, and the memory it held, in GiB.

    The memory is that of the kernel after the cell that left it largest. Two kernels that start at
    the same time could choose the same port; files as sockets cannot meet.

    Raises nbclient's CellExecutionError where a cell raises.
    """
    began, most = time.monotonic(), 0.0

    def watch(**_: Any) -> None:
        nonlocal most
        children = psutil.Process().children(recursive=True)
        most = max([most, *(child.memory_info().rss / 2**30 for child in children)])

    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            made,
            config=Config(KernelManager={"transport": "ipc", "ip": f"{folder}/socket"}),
            kernel_name="python3",
            timeout=HANGS,
            extra_arguments=["--IPKernelApp.log_level=40"],  # errors alone
            on_cell_executed=watch,
        )
        client.execute(cwd=os.fspath(Path.cwd()))
    return time.monotonic() - began, most


@dataclass(frozen=True)
class Produced:
    """The executed notebooks of a lesson."""

    student: nbformat.NotebookNode  # its open exercises and their checks are executed, no others
    solved: nbformat.NotebookNode
    seconds: float
    memory: float  # GiB


def produce(source: Source, repository: str) -> Produced:
    """Make the notebooks of a lesson, run and verify them.

    Raises ValueError where a check does not say what it has to, or where it takes too much memory.
    """
    student, solved = (notebook(source, answered, repository) for answered in (False, True))
    independent(source, student, solved)
    seconds, memory = execute(rehearsal(student, solved))
    verify(source, student, solved=False)
    verify(source, solved, solved=True)
    if memory > GIB:
        raise ValueError(f"{source.path} takes {memory:.1f} GiB, more than {GIB}")
    return Produced(student, solved, seconds, memory)


def checks(made: nbformat.NotebookNode) -> Iterator[str]:
    """What the checks of an executed notebook said."""
    for cell in made.cells:
        if _checked(cell):
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    yield output["data"]["text/plain"]


def verify(source: Source, made: nbformat.NotebookNode, solved: bool) -> None:
    """Raises ValueError where a check does not say what it has to, or where there is none."""
    said = list(checks(made))
    asked = sum(_checked(cell) is not None for cell in made.cells)
    wanted = ": right, in" if solved else ": not solved yet."
    wrong = [text for text in said if wanted not in text]
    if wrong or len(said) != asked:
        kind = "solved" if solved else "student's"
        raise ValueError(
            f"{source.path}: {asked} checks in the {kind} notebook, {len(said)} answers; "
            f"not {wanted!r}: {wrong}"
        )


def bare(made: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as nobody has run it yet."""
    made = copy.deepcopy(made)
    for cell in made.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return made


def light(made: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook as it is stored: small figures, cells counted from 1, no times."""
    made = copy.deepcopy(made)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when it ran
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if png := output.get("data", {}).get("image/png"):
                small = small_figure(base64.b64decode(png))
                output.data["image/png"] = base64.b64encode(small).decode()
    return made


def small_figure(png: bytes) -> bytes:
    """A PNG with a palette of its own, and a smaller one where it would exceed `FIGURE` bytes."""
    image = Image.open(BytesIO(png)).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    whole = drawn = Image.alpha_composite(paper, image).convert("RGB")
    scale = 1.0
    while len(small := _with_palette(drawn, refined=False)) > FIGURE:
        scale *= min(0.9, math.sqrt(FIGURE / len(small)))
        drawn = whole.resize((round(scale * whole.width), round(scale * whole.height)))
    if scale < 1.0:
        warnings.warn(
            f"a figure of {whole.width}x{whole.height} is stored at {scale:.0%} of its size, to "
            f"keep it within {FIGURE} bytes: show less in it",
            stacklevel=2,
        )
    refined = _with_palette(drawn, refined=True)
    return refined if len(refined) <= FIGURE else small


def _with_palette(image: Image.Image, refined: bool) -> bytes:
    """A PNG of `COLOURS` colours, found by median cut.

    Dots that mix colours (dithering) would double its bytes, and can be seen.

    Args:
        refined: with k-means, too, which takes its time and gains 2 to 4 dB.
    """
    found = BytesIO()
    change = 5000 if refined else 0  # k-means ends when no more colours change their place
    image.quantize(COLOURS, kmeans=change, dither=Image.Dither.NONE).save(
        found, "PNG", optimize=True
    )
    return found.getvalue()


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
        write(stored(source, False), bare(made.student))
        write(stored(source, True), light(made.solved))
        measured = {"seconds": round(made.seconds), "memory": round(made.memory, 1)}
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


def write(path: Path, made: nbformat.NotebookNode) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        nbformat.write(made, draft)


def _write_facts(facts: dict[str, Any]) -> None:
    with atomic_write(FACTS) as draft:  # a notebook may be reading it
        text = json.dumps(facts, indent=2, ensure_ascii=False, sort_keys=True)
        draft.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
