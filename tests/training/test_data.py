"""Examples are the same in the same order, whoever draws them, and wherever a run begins."""

import jax
import numpy as np
import pytest

from diffusion.datasets.garden import Scene, sample_scenes
from diffusion.training.data import Steps, batches


def steps(shards: int = 1, mine: range = range(1), count: int = 7) -> Steps:
    return Steps(sample_scenes, 3, count, 8, shards, mine)


def assert_same(one: list[Scene], other: list[Scene]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def everything() -> list[Scene]:
    return [sample_scenes(np.random.default_rng([3, step]), 8) for step in range(7)]


@pytest.mark.parametrize(("start", "workers"), [(0, 0), (3, 0), (0, 1), (2, 3), (7, 0)])
def test_examples_depend_on_seed_and_step_alone(everything, start, workers):
    found = list(batches(steps(), start, workers))
    assert_same(found, everything[start:])
    assert all(type(batch) is Scene for batch in found)


def test_on_a_cpu_a_thread_draws(everything, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("grain.MultiprocessingOptions", None)  # would fail
    assert_same(list(batches(steps(), 5, None)), everything[5:])


def test_shards_are_the_parts_of_a_batch():
    whole = list(batches(steps(4, range(4)), 0, 0))
    parts = [list(batches(steps(4, range(i, i + 2)), 0, 0)) for i in (0, 2)]
    glued = [
        Scene(*(np.concatenate(fields) for fields in zip(*pair, strict=True)))
        for pair in zip(*parts, strict=True)
    ]
    assert_same(whole, glued)
    assert len({batch.layout.tobytes() for part in parts for batch in part}) == 14
    first = sample_scenes(np.random.default_rng([3, 0, 2]), 2)
    np.testing.assert_array_equal(whole[0].layout[4:6], first.layout)
