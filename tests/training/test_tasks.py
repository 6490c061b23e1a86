"""What the networks are asked: losses, data and gradients of the three tasks."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import (
    ModelConfig,
    RectifiedFlowConfig,
    TextEncoderConfig,
    UNetConfig,
    VAEConfig,
    VariancePreservingConfig,
)
from diffusion.datasets.captions import caption, captions, said_by
from diffusion.datasets.curriculum import CAPTION_DROPOUT
from diffusion.datasets.garden import ATTRIBUTES, HELD_OUT, Scene, is_held_out, sample_scenes
from diffusion.process import schedule
from diffusion.process.schedule import GAMMA, TIMES, draw_timesteps, weight
from diffusion.runtime.parameters import Params, split
from diffusion.text.tokenizer import Tokenizer
from diffusion.training import denoiser, text_encoder
from diffusion.training.autoencoder import AutoencoderTask, measure_scale
from diffusion.training.denoiser import DenoiserTask
from diffusion.training.loop import State, init_state, make_step
from diffusion.training.text_encoder import (
    OPTIONS,
    TWIN_ATTRIBUTES,
    TextTask,
    contrastive_loss,
    read_loss,
    twin,
)
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import create
from tests.training.conftest import stripes

HUES = ("house", "roof", "door")
CONFIG = TrainConfig(1000, 4, 3e-3, warmup=0)
pytestmark = pytest.mark.usefixtures("quick_pictures", "narrow_tower")


@pytest.fixture(scope="module")
def narrow_tower() -> Iterator[None]:
    """The image tower of the text task with few channels: a wide one's gradients compile long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoder, "IMAGE_WIDTHS", (8, 8, 8, 8))
        yield


@cache
def words() -> Tokenizer:
    rng = np.random.default_rng(0)
    texts = [said.text for said in captions(sample_scenes(rng, 300), rng)]
    return Tokenizer.train(texts, vocab_size=800, length=120)  # no caption is cut


@cache
def small(kind: str = "v") -> ModelConfig:
    return ModelConfig(
        image_size=8,
        text_encoder=TextEncoderConfig(
            vocab_size=words().vocab_size, length=120, width=8, layers=1, heads=2, mlp_width=16
        ),
        denoiser=UNetConfig(
            block_out_channels=(8,), layers_per_block=1, attention=(True,), heads=(2,),
            context_width=8, norm_groups=4,
        ),
        autoencoder=VAEConfig(
            block_out_channels=(4,), layers_per_block=1, norm_groups=2, scaling_factor=1.0
        ),
        process=VariancePreservingConfig(prediction=kind),
    )  # fmt: skip


def fresh(slot: str, config: ModelConfig, seed: int) -> Params:
    return split(create(getattr(config, slot), nnx.Rngs(seed)))[1]


@cache
def make(name: str) -> Any:
    if name == "vae":
        return AutoencoderTask(small())
    if name == "text":
        return TextTask(small(), words())
    config = small()
    if name == "flow":
        config = dataclasses.replace(config, process=RectifiedFlowConfig())
    return DenoiserTask(
        config, words(), fresh("text_encoder", config, 1), fresh("autoencoder", config, 2)
    )


class School(NamedTuple):
    """A task, where it begins, a batch of it, and its compiled training step."""

    task: Any
    params: Params
    batch: Any
    step: Callable[..., tuple[State, dict[str, jax.Array]]]

    def at(self, number: int = 0) -> State:
        """The beginning, with the random numbers of a step."""
        return init_state(self.task, CONFIG, self.params)._replace(step=jnp.int32(number))


@cache
def school(name: str) -> School:
    task = make(name)
    batch = task.batch(np.random.default_rng(0), CONFIG.batch_size)
    return School(task, task.init(0), batch, make_step(task, CONFIG))


