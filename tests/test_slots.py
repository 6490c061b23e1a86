"""A slot takes any architecture: a toy denoiser and a toy autoencoder paint, learn and are traced.

Neither pipeline nor training nor trace is touched: all they know is one entry in `ARCHITECTURES`.
The slot of the process is filled with each that there is.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import diffusion
from diffusion.config import RectifiedFlowConfig, SamplingConfig
from diffusion.config_codes import MaskingConfig
from diffusion.images import from_uint8
from diffusion.inspection.trace import trace
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.training.autoencoder import AutoencoderTask
from diffusion.training.denoiser import DenoiserTask
from diffusion.training.loop import train
from diffusion.training.train_config import TrainConfig
from diffusion.weights import folder
from diffusion.weights.architectures import ARCHITECTURES, Architecture, create

PROMPT = "a red house"


@dataclasses.dataclass(frozen=True)
class ToyDenoiserConfig:
    latent_channels: int = 12
    in_channels: int = 12
    context_width: int = 8
    guidance_width: int | None = None
    multiple: int = 1


@dataclasses.dataclass(frozen=True)
class ToyAutoencoderConfig:
    latent_channels: int = 12
    downscale: int = 2


class Mixer(nnx.Module):
    """The only layer: channels of a position mixed, with a word and a time added."""

    traced = True

    def __init__(self, channels, context_width, *, rngs):
        self.mix = nnx.Linear(channels, channels, rngs=rngs)
        self.listen = nnx.Linear(context_width, channels, rngs=rngs)

    def __call__(self, x, t, context):
        told = self.listen(context.mean(axis=1))[:, None, None]
        return self.mix(x) + told + (t / 1000.0)[:, None, None, None]


class ToyDenoiser(nnx.Module):
    def __init__(self, config, *, rngs):
        self.mixer = Mixer(config.in_channels, config.context_width, rngs=rngs)

    def __call__(self, x_t, t, context):
        return jnp.tanh(self.mixer(x_t, t, context))


class ToyAutoencoder(nnx.Module):
    """Two by two pixels are a position, and back: with one learnt scale, and nothing lost."""

    def __init__(self, config, *, rngs):
        self.scale = nnx.Param(jnp.full(12, 0.5))

    def encode(self, images, key=None):
        b, h, w, c = images.shape
        blocks = images.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3)
        return blocks.reshape(b, h // 2, w // 2, 4 * c) * self.scale[...][None, None, None]

    def decode(self, latents):
        b, h, w, _ = latents.shape
        blocks = (latents / self.scale[...][None, None, None]).reshape(b, h, w, 2, 2, 3)
        return blocks.swapaxes(2, 3).reshape(b, 2 * h, 2 * w, 3)

    def draw(self, images, key):
        return self.encode(images) * self.scale[...].mean(), {}


@dataclasses.dataclass(frozen=True)
class ToyPainterConfig:
    codes: int = 4
    vocabulary: int = 5
    latent_channels: int = 1
    in_channels: int = 1
    context_width: int = 8
    guidance_width: int | None = None
    multiple: int = 1


@dataclasses.dataclass(frozen=True)
class ToyShadesConfig:
    codes: int = 4
    latent_channels: int = 3
    downscale: int = 2


class ToyPainter(nnx.Module):
    """How likely each shade is: what is there, and a word."""

    def __init__(self, config, *, rngs):
        self.mixer = Mixer(config.vocabulary, config.context_width, rngs=rngs)

    def __call__(self, x_t, t, context):
        return self.mixer(jax.nn.one_hot(x_t[..., 0], 5), 0.0 * t, context)[..., :4]


class ToyShades(nnx.Module):
    """Two by two pixels are one of four greys."""

    def __init__(self, config, *, rngs):
        self.shades = nnx.Param(jnp.linspace(-1.0, 1.0, config.codes))

    def codes(self, images):
        b, h, w, c = images.shape
        mean = images.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4, 5))
        return jnp.clip(jnp.round(1.5 * (mean + 1.0)), 0, 3).astype(jnp.int32)

    def decode(self, codes):
        shown = self.shades[...][jnp.minimum(codes, 3)]
        return jnp.repeat(jnp.repeat(jnp.repeat(shown, 2, 1), 2, 2), 3, 3)


def toy(slot, config, module, names):
    return Architecture(
        slot=slot,
        config=config,
        create=lambda config, rngs: module(config, rngs=rngs),
        folder=f"toy_{slot}",
        library="tests",
        kind=module.__name__,
        stem="toy",
        names=names,
        read=lambda data: config(),
        write=lambda config, model: {"_class_name": module.__name__, "sample_size": 8},
    )


@pytest.fixture
def config(tiny, monkeypatch):
    """The tiny model with both toys in its slots."""
    names = {"mixer.mix": "mix", "mixer.listen": "listen"}
    for one in (
        toy("denoiser", ToyDenoiserConfig, ToyDenoiser, names),
        toy("autoencoder", ToyAutoencoderConfig, ToyAutoencoder, {"scale": "scale"}),
    ):
        monkeypatch.setitem(ARCHITECTURES, one.config, one)
    return dataclasses.replace(
        tiny, denoiser=ToyDenoiserConfig(), autoencoder=ToyAutoencoderConfig()
    )


@pytest.fixture
def toy_folder(config, write_model, tmp_path):
    return write_model(tmp_path / "toy", config)


@pytest.fixture
def flow(config, write_model, tmp_path):
    """The toys on straight paths."""
    process, sampling = RectifiedFlowConfig(shift=3.0), SamplingConfig("euler", 4)
    changed = dataclasses.replace(config, process=process, sampling=sampling)
    artist = diffusion.load(write_model(tmp_path / "flow", changed))
    assert (artist.config.process, artist.config.sampling) == (process, sampling)
    return artist


def test_it_paints(toy_folder):
    artist = diffusion.load(toy_folder)
    pictures = artist.paint(PROMPT, seed=3, count=2, steps=3)
    assert pictures.shape == (2, 16, 16, 3)
    assert (pictures[0] != pictures[1]).any()
    again = artist.paint("", image=pictures[0], strength=0.5, steps=4)
    assert again.shape == (1, 16, 16, 3)
    # Nothing is lost in there and back, but a level where the uint8 is rounded.
    np.testing.assert_allclose(artist.decode(artist.encode(pictures)), pictures, atol=1)


def test_what_is_saved_is_what_was_loaded(toy_folder, tmp_path):
    artist = diffusion.load(toy_folder)
    artist.save(tmp_path / "copy")
    copy = diffusion.load(tmp_path / "copy")
    assert copy.config == artist.config
    jax.tree.map(np.testing.assert_array_equal, copy.denoiser.params, artist.denoiser.params)


def test_it_is_traced(toy_folder):
    artist = diffusion.load(toy_folder)
    run = trace(artist, PROMPT, steps=2)
    inside = run.activations(1)
    assert inside.tensors["mixer"].shape == (2, 8, 8, 12)
    np.testing.assert_allclose(
        np.tanh(inside.tensors["mixer"][:1]), inside.conditional, rtol=1e-6, atol=1e-6
    )
    assert run.decoder_activations["picture"].shape == (1, 16, 16, 3)


def test_a_flow_goes_along_what_the_denoiser_says(flow):
    steps = list(flow.sample(PROMPT, count=2, seed=3))
    told = [step.t for step in steps]
    np.testing.assert_allclose(told, flow.process.timesteps(4))
    np.testing.assert_array_equal(
        steps[0].x_t, initial_noise(picture_keys(3, jnp.arange(2)), (8, 8, 12))
    )
    for step, arrives in zip(steps, [*told[1:], 0.0], strict=True):
        moved = step.x_t + (arrives - step.t) / 1000 * step.prediction
        np.testing.assert_allclose(step.x_next, moved, atol=1e-5)
    pictures = flow.paint(PROMPT, count=2, seed=3)
    np.testing.assert_array_equal(pictures, flow.decode(steps[-1].x_next))
    inside = trace(flow, PROMPT, seed=3).activations(1)
    assert inside.step.t == told[1]
    np.testing.assert_allclose(np.tanh(inside.tensors["mixer"][:1]), inside.conditional, atol=1e-6)


def test_a_flow_begins_with_a_picture_and_leaves_what_is_not_masked(flow):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[4:10, 2:16] = True
    known = flow.autoencoder.encode(from_uint8(image)[None])
    noise = initial_noise(picture_keys(7, jnp.arange(1)), (8, 8, 12))

    def under_noise(t):
        return (1 - t / 1000) * known + t / 1000 * noise

    settings = {"image": image, "seed": 7, "steps": 4}
    part = list(flow.sample(PROMPT, strength=0.5, **settings))
    assert [step.index for step in part] == [2, 3]
    np.testing.assert_allclose(part[0].x_t, under_noise(part[0].t), atol=1e-5)
    steps = list(flow.sample(PROMPT, mask=mask, **settings))
    np.testing.assert_array_equal(steps[0].x_t, noise)
    stays = ~mask[::2, ::2]
    for step, arrives in zip(steps, [*(step.t for step in steps[1:]), 0.0], strict=True):
        expected = under_noise(arrives)
        np.testing.assert_allclose(step.x_next[:, stays], expected[:, stays], atol=1e-5)
        assert np.abs(step.x_next - expected)[:, ~stays].max() > 0.01
    painted = flow.paint(PROMPT, mask=mask, **settings)[0]
    np.testing.assert_array_equal(painted[~mask], image[~mask])
    assert (painted[mask] != image[mask]).mean() > 0.5


@pytest.fixture
def masks(tiny, monkeypatch, write_model, tmp_path):
    """Toys that speak of codes, behind masks."""
    names = {"mixer.mix": "mix", "mixer.listen": "listen"}
    for one in (
        toy("denoiser", ToyPainterConfig, ToyPainter, names),
        toy("autoencoder", ToyShadesConfig, ToyShades, {"shades": "shades"}),
    ):
        monkeypatch.setitem(ARCHITECTURES, one.config, one)
    config = dataclasses.replace(
        tiny,
        denoiser=ToyPainterConfig(),
        autoencoder=ToyShadesConfig(),
        process=MaskingConfig(mask=4),
        sampling=SamplingConfig("maskgit", 4),
    )
    return write_model(tmp_path / "masks", config)


@pytest.mark.filterwarnings("ignore:the prompt has more")  # the tiny model's is a short one
def test_masks_paint_and_learn_and_are_traced(masks, tmp_path):
    artist = diffusion.load(masks)
    steps = list(artist.sample(PROMPT, count=2, seed=3))
    assert (np.asarray(steps[0].x_t) == 4).all()
    assert (np.asarray(steps[-1].x_next) < 4).all()
    pictures = artist.paint(PROMPT, count=2, seed=3)
    np.testing.assert_array_equal(pictures, artist.decode(steps[-1].x_next))
    codes = artist.encode(pictures)
    assert (codes.shape, codes.dtype) == ((2, 8, 8, 1), np.int32)
    inside = trace(artist, PROMPT, seed=3).activations(1)
    np.testing.assert_allclose(inside.tensors["mixer"][:1, ..., :4], inside.conditional, atol=1e-6)

    config = artist.config
    parts = (folder.load_part(masks, config, name)[1] for name in ("text_encoder", "autoencoder"))
    task = DenoiserTask(config, artist.tokenizer, *parts)
    settings = TrainConfig(steps=3, batch_size=8, learning_rate=0.01, warmup=1, log_every=1)
    before = nnx.to_pure_dict(nnx.state(create(config.denoiser, nnx.Rngs(0))))
    after = train(task, settings, tmp_path / "run")
    assert np.abs(after["mixer"]["mix"]["kernel"] - before["mixer"]["mix"]["kernel"]).max() > 0


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler_a", "dpm++2m", "lcm"])
def test_a_flow_paints_with_every_sampler_but_one(flow, sampler):
    *_, last = flow.sample(PROMPT, sampler=sampler, steps=3)
    assert np.isfinite(last.x_next).all()
    with pytest.raises(ValueError, match='"heun" cannot'):
        flow.paint(PROMPT, sampler="heun")


@pytest.mark.filterwarnings("ignore:the prompt has more")  # the tiny model's is a short one
@pytest.mark.parametrize("slot", ["denoiser", "autoencoder", "process"])
def test_it_learns(config, toy_folder, tmp_path, slot):
    config = folder.load_config(toy_folder)
    if slot == "process":
        slot, config = "denoiser", dataclasses.replace(config, process=RectifiedFlowConfig())
    if slot == "autoencoder":
        task = AutoencoderTask(config)
    else:
        text, auto = (
            folder.load_part(toy_folder, config, name)[1]
            for name in ("text_encoder", "autoencoder")
        )
        task = DenoiserTask(config, folder.load_tokenizer(toy_folder), text, auto)
    settings = TrainConfig(steps=3, batch_size=8, learning_rate=0.01, warmup=1, log_every=1)
    before = nnx.to_pure_dict(nnx.state(create(getattr(config, slot), nnx.Rngs(0))))
    after = train(task, settings, tmp_path / "run")
    assert task.name == f"toy_{slot}"
    changes = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
    assert all(change > 0 for change in jax.tree.leaves(changes))
