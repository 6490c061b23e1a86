"""A cache that cannot be used costs time and nothing else."""

import os
import shutil

import jax
import pytest

from diffusion.runtime import compilation_cache
from diffusion.runtime.compilation_cache import drop_replaced, keep_compilations, remember


@pytest.fixture
def place(tmp_path, monkeypatch):
    """`place(path)`: where the user's cache shall be; JAX's own settings stay as they are."""
    settings, left = {}, []
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.setattr(compilation_cache.atexit, "register", lambda *call: left.append(call))

    def place(path):
        monkeypatch.setattr(compilation_cache.platformdirs, "user_cache_path", lambda name: path)
        return settings, left

    return place


def test_programs_are_kept_in_the_users_cache(tmp_path, place, capsys):
    settings, left = place(tmp_path / "cache")
    keep_compilations()
    assert settings["jax_compilation_cache_dir"] == str(tmp_path / "cache" / "jax")
    assert "first run" in capsys.readouterr().err
    keep_compilations()
    assert capsys.readouterr().err == ""
    assert left == [(remember, tmp_path / "cache" / "jax")] * 2


@pytest.mark.parametrize("case", ["no home", "a file", "a long name", "closed"])
def test_where_no_cache_can_be_each_start_compiles(tmp_path, place, capsys, monkeypatch, case):
    path = {
        "no home": type(tmp_path)("~/.cache/diffusion"),
        "a file": tmp_path / "file" / "cache",
        "a long name": tmp_path / ("n" * 300),
        "closed": tmp_path / "closed",
    }[case]
    (tmp_path / "file").touch()
    if case == "closed":  # whoever runs the tests may be allowed everything

        def refused(**_):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(compilation_cache.tempfile, "TemporaryFile", refused)
    settings, _ = place(path)
    keep_compilations()
    assert settings == {}
    assert "note: compiled programs are not kept" in capsys.readouterr().err
    assert not os.path.exists("~")


def test_a_program_under_anothers_name_is_dropped(tmp_path):
    for name in ("one-cache", "two-cache"):
        (tmp_path / name).write_text(name)
    remember(tmp_path)
    (tmp_path / "new-cache").write_text("killed before it was noted")
    drop_replaced(tmp_path)
    assert len(list(tmp_path.glob("*-cache"))) == 3
    shutil.copyfile(tmp_path / "one-cache", tmp_path / "two-cache")
    drop_replaced(tmp_path)
    assert {path.name for path in tmp_path.glob("*-cache")} == {"one-cache", "new-cache"}
    (tmp_path / compilation_cache.NAMES).write_text("{")
    drop_replaced(tmp_path)  # a damaged record is none
    remember(tmp_path)
    remember(tmp_path / "gone")
