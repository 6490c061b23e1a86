"""Pictures remember how they were painted, and appear whole or not at all."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion.pictures import KEY, Settings, check_writable, read_settings, save

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).astype(np.uint8)
EVERYTHING = Settings(
    prompt="kırmızı çatılı ev 🏡 \x00 \udcff \"'{}\n" + "x" * 100_000,
    model="runs/my model",
    negative="ağaç",
    seed=2**32 - 1,
    count=9,
    steps=7,
    guidance=-0.1,
    sampler="ddim",
    eta=0.3,
    zoom=2,
    strip=True,
    index=8,
)


def png_with(path: Path, text: str) -> Path:
    info = PngInfo()
    info.add_itxt(KEY, text)
    Image.fromarray(IMAGE).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("settings", [Settings("a red house"), Settings(""), EVERYTHING])
def test_settings_come_back_as_they_were(tmp_path, settings):
    save(tmp_path / "picture.png", IMAGE, settings)
    assert read_settings(tmp_path / "picture.png") == settings
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("zoom", [1, 2, 64])
def test_zoom_repeats_every_pixel(tmp_path, zoom):
    save(tmp_path / "picture.png", IMAGE, Settings("", zoom=zoom))
    with Image.open(tmp_path / "picture.png") as image:
        found = np.asarray(image)
    np.testing.assert_array_equal(found, np.kron(IMAGE, np.ones((zoom, zoom, 1), np.uint8)))


@pytest.mark.parametrize("zoom", [0, -1, 65, 10**9])
def test_absurd_zoom_is_refused(zoom):
    with pytest.raises(ValueError, match=f"zoom is {zoom}"):
        Settings("", zoom=zoom)


@pytest.mark.parametrize("index", [-1, 4])
def test_index_beyond_the_series_is_refused(index):
    with pytest.raises(ValueError, match=f"index is {index}"):
        Settings("", count=4, index=index)


@pytest.mark.parametrize("moment", ["while writing", "at the end"])
def test_a_write_that_fails_leaves_the_old_picture(tmp_path, monkeypatch, moment):
    path = tmp_path / "picture.png"
    save(path, IMAGE, Settings("old"))
    before = path.read_bytes()

    def half_written(self, place, **options):
        Path(place).write_bytes(b"half")
        raise OSError("disk full")

    def refused(*_):
        raise OSError("disk full")

    if moment == "while writing":
        monkeypatch.setattr(Image.Image, "save", half_written)
    else:
        monkeypatch.setattr("os.replace", refused)
    with pytest.raises(OSError, match="disk full"):
        save(path, IMAGE, Settings("new"))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["picture.png"]


def test_what_is_no_picture_of_ours_is_refused_by_name(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "foreign.png")
    Image.fromarray(IMAGE).save(tmp_path / "photo.jpg")
    (tmp_path / "letter.txt").write_text("a red house")
    (tmp_path / "empty.png").touch()
    save(tmp_path / "whole.png", IMAGE, Settings(""))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:40])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "whole.png").unlink()
    for path in [*tmp_path.iterdir(), tmp_path / "absent.png"]:
        with pytest.raises(ValueError, match=path.name):
            read_settings(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "[" * 100_000,
        "{}",
        json.dumps(dataclasses.asdict(Settings("")) | {"seed": "one"}),
        json.dumps(dataclasses.asdict(Settings("")) | {"mood": "blue"}),
        json.dumps(dataclasses.asdict(Settings("")) | {"zoom": 0}),
        json.dumps(dataclasses.asdict(Settings("")) | {"index": 4}),
    ],
)
def test_damaged_settings_are_refused_by_name(tmp_path, text):
    path = png_with(tmp_path / "damaged.png", text)
    with pytest.raises(ValueError, match=r"damaged\.png holds settings that make no sense"):
        read_settings(path)


def test_check_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_check_writable_refuses_by_name_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/diffusion")):
        with pytest.raises(OSError, match=f"{place} cannot be written .*--output"):
            check_writable(place)
    assert (tmp_path / "file").read_text() == "kept"
