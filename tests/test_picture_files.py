"""Pictures remember how they were painted, and appear whole or not at all."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion.picture_files import KEY, check_writable, digest, save
from diffusion.picture_reading import read_mask, read_settings, read_source
from diffusion.settings import PictureSettings

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).astype(np.uint8)
EVERYTHING = PictureSettings(
    prompt="kırmızı çatılı ev 🏡 \x00 \udcff \"'{}\n" + "x" * 100_000,
    model="runs/my model",
    negative="ağaç",
    seed=2**32 - 1,
    count=9,
    first=3,
    steps=7,
    guidance=-0.1,
    sampler="ddim",
    eta=0.3,
    height=24,
    width=16,
    source="holiday.jpg",
    mask="hole.png",
    strength=0.7,
    loras={"style.safetensors": 0.5, "other.safetensors": -1.0},
    dtype="bfloat16",
    digest="0123",
    zoom=2,
    strip=True,
    index=8,
)


def png_with(path: Path, text: str) -> Path:
    info = PngInfo()
    info.add_itxt(KEY, text)
    Image.fromarray(IMAGE).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    "settings", [PictureSettings("a red house"), PictureSettings(""), EVERYTHING]
)
def test_settings_come_back_as_they_were(tmp_path, settings):
    save(tmp_path / "picture.png", IMAGE, settings)
    assert read_settings(tmp_path / "picture.png") == settings
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_settings_of_version_0_1_are_read(tmp_path):
    """They had these names, and every one of them was written."""
    whole = dataclasses.asdict(EVERYTHING)
    names = (
        "prompt", "model", "negative", "seed", "count", "steps", "guidance", "sampler", "eta",
        "height", "width", "source", "mask", "strength", "loras", "dtype", "digest", "zoom",
        "strip", "index",
    )  # fmt: skip
    path = png_with(tmp_path / "old.png", json.dumps({name: whole[name] for name in names}))
    assert read_settings(path) == dataclasses.replace(EVERYTHING, first=0, spacing="leading")


@pytest.mark.parametrize("zoom", [1, 2, 64])
def test_zoom_repeats_every_pixel(tmp_path, zoom):
    save(tmp_path / "picture.png", IMAGE, PictureSettings("", zoom=zoom))
    with Image.open(tmp_path / "picture.png") as image:
        found = np.asarray(image)
    np.testing.assert_array_equal(found, np.kron(IMAGE, np.ones((zoom, zoom, 1), np.uint8)))


@pytest.mark.parametrize("zoom", [0, -1, 65, 10**9])
def test_absurd_zoom_is_refused(zoom):
    with pytest.raises(ValueError, match=f"zoom is {zoom}"):
        PictureSettings("", zoom=zoom)


@pytest.mark.parametrize("index", [-1, 4])
def test_index_beyond_the_series_is_refused(index):
    with pytest.raises(ValueError, match=f"index is {index}"):
        PictureSettings("", count=4, index=index)


@pytest.mark.parametrize("moment", ["while writing", "at the end"])
def test_a_write_that_fails_leaves_the_old_picture(tmp_path, monkeypatch, moment):
    path = tmp_path / "picture.png"
    save(path, IMAGE, PictureSettings("old"))
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
        save(path, IMAGE, PictureSettings("new"))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["picture.png"]


def test_what_is_no_picture_of_ours_is_refused_by_name(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "foreign.png")
    Image.fromarray(IMAGE).save(tmp_path / "photo.jpg")
    (tmp_path / "letter.txt").write_text("a red house")
    (tmp_path / "empty.png").touch()
    save(tmp_path / "whole.png", IMAGE, PictureSettings(""))
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
        json.dumps(dataclasses.asdict(PictureSettings("")) | {"seed": "one"}),
        json.dumps(dataclasses.asdict(PictureSettings("")) | {"mood": "blue"}),
        json.dumps(dataclasses.asdict(PictureSettings("")) | {"zoom": 0}),
        json.dumps(dataclasses.asdict(PictureSettings("", count=4)) | {"index": 4}),
        json.dumps(dataclasses.asdict(PictureSettings("")) | {"seed": -1}),
        json.dumps(dataclasses.asdict(PictureSettings("")) | {"count": 0}),
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


def colours(height, width):
    """A picture whose left half is red and whose right half is blue."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = image[:, width // 2 :, 2] = 255
    return Image.fromarray(image)


