"""The model that ships with the repository: there, small, and listening."""

from pathlib import Path

import numpy as np
import pytest

import diffusion
from diffusion.pipeline import Artist
from diffusion.weights.folder import find
from diffusion.weights.places import read_json


@pytest.fixture(scope="module")
def garden() -> Artist:
    return diffusion.load("garden")


def mean_colour(pictures: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    return pictures[:, rows, columns].mean(axis=(0, 1, 2))


def test_all_of_it_is_at_most_16_mib():
    assert sum(path.stat().st_size for path in find("garden").rglob("*.safetensors")) < 16 * 2**20


def test_the_card_tells_how_every_part_was_trained():
    card = read_json(find("garden") / "training.json")
    assert set(card) == {"tokenizer", "text", "vae", "unet"}
    assert all(
        {"command", "seed", "machine", "finished", "versions"} <= set(v) for v in card.values()
    )
    assert (Path(find("garden")) / "README.md").is_file()


@pytest.mark.parametrize(
    ("red", "blue"), [("a red house", "a blue house"), ("kırmızı ev", "mavi ev")]
)
def test_the_colour_of_the_house_is_heard(garden, red, blue):
    wall = slice(38, 50), slice(24, 40)
    reddish = mean_colour(garden.paint(red, count=4, steps=10), *wall)
    bluish = mean_colour(garden.paint(blue, count=4, steps=10), *wall)
    assert reddish[0] - reddish[2] > 40  # red over blue, of 255
    assert bluish[2] - bluish[0] > 20


def test_night_is_darker_than_day(garden):
    sky = slice(0, 20), slice(0, 64)
    night = mean_colour(
        garden.paint("a house at night, oil painting", count=4, steps=10), *sky
    ).mean()
    day = mean_colour(garden.paint("gündüz, bir ev, yağlı boya", count=4, steps=10), *sky).mean()
    assert day - night > 60


def test_a_folder_of_the_same_name_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "garden").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (find("garden") / "model_index.json").is_file()
    assert find("./garden") == Path("garden")
