"""The models that ship with the repository: there, small, and listening."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import diffusion
from diffusion import presets
from diffusion.config import SamplingConfig
from diffusion.datasets.garden import render, sample_scenes
from diffusion.images import from_uint8, to_uint8
from diffusion.inspection.film_trace import with_exit
from diffusion.pipeline import Artist
from diffusion.weights import adapter, folder, prompt_travel
from diffusion.weights.folder import find
from diffusion.weights.places import read_json


@pytest.fixture(scope="module")
def garden() -> Artist:
    return diffusion.load("garden")


def mean_colour(pictures: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    return pictures[:, rows, columns].mean(axis=(0, 1, 2))


def test_all_weights_are_at_most_56_mib_and_motion_6_more():
    data = find("garden").parent
    weights = {path for path in data.rglob("*.safetensors") if "golden" not in path.parts}
    motion = {
        path for path in weights if path.parent.name in (adapter.FOLDER, prompt_travel.FOLDER)
    }
    assert len(weights - motion) > 6
    assert sum(path.stat().st_size for path in weights - motion) < 56 * 2**20
    assert 2**20 < sum(path.stat().st_size for path in motion) < 6 * 2**20


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("garden", {"vae", "decoder", "unet", "travel", "motion"}),
        ("garden-fast", {"vae", "decoder", "unet", "distill"}),
        ("garden-one", {"vae", "decoder", "unet", "distill"}),
        ("garden64", {"vae", "unet"}),
        ("garden-dit", {"vae", "decoder", "dit"}),
        ("garden-dvae", {"dvae", "unet"}),
        ("garden-masked", {"dvae", "masked"}),
    ],
)
def test_the_card_tells_how_every_part_was_trained(name, parts):
    card = read_json(find(name) / "training.json")
    assert set(card) == {"tokenizer", "text", *parts}
    assert all(
        {"command", "seed", "machine", "finished", "versions"} <= set(v) for v in card.values()
    )
    assert (find(name) / "README.md").is_file()


@pytest.mark.parametrize("preset", [presets.garden(), presets.garden64()], ids=lambda c: c.name)
def test_they_are_the_presets_but_for_the_measured_scale(preset):
    config = folder.load_config(find(preset.name))
    assert config.autoencoder.scaling_factor == 0.81659
    unscaled = dataclasses.replace(config.autoencoder, scaling_factor=1.0)
    assert dataclasses.replace(config, autoencoder=unscaled) == preset


def test_the_discrete_garden_is_its_preset_and_uses_all_of_its_codes():
    artist = diffusion.load("garden-dvae")
    assert artist.config == presets.garden_dvae()
    pictures = to_uint8(render(sample_scenes(np.random.default_rng(5), 256), 64))
    used = np.unique(artist.autoencoder.codes(from_uint8(pictures)))
    assert len(used) > 0.8 * artist.config.autoencoder.codes


def test_the_painter_of_codes_is_its_preset_and_hears_the_words():
    artist = diffusion.load("garden-masked")
    assert artist.config == presets.garden_masked()
    red, blue = (artist.paint(f"a {colour} house", count=4) for colour in ("red", "blue"))
    wall = slice(38, 50), slice(24, 40)
    assert mean_colour(red, *wall)[0] - mean_colour(blue, *wall)[0] > 40  # of 255
    assert mean_colour(blue, *wall)[2] - mean_colour(red, *wall)[2] > 40


@pytest.mark.parametrize(
    ("red", "blue"), [("a red house", "a blue house"), ("kırmızı ev", "mavi ev")]
)
def test_the_colour_of_the_house_is_heard(garden, red, blue):
    wall = slice(76, 100), slice(48, 80)
    reddish = mean_colour(garden.paint(red, count=4), *wall)
    bluish = mean_colour(garden.paint(blue, count=4), *wall)
    assert reddish[0] - reddish[2] > 40  # red over blue, of 255
    assert bluish[2] - bluish[0] > 20


@pytest.mark.parametrize(("name", "calls"), [("garden-fast", 2), ("garden-one", 1)])
def test_a_distilled_garden_hears_in_few_calls(garden, name, calls):
    fast = diffusion.load(name)
    assert fast.config.sampling == SamplingConfig("euler", calls, "trailing")
    assert fast.config.guidance == 1.0  # it is built in
    assert fast.config.autoencoder == garden.config.autoencoder
    assert len(list(fast.sample("a red house"))) == calls
    sky = slice(0, 40), slice(0, 128)
    night, day = (
        mean_colour(fast.paint(f"a house, {hour}, oil painting", count=4), *sky).mean()
        for hour in ("night", "day")
    )
    assert night < day - 60


def test_night_is_darker_than_day(garden):
    sky = slice(0, 40), slice(0, 128)
    night = mean_colour(garden.paint("a house at night, oil painting", count=4), *sky).mean()
    day = mean_colour(garden.paint("gündüz, bir ev, yağlı boya", count=4), *sky).mean()
    assert day - night > 60


def test_a_folder_of_the_same_name_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "garden").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (find("garden") / "model_index.json").is_file()
    assert find("./garden") == Path("garden")


def test_a_film_keeps_its_garden_while_the_words_change(garden):
    """Day to night: the sky gets darker, and the house stays where and what it is."""
    first, to = "a red house, oil painting, by day", "a red house, oil painting, at night"
    film = garden.film(first, to=to, frames=16, seed=1).astype(float)
    sky = film[:, :30].mean((1, 2, 3))
    assert sky[0] - sky[-1] > 60  # of 255
    said = garden.film("a red house, oil painting, night falls", frames=16, seed=1).astype(float)
    sky = said[:, :30].mean((1, 2, 3))
    assert sky[0] - sky[-1] > 60
    silent = with_exit(garden, 0.0).film(first, to=to, frames=16, seed=1).astype(float)
    flicker = [np.abs(np.diff(frames[:, 70:], axis=0)).mean() for frames in (film, silent)]
    assert flicker[0] < 0.7 * flicker[1]  # nearly all of the noise is the same in both
    still = garden.film(first, frames=16, seed=1).astype(float)
    assert 0.0 < np.abs(np.diff(still, axis=0)).mean() < 0.5  # of 255: nothing happens