@pytest.mark.parametrize(
    ("shape", "asked", "expected"),
    [
        ((32, 32), (None, None), (16, 16)),
        ((64, 128), (None, None), (16, 32)),
        ((128, 64), (None, None), (32, 16)),
        ((100, 90), (None, None), (16, 16)),
        ((10, 1000), (None, None), (16, 1600)),
        ((64, 128), (24, None), (24, 48)),
        ((64, 128), (None, 24), (16, 24)),
        ((64, 128), (40, 24), (40, 24)),
    ],
)
def test_a_source_is_scaled_and_cut_to_whole_units(tmp_path, shape, asked, expected):
    colours(*shape).save(tmp_path / "source.png")
    image = read_source(tmp_path / "source.png", *asked, side=16, unit=8)
    assert image.shape == (*expected, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[:, :2].mean(axis=(0, 1)), (255, 0, 0), atol=1)
    np.testing.assert_allclose(image[:, -2:].mean(axis=(0, 1)), (0, 0, 255), atol=1)


def test_a_picture_of_ours_comes_back_to_the_pixel_whatever_its_zoom(tmp_path):
    painted = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    path = tmp_path / "ours.png"
    for zoom in (1, 3, 4):
        save(path, painted, PictureSettings("a house", count=1, zoom=zoom))
        np.testing.assert_array_equal(read_source(path, None, None, 16, 8), painted)
    touched = Image.open(path)
    touched.putpixel((0, 0), (255, 0, 0))  # by hand, at the size of the file
    info = PngInfo()
    info.add_itxt(KEY, touched.text[KEY])
    touched.save(path, pnginfo=info)
    changed = read_source(path, None, None, 16, 8)
    assert changed.shape == painted.shape
    assert (changed != painted).any()


def test_a_transparent_source_lies_on_white_paper_and_a_photo_stands_upright(tmp_path):
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "glass.png")
    assert (read_source(tmp_path / "glass.png", None, None, 16, 8) == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    colours(16, 16).save(tmp_path / "photo.png", exif=exif)
    assert tuple(read_source(tmp_path / "photo.png", None, None, 16, 8)[0, 0]) == (0, 0, 255)


def test_a_mask_is_true_where_it_is_white(tmp_path):
    grey = np.zeros((32, 64), np.uint8)
    grey[:, 32:] = 255
    Image.fromarray(grey).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", 16, 32, tmp_path / "mask.png")
    assert mask.shape == (16, 32)
    assert mask[:, 16:].all()
    assert not mask[:, :16].any()
    Image.fromarray(grey[:, :32]).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match=r"black\.png is black everywhere"):
        read_mask(tmp_path / "black.png", 16, 32, tmp_path / "black.png")


def test_a_mask_of_16_bits_or_with_a_transparent_part(tmp_path):
    deep = np.full((16, 32), 1000, np.uint16)
    deep[:, 16:] = 65_535
    Image.fromarray(deep).save(tmp_path / "deep.png")
    glass = np.full((16, 32, 4), 255, np.uint8)
    glass[:, :16, 3] = 0
    Image.fromarray(glass).save(tmp_path / "glass.png")
    for name in ("deep.png", "glass.png"):
        mask = read_mask(tmp_path / name, 16, 32, tmp_path / name)
        assert mask[:, 16:].all(), name
        assert not mask[:, :16].any(), name
    source = read_source(tmp_path / "deep.png", None, None, 16, 8)
    assert (source[0, 0] == round(1000 / 257)).all()
    assert (source[0, -1] == 255).all()


def test_a_long_thin_picture_is_refused_before_it_is_made(tmp_path):
    colours(1, 4000).save(tmp_path / "ribbon.png")
    with pytest.raises(ValueError, match=r"ribbon\.png would become 64000 pixels wide and 16 high"):
        read_source(tmp_path / "ribbon.png", None, None, 16, 8)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / "source.png"
    path.write_bytes(content)
    for read in (
        lambda: read_source(path, None, None, 16, 8),
        lambda: read_mask(path, 16, 16, path),
    ):
        with pytest.raises(ValueError, match=r"source\.png cannot be read as a picture"):
            read()
    path.unlink()
    with pytest.raises(ValueError, match=r"source\.png does not exist"):
        read_source(path, None, None, 16, 8)


def test_a_picture_of_absurd_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    colours(16, 16).save(tmp_path / "source.png")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        read_source(tmp_path / "source.png", None, None, 16, 8)


def test_a_digest_tells_whether_the_files_are_the_same(tmp_path):
    source, style = tmp_path / "source.png", tmp_path / "style.safetensors"
    source.write_bytes(b"1")
    style.write_bytes(b"2")
    settings = PictureSettings("", source=str(source), loras={str(style): 0.5})
    before = digest(settings)
    assert before == digest(settings) != digest(PictureSettings("", source=str(source)))
    style.write_bytes(b"3")
    assert digest(settings) != before
    assert digest(PictureSettings("")) is None
    style.unlink()
    with pytest.raises(ValueError, match=r"style\.safetensors cannot be read"):
        digest(settings)
    with pytest.raises(ValueError, match="/dev/zero cannot be read"):
        digest(PictureSettings("", source="/dev/zero"))
