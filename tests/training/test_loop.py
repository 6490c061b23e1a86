"""The loop: the same end whatever happens on the way. As a script, this file is what is killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from diffusion.config import ModelConfig, UNetConfig, VAEConfig
from diffusion.datasets.garden import Scene
from diffusion.runtime.parameters import Params
from diffusion.training import checkpoints, log, loop
from diffusion.training.autoencoder import AutoencoderTask
from diffusion.training.loop import State, averaged, init_state, train
from diffusion.training.optimizer import optimizer
from diffusion.training.train_config import TrainConfig
from tests.training.conftest import striped

REPOSITORY = Path(loop.__file__).parents[2]
SLOPES = np.array([[1.0], [-2.0], [0.5]], np.float32)
CONFIG = TrainConfig(
    steps=10, batch_size=8, learning_rate=0.1, warmup=2, ema=0.9, seed=3,
    log_every=2, picture_every=4, checkpoint_every=3,
)  # fmt: skip
NETWORK_CONFIG = TrainConfig(4, 8, 1e-3, warmup=1, ema=0.9, log_every=1, checkpoint_every=2)


class Line:
    """Find the slopes and the offset of a linear function from noisy points."""

    name = "line"
    frozen: ClassVar[Params] = {}

    def __eq__(self, other: object) -> bool:
        """One is like the other, so they share a compiled step."""
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def init(self, seed: int) -> Params:
        slopes = jax.random.normal(jax.random.key(seed), (3, 1))
        return {"slopes": slopes, "offset": jnp.zeros(1)}

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(size, 3)).astype(np.float32)
        return {"x": x, "y": x @ SLOPES + np.float32(0.7)}

    def loss(self, params, frozen, batch, key):
        x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
        error = x @ params["slopes"] + params["offset"][None] - batch["y"]
        return jnp.mean(error**2), {"worst": jnp.max(jnp.abs(error))}

    def picture(self, params: Params) -> np.ndarray:
        return np.full((4, 6, 3), 9, np.uint8)


class Network(AutoencoderTask):
    """A VAE of one level on pictures of 8x8."""

    __hash__ = object.__hash__  # one has one compiled step

    def __init__(self) -> None:
        super().__init__(
            ModelConfig(
                image_size=8,
                autoencoder=VAEConfig(block_out_channels=(4,), layers_per_block=1, norm_groups=2),
                denoiser=UNetConfig(block_out_channels=(8,), attention=(True,), heads=(2,)),
            )
        )


@pytest.fixture(scope="module", autouse=True)
def shared_steps() -> Iterator[None]:
    """Runs of the same task and settings share a compiled step, also where one goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", cache(loop.make_step))
        yield


def final_state(task: loop.Task, config: TrainConfig, folder: Path) -> State:
    """Parameters, average and optimizer of the last checkpoint."""
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        like = ocp.args.StandardRestore(init_state(task, config))
        return manager.restore(manager.latest_step(), args=like)


