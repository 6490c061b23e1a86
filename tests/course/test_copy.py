"""The course can be taken out of the package."""

import pytest

from diffusion.course import __main__ as course


def test_all_notebooks_are_copied(tmp_path, capsys):
    assert course.main([str(tmp_path / "course")]) == 0
    copied = sorted(path.name for path in (tmp_path / "course").glob("*.ipynb"))
    solved = sorted(path.name for path in (tmp_path / "course/solved").glob("*.ipynb"))
    assert copied == solved
    assert copied[0] == "00_studio_tour.ipynb"
    assert "jupyter notebook" in capsys.readouterr().out


def test_what_lies_there_is_kept(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(SystemExit, match="2"):
        course.main([str(tmp_path)])
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValueError, match="no course in 'xx'; choose from en"):
        course.copy(tmp_path / "new", "xx")
