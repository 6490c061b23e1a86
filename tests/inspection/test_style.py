"""The figures of README and model card, drawn by the tiny model."""

import numpy as np
import pytest

from diffusion.images import sheet
from diffusion.inspection.figures.museum import PROMPT, museum
from diffusion.inspection.figures.overview import art_class
from diffusion.inspection.figures.prompts import prompts
from diffusion.inspection.figures.style import pca_rgb


def test_pca_rgb_shows_the_strongest_direction_and_ignores_the_mean():
    rng = np.random.default_rng(0)
    features = 0.01 * rng.normal(size=(8, 8, 5)).astype(np.float32)
    features[:4] += np.float32([3, 0, 0, 4, 0])
    colours = pca_rgb(features)
    assert colours.shape == (8, 8, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    red = colours[..., 0]
    assert abs(red[:4].mean() - red[4:].mean()) > 0.9
    np.testing.assert_allclose(pca_rgb(features + 100), colours, atol=2e-3)


def test_the_art_class_shows_what_the_run_computed(artist):
    figure = art_class(artist, "a red house", steps=8)
    titles = [text.get_text() for text in figure.texts]
    for file in ("text_encoder", "noisy_latent", "unet_down", "unet_bottleneck", "unet_up", "vae"):
        assert f"{file}.py" in titles
    finished = artist.paint("a red house", steps=8)[0]
    pictures = [image.get_array() for axis in figure.axes for image in axis.images]
    assert any(np.array_equal(picture, finished) for picture in pictures)


@pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")
def test_the_art_class_of_a_prompt_that_is_cut(artist):
    figure = art_class(artist, "red " * 20, steps=3)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "end"


def test_every_prompt_has_its_pictures(artist, monkeypatch):
    pairs = (("a house", "ev"), ("a red house", "kırmızı ev"))  # the tiny model hears 14 tokens
    monkeypatch.setattr("diffusion.inspection.figures.prompts.PROMPTS", pairs)
    figure = prompts(artist, count=1)
    assert [axis.get_title() for axis in figure.axes] == [text for pair in pairs for text in pair]
    shown = figure.axes[0].images[0].get_array()
    assert np.array_equal(shown[1:-1, 1:-1], artist.paint("a house")[0])


@pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")
def test_the_museum_has_a_row_for_each_model(artist):
    figure = museum({"garden64": artist, "garden": artist}, count=1)
    assert [axis.get_title() for axis in figure.axes][1] == "garden: U-Net, VAE"
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    [painted] = artist.paint(PROMPT, count=1, seed=0)
    larger = painted.repeat(8, axis=0).repeat(8, axis=1)
    for picture in pictures:
        np.testing.assert_array_equal(picture, sheet(larger[None], columns=1, gap=1))
