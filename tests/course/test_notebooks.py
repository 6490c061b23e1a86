"""Notebooks are what their lessons give, and a lesson that forgets something is told so.

That they run, and what their checks say, is for `make lessons ARGS=--check`.
"""

import base64
from io import BytesIO

import nbformat
import numpy as np
import psutil
import pytest
from PIL import Image, ImageSequence

from diffusion.course.execution import checks, execute, independent, rehearsal, verify
from diffusion.course.exercises import EXERCISES
from diffusion.course.notebooks import README, headed, index
from diffusion.course.source import (
    LESSONS,
    LINK,
    NOTEBOOKS,
    Source,
    drifted,
    notebook,
    retold,
    sources,
    stored,
)
from diffusion.course.storage import FIGURE, bare, light, small_figure, write

ALL = 345_000  # bytes of a lesson's stored notebooks, on average; films are the largest

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
def lesson(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def lesson(text=TEXT):
        path = LESSONS / "en" / "01_title.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return Source.read(path)

    return lesson


def pair(source):
    return [notebook(source, solved) for solved in (False, True)]


def code(made):
    return [cell.source for cell in made.cells if cell.cell_type == "code"]


def test_the_students_notebook_is_open_and_the_solved_one_is_not(lesson):
    source = lesson()
    assert (source.number, source.language, source.minutes) == (1, "en", 5)
    assert "..." in code(notebook(source, solved=False))[1]
    assert code(notebook(source, solved=True))[1] == "def double(x):\n    return 2 * x"
    assert code(notebook(source, solved=True))[2] == 'lesson.check("double", double)'
    nbformat.validate(notebook(source, solved=True))


def test_links_lead_from_where_a_notebook_lies(lesson):
    links = "# Title\n\n*[All figures and outputs](../../notebooks/en/solved/01_title.ipynb).*\n"
    links += "\n[code](../../diffusion/schedule.py), [next](02_other.md), [web](https://a.org/b)\n"
    source = lesson(TEXT.replace("# Title\n", links))
    beside, deeper = (notebook(source, solved).cells[0].source for solved in (False, True))
    assert "All figures" not in beside + deeper
    assert "[code](../../diffusion/schedule.py), [next](02_other.ipynb)" in beside
    assert "[code](../../../diffusion/schedule.py), [next](02_other.ipynb)" in deeper
    assert "[web](https://a.org/b)" in beside


def test_every_link_of_a_lesson_leads_somewhere():
    links = [
        (path, f"{root}{target}")
        for path in LESSONS.glob("*/[0-9]*.md")
        for root, target in LINK.findall(path.read_text("utf-8"))
    ]
    assert len(links) > 40
    for path, link in links:
        assert (path.parent / link).exists(), (path, link)


def test_a_published_notebook_installs_itself_first(lesson):
    links = (
        "# Title\n\n[code](../../diffusion/loading.py), [next](02_b.md), [web](https://a.org/b)\n"
    )
    source = lesson(TEXT.replace("# Title\n", links))
    made = notebook(source, solved=False, repository="owner/name")
    assert "colab" in made.cells[0].source
    assert "github/owner/name/blob/main/notebooks/en/01_title.ipynb" in made.cells[0].source
    first = code(made)[0].splitlines()
    assert first[0].startswith("import jax")
    assert first[-1] == "%pip install -q git+https://github.com/owner/name jax=={jax.__version__}"
    assert "[code](https://github.com/owner/name/blob/main/diffusion/loading.py)" in str(made)
    beside = "https://colab.research.google.com/github/owner/name/blob/main/notebooks/en/02_b.ipynb"
    assert f"[next]({beside}), [web](https://a.org/b)" in str(made)


def test_what_a_lesson_must_say(lesson):
    with pytest.raises(ValueError, match=r"01_title.md does not say its question, minutes"):
        lesson(TEXT.replace("question: Why?\n", "").replace("minutes: 5\n", ""))
    with pytest.raises(ValueError, match="does not say its lesson"):
        lesson("# Title")
    forgot = lesson(TEXT.replace("<summary>Solution</summary>", "<summary>?</summary>"))
    with pytest.raises(ValueError, match="exercise double has no solution"):
        notebook(forgot, solved=True)


def answered(made, text):
    cell = next(cell for cell in made.cells if "lesson.check" in cell.source)
    data = {"text/plain": text}
    cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=7)]
    return made


def test_a_notebook_runs_in_a_kernel_that_ends_with_it():
    before = set(psutil.Process().children(recursive=True))
    cells = [nbformat.v4.new_code_cell("x = 6"), nbformat.v4.new_code_cell("7 * x")]
    made = nbformat.v4.new_notebook(cells=cells)
    seconds, memory = execute(made)
    assert made.cells[1].outputs[0].data == {"text/plain": "42"}
    assert seconds > 0
    assert memory > 0
    assert set(psutil.Process().children(recursive=True)) <= before


