"""The judge: sees, learns, is kept, and says clearly when it is not there."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.cli import main
from diffusion.datasets.garden import (
    ATTRIBUTES,
    Clips,
    is_held_out,
    render,
    render_clips,
    sample_clips,
    sample_scenes,
)
from diffusion.datasets.garden.motion import CHANGES, MOTIONS, STILL
from diffusion.evaluation import judge as judges
from diffusion.evaluation import judge_training
from diffusion.evaluation.judge import BATCH, FEATURES, FILE, Judge, TrainedJudge, load, save
from diffusion.evaluation.judge_training import (
    JudgeTask,
    Moments,
    blurred,
    draw,
    preset,
    truth,
    worn,
)
from diffusion.evaluation.scores import own_accuracy
from diffusion.images import to_uint8
from diffusion.runtime.parameters import split
from diffusion.training.loop import init_state, make_step
from diffusion.training.train_config import TrainConfig
from tests.training.conftest import stripes


@pytest.fixture(scope="module")
def params():
    return split(Judge(rngs=nnx.Rngs(0)))[1]


@pytest.fixture
def small(monkeypatch):
    """Judges of two levels who look at 16x16 pixels of stripes."""
    monkeypatch.setattr(judges, "WIDTHS", (8, 8))
    monkeypatch.setattr(judges, "SIZE", 16)
    monkeypatch.setattr(judge_training, "SIZE", 16)
    monkeypatch.setattr(
        judge_training, "render_moments", lambda clips, time, size: stripes(clips.scenes, size)
    )


def still(scenes):
    """A batch in which nothing happens."""
    count = len(scenes.house)
    return Moments(Clips(scenes, np.full(count, STILL)), np.zeros(count, np.float32))


def test_it_answers_for_every_attribute_in_pictures_of_any_size(params):
    judge = Judge(rngs=nnx.Rngs(0))
    for size in (16, 64):
        answers = judge(jnp.zeros((2, size, size, 3)))
        assert {name: x.shape for name, x in answers.items()} == {
            name: (2, len(values)) for name, values in ATTRIBUTES.items()
        }
    assert judge.features(jnp.zeros((1, 64, 64, 3))).shape == (1, FEATURES)


def test_a_verdict_is_the_same_however_many_pictures_there_are(params):
    pictures = to_uint8(render(sample_scenes(np.random.default_rng(0), 5), 64))
    pictures = np.concatenate([pictures] * 14)[: BATCH + 3]
    judge = TrainedJudge(params)
    whole, few = judge(pictures), judge(pictures[-3:])
    assert all(len(x) == BATCH + 3 for x in whole.values.values())
    np.testing.assert_allclose(whole.features[-3:], few.features, atol=1e-5)
    assert np.array_equal(whole.values["house"][-3:], few.values["house"])


def test_it_comes_back_from_its_file(tmp_path, params):
    save(tmp_path, params)
    again = load(tmp_path).params
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, again))


def test_the_one_that_ships_knows_fresh_drawings_and_each_attribute():
    scenes = sample_scenes(np.random.default_rng(0), 128)
    verdict = load()(to_uint8(render(scenes, 64)))
    right = own_accuracy(scenes, verdict)
    assert min(found.share for found in right.values()) >= 0.95


def test_a_missing_or_foreign_judge_is_named(tmp_path, params):
    with pytest.raises(FileNotFoundError, match=r"judge.safetensors is missing; .*train judge"):
        load(tmp_path)
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"judge.safetensors is damaged"):
        load(tmp_path)
    other = {**params, "summary": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}
    save(tmp_path, other)
    with pytest.raises(ValueError, match="wrong shape: summary"):
        load(tmp_path)


def test_the_one_that_ships_knows_frames_of_clips():
    clips = sample_clips(np.random.default_rng(5), 24)
    frames = np.asarray(to_uint8(render_clips(clips, 4, 64)))
    seen = load()(frames.reshape(-1, 64, 64, 3)).values
    for name, values in seen.items():
        both = [truth(Moments(clips, np.full(24, time, np.float32)), name) for time in (0, 1)]
        right = [
            (values.reshape(24, 4)[:, frame] == true)[np.asarray(counts)]
            for frame, (true, counts) in zip((0, -1), both, strict=True)
        ]
        assert np.concatenate(right).mean() >= 0.9, name


def test_its_scenes_are_its_own_and_half_of_them_are_frames_of_clips():
    batch = draw(np.random.default_rng(0), 100)
    stands = batch.clips.motion == STILL
    assert 50 <= stands.sum() < 70  # in a fifth of the clips nothing happens
    assert is_held_out(batch.clips.scenes).sum() == 5
    assert set(np.unique(batch.time * 15).round()) <= set(range(16))
    assert len(np.unique(batch.time)) > 10
    assert preset().seed not in (0, 2_000_003)


def test_what_changes_counts_at_both_ends_alone():
    clips = sample_clips(np.random.default_rng(0), 60, 0.0)
    names = [list(MOTIONS)[position] for position in clips.motion]
    truths = {time: {name: truth(Moments(clips, np.full(60, time, np.float32)), name)
                     for name in ("sky", "light", "season", "weather", "house")}
              for time in (0.0, 0.4, 1.0)}  # fmt: skip
    for i, motion in enumerate(names):
        changing, _, *ends = CHANGES.get(motion, ("", "", ""))
        for time, found in truths.items():
            for name, (values, counts) in found.items():
                if name == changing:
                    assert counts[i] == (time != 0.4)
                    if time != 0.4:
                        assert ATTRIBUTES[name][values[i]] == ends[int(time)]
                else:
                    assert counts[i] == ((changing, name) != ("sky", "light"))
                    assert values[i] == getattr(clips.scenes, name)[i]


def test_what_does_not_grow_is_not_asked_for(small):
    task = JudgeTask()
    params, key = task.init(0), jax.random.key(0)
    scenes = sample_scenes(np.random.default_rng(0), 16)
    loss = jax.jit(task.loss)
    told = loss(params, {}, still(scenes), key)[0]
    for name, amount in (("tree_kind", "trees"), ("flowers", "flower_amount")):
        there = getattr(scenes, amount) > 0
        changed = (getattr(scenes, name) + 1) % 4
        nowhere = scenes._replace(**{name: np.where(there, getattr(scenes, name), changed)})
        assert loss(params, {}, still(nowhere), key)[0] == told
        assert loss(params, {}, still(scenes._replace(**{name: changed})), key)[0] != told


def test_blur_keeps_the_mean_and_softens_as_a_gaussian_does():
    points = jnp.zeros((2, 17, 17, 1)).at[:, 8, 8].set(1.0)
    soft = np.asarray(blurred(points, jnp.array([0.0, 1.0])))[..., 0]
    np.testing.assert_allclose(soft[0], points[0, ..., 0], atol=1e-6)
    assert soft[1].sum() == pytest.approx(1.0, abs=1e-5)
    offsets = np.arange(17) - 8
    spread = (soft[1].sum(axis=0) * offsets**2).sum()
    assert spread == pytest.approx(1.0, abs=0.01)


def test_about_half_of_the_pictures_are_worn_and_stay_pictures():
    images = render(sample_scenes(np.random.default_rng(0), 40), 16)
    changed = worn(images, jax.random.key(0))
    touched = np.any(np.asarray(changed != images), axis=(1, 2, 3))
    assert 10 < touched.sum() < 30
    assert np.abs(changed).max() <= 1.0


def test_the_task_learns_a_batch_by_heart(small):
    task, config = JudgeTask(), TrainConfig(1000, 8, 1e-2, warmup=0)
    batch = task.batch(np.random.default_rng(0), 8)
    step, state, losses = make_step(task, config), init_state(task, config), []
    for _ in range(60):
        state, metrics = step(state._replace(step=jnp.int32(0)), task.frozen, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0]
    assert 0 <= float(metrics["wrong"]) < 0.3
    sheet = task.picture(state.params)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3


def test_the_command_trains_a_judge(small, tmp_path):
    command = ["train", "judge", "--output", str(tmp_path), "--set", "steps=1", "batch_size=2"]
    assert main(command) == 0
    assert len(load(tmp_path)(np.zeros((1, 16, 16, 3), np.uint8)).values["house"]) == 1
    assert json.loads((tmp_path / "training.json").read_text())["judge"]["steps"] == 1
