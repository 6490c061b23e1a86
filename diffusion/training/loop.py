"""One training loop for every network: data in, gradients out, nothing lost on the way.

A run is a pure function of its configuration. The data of step i come from (seed, i) alone, and so
does all randomness of the step; so a run that is killed at any moment and started again goes on
from its last checkpoint and ends with the same weights as one that was never disturbed. Several
machines train as one (`diffusion.runtime.hosts`): each draws its part, and the first one writes.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from tqdm import tqdm

from diffusion.atomic_write import atomic_write
from diffusion.runtime import hosts
from diffusion.runtime.parameters import Params, cast
from diffusion.training.data import Batch, Draw, Steps, batches
from diffusion.weights.folder import write_json
from diffusion.weights.places import read_json

Metrics = dict[str, jax.Array]
Watch = Callable[[int, float, Params], None]  # step, seconds, (averaged) parameters


DTYPES = ("float32", "bfloat16")
OPTIMIZERS = ("adamw", "muon")
MUON_RMS = 0.2  # of a step, in learning rates: so that Adam's fit (Liu et al. 2025, section 2.2)
ANY_NUMBER = ("workers",)  # settings that change no weight
LARGEST = 1e6
BOUNDS = {  # least and most
    "steps": (1, 10**9), "batch_size": (1, 2**20), "accumulate": (1, 2**20), "shards": (1, 2**20),
    "log_every": (1, 10**9), "picture_every": (1, 10**9), "checkpoint_every": (1, 10**9),
    "warmup": (0, 10**9), "seed": (0, 2**32 - 1), "weight_decay": (0, 1000),
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    steps: int
    batch_size: int
    learning_rate: float  # the highest, reached after warm-up; falls to a hundredth on a cosine
    warmup: int = 100  # steps, but no more than half of all
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    optimizer: str = "adamw"  # or "muon"
    ema: float = 0.0  # how much of the average of the weights is kept each step; 0: no averaging
    seed: int = 0
    dtype: str = "float32"  # of networks and gradients: "bfloat16" is faster on accelerators
    accumulate: int = 1  # parts of a batch that are looked at one after the other, in less memory
    shards: int = 1  # parts of a batch that are drawn apart; a multiple of the machines
    workers: int | None = None  # processes that draw; 0: a thread; None: as many as pay
    log_every: int = 20  # steps
    picture_every: int = 500  # steps between sample sheets
    checkpoint_every: int = 200  # steps

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool):
                raise ValueError(f"{name} is {value}; give a number")
            if not value >= least:
                raise ValueError(f"{name} is {value}; give {least} or more")
            if not value <= most:
                raise ValueError(f"{name} is {value}; give {most} at most")
        for name in ("learning_rate", "clip"):
            if not 0.0 < (value := getattr(self, name)) <= LARGEST:
                raise ValueError(f"{name} is {value}; give more than 0, and {LARGEST:g} at most")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema is {self.ema}; give a share from 0 to below 1")
        for name, known in (("dtype", DTYPES), ("optimizer", OPTIMIZERS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        for name in ("accumulate", "shards"):
            if self.batch_size % getattr(self, name):
                raise ValueError(
                    f"batch_size {self.batch_size} does not divide by {name} {getattr(self, name)}"
                )
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}; give 0 or more")


@runtime_checkable
class Task(Protocol):
    """What is learnt: everything that the loop does not know.

    A task may also have any of these:

    - `optimizer(config)`: in place of the loop's own;
    - `anneal(done) -> Params`: what the loss finds in `frozen` besides, when that share of the
      steps is done;
    - `tend_every` and `tend(params, step) -> Params`: parameters that are set right every so many
      steps, in a way that no gradient shows. It must depend on its arguments alone.
    """

    name: str
    frozen: Params  # what the loss needs and does not train: an argument of the compiled step

    def init(self, seed: int) -> Params: ...

    @property
    def batch(self) -> Draw:
        """Draws the data of one step as host arrays, (generator, size) -> batch."""

    def loss(
        self, params: Params, frozen: Params, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]: ...

    def picture(self, params: Params) -> np.ndarray:
        """uint8 (H, W, 3): what the network can do now."""


class State(NamedTuple):
    step: jax.Array
    params: Params
    average: Params  # exponential moving average of the parameters (empty where ema is 0)
    optimizer: optax.OptState


Step = Callable[[State, Params, Batch], tuple[State, Metrics]]


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW or Muon with clipping, linear warm-up and cosine decay.

    AdamW is of Loshchilov & Hutter 2019, and Muon of Jordan et al. 2024: it makes the step of a
    kernel orthogonal, and leaves all else to AdamW. Weight decay is for matrices and kernels;
    biases and scales are left alone.
    """
    peak, warmup = config.learning_rate, min(config.warmup, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config.steps, peak / 100)
    decayed = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    decay = config.weight_decay
    if config.optimizer == "muon":
        rule = optax.contrib.muon(
            rate,
            adam_b2=0.99,
            weight_decay=decay,
            weight_decay_mask=decayed,
            adam_weight_decay=decay,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=MUON_RMS,
        )
    else:
        rule = optax.adamw(rate, b2=0.99, weight_decay=decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def _matrices(params: Params) -> Any:
    """What is a matrix from inputs to outputs: kernels. Of a convolution's, a window's values are
    the inputs."""

    def as_matrix(path: Any, value: jax.Array) -> Any:
        if path[-1].key != "kernel":
            return None
        inputs = tuple(range(value.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(inputs, (value.ndim - 1,))

    return jax.tree_util.tree_map_with_path(as_matrix, params)


def averaged(average: Params, params: Params, decay: float, step: jax.Array) -> Params:
    """The moving average after one more step; it forgets faster while the run is young."""
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: kept * a + (1.0 - kept) * p, average, params)


def make_step(task: Task, config: TrainConfig) -> Step:
    """The jitted training step. It gives up its input state's memory to the output state."""
    update = _optimizer(task, config).update
    anneal: Callable[[jax.Array], Params] = getattr(task, "anneal", lambda done: {})

    def loss(params: Params, frozen: Params, batch: Batch, key: jax.Array) -> Any:
        return task.loss(cast(params, config.dtype), cast(frozen, config.dtype), batch, key)

    look = accumulated(jax.value_and_grad(loss, has_aux=True), config.accumulate)

    def step(state: State, frozen: Params, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        frozen = frozen | anneal(state.step / config.steps)
        (loss, metrics), gradients = look(state.params, frozen, batch, key)
        changes, optimizer_state = update(gradients, state.optimizer, state.params)
        params: Params = optax.apply_updates(state.params, changes)
        average = averaged(state.average, params, config.ema, state.step) if config.ema else {}
        metrics = metrics | {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
        return State(state.step + 1, params, average, optimizer_state), metrics

    return jax.jit(step, donate_argnums=0)


def accumulated(look: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The means of what `look` finds in `count` parts of a batch, one after the other."""
    if count == 1:
        return look

    def means(params: Params, frozen: Params, batch: Batch, key: jax.Array) -> Any:
        parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)

        def add(total: Any, part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            found = look(params, frozen, part[1], jax.random.fold_in(key, part[0]))
            return jax.tree.map(jnp.add, total, found), None

        first = jax.tree.map(lambda x: x[0], parts)
        like = jax.eval_shape(look, params, frozen, first, key)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        total, _ = jax.lax.scan(add, nothing, (jnp.arange(count), parts))
        return jax.tree.map(lambda x: x / count, total)

    return means


def init_state(task: Task, config: TrainConfig, given: Params | None = None) -> State:
    params = task.init(config.seed) if given is None else jax.tree.map(jnp.copy, given)
    average = jax.tree.map(jnp.copy, params) if config.ema else {}
    beginning = _optimizer(task, config).init(params)
    return State(jnp.zeros((), jnp.int32), params, average, beginning)


def _optimizer(task: Task, config: TrainConfig) -> optax.GradientTransformation:
    return getattr(task, "optimizer", optimizer)(config)


def train(
    task: Task,
    config: TrainConfig,
    folder: Path,
    settings: dict[str, Any] | None = None,
    watch: Watch | None = None,
    given: Params | None = None,
) -> Params:
    """Train to the end, or go on to it from the last checkpoint in `folder`.

    The batch is shared out over all devices of all machines, the parameters are copied to each.
    Machines share `folder`.

    Args:
        folder: receives checkpoints/, log.jsonl, loss.png, samples/ and settings.json.
        settings: what else decides the result, to be held against what the folder remembers.
        watch: called with each sample sheet; the clock of the log stands still meanwhile.
        given: trained parameters to begin with, in place of random ones.

    Returns the averaged parameters (the plain ones where `config.ema` is 0).
    Raises ValueError where the folder holds a run with other settings, or where the batch does not
    divide by the number of devices, and FloatingPointError where the loss is not finite.
    """
    everywhere, shared_out = _shardings(config)
    folder.mkdir(parents=True, exist_ok=True)
    decides = {"train": _deciding(config)} | (settings or {})
    if hosts.writes():
        _check_settings(folder / "settings.json", decides)
    state = jax.device_put(init_state(task, config, given), everywhere)
    frozen = jax.device_put(task.frozen, everywhere)
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    manager = ocp.CheckpointManager(folder.absolute() / "checkpoints", options=options)
    if (latest := manager.latest_step()) is not None:
        state = manager.restore(latest, args=ocp.args.StandardRestore(state))
    start = int(state.step)
    log, step = Log(folder, task, start), make_step(task, config)
    tend_every = getattr(task, "tend_every", 0)
    window: list[Metrics] = []
    with _bar(task, config, start) as bar:
        for done, data in enumerate(_drawn(task, config, start), start + 1):
            state, metrics = step(state, frozen, _placed(data, shared_out))
            window.append(metrics)
            bar.update()
            last = done == config.steps
            if tend_every and done % tend_every == 0 and not last:
                tended = task.tend(jax.device_get(state.params), done)  # type: ignore[attr-defined]
                state = state._replace(params=jax.device_put(tended, everywhere))
            saves = last or done % config.checkpoint_every == 0
            if saves or done % config.log_every == 0:
                means = log.add(done, window)
                window.clear()
                bar.set_postfix({k: f"{v:.4g}" for k, v in means.items()})
            if last or done % config.picture_every == 0:
                # Off the mesh: all that a picture needs is on one device, and compiles once.
                shown = jax.device_put(jax.device_get(state.average or state.params))
                log.show(done, shown, watch)
            if saves:
                log.flush()
                manager.save(done, args=ocp.args.StandardSave(state))
    manager.close()
    return jax.device_get(state.average or state.params)


def _shardings(config: TrainConfig) -> tuple[NamedSharding, NamedSharding]:
    """Copied to all devices, and shared out over them by the first axis."""
    devices = np.array(jax.devices())
    size, machines = config.batch_size, jax.process_count()
    if size % (len(devices) * config.accumulate):
        parts = f"{len(devices)} devices" + f" x {config.accumulate}" * (config.accumulate > 1)
        raise ValueError(f"batch_size {size} does not divide by the {parts}")
    if config.shards % machines:
        raise ValueError(
            f"{machines} machines draw a batch in shards, and there are {config.shards}: "
            f"--set shards={machines}"
        )
    mesh = Mesh(devices, ("data",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def _bar(task: Task, config: TrainConfig, start: int) -> "tqdm[Any]":
    return tqdm(
        total=config.steps,
        initial=start,
        desc=task.name,
        unit="step",
        mininterval=1.0,
        disable=not hosts.writes(),
    )


def _drawn(task: Task, config: TrainConfig, start: int) -> Iterator[Batch]:
    """This machine's part of the data of each step."""
    count = config.shards // jax.process_count()
    mine = range(count * jax.process_index(), count * (jax.process_index() + 1))
    steps = Steps(task.batch, config.seed, config.steps, config.batch_size, config.shards, mine)
    return batches(steps, start, config.workers)


def _placed(batch: Batch, sharding: NamedSharding) -> Batch:
    """On the devices: all of the batch, or this machine's part of it on its own."""
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def _deciding(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights."""
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in ANY_NUMBER}


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Remember the settings of a new run; refuse to go on with a run that had others."""
    if not path.exists():
        write_json(path, settings)
        return
    before, now = read_json(path), json.loads(json.dumps(settings))
    if isinstance(run := before.get("train"), dict):  # a setting is new: it had its default
        fields = (entry for entry in dataclasses.fields(TrainConfig) if entry.name in now["train"])
        defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
        before["train"] = defaults | run
    if before != now:
        old, new = _entries(before), _entries(now)
        other = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        raise ValueError(
            f"{path.parent} holds a run with other settings ({', '.join(other)}; see {path.name}): "
            "give the same --start and --set to go on, name another --output, or remove that folder"
        )


def _entries(settings: dict[str, Any]) -> dict[str, Any]:
    """The entries of all sections by "section name", or "section" where it is no dictionary."""
    sections = ((s, e if isinstance(e, dict) else {"": e}) for s, e in settings.items())
    return {f"{s} {name}".strip(): value for s, entry in sections for name, value in entry.items()}


class Log:
    """The history of a run: log.jsonl (step, seconds, metrics), its curves, and sample sheets."""

    def __init__(self, folder: Path, task: Task, start: int):
        self.folder, self.task, self.path = folder, task, folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        # What was logged after the last checkpoint is lived through again.
        self.rows = [row for line in lines if (row := json.loads(line))["step"] <= start]
        self.began = time.monotonic() - (self.rows[-1]["seconds"] if self.rows else 0.0)

    def add(self, step: int, window: list[Metrics]) -> dict[str, float]:
        """Note the means of the last steps, and return them."""
        means = {name: float(np.mean([metrics[name] for metrics in window])) for name in window[0]}
        if not np.isfinite([means["loss"], means["gradient_norm"]]).all():
            raise FloatingPointError(
                f"{self.task.name}: loss or gradient is not finite at step {step}; "
                "start again with a lower learning_rate"
            )
        seconds = round(time.monotonic() - self.began, 2)
        self.rows.append({"step": step, "seconds": seconds} | means)
        return means

    def flush(self) -> None:
        if not hosts.writes():
            return
        with atomic_write(self.path) as draft:
            draft.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def show(self, step: int, params: Params, watch: Watch | None) -> None:
        if not hosts.writes():
            return
        self.plot()
        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        Image.fromarray(self.task.picture(params)).save(samples / f"{step:06d}.png")
        if watch is not None:
            asked = time.monotonic()
            watch(step, asked - self.began, params)
            self.began += time.monotonic() - asked

    def plot(self) -> None:
        from matplotlib.figure import Figure  # imported late: training starts without it

        if not self.rows:
            return
        names = [name for name in self.rows[-1] if name not in ("step", "seconds")]
        figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for axis, name in zip(axes, names, strict=True):
            values = [row[name] for row in self.rows]
            axis.plot([row["step"] for row in self.rows], values)
            scale = "log" if min(values) > 0 else "linear"
            axis.set(title=name.replace("_", " "), xlabel="step", yscale=scale)
        figure.suptitle(self.task.name)
        figure.savefig(self.folder / "loss.png", dpi=120)
