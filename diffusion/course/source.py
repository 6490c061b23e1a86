"""A lesson is one Markdown file in lessons/LANGUAGE, and two notebooks come from it.

In that of the student exercises are open. In the solved one each exercise's cell holds the solution
that the text keeps folded away. They differ in these cells alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml

LESSONS, NOTEBOOKS = Path("lessons"), Path("notebooks")
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```py\n(.*?)\n```", re.DOTALL)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
FIGURES = re.compile(r"\n\*\[All figures[^\n]*\n")  # where the text is read without them
COLAB = "https://colab.research.google.com"
LINK = re.compile(r"\]\((\.\./\.\./)?([^)\s]+)\)")


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
    text = FIGURES.sub("", source.text)
    text = _published(text, source, repository) if repository else _relinked(text, solved)
    made = jupytext.reads(text, fmt="md")
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
        link = f"{COLAB}/github/{repository}/blob/main/{stored(source, False)}"
        made.cells[:0] = [
            nbformat.v4.new_markdown_cell(
                f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"
            ),
            nbformat.v4.new_code_cell(
                "import jax  # the host's own stays: it fits the host's devices\n\n"
                f"%pip install -q git+https://github.com/{repository} jax=={{jax.__version__}}"
            ),
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


def _published(text: str, source: Source, repository: str) -> str:
    """Colab opens one file alone: links lead to the repository, those to lessons to Colab."""

    def link(found: re.Match[str]) -> str:
        root, target = found.groups()
        if root:
            return f"](https://github.com/{repository}/blob/main/{target})"
        if target.endswith(".md"):
            other = stored(source, False).with_name(f"{target.removesuffix('.md')}.ipynb")
            return f"]({COLAB}/github/{repository}/blob/main/{other})"
        return f"]({target})"

    return LINK.sub(link, text)


def stored(source: Source, solved: bool) -> Path:
    folder = NOTEBOOKS / source.language / ("solved" if solved else "")
    return folder / f"{source.path.stem}.ipynb"


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


def retold(source: Source, solved: bool, repository: str) -> nbformat.NotebookNode:
    """The stored notebook with the text that the source has now; its outputs stay.

    Raises ValueError where its code has changed, too.
    """
    path = stored(source, solved)
    made = notebook(source, solved, repository)
    before = nbformat.read(path, 4).cells if path.exists() else []
    new, old = ([c for c in cells if c.cell_type == "code"] for cells in (made.cells, before))
    if [cell.source for cell in new] != [cell.source for cell in old]:
        raise ValueError(
            f"the code of {source.path} is not that of {path}: make lessons ARGS={source.number}"
        )
    for cell, known in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = known.outputs, known.execution_count
    return made