def log_of(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert all(row.pop("seconds") >= 0 for row in rows)
    return rows


def assert_same(left: object, right: object) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take longer than all else; only `undisturbed`, which runs before this, has them."""
    monkeypatch.setattr(loop.Log, "plot", lambda *_: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train(Line(), CONFIG, folder)


def test_a_run_leaves_log_curves_samples_and_settings(undisturbed):
    folder, _ = undisturbed
    rows = log_of(folder)
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 8, 9, 10]
    assert rows[0].keys() == {"step", "loss", "worst", "gradient_norm"}
    assert rows[-1]["loss"] < rows[0]["loss"]
    with Image.open(folder / "loss.png") as curves:
        assert curves.width > 100
    samples = sorted(path.name for path in (folder / "samples").iterdir())
    assert samples == ["000004.png", "000008.png", "000010.png"]
    with Image.open(folder / "samples" / samples[-1]) as sample:
        assert np.asarray(sample).shape == (4, 6, 3)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings == {"train": loop._deciding(CONFIG)}


def test_the_toy_task_is_learnt(tmp_path):
    config = dataclasses.replace(CONFIG, steps=150, ema=0.0, checkpoint_every=1000)
    params = train(Line(), config, tmp_path)
    np.testing.assert_allclose(params["slopes"], SLOPES, atol=0.1)
    np.testing.assert_allclose(params["offset"], [0.7], atol=0.1)


def test_the_data_of_a_step_depend_on_seed_and_step_alone(undisturbed, tmp_path):
    drawn: list[np.ndarray] = []

    class Watched(Line):
        def batch(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
            drawn.append(super().batch(rng, size)["x"])
            return super().batch(rng, size)

    train(Watched(), CONFIG, tmp_path)
    for step, x in enumerate(drawn[: CONFIG.steps]):
        expected = Line().batch(np.random.default_rng([CONFIG.seed, step]), CONFIG.batch_size)
        np.testing.assert_array_equal(x, expected["x"])
    assert len({x.tobytes() for x in drawn}) == len(drawn)


MOMENTS = [
    *("batch 0", "batch 2", "batch 3", "batch 8", "picture 1", "picture 3"),
    *("flush 2", "save 1", "save 2", "save 4"),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_run_ends_as_an_undisturbed_one(moment, undisturbed, tmp_path, monkeypatch):
    what, number = moment.split()
    owner, name = {
        "batch": (Line, "batch"),
        "picture": (Line, "picture"),
        "flush": (loop.Log, "flush"),
        "save": (ocp.CheckpointManager, "save"),
    }[what]
    original, calls = getattr(owner, name), iter(range(1000))

    def interrupted(*arguments, **options):
        if next(calls) == int(number) - (what != "batch"):
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(Line(), CONFIG, tmp_path)
    assert_resumed_like(undisturbed, tmp_path, Line(), CONFIG)


def assert_resumed_like(
    undisturbed: tuple[Path, Params], folder: Path, task: loop.Task, config: TrainConfig
) -> None:
    expected_folder, expected = undisturbed
    assert_same(train(task, config, folder), expected)
    assert_same(final_state(task, config, folder), final_state(task, config, expected_folder))
    assert log_of(folder) == log_of(expected_folder)


@pytest.fixture(scope="module")
def network(
    quick_pictures: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Network, Path, Params]:
    """A VAE that was trained for four steps on one device."""
    task, folder = Network(), tmp_path_factory.mktemp("network")
    return task, folder, train(task, NETWORK_CONFIG, folder)


@pytest.mark.slow  # test_recipe.py goes on with real networks; here all is the same, bit for bit
def test_a_real_network_goes_on_bit_for_bit(network, tmp_path, monkeypatch):
    task, folder, expected = network
    batch = task.batch

    def stopped(rng: np.random.Generator, size: int) -> Scene:
        if rng.bit_generator.seed_seq.entropy == [NETWORK_CONFIG.seed, 3]:
            raise KeyboardInterrupt
        return batch(rng, size)

    with monkeypatch.context() as patch:
        patch.setattr(task, "batch", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(task, NETWORK_CONFIG, tmp_path)
    assert_resumed_like((folder, expected), tmp_path, task, NETWORK_CONFIG)


def test_a_finished_run_is_left_as_it_is(undisturbed, tmp_path):
    folder, expected = undisturbed
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert_same(train(Line(), CONFIG, folder), expected)
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert after == before


def start(folder: Path, mode: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), mode],
        # Compiled as here (see conftest.py): another level of optimisation rounds otherwise.
        env=os.environ
        | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_a_run_killed_with_sigkill_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    """Killed while its second checkpoint is being written."""
    folder = tmp_path / "killed"
    victim = start(folder, "kill")
    said, _ = victim.communicate()
    assert victim.returncode == -signal.SIGKILL, said
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        assert manager.latest_step() == CONFIG.checkpoint_every
    assert any(path.name.startswith("6.") for path in (folder / "checkpoints").iterdir())
    assert_resumed_like(undisturbed, folder, Line(), CONFIG)


def train_and_be_killed(folder: Path) -> None:
    rename = os.rename

    def killed(source: str, target: str, **options: Any) -> None:
        """The last that is done for a checkpoint is to give it its name."""
        if os.path.basename(target) == "6":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **options)

    os.rename = killed
    train(Line(), CONFIG, folder)


@pytest.mark.parametrize("change", [{"learning_rate": 0.2}, {"steps": 11}, {"seed": 4}])
def test_a_folder_with_other_settings_is_refused(undisturbed, change):
    folder, _ = undisturbed
    with pytest.raises(ValueError, match="other settings"):
        train(Line(), dataclasses.replace(CONFIG, **change), folder)
    with pytest.raises(ValueError, match=r"settings\.json"):
        train(Line(), CONFIG, folder, {"model": {"width": 8}})


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"log_every": 0},
        {"picture_every": 0},
        {"checkpoint_every": -1},
        {"ema": 1.0},
    ],
)
def test_settings_that_make_no_sense_are_named(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"{name} is {change[name]}; give"):
        dataclasses.replace(CONFIG, **change)


def test_a_sheet_may_come_before_the_first_line_of_the_log(tmp_path):
    train(Line(), dataclasses.replace(CONFIG, picture_every=1), tmp_path)
    assert (tmp_path / "samples" / "000001.png").exists()


def test_the_watch_sees_every_sheet_and_the_clock_stands_still(tmp_path, monkeypatch):
    now = 0.0
    seen = []

    class Counting(Line):
        def picture(self, params: Params) -> np.ndarray:
            nonlocal now
            now += 1.0  # of the training's time
            return super().picture(params)

    def watch(step: int, seconds: float, params: Params) -> None:
        nonlocal now
        seen.append((step, seconds))
        assert params["slopes"].shape == (3, 1)
        assert not params["slopes"].committed  # to the devices of the training
        now += 100.0

    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now))
    train(Counting(), CONFIG, tmp_path, watch=watch)
    assert seen == [(4, 1.0), (8, 2.0), (10, 3.0)]
    rows = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["seconds"] for row in rows][-1] == 2.0


def test_given_parameters_are_where_training_begins(tmp_path):
    given = {"slopes": jnp.asarray(SLOPES), "offset": jnp.full(1, 0.7)}
    still = dataclasses.replace(CONFIG, learning_rate=1e-9, weight_decay=0.0)
    found = train(Line(), still, tmp_path, given=given)
    np.testing.assert_allclose(found["slopes"], SLOPES, atol=1e-6)
    np.testing.assert_array_equal(given["slopes"], SLOPES)  # the caller's arrays are left alone


@pytest.mark.parametrize("quantity", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, quantity):
    class Breaking(Line):
        def batch(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
            broken = rng.bit_generator.seed_seq.entropy[1] == 4
            return super().batch(rng, size) | {"zero": np.full(size, 0.0 if broken else 1.0)}

        def loss(self, params, frozen, batch, key):
            loss, metrics = super().loss(params, frozen, batch, key)
            zero = batch["zero"][0]
            if quantity == "loss":
                return loss / zero, metrics
            # The square root of nothing: a finite value with an infinite slope.
            return loss + jnp.sqrt(zero * (1 + params["offset"][0] ** 2)), metrics

    config = dataclasses.replace(CONFIG, steps=12, log_every=4, checkpoint_every=2)
    with pytest.raises(FloatingPointError, match=r"line: .* not finite at step 6"):
        train(Breaking(), config, tmp_path)
    kept = final_state(Line(), config, tmp_path)
    assert int(kept.step) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))


def test_a_batch_that_devices_cannot_share_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(jax, "devices", lambda: [jax.local_devices()[0]] * 3)
    with pytest.raises(ValueError, match="batch_size 8 does not divide by the 3 devices"):
        train(Line(), CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_average_has_its_closed_form():
    """With constant parameters p, n steps leave p + (a - p) * the product of the decays."""
    start, constant = {"w": jnp.array([1.0, -3.0])}, {"w": jnp.array([5.0, 0.5])}
    average, product = start, 1.0
    for step in range(40):
        average = averaged(average, constant, 0.7, jnp.int32(step))
        product *= min(0.7, (1 + step) / (10 + step))  # 0.1, 2/11, 3/12, ... and 0.7 from step 20
    expected = constant["w"] + (start["w"] - constant["w"]) * product
    np.testing.assert_allclose(average["w"], expected, rtol=1e-6)
    one = averaged(start, constant, 0.7, jnp.int32(0))
    np.testing.assert_allclose(one["w"], [0.1 * 1 + 0.9 * 5, 0.1 * -3 + 0.9 * 0.5], rtol=1e-6)


def test_train_returns_the_average_of_what_it_passed(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, steps=3, warmup=0, checkpoint_every=1)
    passed: list[State] = []
    save = ocp.CheckpointManager.save

    def watched(self, step, args):
        passed.append(jax.device_get(args.item))
        return save(self, step, args=args)

    monkeypatch.setattr(ocp.CheckpointManager, "save", watched)
    result = train(Line(), config, tmp_path)
    expected = np.asarray(Line().init(config.seed)["slopes"])
    for state, decay in zip(passed, (0.1, 2 / 11, 0.25), strict=True):
        expected = decay * expected + (1 - decay) * state.params["slopes"]
    np.testing.assert_allclose(result["slopes"], expected, rtol=1e-6)
    assert not np.allclose(result["slopes"], passed[-1].params["slopes"], rtol=1e-3)
    plain = train(Line(), dataclasses.replace(config, ema=0.0), tmp_path / "plain")
    assert_same(plain, passed[2].params)


@pytest.mark.parametrize("count", [2, 8])
def test_parts_of_a_batch_learn_what_the_whole_learns(undisturbed, tmp_path, count):
    class Exact(Line):
        def loss(self, params, frozen, batch, key):
            error = batch["x"] @ params["slopes"] + params["offset"][None] - batch["y"]
            return jnp.mean(error**2), {"worst": jnp.max(jnp.abs(error))}

    whole = train(Exact(), CONFIG, tmp_path / "whole")
    config = dataclasses.replace(CONFIG, accumulate=count)
    parts = train(Exact(), config, tmp_path / "parts")
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5, atol=1e-6)
    assert loop.accumulated(len, 1) is len
    rows = log_of(tmp_path / "whole"), log_of(tmp_path / "parts")
    assert [row["loss"] for row in rows[0]] == pytest.approx([row["loss"] for row in rows[1]])


def test_bfloat16_sees_half_the_bits_and_keeps_all(tmp_path):
    seen = set()

    class Watched(Line):
        def loss(self, params, frozen, batch, key):
            seen.update(leaf.dtype.name for leaf in jax.tree.leaves(params))
            loss, metrics = super().loss(params, frozen, batch, key)
            return loss.astype(jnp.float32), metrics

    config = dataclasses.replace(CONFIG, steps=150, dtype="bfloat16")
    params = train(Watched(), config, tmp_path)
    assert seen == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    np.testing.assert_allclose(params["slopes"], SLOPES, atol=0.15)


def test_products_are_rounded_where_the_training_asks_for_it(tmp_path):
    asked = []

    class Asks(Line):
        def loss(self, params, frozen, batch, key):
            asked.append(jax.config.jax_default_matmul_precision)
            return super().loss(params, frozen, batch, key)

    for products in ("default", "bfloat16"):
        config = dataclasses.replace(CONFIG, steps=2, products=products)
        with jax.default_matmul_precision("highest"):  # as in JAX_DEFAULT_MATMUL_PRECISION
            train(Asks(), config, tmp_path / products)
    assert set(asked) == {"highest", "bfloat16"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"products": "half"}, "products is 'half'; choose one of default, bfloat16, float32"),
        ({"dtype": "float64"}, "dtype is 'float64'; choose one of float32, bfloat16"),
        ({"accumulate": 3}, "batch_size 8 does not divide by accumulate 3"),
        ({"shards": 5}, "batch_size 8 does not divide by shards 5"),
        ({"workers": -1}, "workers is -1; give 0 or more"),
        ({"steps": True}, "steps is True; give a number"),
        ({"steps": 10**18}, "steps is 1000000000000000000; give 1000000000 at most"),
        ({"batch_size": 10**13}, "batch_size is 10000000000000; give 1048576 at most"),
        ({"seed": 10**20}, "seed is 100000000000000000000; give 4294967295 at most"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; give more than 0, and 1e.06"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give more than 0"),
        ({"weight_decay": float("nan")}, "weight_decay is nan; give 0 or more"),
    ],
)
def test_what_does_not_divide_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_a_run_goes_on_with_other_workers_and_settings_that_are_new(undisturbed, tmp_path):
    folder, expected = undisturbed
    assert_same(train(Line(), dataclasses.replace(CONFIG, workers=0), folder), expected)
    settings = json.loads((folder / "settings.json").read_text())
    for name in ("dtype", "accumulate", "shards"):  # of which an older run knew nothing
        del settings["train"][name]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert_same(train(Line(), CONFIG, tmp_path), expected)
    with pytest.raises(ValueError, match=r"other settings .train accumulate"):
        train(Line(), dataclasses.replace(CONFIG, accumulate=2), tmp_path)


def test_weight_decay_leaves_biases_and_scales_alone():
    config = dataclasses.replace(CONFIG, weight_decay=0.5, warmup=0, learning_rate=0.1)
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0), "scale": jnp.array(3.0)}
    rule = optimizer(config)
    still = jax.tree.map(jnp.zeros_like, params)
    changes, _ = jax.jit(rule.update)(still, rule.init(params), params)
    np.testing.assert_allclose(changes["kernel"], np.full((2, 2), -0.1 * 0.5 * 3.0), rtol=1e-6)
    np.testing.assert_array_equal(changes["bias"], np.zeros(2))
    np.testing.assert_array_equal(changes["scale"], 0.0)


def test_gradients_are_clipped_and_the_rate_rises_and_falls():
    config = dataclasses.replace(CONFIG, steps=100, warmup=10, clip=1.0, weight_decay=0.0)
    params = {"w": jnp.zeros((1, 1))}

    def changes(scale: float) -> list[float]:
        """Adam's step under a constant gradient is the learning rate itself."""
        rule = optimizer(config)
        state, found, update = rule.init(params), [], jax.jit(rule.update)
        for _ in range(100):
            change, state = update({"w": jnp.full((1, 1), scale)}, state, params)
            found.append(-float(change["w"][0, 0]))
        return found

    rates = changes(1.0)
    assert rates[0] == 0.0
    np.testing.assert_allclose(rates[5], 0.05, rtol=1e-4)
    np.testing.assert_allclose(rates[10], 0.1, rtol=1e-4)
    np.testing.assert_allclose(rates[55], 0.1 * (0.99 * 0.5 + 0.01), rtol=1e-4)
    assert rates[99] == pytest.approx(0.001, rel=0.05)
    rule = optimizer(config)
    _, clipped = rule.update({"w": jnp.full((1, 1), 50.0)}, rule.init(params), params)
    first_moment = next(leaf for leaf in jax.tree.leaves(clipped) if leaf.shape == (1, 1))
    np.testing.assert_allclose(first_moment, [[0.1]], rtol=1e-5)  # (1 - b1) * the clipped gradient


@pytest.mark.parametrize("kind", ["line", pytest.param("network", marks=pytest.mark.slow)])
def test_eight_devices_share_a_batch_and_learn_the_same(kind, request, tmp_path):
    child = start(
        tmp_path,
        kind,
        XLA_FLAGS="--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    )
    said, _ = child.communicate()
    assert child.returncode == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {"devices": 8, "examples": 8, "on_each": [1] * 8}

    if kind == "line":
        one, begin = request.getfixturevalue("undisturbed")[1], Line().init(CONFIG.seed)
    else:
        task, _, one = request.getfixturevalue("network")
        begin = task.init(NETWORK_CONFIG.seed)
    moved, apart = [], []
    with np.load(tmp_path / "params.npz") as eight:
        leaves = jax.tree.leaves(one), eight.values(), jax.tree.leaves(begin)
        for a, b, c in zip(*leaves, strict=True):
            moved.append((a - c).ravel())
            apart.append((a - b).ravel())
    moved, apart = np.concatenate(moved), np.concatenate(apart)
    # Adam divides a gradient by its own size, so where a gradient is nothing but rounding (a bias
    # before a normalisation) any direction is right; such values are few.
    assert np.median(np.abs(apart)) < 1e-5 * np.median(np.abs(moved)) + 1e-8
    assert np.linalg.norm(apart) < 0.05 * np.linalg.norm(moved)


def train_on_all_devices(kind: type[Line | Network], config: TrainConfig, folder: Path) -> None:
    """Train, and write down how a batch lay on the devices."""
    report = {}

    class Watched(kind):
        def loss(self, params, frozen, batch, key):
            one = jax.tree.leaves(batch)[0]

            def note(sharding: jax.sharding.Sharding) -> None:
                places = sharding.devices_indices_map(one.shape)
                each = [len(range(*index[0].indices(8))) for index in places.values()]
                report.update(devices=len(places), examples=len(one), on_each=each)

            jax.debug.inspect_array_sharding(one, callback=note)
            return super().loss(params, frozen, batch, key)

    params = train(Watched(), config, folder)
    (folder / "report.json").write_text(json.dumps(report))
    np.savez(folder / "params.npz", *jax.tree.leaves(params))


MODES: dict[str, Callable[[Path], object]] = {
    "kill": train_and_be_killed,
    "line": partial(train_on_all_devices, Line, CONFIG),
    "network": partial(train_on_all_devices, Network, NETWORK_CONFIG),
}

if __name__ == "__main__":
    with striped():
        MODES[sys.argv[2]](Path(sys.argv[1]))


def test_a_disk_that_fills_up_in_a_checkpoint_loses_nothing(
    undisturbed, tmp_path, monkeypatch, capfd
):
    write = ocp.CheckpointManager.save

    def full(manager, step, **rest):
        if step > 5:
            reason = 'RESOURCE_EXHAUSTED: Error writing "a": No space left on device [code]'
            thread = threading.Thread(target=lambda: (_ for _ in ()).throw(ValueError(reason)))
            thread.start()
            thread.join()  # whose own traceback nobody wants to see
            raise ValueError(reason)
        return write(manager, step, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(OSError, match=r"of step \d .* make room .*\(No space left on device\)"):
            train(Line(), CONFIG, tmp_path)
    assert "Traceback" not in capfd.readouterr().err
    assert_same(train(Line(), CONFIG, tmp_path), undisturbed[1])


def test_one_training_a_folder(tmp_path):
    with checkpoints.alone(tmp_path), pytest.raises(ValueError, match="in use by another training"):
        train(Line(), CONFIG, tmp_path)
    train(Line(), CONFIG, tmp_path)