@pytest.mark.parametrize("name", ["vae", "text", "unet", "flow"])
def test_a_task_gives_gradients_and_learns_a_batch_by_heart(name):
    task, _, batch, step = school(name)
    state, first = step(school(name).at(0), task.frozen, batch)
    assert all(np.isfinite(value) for value in first.values())
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(state))
    assert first["loss"] > 0
    assert first["gradient_norm"] > 1e-3
    assert step(school(name).at(0), task.frozen, batch)[1] == first
    if name != "text":  # which needs no randomness
        assert step(school(name).at(1), task.frozen, batch)[1]["loss"] != first["loss"]
    for _ in range(40):
        state, last = step(state._replace(step=jnp.int32(0)), task.frozen, batch)
    assert last["loss"] < 0.9 * first["loss"]


def constants(jaxpr: Any) -> int:
    """The largest constant that a program holds, in bytes."""
    found = [constant.nbytes for constant in getattr(jaxpr, "consts", [])]
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")
        )
        found += [constants(one) for one in inner if hasattr(one, "eqns")]
    return max(found, default=0)


def test_a_training_step_holds_no_frozen_network():
    task, _, batch, step = school("unet")
    state = jax.eval_shape(school("unet").at)

    class Closing(DenoiserTask):
        """As it must not be: the networks are part of the program."""

        def loss(self, params, frozen, batch, key):
            return super().loss(params, self.frozen, batch, key)

    largest = max(leaf.nbytes for leaf in jax.tree.leaves(task.frozen))
    closing = Closing(task.model, task.tokenizer, **task.frozen)
    held = make_step(closing, CONFIG).trace(state, closing.frozen, batch).jaxpr
    assert constants(held) >= largest
    assert constants(step.trace(state, task.frozen, batch).jaxpr) < largest


@pytest.mark.parametrize("slot", ["text_encoder", "autoencoder"])
def test_another_frozen_network_is_another_loss_by_the_same_program(slot):
    task, params, batch, step = school("unet")
    listening = jax.tree.map(lambda leaf: leaf + 0.1, params)  # fresh, it says nothing of anything

    def loss(frozen: Params) -> jax.Array:
        return step(init_state(task, CONFIG, listening), frozen, batch)[1]["loss"]

    before, programs = loss(task.frozen), step._cache_size()
    other = task.frozen | {slot: jax.tree.map(lambda leaf: 1.5 * leaf, task.frozen[slot])}
    assert abs(loss(other) - before) > 1e-4 * before
    assert step._cache_size() == programs == 1


@pytest.mark.parametrize("name", ["vae", "text", "unet"])
def test_data_are_a_function_of_the_generator_and_never_held_out(name):
    task = make(name)
    first, same, other = (task.batch(np.random.default_rng(seed), 64) for seed in (5, 5, 6))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    scenes = [first, other] if name == "vae" else [first.scenes, other.scenes]
    assert not np.array_equal(scenes[0].layout, scenes[1].layout)
    assert not is_held_out(scenes[0]).any()
    assert not is_held_out(scenes[1]).any()


def one(scenes: Scene, index: int) -> Scene:
    return Scene(*(field[index : index + 1] for field in scenes))


def differences(a: Scene, b: Scene) -> list[str]:
    return [
        name for name in Scene._fields if not np.array_equal(getattr(a, name), getattr(b, name))
    ]


def test_a_twin_differs_in_one_named_thing_or_trades_two_colours():
    rng = np.random.default_rng(0)
    scenes = sample_scenes(rng, 1200)
    seen = {"changed": 0, "traded": 0}
    for i in range(0, 1200, 2):
        scene, other = one(scenes, i), one(scenes, i + 1)
        named = caption(scene, 0, rng).named
        changed = twin(scene, other, named, rng)
        assert not is_held_out(changed)[0]
        assert np.array_equal(scene.house, scenes.house[i : i + 1])
        if changed is other:
            continue
        apart = differences(scene, changed)
        if len(apart) == 2:
            a, b = apart
            assert {a, b} <= named & set(HUES)
            hue = lambda s, name: ATTRIBUTES[name][int(getattr(s, name)[0])]  # noqa: E731
            assert (hue(changed, a), hue(changed, b)) == (hue(scene, b), hue(scene, a))
            seen["traded"] += 1
        else:
            assert len(apart) <= 1  # none where both scenes happen to agree
            for name in apart:
                assert name in named & set(TWIN_ATTRIBUTES)
                assert getattr(changed, name) == getattr(other, name)
            seen["changed"] += len(apart)
    assert min(seen.values()) > 20


