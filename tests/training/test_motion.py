"""Motion modules learn from clips, and nothing else does."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.datasets.garden.motion import MOTIONS, STILL
from diffusion.motion_config import motion_for
from diffusion.stages.motion import MotionModule
from diffusion.stages.moving_view import STRENGTH
from diffusion.training import motion
from diffusion.training.beginning import copy_of
from diffusion.training.loop import init_state, make_step
from diffusion.training.motion import MotionTask
from diffusion.training.recipe import train_part
from diffusion.training.train_config import TrainConfig
from diffusion.weights import adapter, folder
from tests.conftest import random_params
from tests.training.conftest import stripes

FRAMES = 3
pytestmark = pytest.mark.filterwarnings("ignore:the prompt has more")  # the tiny model's is short


def clips_of_stripes(clips, frames, size):
    """Clips that compile in no time: stripes of each scene, which move."""
    still = stripes(clips.scenes, size)
    return jnp.stack([jnp.roll(still, i, axis=2) for i in range(frames)], axis=1)


@pytest.fixture(scope="module", autouse=True)
def quick_clips():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion, "render_clips", clips_of_stripes)
        patch.setattr(motion, "PREVIEWED", motion.PREVIEWED[:1])
        patch.setattr(motion, "CLIPS", 64)
        yield


def task_of(root):
    config = folder.load_config(root)
    slots = ("text_encoder", "autoencoder", "denoiser")
    frozen = {slot: folder.load_part(root, config, slot)[1] for slot in slots}
    modules = dataclasses.replace(motion_for(config.denoiser), length=FRAMES)
    return MotionTask(config, folder.load_tokenizer(root), **frozen, motion=modules)


@pytest.fixture(scope="module")
def task(shallow_folder, tmp_path_factory):
    task = task_of(shallow_folder)
    task.prepare(tmp_path_factory.mktemp("training"), 0)
    return task


def test_examples_are_captioned_clips(task):
    batch = task.batch(np.random.default_rng(0), 200)
    assert batch.tokens.shape == (200, 16)
    assert batch.latents.shape[:2] == (200, FRAMES)
    again = task.batch(np.random.default_rng(0), 200)
    jax.tree.map(np.testing.assert_array_equal, again, batch)
    wordless = (batch.tokens == task.tokenizer([""])).all(1)
    assert 0.04 < wordless.mean() < 0.18


def test_frames_share_noise_and_a_blind_clip_s_as_in_painting(task):
    blind = jnp.array([False, True])
    still = np.zeros((2, 2, 4))

    def alike(key, views):
        each = np.asarray(task.noise(key, (2 * FRAMES, 32, 32, 4), blind, views))
        each = each.reshape(2 * FRAMES, -1)
        assert each.var(axis=1) == pytest.approx(1.0, abs=0.1)
        return np.corrcoef(each)

    most = task.motion.common_noise
    shares = []
    for key in jax.random.split(jax.random.key(0), 8):
        found = alike(key, still)
        shares.append(found[0, 1])  # two frames of a film
        assert found[FRAMES, FRAMES + 1] == pytest.approx(most, abs=0.03)
        assert found[0, FRAMES] == pytest.approx(0.0, abs=0.06)  # of two films
    assert motion.COMMON_NOISE - 0.05 < min(shares) < 0.7 < max(shares) < most + 0.05
    # Where the view goes by a whole side, nothing is seen twice.
    gone = np.array([[[0, 0, 0, 0], [0.5, 0, 0, 0]]] * 2)
    assert abs(alike(jax.random.key(9), gone)[FRAMES, -1]) < 0.1 < most / 2


def test_clips_are_encoded_once_and_their_latents_are_their_own(task, tmp_path, monkeypatch):
    task.prepare(tmp_path, 5)
    [known] = task.batch.args[1:]
    assert set(known.clips.motion) <= set(range(len(MOTIONS))) | {STILL}
    i = 40  # of the second file
    clip = jax.tree.map(lambda x: x[i : i + 1], known.clips)
    films = clips_of_stripes(clip, FRAMES, task.model.image_size)[0]
    autoencoder = task._frozen(task.frozen)[1]
    np.testing.assert_allclose(known.latents[i], autoencoder.encode(films), atol=2e-2)
    files = sorted((tmp_path / "clips").iterdir())
    assert len(files) == 2
    before = [file.read_bytes() for file in files]
    files[1].unlink()
    drawn = []
    monkeypatch.setattr(motion, "render_clips", lambda *a: drawn.append(1) or clips_of_stripes(*a))
    task.prepare(tmp_path, 5)
    assert drawn == [1]  # one program, for what was missing
    assert [file.read_bytes() for file in files] == before
    task.prepare(tmp_path, 5)
    assert drawn == [1]


@pytest.fixture
def seen(task, monkeypatch):
    """`seen(share)`: what the denoiser is told of three clips, a share of which is blind.

    Their view goes to the right by `pan`, their clouds by as much.
    """

    def seen(share, shown=1.0, pan=0.0):
        told = {}

        def denoiser(x_t, t, context):
            told.update(x_t=np.asarray(x_t), t=np.asarray(t), context=np.asarray(context))
            return jnp.zeros_like(x_t)

        monkeypatch.setattr(task, "moving", lambda params, frozen: denoiser)
        monkeypatch.setattr(motion, "BLIND_SHARE", share)
        batch = task.batch(np.random.default_rng(0), 3)
        views = np.tile([[[0.0] * 4, [pan, 0.0, pan, 0.0]]], (3, 1, 1))
        batch = batch._replace(latents=shown * batch.latents, views=views)
        loss, metrics = task.loss(task.init(0), task.frozen, batch, jax.random.key(0))
        assert np.isfinite([loss, *metrics.values()]).all()
        return told

    return seen


def test_frames_of_a_clip_are_as_noisy_as_each_other(seen):
    told = seen(0.0)
    t = told["t"].reshape(3, FRAMES)
    assert (t == t[:, :1]).all()
    assert len(set(t[:, 0])) == 3
    context = told["context"].reshape(3, FRAMES, 16, -1)
    assert (context == context[:, :1]).all()
    assert (context[0] != context[1]).any()
    assert len({frame.tobytes() for frame in told["x_t"]}) == 3 * FRAMES


def test_a_blind_clip_is_nothing_but_noise(task, seen):
    blind, sighted = seen(1.0), seen(0.0)
    assert (blind["t"] == task.process.train_steps - 1).all()
    np.testing.assert_array_equal(blind["x_t"], seen(1.0, shown=0.0)["x_t"])
    assert (sighted["x_t"] != seen(0.0, shown=0.0)["x_t"]).any()


def test_views_are_looked_at_where_something_can_be_seen(task, seen):
    """Never blind, and with half of the noise at most; they are painted from a picture."""
    steps = task.process.train_steps
    viewed, still = (np.concatenate([seen(share, pan=pan)["t"] for share in (0.0, 1.0)])
                     for pan in (0.05, 0.0))  # fmt: skip
    assert viewed.max() < STRENGTH * steps < still.max() == steps - 1
    assert (seen(1.0, pan=0.05)["x_t"] != seen(1.0, shown=0.0, pan=0.05)["x_t"]).any()


def test_times_move_towards_the_noise_and_stay_in_order():
    t = jnp.arange(1000)
    moved = np.asarray(motion.noisier(t, 1000))
    assert moved.dtype == t.dtype
    assert (moved[[0, 500, 999]] == [0, 750, 999]).all()
    assert (np.diff(moved) >= 0).all()
    assert (moved >= np.arange(1000) - 1).all()  # whole numbers are rounded down
    np.testing.assert_allclose(motion.noisier(jnp.array([250.0, 1000.0]), 1000), [437.5, 1000.0])


def farthest(one, other):
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def test_only_the_modules_learn_and_the_exit_first(task):
    config = TrainConfig(10, 1, 1e-2, warmup=0)
    batch = task.batch(np.random.default_rng(0), 1)
    before = task.init(0)
    frozen = jax.tree.map(np.array, task.frozen)
    step = make_step(task, config)
    state, _ = step(init_state(task, config, before), task.frozen, batch)
    exits = {"kernel", "bias"}
    for path, change in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(farthest, before, state.params)
    ):
        names = [getattr(key, "key", None) for key in path]
        if "project_out" in names and names[-1] in exits:
            assert change > 0, names
    after, metrics = step(state, task.frozen, batch)
    changes = jax.tree.map(farthest, before, after.params)
    assert all(change > 0 for change in jax.tree.leaves(changes))
    assert np.isfinite(float(metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, frozen, task.frozen)
    assert task.picture(after.params).shape[2] == 3


def test_what_is_trained_lies_beside_the_model_and_goes_on(shallow_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion.motion_config.FRAMES", FRAMES)
    root = tmp_path / "model"
    # So slowly that one sees where it began; and all trainings here are one program.
    settings = ["steps=1", "batch_size=1", "learning_rate=1e-9"]
    train_part("motion", root, settings, start=shallow_folder)
    for name in ("unet", "vae", "text_encoder"):
        [file] = (root / name).glob("*.safetensors")
        assert file.read_bytes() == (shallow_folder / name / file.name).read_bytes()
    config = adapter.load_config(root)
    assert config == motion_for(folder.load_config(root).denoiser)
    params = adapter.read_adapter(adapter.open_adapter(root, config), config)
    moved = [leaf for leaf in jax.tree.leaves(params) if leaf.dtype == np.float32]
    assert all(np.isfinite(leaf).all() for leaf in moved)
    assert "motion" in folder.load_card(root)
    copy_of(root, tmp_path / "copy", folder.load_config(root), "unet")
    assert "motion" not in folder.load_card(tmp_path / "copy")  # nor are the modules there
    train_part("motion", root, settings)  # the same again changes nothing
    again = adapter.read_adapter(adapter.open_adapter(root, config), config)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    known = random_params(params, 3)
    adapter.save_adapter(root / adapter.FOLDER, config, known)
    longer = tmp_path / "longer"
    train_part("motion", longer, settings, start=root)
    after = adapter.read_adapter(adapter.open_adapter(longer, config), config)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), after, known)
    assert folder.load_card(longer)["motion"]["start"]["model"] == "model"


def test_what_has_no_unet_cannot_learn_to_move(shallow_folder, tmp_path):
    place = tmp_path / "half"
    shutil.copytree(shallow_folder, place)
    (place / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="motion needs the unet of"):
        train_part("motion", place, ["steps=1"])


def test_modules_see_all_frames(task):
    """The loss of a clip reaches what a module makes of other frames."""
    module = MotionModule(8, 2, 4, FRAMES, rngs=nnx.Rngs(0))
    module.project_out.kernel[...] = jnp.eye(8)
    x = jax.random.normal(jax.random.key(0), (FRAMES, 2, 2, 8))
    grad = jax.jit(jax.grad(lambda x: module(x, FRAMES)[0].sum()))(x)
    assert all(np.abs(grad[i]).max() > 0 for i in range(FRAMES))
