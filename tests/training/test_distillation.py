"""Distillation: two steps of the teacher, and a student that learns to take them in one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import RectifiedFlowConfig, SamplingConfig, VariancePreservingConfig
from diffusion.loading import load
from diffusion.process.mixing import wide
from diffusion.process.samplers import guide, table
from diffusion.process.sampling import finished, one_step, sample
from diffusion.training import denoiser
from diffusion.training.denoiser import Captioned
from diffusion.training.distillation import DistillTask, draw_places, fewer


@pytest.fixture(scope="module")
def artist(shallow_folder):
    return load(shallow_folder)


def made(artist, **changes):
    config = dataclasses.replace(artist.config, **changes)
    parts = (part.params for part in (artist.text_encoder, artist.autoencoder, artist.denoiser))
    text_encoder, autoencoder, teacher = parts
    return DistillTask(config, artist.tokenizer, text_encoder, autoencoder, teacher=teacher)


@pytest.fixture
def task(artist):
    return made(artist, guidance=2.0, sampling=SamplingConfig("dpm++2m", 8, "trailing"))


def given(task, count=3):
    """x_t and contexts, as the loss has them."""
    size = task.model.latent_size
    x_t = jax.random.normal(
        jax.random.key(0), (count, size, size, task.model.denoiser.latent_channels)
    )
    texts = ["a red house", "iki çam", "a house at night"][:count]
    return x_t, task.encode_text(task.frozen, task.tokenizer(texts))


@pytest.mark.parametrize("scale", [2.0, 1.0])
def test_the_teacher_takes_the_two_steps_that_the_sampler_takes(artist, scale):
    task = made(artist, guidance=scale, sampling=SamplingConfig("dpm++2m", 8, "trailing"))
    x_t, context = given(task)
    silent = task.encode_text(task.frozen, task.tokenizer([""] * 3))
    found = jax.jit(task._two_steps)(task.frozen, x_t, jnp.array([0, 2, 3]), context)

    def predict(x_t, t):
        told, untold = (task._says(task.teacher, x_t, t, words) for words in (context, silent))
        return guide(untold, told, scale)

    rows = table("euler", task.process, 8, spacing="trailing")
    keys, nothing = jax.random.split(jax.random.key(0), 3), jnp.zeros_like(x_t)
    step = jax.jit(lambda x_t, row: one_step(task.process, predict, x_t, nothing, row, 0, keys)[2])
    for i, place in enumerate((0, 2, 3)):
        expected = step(step(x_t, rows.row(2 * place)), rows.row(2 * place + 1))
        np.testing.assert_allclose(found[i], expected[i], atol=5e-5)


def test_a_student_begins_as_its_teacher(task):
    jax.tree.map(np.testing.assert_array_equal, task.init(0), task.teacher)


@pytest.mark.parametrize(("steps", "half"), [(8, 4), (25, 16), (12, 8), (3, 2), (2, 1)])
def test_a_student_takes_half_of_the_steps_at_timesteps_of_its_teacher(artist, steps, half):
    task = made(artist, sampling=SamplingConfig("dpm++2m", steps, "leading"))
    assert task.steps == fewer(task.model) == half
    np.testing.assert_array_equal(task.rows.timestep, task.taught.timestep[::2])
    assert len(task.taught.timestep) == 2 * half


def test_what_cannot_be_distilled(artist):
    with pytest.raises(ValueError, match="paints in one step already"):
        made(artist, sampling=SamplingConfig("euler", 1, "trailing"))
    told = dataclasses.replace(artist.config.denoiser, guidance_width=8)
    with pytest.raises(ValueError, match="latent consistency model; it is distilled already"):
        fewer(dataclasses.replace(artist.config, denoiser=told))


def test_the_first_step_is_drawn_twice_as_often():
    places = np.bincount(np.asarray(draw_places(jax.random.key(0), 1000, 4)))
    assert places.tolist() == pytest.approx([400, 200, 200, 200], abs=1)
    assert set(np.asarray(draw_places(jax.random.key(0), 16, 1)).tolist()) == {0}


@pytest.mark.parametrize(
    "process",
    [
        VariancePreservingConfig(prediction="v"),
        VariancePreservingConfig(prediction="epsilon"),
        RectifiedFlowConfig(),
    ],
)
def test_the_target_leads_in_one_step_to_where_the_teacher_arrives(artist, process, monkeypatch):
    """Whatever the teacher says: a student that says the target has no error, and lands there."""
    eight = SamplingConfig("euler", 8, "trailing")
    task = made(artist, process=process, guidance=2.0, sampling=eight)
    x_t, context = given(task)
    asked = {}
    monkeypatch.setattr(task, "seen", lambda *_: (0.5 * x_t, context))
    monkeypatch.setattr(
        task.mixing,
        "error",
        lambda said, x0, rest, t: asked.update(x0=x0, t=t) or said.mean((1, 2, 3)),
    )
    two_steps = task._two_steps
    monkeypatch.setattr(
        task, "_two_steps", lambda *a: asked.update(x_t=a[1], place=a[2]) or two_steps(*a)
    )
    task.loss(task.teacher, task.frozen, Captioned(None, None), jax.random.key(1))
    arrived = two_steps(task.frozen, asked["x_t"], asked["place"], context)
    place = np.asarray(asked["place"])
    from_x_t, from_x0 = (
        column[place][:, None, None, None] for column in (task.rows.z_from_z, task.rows.z_from_x0)
    )
    np.testing.assert_allclose(from_x_t * asked["x_t"] + from_x0 * asked["x0"], arrived, atol=1e-4)


def test_a_student_learns_where_its_teacher_arrives(task, monkeypatch):
    """The teacher knows the one latent that there is: then one step arrives where two do, and
    whoever says the same is right."""
    x_t, context = given(task)
    batch = Captioned(task.tokenizer(["a red house"] * 3), None)
    known = jnp.full(x_t.shape, 0.5)
    seen = []
    monkeypatch.setattr(task, "seen", lambda *_: (known, context))

    def knows(params, x_t, t, context):
        seen.append((x_t, t))
        x0 = jnp.full(x_t.shape, 0.5) * params["scale"]
        left = (x_t - wide(task.mixing.alpha(t)) * x0) / wide(task.mixing.sigma(t))
        return task.mixing.target(x0, left, t)

    monkeypatch.setattr(task, "_says", knows)
    task.frozen["teacher"] = {"scale": jnp.float32(1.0)}
    look = jax.value_and_grad(lambda params, key: task.loss(params, task.frozen, batch, key)[0])
    right, none = look({"scale": jnp.float32(1.0)}, jax.random.key(1))
    assert right == pytest.approx(0.0, abs=1e-6)
    wrong, slope = look({"scale": jnp.float32(0.2)}, jax.random.key(1))
    assert wrong > 0.01
    assert slope["scale"] < 0  # towards the teacher
    assert abs(none["scale"]) < 1e-3

    seen.clear()
    noise = jax.random.normal(jax.random.split(jax.random.key(1), 3)[1], known.shape)
    task.loss({"scale": jnp.float32(1.0)}, task.frozen, batch, jax.random.key(1))
    begun, t = seen[0]
    first = np.asarray(t)[:3] == 999
    assert first.any()
    np.testing.assert_array_equal(begun[:3][first], noise[first])  # no trace of a picture


def test_the_sheet_is_painted_in_half_of_the_steps(task, monkeypatch):
    monkeypatch.setattr(denoiser, "PREVIEWED", ("a red house", "iki çam"))
    called = []
    advance = task.advance
    monkeypatch.setattr(
        task, "advance", lambda *a: called.append(int(a[5].timestep)) or advance(*a)
    )
    picture = task.picture(task.init(0))
    assert called == [999, 749, 499, 249]
    assert picture.dtype == np.uint8
    keys = jax.random.split(jax.random.key(0), 3)
    x_t, context = given(task)
    rows = table("euler", task.process, 1, spacing="trailing")
    step = lambda *inputs: advance(task.teacher, context, keys, *inputs)  # noqa: E731
    once, t = finished(sample(step, x_t, rows)), jnp.full(3, 999)
    says = jax.jit(task._says)(task.teacher, x_t, t, context)
    np.testing.assert_allclose(once, task.mixing.to_x0(says, x_t, t), atol=1e-5)