def test_a_twin_that_would_be_held_out_is_the_other_scene():
    forbidden = next(entry for entry in HELD_OUT if entry.keys() == {"house", "roof"})
    index = {name: ATTRIBUTES[name].index(word) for name, word in forbidden.items()}
    scenes = sample_scenes(np.random.default_rng(0), 2)
    away = {name: np.int32([(i + 1) % 8]) for name, i in index.items()}
    scene = one(scenes, 0)._replace(house=np.int32([index["house"]]), roof=away["roof"])
    other = one(scenes, 1)._replace(house=away["house"], roof=np.int32([index["roof"]]))
    assert is_held_out(scene._replace(roof=other.roof))[0]
    assert twin(scene, other, frozenset({"roof"}), np.random.default_rng(0)) is other


def test_what_was_said_is_what_the_captions_name():
    scenes = sample_scenes(np.random.default_rng(0), 40)
    spoken = captions(scenes, np.random.default_rng(1), detailed_share=0.5)
    table = said_by(spoken, scenes)
    assert table.shape == (40, len(ATTRIBUTES))
    for column, (name, words) in enumerate(ATTRIBUTES.items()):
        for i, one_caption in enumerate(spoken):
            named = name in one_caption.named
            assert table[i, column] == (getattr(scenes, name)[i] if named else len(words))


def test_every_token_from_the_end_mark_on_has_to_have_read_the_caption():
    """The gradient of the reading reaches the last row of padding, and no word before the end."""
    task, params, data, _ = school("text")
    pupil = nnx.merge(task.structure, params)
    tokens = jnp.asarray(data.tokens)

    def reading(states):
        is_end = tokens == task.tokenizer.eos
        return read_loss(pupil.read(states), jnp.asarray(data.said), is_end)[0]

    slopes = jax.jit(lambda: jax.grad(reading)(pupil.text(tokens)))()
    slopes = np.abs(slopes).sum(axis=-1)
    assert (slopes[np.asarray(tokens) == task.tokenizer.eos] > 0).all()
    assert (slopes[np.asarray(tokens) != task.tokenizer.eos] == 0).all()


def test_a_reader_who_knows_everything_has_no_loss():
    task, _, data, _ = school("text")
    is_end = jnp.asarray(data.tokens == task.tokenizer.eos)
    perfect = [
        50.0 * jnp.broadcast_to(jax.nn.one_hot(column, k)[:, None], (*is_end.shape, k))
        for column, k in zip(data.said.T, OPTIONS, strict=True)
    ]
    asked = jax.jit(read_loss)
    loss, understood = asked(perfect, jnp.asarray(data.said), is_end)
    assert loss < 1e-6
    assert understood == 1.0
    perfect[0] = jnp.roll(perfect[0], 1, axis=-1)  # one attribute wrong: nothing is understood
    loss, understood = asked(perfect, jnp.asarray(data.said), is_end)
    assert loss > 10.0
    assert understood == 0.0


def test_the_contrastive_loss_by_hand():
    assert contrastive_loss(jnp.zeros((8, 8))) == pytest.approx(math.log(8), rel=1e-6)
    assert contrastive_loss(100.0 * jnp.eye(8)) == pytest.approx(0.0, abs=1e-6)
    logits = jnp.array([[1.0, 2.0], [0.0, 3.0]])
    rows = math.log(math.e + math.e**2) - 1 + math.log(1 + math.e**3) - 3
    columns = math.log(math.e + 1) - 1 + math.log(math.e**2 + math.e**3) - 3
    assert contrastive_loss(logits) == pytest.approx((rows + columns) / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("alpha_bar", "epsilon", "v"),
    [
        (0.2, 1 / 0.25, 1 / 1.25),  # SNR 1/4: the error of x0 counts 1
        (0.5, 1.0, 0.5),  # SNR 1
        (0.75, 1.0, 3 / 4),  # SNR 3 counts as it is
        (0.9, GAMMA / 9, GAMMA / 10),  # SNR 9 counts 5
    ],
)
def test_the_weight_of_a_noise_level_by_hand(alpha_bar, epsilon, v):
    ratio = schedule.snr(jnp.array([alpha_bar]))
    np.testing.assert_allclose(weight(ratio, "epsilon"), [epsilon], rtol=1e-5)
    np.testing.assert_allclose(weight(ratio, "v"), [v], rtol=1e-5)


