"""Other people's pictures: read as they are meant, or refused in one sentence."""

import os

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from diffusion.picture_files import save
from diffusion.picture_reading import FORMATS, read_mask, read_settings, read_source
from diffusion.settings import PictureSettings


def photo(path, height=16, width=16, **options):
    """Colours from left to right."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    pixels = np.stack([np.tile(x, (height, 1)) for x in (ramp, ramp[::-1], ramp // 2)], axis=-1)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tif", "a.ppm"])
def test_usual_formats_are_read(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    pixels = photo(tmp_path / name, **options)
    found = read_source(tmp_path / name, None, None, 16, 8).astype(int)
    assert np.abs(found - pixels).mean() < 8


def test_a_format_that_starts_a_program_is_not_opened(tmp_path, monkeypatch):
    photo(tmp_path / "page.eps")
    monkeypatch.setattr(os, "system", None)
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(ValueError, match=r"page\.eps cannot be read as a picture"):
        read_source(tmp_path / "page.eps", None, None, 16, 8)
    assert "EPS" not in FORMATS


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.linspace(0, 1, 16, dtype=np.float32), 1.0),
        (np.linspace(0, 255, 16, dtype=np.float32), 255.0),
        (np.linspace(0, 65535, 16, dtype=np.float32), 65535.0),
        (np.linspace(0, 65535, 16).astype(np.uint16), 65535),
        (np.linspace(0, 65535, 16).astype(np.int32), 65535),
        (np.linspace(0, 255, 16).astype(np.int32), 255),
    ],
    ids=["float to 1", "float to 255", "float to 65535", "16 bits", "32 bits", "32 bits to 255"],
)
def test_grey_of_every_range(tmp_path, values, white):
    Image.fromarray(np.tile(values, (16, 1))).save(tmp_path / "grey.tif")
    found = read_source(tmp_path / "grey.tif", None, None, 16, 8)[0, :, 0]
    expected = values.astype(np.float64) / white * 255
    np.testing.assert_allclose(found, expected, atol=1.01)


@pytest.mark.parametrize("value", [np.nan, -1.0, 1e6])
def test_numbers_that_no_white_fits_are_refused(tmp_path, value):
    grey = np.full((16, 16), 0.5, np.float32)
    grey[3, 3] = value
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    with pytest.raises(ValueError, match=r"grey\.tif .*numbers from .*; save it with 8 or 16 bits"):
        read_source(tmp_path / "grey.tif", None, None, 16, 8)


def test_a_photo_with_an_erased_area_is_a_mask(tmp_path):
    pixels = photo(tmp_path / "photo.png", 16, 32)
    erased = np.dstack([pixels, np.full((16, 32), 255, np.uint8)])
    erased[:, 20:, 3] = 0
    Image.fromarray(erased).save(tmp_path / "erased.png")
    mask = read_mask(tmp_path / "erased.png", 16, 32, tmp_path / "photo.png")
    assert mask[:, 20:].all()
    assert not mask[:, :20].any()


def test_a_white_shape_on_transparent_ground_is_a_mask(tmp_path):
    photo(tmp_path / "photo.png", 16, 32)
    shape = np.zeros((16, 32, 4), np.uint8)
    shape[4:8, 4:8] = 255
    Image.fromarray(shape).save(tmp_path / "shape.png")
    mask = read_mask(tmp_path / "shape.png", 16, 32, tmp_path / "photo.png")
    assert mask[4:8, 4:8].all()
    assert mask.sum() == 16


def test_a_mask_has_the_proportions_of_its_picture(tmp_path):
    photo(tmp_path / "photo.png", 30, 40)
    for width, fits in ((80, True), (81, True), (60, False), (40, False)):
        Image.new("L", (width, 60), 255).save(tmp_path / "mask.png")
        if fits:
            read_mask(tmp_path / "mask.png", 24, 32, tmp_path / "photo.png")
            continue
        with pytest.raises(ValueError, match=rf"mask\.png is {width}x60 and .*photo\.png is 40x30"):
            read_mask(tmp_path / "mask.png", 24, 32, tmp_path / "photo.png")


def test_a_mask_of_a_photo_that_lies_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    photo(tmp_path / "photo.jpg", 30, 40, exif=exif)
    Image.new("L", (30, 40), 255).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 32, 24, tmp_path / "photo.jpg").all()


def test_a_large_photo_is_read_and_the_head_of_any_sheet(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # 256 pixels: Pillow would warn
    photo(tmp_path / "photo.png")
    assert read_source(tmp_path / "photo.png", None, None, 16, 8).shape == (16, 16, 3)
    settings = PictureSettings("a house", zoom=1, spacing="leading")
    save(tmp_path / "sheet.png", np.zeros((16, 16, 3), np.uint8), settings)
    monkeypatch.setattr(PngImageFile, "load", None)
    assert read_settings(tmp_path / "sheet.png") == settings


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match=f"{place} is no file"):
            read_settings(place)
        with pytest.raises(ValueError, match=f"{place} is no file"):
            read_source(place, None, None, 16, 8)
