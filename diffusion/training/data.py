"""Examples, drawn ahead of the training: the same in the same order, whoever draws them.

The examples of a step come from (seed, step) alone, so neither the number of processes that draw
them nor where a run was stopped changes any. Drawing takes longer than a step of an accelerator:
there processes of their own draw, here a thread.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

Batch = Any  # a pytree of arrays with the batch as first axis
Draw = Callable[[np.random.Generator, int], Batch]
AHEAD = 2  # batches that a process has ready
MOST_WORKERS = 8


@dataclass(frozen=True)
class Steps:
    """The batches of all steps; this host's part of each.

    Args:
        draw: the examples of a generator, `batch_size` / `shards` at a time. Other processes get a
            copy, so it must be a function that can be pickled.
        shards: in how many parts a batch is drawn, each from a generator of its own.
        mine: the parts that this host draws.
    """

    draw: Draw
    seed: int
    steps: int
    batch_size: int
    shards: int
    mine: range

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: Any) -> Batch:
        size = self.batch_size // self.shards
        parts = [self.draw(self._generator(int(step), shard), size) for shard in self.mine]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    def _generator(self, step: int, shard: int) -> np.random.Generator:
        key = [self.seed, step] if self.shards == 1 else [self.seed, step, shard]
        return np.random.default_rng(key)


def batches(steps: Steps, start: int, workers: int | None) -> Iterator[Batch]:
    """The batches from step `start` on.

    Args:
        workers: processes that draw; 0: a thread of this one; None: as many as pay.
    """
    if workers is None:
        cores = os.cpu_count() or 1
        workers = 0 if jax.default_backend() == "cpu" else min(MOST_WORKERS, max(1, cores - 1))
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
    ahead = grain.MapDataset.source(steps)[start:].to_iter_dataset(reading)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain asks for flags of its own, which nobody gave
        ahead = ahead.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
        )
    return iter(ahead)
