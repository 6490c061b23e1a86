"""Distillation: teacher's step, pupil's target, and a pupil that learns to finish at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from diffusion.loading import load
from diffusion.process.samplers import table
from diffusion.process.sampling import finished, one_step, sample
from diffusion.training import distillation
from diffusion.training.denoiser import Captioned
from diffusion.training.distillation import DistillTask, draw_places
from diffusion.weights.architectures import architecture
from diffusion.weights.lora import LoRA
from diffusion.weights.lora_writing import save_lora
from diffusion.weights.names import theirs, to_file


@pytest.fixture(scope="module")
def artist(shallow_folder):
    return load(shallow_folder)


@pytest.fixture
def task(artist):
    config = dataclasses.replace(artist.config, guidance=2.0)
    params = (part.params for part in (artist.text_encoder, artist.autoencoder, artist.denoiser))
    text_encoder, autoencoder, teacher = params
    return DistillTask(config, artist.tokenizer, text_encoder, autoencoder, teacher)


def given(task, count=3):
    """x_t and contexts, as the loss has them."""
    size = task.model.latent_size
    x_t = jax.random.normal(
        jax.random.key(0), (count, size, size, task.model.denoiser.latent_channels)
    )
    texts = ["a red house", "iki çam", "a house at night"][:count]
    return x_t, task.encode_text(task.frozen, task.tokenizer(texts))


def test_the_teacher_takes_the_step_that_the_sampler_takes(task):
    """Euler's, on the same two timesteps: it is DDIM's."""
    x_t, context = given(task)
    rows = table("euler", task.process, 8, spacing="trailing")
    t, earlier = (jnp.full(3, int(rows.timestep[i])) for i in (2, 3))
    found = jax.jit(task._taught)(task.frozen, x_t, t, earlier, context)

    both = jnp.concatenate([context, task.encode_text(task.frozen, task.tokenizer([""] * 3))])

    @jax.jit
    def predict(x_t, t):
        denoiser = task.structures["denoiser"]
        network = distillation.nnx.merge(denoiser, task.teacher)
        told, untold = jnp.split(
            network(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both), 2
        )
        return untold + 2.0 * (told - untold)

    keys = jax.random.split(jax.random.key(0), 3)
    nothing = jnp.zeros_like(x_t)
    expected = one_step(task.process, predict, x_t, nothing, rows.row(2), 0, keys)[2]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_at_the_end_the_teacher_says_what_it_sees(task):
    x_t, context = given(task)
    t = jnp.full(3, 19)
    taught = jax.jit(task._taught)
    end, later = (taught(task.frozen, x_t, t, jnp.full(3, where), context) for where in (-1, 18))
    noise = (x_t - task.process.alpha(t)[0] * end) / task.process.sigma(t)[0]
    alpha, sigma = (f(jnp.asarray([18]))[0] for f in (task.process.alpha, task.process.sigma))
    np.testing.assert_allclose(later, alpha * end + sigma * noise, atol=1e-5)


def test_each_step_of_the_teacher_is_an_eighth_of_the_way(task):
    grid = np.asarray(task.grid)
    assert grid[:3].tolist() == [999, 979, 959]
    assert len(grid) == 56
    assert grid[44:].tolist() == [119, 99, 79, 59, 39, 19, *[-1] * 6]
    steps = grid[:50] - grid[6:]
    assert set(steps[:44]) == {120}


def test_a_pupil_begins_as_its_teacher_and_learns_with_all_of_its_kernels(task):
    begun = task.init(0)
    pupil = task.pupil(task.frozen, begun)
    jax.tree.map(np.testing.assert_array_equal, pupil, task.teacher)
    told = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(pupil)]
    assert len(jax.tree.leaves(begun)) == 2 * sum("kernel" in name for name in told)

    target = jax.tree.map(lambda x: x + 1.0, task.teacher)
    difference = lambda params: sum(  # noqa: E731
        jax.tree.leaves(
            jax.tree.map(
                lambda a, b: jnp.sum((a - b) ** 2), task.pupil(task.frozen, params), target
            )
        )
    )
    slopes = jax.jit(jax.grad(difference))(begun)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        side = path[-1].key
        assert jnp.any(slope != 0) == (side == "up"), path  # down is not heard before up is


def test_the_file_of_a_pupil_is_a_lora_of_its_teacher(task, artist, tmp_path):
    factors = jax.tree.map(
        lambda x: x + jax.random.normal(jax.random.key(x.size), x.shape), task.init(0)
    )
    names = architecture(task.model.denoiser).names
    save_lora(tmp_path / "lcm.safetensors", "denoiser", names, factors, "float32")
    known = {"denoiser": {}, "text_encoder": {}}
    flat = {".".join(map(str, path)): value for path, value in flatten_dict(task.teacher).items()}
    laid = {theirs(name, names): to_file(np.asarray(x), name) for name, x in flat.items()}
    known["denoiser"] = {name: value.shape for name, value in laid.items()}
    adjust = LoRA.open(tmp_path / "lcm.safetensors", 1.0, known).adjust("denoiser")
    pupil = flatten_dict(task.pupil(task.frozen, factors))
    for path, value in pupil.items():
        name = ".".join(map(str, path))
        official = theirs(name, names)
        found = adjust(official, np.array(laid[official]))
        np.testing.assert_allclose(found, to_file(np.asarray(value), name), atol=1e-5)


def test_a_fifth_of_the_examples_begin_at_the_beginning():
    places = np.asarray(draw_places(jax.random.key(0), 1000, 50))
    assert np.mean(places == 0) == pytest.approx(0.2 + 0.8 / 50, abs=0.002)
    assert set(np.bincount(places)[1:]) <= {15, 16, 17}
    assert (places.min(), places.max()) == (0, 49)


def test_a_pupil_learns_to_finish_at_once(task, monkeypatch):
    """The data are one latent: whoever knows it is right at every timestep, and the loss is 0."""
    x_t, context = given(task)
    batch = Captioned(task.tokenizer(["a red house"] * 3), None)
    known = jnp.full(x_t.shape, 0.5)
    monkeypatch.setattr(task, "seen", lambda *_: (known, context))

    def knows(params, x_t, t, context):
        return jnp.full(x_t.shape, 0.5) * params["scale"]

    monkeypatch.setattr(task, "_sees", knows)
    monkeypatch.setattr(task, "pupil", lambda frozen, params: params)
    task.frozen["teacher"] = {"scale": jnp.float32(1.0)}
    look = jax.value_and_grad(lambda params, key: task.loss(params, task.frozen, batch, key)[0])
    right, none = look({"scale": jnp.float32(1.0)}, jax.random.key(1))
    assert right == pytest.approx(0.0, abs=1e-6)
    wrong, slope = look({"scale": jnp.float32(0.2)}, jax.random.key(1))
    assert wrong > 0.01
    assert slope["scale"] < 0  # towards the teacher
    assert abs(none["scale"]) < 1e-3


def test_the_sheet_is_painted_in_two_calls(task, monkeypatch):
    monkeypatch.setattr(distillation, "PREVIEWED", ("a red house", "iki çam"))
    called = []
    advance = task.advance
    monkeypatch.setattr(
        task, "advance", lambda *a: called.append(int(a[5].timestep)) or advance(*a)
    )
    picture = task.picture(task.init(0))
    assert called == [999, 499]
    assert picture.dtype == np.uint8
    keys = jax.random.split(jax.random.key(0), 3)
    x_t, context = given(task)
    rows = table("lcm", task.process, 1)
    step = lambda *inputs: advance(task.teacher, context, keys, *inputs)  # noqa: E731
    once = finished(sample(step, x_t, rows))
    np.testing.assert_allclose(
        once, jax.jit(task._sees)(task.teacher, x_t, jnp.full(3, 999), context), atol=1e-5
    )
