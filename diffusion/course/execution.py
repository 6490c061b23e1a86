"""Notebooks are executed, and what their checks say is verified.

No cell needs the answer to an exercise (`independent`). So one fresh kernel executes both notebooks
of a lesson: it tries every exercise open first, when its check must say that it is not solved yet,
and then solved, when its check must say that it is right.
"""

import ast
import copy
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from traitlets.config import Config

from diffusion.course.source import Source, notebook
from diffusion.course.words import TABLE

SECONDS, GIB = 120, 4.0  # the budget of a notebook; of its time, when nothing else runs
HANGS = 10 * SECONDS  # seconds of one cell
CHECK = re.compile(r"""lesson\.check\(["'](\w+)["']""")


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
    wanted = TABLE[source.language]["solved" if solved else "unsolved"]
    pattern = re.sub(r"\\{\w+\\}", ".*", re.escape(wanted))
    wrong = [text for text in said if not re.match(pattern, text)]
    if wrong or len(said) != asked:
        kind = "solved" if solved else "student's"
        raise ValueError(
            f"{source.path}: {asked} checks in the {kind} notebook, {len(said)} answers; "
            f"not {wanted!r}: {wrong}"
        )