def test_one_kernel_tries_every_exercise_open_and_then_solved(lesson):
    student, solved = pair(lesson())
    both = rehearsal(student, solved)
    assert code(both) == [
        code(solved)[0], code(student)[1], code(student)[2], code(solved)[1], code(solved)[2]
    ]  # fmt: skip
    answered(both, "double: not solved yet.")
    assert list(checks(student)) == ["double: not solved yet."]  # in its own cell
    assert not list(checks(solved))


@pytest.mark.parametrize(
    ("cell", "needed"),
    [
        ("print(double(2))", "double of exercise double"),
        ("def twice():\n    return double(double(1))", "double of exercise double"),
        ("print(helper)", "helper of exercise double"),
        ("print(math.pi)", "math of exercise double"),
        ("print(np.pi)", None),  # which the open exercise imports, too
        ("import math\n\nprint(math.pi)", None),
        ("%pip list\ndoubled = 2", None),
    ],
)
def test_no_cell_may_need_an_answer(lesson, cell, needed):
    text = TEXT.replace("def double(x):\n    ...", "import numpy as np\n\ndef double(x):\n    ...")
    solution = "import math\nimport numpy as np\n\nhelper = 2\n\ndef double(x):\n    return"
    text = text.replace("def double(x):\n    return", solution)
    source = lesson(f"{text}\n```python\n{cell}\n```\n")
    if needed is None:
        independent(source, *pair(source))
    else:
        with pytest.raises(ValueError, match=f"01_title.md: a cell needs {needed}:\n"):
            independent(source, *pair(source))


def test_no_open_exercise_may_need_the_answer_to_another(lesson):
    second = """
```python exercise="four"
def four():
    return double(...)
```

<details><summary>Solution</summary>

```py
def four():
    return double(2)
```

</details>
"""
    source = lesson(TEXT + second)
    with pytest.raises(ValueError, match="a cell needs double of exercise double"):
        independent(source, *pair(source))
    source = lesson(TEXT + second.replace("return double(...)", "..."))
    independent(source, *pair(source))


def png(pixels):
    found = BytesIO()
    Image.fromarray(pixels).save(found, "PNG")
    return found.getvalue()


def pixels(figure):
    image = Image.open(BytesIO(figure))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def test_a_figure_of_few_colours_stays_as_it_is():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (200, 3), np.uint8)
    drawn = colours[rng.integers(0, 200, (90, 120))]
    small = small_figure(png(drawn))
    np.testing.assert_array_equal(pixels(small), drawn)
    assert len(small) < 0.6 * len(png(drawn))
    np.testing.assert_array_equal(pixels(small_figure(small)), drawn)


def test_a_figure_of_many_colours_keeps_them_nearly():
    red, green = np.meshgrid(np.arange(0, 256, 2), np.arange(0, 256, 2))
    drawn = np.stack([red, green, np.full_like(red, 99)], axis=-1).astype(np.uint8)
    assert np.abs(pixels(small_figure(png(drawn))).astype(int) - drawn).max() < 20


def test_what_is_transparent_is_paper():
    drawn = np.zeros((8, 8, 4), np.uint8)
    drawn[:4] = 9, 9, 9, 255
    found = pixels(small_figure(png(drawn)))
    assert (found[:4] == 9).all()
    assert (found[4:] == 255).all()


def test_a_figure_that_is_too_large_shrinks_and_says_so():
    drawn = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    with pytest.warns(UserWarning, match="a figure of 600x400 is stored at .*: show less in it"):
        small = small_figure(png(drawn))
    assert 0.5 * FIGURE < len(small) <= FIGURE
    height, width, _ = pixels(small).shape
    assert width / height == pytest.approx(1.5, rel=0.02)


def animated(frames, times):
    found = BytesIO()
    first, *others = map(Image.fromarray, frames)
    first.save(found, "PNG", save_all=True, append_images=others, duration=times, loop=0)
    return found.getvalue()


def played(film):
    image = Image.open(BytesIO(film))
    assert (image.format, image.info["loop"]) == ("PNG", 0)
    shown = ImageSequence.Iterator(image)
    found = [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in shown]
    return np.stack([frame for frame, _ in found]), [time for _, time in found]


def test_a_film_of_few_colours_stays_as_it_is_and_moves():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (60, 3), np.uint8)
    drawn = colours[rng.integers(0, 60, (5, 40, 50))]
    small = small_figure(animated(drawn, [100, 125, 125, 125, 500]))
    frames, times = played(small)
    np.testing.assert_array_equal(frames, drawn)
    assert times == [100, 125, 125, 125, 500]
    np.testing.assert_array_equal(played(small_figure(small))[0], drawn)


def test_a_film_gets_fewer_colours_before_it_shrinks():
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 256, (8, 120, 120, 3), np.uint8)
    small = small_figure(animated(drawn, 125))
    frames, _ = played(small)
    assert frames.shape == drawn.shape
    assert len(small) <= FIGURE
    assert len(np.unique(frames.reshape(-1, 3), axis=0)) <= 128
    with pytest.warns(UserWarning, match="a film of 240x120 is stored at .*: show less in it"):
        small = small_figure(animated(drawn.repeat(2, axis=2)[:, :, ::-1], 125))
    assert len(small) <= FIGURE