def test_timesteps_come_one_from_each_part_and_more_of_them_from_the_middle():
    drawn = np.stack([draw_timesteps(jax.random.key(i), 20, 1000) for i in range(200)])
    assert drawn.dtype == np.int32
    shares, times = TIMES
    edges = np.interp(np.linspace(0, 1, 21), shares, times) * 1000
    assert (drawn >= np.floor(edges[:-1])).all()
    assert (drawn <= np.minimum(edges[1:], 999)).all()
    counts, _ = np.histogram(drawn, np.multiply(times, 1000))
    np.testing.assert_allclose(counts / drawn.size, np.diff(shares), atol=0.01)
    assert np.diff(shares)[1] > np.diff(times)[1]


def test_a_draw_that_rounds_to_the_end_is_still_a_timestep(monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.ones(shape))
    assert draw_timesteps(jax.random.key(0), 4, 1000).max() == 999


def test_a_tenth_of_the_captions_is_dropped():
    count = 4000
    task = dataclasses.replace(make("unet"), candidates=1)  # the same dropout
    tokens = task.batch(np.random.default_rng(0), count).tokens
    dropped = int((tokens == words()([""])).all(axis=1).sum())
    own = sum(not said.text for said in captions(sample_scenes(np.random.default_rng(0), 100),
                                                 np.random.default_rng(1)))  # fmt: skip
    assert own == 0  # a caption is never empty of itself
    spread = math.sqrt(count * CAPTION_DROPOUT * (1 - CAPTION_DROPOUT))
    assert abs(dropped - count * CAPTION_DROPOUT) < 4 * spread


