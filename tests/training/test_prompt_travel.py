"""Prompt travel learns from sentences, and films hear what it has learnt."""

import dataclasses

import jax
import numpy as np
import pytest

import diffusion
from diffusion.motion_config import PromptTravelConfig
from diffusion.training import prompt_travel
from diffusion.training.loop import init_state, make_step
from diffusion.training.prompt_travel import TravelTask
from diffusion.training.recipe import train_part
from diffusion.training.train_config import TrainConfig
from diffusion.weights import folder
from diffusion.weights import prompt_travel as stored
from diffusion.weights.architectures import structure
from tests.conftest import random_params

pytestmark = pytest.mark.filterwarnings("ignore:the prompt has more")  # the tiny model's is short


@pytest.fixture(scope="module")
def task(shallow_folder):
    text = folder.load_config(shallow_folder).text_encoder
    params = folder.load_part(shallow_folder, folder.load_config(shallow_folder), "text_encoder")[1]
    sizes = PromptTravelConfig(text.vocab_size, text.width, text.length, layers=1)
    return TravelTask(sizes, text, folder.load_tokenizer(shallow_folder), params)


def test_examples_are_sentences_of_clips(task):
    batch = task.batch(np.random.default_rng(0), 100)
    assert batch.tokens.shape == (100, 3, 16)
    assert batch.views.shape == (100, 2, 4)
    jax.tree.map(np.testing.assert_array_equal, task.batch(np.random.default_rng(0), 100), batch)
    silent = (batch.tokens == task.tokenizer([""])[0]).all((1, 2))
    assert 0.03 < silent.mean() < 0.2
    assert (batch.views[silent] == 0).all()
    assert 0.2 < (batch.views != 0).any((1, 2)).mean() < 0.45  # 7 of 15, not still, not silent


def test_it_learns_and_the_text_encoder_does_not(task):
    config = TrainConfig(60, 16, 3e-3, warmup=5)
    step = make_step(task, config)
    state = init_state(task, config, task.init(0))
    frozen = jax.tree.map(np.array, task.frozen)
    batch, losses = task.batch(np.random.default_rng(0), 16), []
    for _ in range(60):
        state, metrics = step(state, task.frozen, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.75 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, frozen, task.frozen)
    picture = task.picture(state.params)
    assert picture.shape == (prompt_travel.SHOWN * 2 * 8, 16 * 8, 3)


def test_what_is_trained_lies_beside_the_model_and_goes_on(shallow_folder, tmp_path):
    root = tmp_path / "model"
    settings = ["steps=1", "batch_size=2", "learning_rate=1e-9"]
    train_part("travel", root, settings, start=shallow_folder)
    [file] = (root / "text_encoder").glob("*.safetensors")
    assert file.read_bytes() == (shallow_folder / "text_encoder" / file.name).read_bytes()
    assert "travel" in folder.load_card(root)
    text = folder.load_config(root).text_encoder
    sizes = stored.load_config(root)
    assert sizes == PromptTravelConfig(text.vocab_size, text.width, text.length)
    known = random_params(structure(sizes)[1], 3)
    stored.save_travel(root, sizes, known)
    longer = tmp_path / "longer"
    train_part("travel", longer, settings, start=root)
    after = stored.open_travel(longer, sizes, text).read()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), after, known)
    artist = diffusion.load(longer)
    tokens = artist.tokenizer(["a house"])
    ends = artist.travel.network(artist.text_encoder(tokens), tokens)
    assert ends.tokens.shape == (1, 2, text.length)
    artist.save(tmp_path / "copy")
    again = diffusion.load(tmp_path / "copy")
    jax.tree.map(
        np.testing.assert_array_equal, again.travel.network.params, artist.travel.network.params
    )


def test_another_text_encoder_s_is_refused(shallow_folder, tmp_path):
    text = folder.load_config(shallow_folder).text_encoder
    fits = PromptTravelConfig(text.vocab_size, text.width, text.length)
    for wrong, says in (
        (dataclasses.replace(fits, vocab_size=7), "vocab_size is 7; it is 550 here"),
        (dataclasses.replace(fits, width=16), "width is 16; it is 8 here"),
        (dataclasses.replace(fits, length=20), "length is 20; it is 16 here"),
    ):
        place = tmp_path / says.split(" ")[0]
        stored.save_travel(place, wrong, random_params(structure(wrong)[1], 0))
        with pytest.raises(ValueError, match=says):
            stored.open_travel(place, wrong, text)