def test_what_is_stored_of_an_executed_notebook(lesson):
    said = "double: right, in 2 of 2 cases; largest difference 0."
    solved = answered(notebook(lesson(), solved=True), said)
    solved.cells[1].metadata["execution"] = {"iopub.execute_input": "now"}
    solved.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    figure = base64.b64encode(png(np.zeros((8, 8, 3), np.uint8))).decode()
    shown = nbformat.v4.new_output("display_data", {"image/png": figure, "text/plain": "<Figure>"})
    solved.cells[1].outputs = [shown]
    kept = light(solved)
    nbformat.validate(kept)
    cells = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert cells[2].outputs[0].execution_count == 3
    assert cells[2].outputs[0].data == {"text/plain": said}
    data = cells[0].outputs[0].data
    assert (pixels(base64.b64decode(data["image/png"])) == 0).all()
    assert data["text/plain"] == "<Figure>"
    assert "execution" not in cells[0].metadata
    assert "language_info" not in kept.metadata
    assert shown.data["image/png"] == figure  # it works on a copy
    assert light(kept) == kept

    assert code(bare(kept)) == code(solved)
    open_ = [cell for cell in bare(kept).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in open_)


def test_every_check_must_say_what_it_has_to(lesson):
    source = lesson()
    student = answered(notebook(source, solved=False), "double: not solved yet.")
    assert list(checks(student)) == ["double: not solved yet."]
    verify(source, student, solved=False)
    with pytest.raises(ValueError, match=r"not .\{name\}: right"):
        verify(source, student, solved=True)
    right = "double: right, in 2 of 2 cases; largest difference 0."
    verify(source, answered(student, right), solved=True)
    with pytest.raises(ValueError, match="1 checks in the student's notebook, 0 answers"):
        verify(source, notebook(source, solved=False), solved=False)


def test_the_head_says_what_this_very_run_took(lesson):
    made = notebook(lesson(), solved=True)
    first = next(cell for cell in made.cells if "Lesson(1)" in cell.source)
    printed = "Lesson 1, A title. JAX finds 1 x cpu.\nOn two cores it takes about 9 s and 9 GiB.\n"
    first.outputs = [nbformat.v4.new_output("stream", text=printed)]
    headed(made, "It takes 3 s.")
    assert first.outputs[0].text == "Lesson 1, A title. JAX finds 1 x cpu.\nIt takes 3 s.\n"


def test_drift_is_noticed(lesson):
    source = lesson()
    assert drifted(source, False, "")
    path = stored(source, False)
    write(path, notebook(source, False))
    assert not drifted(source, False, "")
    assert drifted(lesson(TEXT.replace("# Title", "# Other")), False, "")


def test_a_new_text_keeps_the_outputs_and_new_code_does_not(lesson):
    made = notebook(lesson(), True)
    write(stored(lesson(), True), answered(made, "double: right."))
    other = lesson(TEXT.replace("# Title", "# Other") + "\nA last word.\n")
    write(stored(other, True), retold(other, True, ""))
    assert not drifted(other, True, "")
    kept = nbformat.read(stored(other, True), 4)
    assert list(checks(kept)) == ["double: right."]
    changed = lesson(TEXT.replace("return 2 * x", "return x + x"))
    with pytest.raises(ValueError, match=r"01_title.md is not that of .*: make lessons ARGS=1"):
        retold(changed, True, "")


def test_index(lesson):
    line = index([lesson()]).splitlines()[-1]
    assert line.startswith("| 1 | **A title**: [text](lessons/en/01_title.md), [notebook](")
    assert line.endswith("| Why? | one | 5 |")


def test_stored_notebooks_are_what_the_lessons_give():
    found = sources()
    assert [source.number for source in found] == sorted(EXERCISES)
    for source in found:
        assert not drifted(source, False, "")
        assert not drifted(source, True, "")
        asked = notebook(source, False)
        names = {cell.metadata["exercise"] for cell in asked.cells if "exercise" in cell.metadata}
        assert names == EXERCISES[source.number].keys()
        both = [nbformat.read(stored(source, solved), 4) for solved in (False, True)]
        student, solved = ([c for c in made.cells if c.cell_type == "code"] for made in both)
        assert not any(cell.outputs or cell.execution_count for cell in student)
        assert all(cell.execution_count for cell in solved)
        figures = [
            base64.b64decode(output.data["image/png"])
            for cell in solved
            for output in cell.outputs
            if "image/png" in output.get("data", {})
        ]
        assert figures
        assert max(map(len, figures)) <= FIGURE
        independent(source, *pair(source))
    assert sum(path.stat().st_size for path in NOTEBOOKS.rglob("*.ipynb")) < ALL * len(found)
    page = README.read_text("utf-8")
    assert index(found) in page
