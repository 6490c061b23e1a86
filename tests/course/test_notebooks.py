"""Notebooks are what their lessons give, and a lesson that forgets something is told so.

That they run, and what their checks say, is for `make lessons ARGS=--check`.
"""

import nbformat
import pytest

from diffusion.course import notebooks
from diffusion.course.exercises import EXERCISES
from diffusion.course.notebooks import Source, checks, drifted, index, notebook, verify

TEXT = """---
lesson: 1
title: A title
question: Why?
figure: one
minutes: 5
---

# Title

```python
from diffusion.course import Lesson

lesson = Lesson(1)
```

```python exercise="double"
def double(x):
    ...
```

```python
lesson.check("double", double)
```

<details><summary>Solution</summary>

```py
def double(x):
    return 2 * x
```

</details>
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text=TEXT):
        path = notebooks.LESSONS / "en" / "01_title.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return Source.read(path)

    return write


def code(made):
    return [cell.source for cell in made.cells if cell.cell_type == "code"]


def test_the_students_notebook_is_open_and_the_solved_one_is_not(write):
    source = write()
    assert (source.number, source.language, source.minutes) == (1, "en", 5)
    assert "..." in code(notebook(source, solved=False))[1]
    assert code(notebook(source, solved=True))[1] == "def double(x):\n    return 2 * x"
    assert code(notebook(source, solved=True))[2] == 'lesson.check("double", double)'
    nbformat.validate(notebook(source, solved=True))


def test_links_lead_from_where_a_notebook_lies(write):
    links = "# Title\n\n*[All figures and outputs](../../notebooks/en/solved/01_title.ipynb).*\n"
    links += "\n[code](../../diffusion/schedule.py), [next](02_other.md), [web](https://a.org/b)\n"
    source = write(TEXT.replace("# Title\n", links))
    beside, deeper = (notebook(source, solved).cells[0].source for solved in (False, True))
    assert "All figures" not in beside + deeper
    assert "[code](../../diffusion/schedule.py), [next](02_other.ipynb)" in beside
    assert "[code](../../../diffusion/schedule.py), [next](02_other.ipynb)" in deeper
    assert "[web](https://a.org/b)" in beside


def test_every_link_of_a_lesson_leads_somewhere():
    links = [
        (path, f"{root}{target}")
        for path in notebooks.LESSONS.glob("*/[0-9]*.md")
        for root, target in notebooks.LINK.findall(path.read_text("utf-8"))
    ]
    assert len(links) > 40
    for path, link in links:
        assert (path.parent / link).exists(), (path, link)


def test_a_published_notebook_installs_itself_first(write):
    made = notebook(write(), solved=False, repository="owner/name")
    assert "colab" in made.cells[0].source
    assert "github/owner/name/blob/main/notebooks/en/01_title.ipynb" in made.cells[0].source
    assert code(made)[0] == "%pip install -q git+https://github.com/owner/name"


def test_what_a_lesson_must_say(write):
    with pytest.raises(ValueError, match=r"01_title.md does not say its question, minutes"):
        write(TEXT.replace("question: Why?\n", "").replace("minutes: 5\n", ""))
    with pytest.raises(ValueError, match="does not say its lesson"):
        write("# Title")
    forgot = write(TEXT.replace("<summary>Solution</summary>", "<summary>?</summary>"))
    with pytest.raises(ValueError, match="exercise double has no solution"):
        notebook(forgot, solved=True)


def answered(made, text):
    cell = next(cell for cell in made.cells if "lesson.check" in cell.source)
    data = {"text/plain": text}
    cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=1)]
    return made


def test_every_check_must_say_what_it_has_to(write):
    source = write()
    student = answered(notebook(source, solved=False), "double: not solved yet.")
    assert list(checks(student)) == ["double: not solved yet."]
    verify(source, student, solved=False)
    with pytest.raises(ValueError, match=r"not ': right, in'"):
        verify(source, student, solved=True)
    verify(source, answered(student, "double: right, in 2 of 2 cases"), solved=True)
    with pytest.raises(ValueError, match="1 checks in the student's notebook, 0 answers"):
        verify(source, notebook(source, solved=False), solved=False)


def test_drift_is_noticed(write):
    source = write()
    assert drifted(source, False, "")
    path = notebooks.stored(source, False)
    path.parent.mkdir(parents=True)
    nbformat.write(notebook(source, False), path)
    assert not drifted(source, False, "")
    assert drifted(write(TEXT.replace("# Title", "# Other")), False, "")


def test_index(write):
    line = index([write()]).splitlines()[-1]
    assert line.startswith("| 1 | **A title**: [text](lessons/en/01_title.md), [notebook](")
    assert line.endswith("| Why? | one | 5 |")


def test_stored_notebooks_are_what_the_lessons_give():
    found = notebooks.sources()
    assert [source.number for source in found] == sorted(EXERCISES)
    for source in found:
        assert not drifted(source, False, "")
        assert not drifted(source, True, "")
        asked = notebook(source, False)
        names = {cell.metadata["exercise"] for cell in asked.cells if "exercise" in cell.metadata}
        assert names == EXERCISES[source.number].keys()
    page = notebooks.README.read_text("utf-8")
    assert index(found) in page