@pytest.mark.parametrize(("kind", "blind"), [("v", 0.0), ("epsilon", 0.0), ("v", 1.0)])
def test_the_loss_is_that_of_one_noise_in_scaled_latents(kind, blind, monkeypatch):
    """Of a denoiser that says nothing, the loss is the target's size."""
    monkeypatch.setattr(denoiser, "BLIND_SHARE", blind)
    config = small(kind)
    scaled = dataclasses.replace(config.autoencoder, scaling_factor=0.5)
    config = dataclasses.replace(config, autoencoder=scaled)
    text, vae = (fresh(slot, config, 0) for slot in ("text_encoder", "autoencoder"))
    task = DenoiserTask(config, words(), text, vae)
    seen: dict[str, tuple[jax.Array, ...]] = {}

    class Silent(nnx.Module):
        def __call__(self, x_t, t, context):
            seen["denoiser"] = x_t, t, context
            return jnp.zeros_like(x_t)

    def watched(name: str, function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def call(*arguments: jax.Array) -> jax.Array:
            seen[name] = arguments
            return function(*arguments)

        return call

    task.structures["denoiser"] = nnx.split(Silent())[0]
    task.process.add_noise = watched("add_noise", task.process.add_noise)
    task.process.target = watched("target", task.process.target)
    batch = task.batch(np.random.default_rng(0), 2)

    @jax.jit
    def run(frozen: Params) -> tuple[Any, ...]:
        autoencoder = nnx.merge(task.structures["autoencoder"], frozen["autoencoder"])
        posterior = autoencoder.posterior(stripes(batch.scenes, config.image_size))
        drawn = posterior.sample(jax.random.split(jax.random.key(0), 3)[0]) * 0.5
        heard = nnx.merge(task.structures["text_encoder"], frozen["text_encoder"])
        context = heard(jnp.asarray(batch.tokens))
        return *task.loss({}, frozen, batch, jax.random.key(0)), seen, drawn, context

    loss, metrics, seen, drawn, heard = run(task.frozen)
    latents, noise, timesteps = seen["add_noise"]
    jax.tree.map(np.testing.assert_array_equal, seen["target"], seen["add_noise"])
    alpha_bar = schedule.alpha_bars(config.process)[np.asarray(timesteps)]
    assert task.process.prediction == kind
    np.testing.assert_allclose(
        latents, np.concatenate([drawn] * denoiser.VIEWS), rtol=1e-5, atol=1e-6
    )
    assert abs(float(jnp.std(noise)) - 1) < 0.1

    signal, spread = (np.sqrt(x)[:, None, None, None] for x in (alpha_bar, 1 - alpha_bar))
    x_t, told, context = seen["denoiser"]
    if blind:  # as a painting begins
        np.testing.assert_array_equal(x_t, noise)
        np.testing.assert_array_equal(told, 999)
    else:
        np.testing.assert_allclose(x_t, signal * latents + spread * noise, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(told, timesteps)
    np.testing.assert_allclose(context, np.concatenate([heard] * denoiser.VIEWS), atol=1e-5)
    v = signal * noise - spread * latents
    error = np.square(v if kind == "v" else noise).mean((1, 2, 3))
    counts = np.asarray(weight(schedule.snr(jnp.asarray(alpha_bar, jnp.float32)), kind))
    assert float(loss) == pytest.approx(np.mean(counts * error), rel=1e-4)
    assert float(metrics["error"]) == pytest.approx(np.mean(error), rel=1e-4)


def test_the_loss_of_a_flow_is_the_squared_error_of_its_velocity(monkeypatch):
    """Of a denoiser that says nothing: noise less picture, at every timestep alike."""
    monkeypatch.setattr(denoiser, "BLIND_SHARE", 0.0)
    task = make("flow")
    seen: dict[str, Any] = {}

    class Silent(nnx.Module):
        def __call__(self, x_t, t, context):
            seen["x_t"], seen["t"] = x_t, t
            return jnp.zeros_like(x_t)

    monkeypatch.setitem(task.structures, "denoiser", nnx.split(Silent())[0])
    batch = task.batch(np.random.default_rng(0), 2)

    @jax.jit
    def run(frozen: Params) -> tuple[Any, ...]:
        keys = jax.random.split(jax.random.key(0), 3)
        latents, _ = task.seen(frozen, batch, keys[0], jnp.float32)
        noise = jax.random.normal(keys[1], latents.shape)
        return *task.loss({}, frozen, batch, jax.random.key(0)), seen, latents, noise

    loss, metrics, told, latents, noise = run(task.frozen)
    t = np.asarray(told["t"])
    np.testing.assert_allclose(
        t, task.process.draw_timesteps(jax.random.split(jax.random.key(0), 3)[2], len(t)), rtol=1e-5
    )
    s = t[:, None, None, None] / 1000
    np.testing.assert_allclose(told["x_t"], (1 - s) * latents + s * noise, atol=1e-5)
    error = np.square(np.asarray(noise - latents)).mean()
    assert float(loss) == pytest.approx(error, rel=1e-4)
    assert float(metrics["error"]) == pytest.approx(error, rel=1e-4)


def test_the_measured_scale_gives_latents_of_unit_variance():
    task, params, *_ = school("vae")
    scale = measure_scale(task.model, params, count=128)
    pictures = stripes(sample_scenes(np.random.default_rng(99), 256), 8)  # measured on others

    @jax.jit
    def encode(params: Params) -> jax.Array:
        vae = nnx.merge(task.structure, params)
        return vae.posterior(pictures).sample(jax.random.key(5))

    latents = encode(params) * scale
    assert float(jnp.std(latents)) == pytest.approx(1.0, abs=0.05)
    assert scale == measure_scale(task.model, params, count=128)
    assert scale != measure_scale(task.model, params, count=128, seed=1)


@pytest.mark.parametrize("name", ["vae", "text", "unet"])
def test_the_sample_sheet_is_a_picture_and_always_of_the_same(name):
    task, params, *_ = school(name)
    page = task.picture(params)
    assert page.dtype == np.uint8
    assert page.ndim == 3
    assert page.shape[2] == 3
    assert len(np.unique(page)) > 10
    np.testing.assert_array_equal(page, task.picture(params))
