"""One training loop for every network: data in, gradients out, nothing lost on the way.

A run is a pure function of its configuration. The data of step i come from (seed, i) alone, and so
does all randomness of the step; so a run that is killed at any moment and started again goes on
from its last checkpoint and ends with the same weights as one that was never disturbed. Several
machines train as one (`diffusion.runtime.hosts`): each draws its part, and the first one writes.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from diffusion.runtime import hosts
from diffusion.runtime.parameters import Params, cast
from diffusion.training import checkpoints
from diffusion.training.data import Batch, Draw, Steps, batches
from diffusion.training.log import Log, Metrics, Watch
from diffusion.training.optimizer import optimizer
from diffusion.training.train_config import ANY_NUMBER, TrainConfig
from diffusion.weights.folder import write_json
from diffusion.weights.places import read_json


@runtime_checkable
class Task(Protocol):
    """What is learnt: everything that the loop does not know.

    A task may also have any of these:

    - `optimizer(config)`: in place of the loop's own;
    - `prepare(folder, seed)`: what it makes once, before the first batch, and keeps in the folder;
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


def averaged(average: Params, params: Params, decay: float, step: jax.Array) -> Params:
    """The moving average after one more step; it forgets faster while the run is young."""
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: kept * a + (1.0 - kept) * p, average, params)


def make_step(task: Task, config: TrainConfig) -> Step:
    """The jitted training step. It gives up its input state's memory to the output state."""
    update = _optimizer(task, config).update
    anneal: Callable[[jax.Array], Params] = getattr(task, "anneal", lambda done: {})

    def loss(params: Params, frozen: Params, batch: Batch, key: jax.Array) -> Any:
        with _products(config):
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


def _products(config: TrainConfig) -> AbstractContextManager[None]:
    """How the factors of matrix products are rounded; JAX's own setting, unless one is named."""
    named = config.products != "default"
    return jax.default_matmul_precision(config.products) if named else nullcontext()


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
    shardings = _shardings(config)  # says what is wrong before a folder is made
    folder.mkdir(parents=True, exist_ok=True)
    with checkpoints.alone(folder):
        return _train(task, config, folder, settings, watch, given, shardings)


def _train(
    task: Task,
    config: TrainConfig,
    folder: Path,
    settings: dict[str, Any] | None,
    watch: Watch | None,
    given: Params | None,
    shardings: tuple[NamedSharding, NamedSharding],
) -> Params:
    everywhere, shared_out = shardings
    decides = {"train": _deciding(config)} | (settings or {})
    if hosts.writes():
        _check_settings(folder / "settings.json", decides)
    state = jax.device_put(init_state(task, config, given), everywhere)
    frozen = jax.device_put(task.frozen, everywhere)
    manager = checkpoints.manager(folder)
    if (latest := manager.latest_step()) is not None:
        state = manager.restore(latest, args=ocp.args.StandardRestore(state))
    start = int(state.step)
    if hasattr(task, "prepare") and start < config.steps:
        task.prepare(folder, config.seed)
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
                checkpoints.save(manager, done, state)
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
