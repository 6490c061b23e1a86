"""What a task may do besides: its own optimizer, a loss that changes, parameters set right."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.config import ConvAutoencoderConfig, DVAEConfig, ModelConfig, UNetConfig
from diffusion.training import autoencoder, conv_autoencoder
from diffusion.training.autoencoder import AutoencoderTask
from diffusion.training.conv_autoencoder import ConvAutoencoderTask, keras_adam
from diffusion.training.loop import init_state, make_step, train
from diffusion.training.recipe import train_part
from diffusion.training.train_config import TrainConfig
from diffusion.weights import files, places
from diffusion.weights.architectures import architecture, structure
from diffusion.weights.folder import load_card
from tests.training.conftest import stripes

pytestmark = pytest.mark.usefixtures("quick_pictures")


class Follower:
    """A number that each step moves onto an aim, which wanders; every third step it is set."""

    name = "follower"
    tend_every = 3

    def __init__(self):
        self.frozen = {}

    def init(self, seed):
        return {"x": jnp.zeros(1)}

    def batch(self, rng, size):
        return np.zeros((size, 1), np.float32)

    def loss(self, params, frozen, batch, key):
        return jnp.square(params["x"] - frozen["aim"]).sum(), {"aim": frozen["aim"]}

    def picture(self, params):
        return np.zeros((4, 4, 3), np.uint8)

    def optimizer(self, config):
        return optax.sgd(0.5)

    def anneal(self, done):
        return {"aim": done}

    def tend(self, params, step):
        return {"x": np.full_like(params["x"], step)}


FOLLOWED = TrainConfig(
    steps=5, batch_size=8, learning_rate=1.0, log_every=1, picture_every=4, checkpoint_every=3
)


def test_a_task_anneals_tends_and_brings_its_optimizer(tmp_path):
    end = train(Follower(), FOLLOWED, tmp_path)
    np.testing.assert_allclose(end["x"], [0.8], rtol=1e-6)  # the last step began at 4/5
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["aim"] for row in rows], [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)
    assert rows[3]["loss"] == pytest.approx((3 - 0.6) ** 2, rel=1e-5)  # it had been set to 3


def test_a_run_that_was_stopped_ends_the_same(tmp_path):
    def stop(step, seconds, params):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Follower(), FOLLOWED, tmp_path, watch=stop)
    end = train(Follower(), FOLLOWED, tmp_path)
    np.testing.assert_allclose(end["x"], [0.8], rtol=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[3]["loss"] == pytest.approx((3 - 0.6) ** 2, rel=1e-5)


DISCRETE = ModelConfig(
    image_size=8,
    autoencoder=DVAEConfig(
        latent_channels=4, codes=16, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2
    ),
    denoiser=UNetConfig(block_out_channels=(8,), attention=(True,), heads=(2,)),
)


def test_codes_begin_in_use_and_dead_ones_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "TEND_EVERY", 2)
    task = AutoencoderTask(DISCRETE)
    assert (task.name, task.tend_every) == ("dvae", 2)
    begun = task.init(0)
    codes = begun["codebook"]["vectors"]["embedding"]
    assert np.unique(codes, axis=0).shape == (16, 4)

    lost = jax.tree.map(jnp.copy, begun)
    lost["codebook"]["vectors"]["embedding"] = codes.at[3].set(1e4)
    assert jnp.abs(task.tend(lost, 2)["codebook"]["vectors"]["embedding"]).max() < 1e3
    one, other = (task.tend(lost, step)["codebook"]["vectors"]["embedding"] for step in (2, 4))
    assert (one[3] != other[3]).any()

    settings = TrainConfig(steps=3, batch_size=8, learning_rate=1e-3, warmup=1, log_every=1)
    end = train(task, settings, tmp_path, given=lost)
    assert jnp.abs(end["codebook"]["vectors"]["embedding"]).max() < 1e3
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"code_kl", "used", "perplexity", "psnr"} <= rows[0].keys()
    assert 0 < rows[-1]["used"] <= 1
    assert 1 <= rows[-1]["perplexity"] <= 16


def test_the_loss_hears_of_the_temperature():
    task = AutoencoderTask(DISCRETE)
    params, batch = task.init(0), task.batch(np.random.default_rng(0), 8)
    loss = jax.jit(lambda frozen: task.loss(params, frozen, batch, jax.random.key(0))[1])
    first, last = (loss(task.anneal(jnp.float32(done))) for done in (0.0, 1.0))
    assert first["code_kl"] == 0 < last["code_kl"]
    assert first["psnr"] != last["psnr"]


def test_the_scale_of_discrete_latents_is_measured():
    task = AutoencoderTask(DISCRETE)
    scale = autoencoder.measure_scale(DISCRETE, task.init(0), count=64)
    assert 0 < scale < 100


def test_the_sample_learns_with_the_adam_of_keras(monkeypatch):
    monkeypatch.setattr(conv_autoencoder, "render", stripes)
    config = ConvAutoencoderConfig(block_out_channels=(8,))
    task, settings = ConvAutoencoderTask(config, size=8), TrainConfig(60, 8, 1e-3)
    state, step = init_state(task, settings), make_step(task, settings)
    assert type(state.optimizer) is type(keras_adam(1e-3).init(state.params))
    batch, losses = task.batch(np.random.default_rng(0), 8), []
    for _ in range(60):
        state, metrics = step(state, task.frozen, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert task.picture(state.params).shape[0] == 3 * 8  # pictures, what comes back, and noise


def test_the_sample_is_a_part_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(conv_autoencoder, "render", stripes)
    monkeypatch.setattr(conv_autoencoder, "SIZE", 8)
    train_part("autoencoder", tmp_path, ["steps=2", "batch_size=8"])
    one = architecture(ConvAutoencoderConfig())
    assert one.read(places.read_json(tmp_path / one.config_file)) == ConvAutoencoderConfig()
    _, like = structure(ConvAutoencoderConfig())
    found = files.Weights.open(places.find(tmp_path, one.folder, one.stem), like, one.names)
    assert len(found.tensors) == 6
    assert "autoencoder" in load_card(tmp_path)
    with pytest.raises(ValueError, match="autoencoder starts from nothing only"):
        train_part("autoencoder", tmp_path, start=tmp_path)
