"""The perfect eye against Bayes' rule by hand, and against what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import VariancePreservingConfig
from diffusion.inspection.figures import ideal_denoiser as figures
from diffusion.process import VariancePreserving
from diffusion.process.ideal_denoiser import ideal_denoiser, posterior_mean, shares
from diffusion.process.samplers import table
from diffusion.process.sampling import finished, sample, stepper
from diffusion.process.schedule import add_noise

RNG = np.random.default_rng(0)
PICTURES = jnp.asarray(RNG.standard_normal((6, 3, 3, 2), np.float32))
CONFIG = VariancePreservingConfig()


def by_hand(z, ab):
    """In float64, one picture at a time."""
    logs = np.array(
        [
            -np.sum((z - np.sqrt(ab) * x) ** 2) / (2 * (1 - ab))
            for x in np.asarray(PICTURES, np.float64)
        ]
    )
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


@pytest.mark.parametrize("ab", [0.01, 0.3, 0.95])
def test_shares_are_those_of_bayes(ab):
    noise = jnp.asarray(RNG.standard_normal((2, 3, 3, 2), np.float32))
    bars = jnp.full(2, ab, jnp.float32)
    z = add_noise(PICTURES[:2], noise, bars)
    found = shares(z, bars, PICTURES)
    expected = np.stack([by_hand(np.asarray(one, np.float64), ab) for one in z])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    mean = posterior_mean(z, bars, PICTURES)
    np.testing.assert_allclose(mean, np.tensordot(expected, PICTURES, 1), atol=1e-3)


def test_no_other_answer_has_a_smaller_error():
    keys = jax.random.split(jax.random.key(0))
    x0 = PICTURES[jax.random.randint(keys[0], (4000,), 0, 6)]
    bars = jnp.full(4000, 0.1)
    z = add_noise(x0, jax.random.normal(keys[1], x0.shape), bars)
    best = posterior_mean(z, bars, PICTURES)
    error = lambda answer: float(jnp.square(answer - x0).mean())  # noqa: E731
    surest = PICTURES[shares(z, bars, PICTURES).argmax(axis=1)]
    assert error(best) < 0.95 * error(surest)
    assert error(best) < 0.95 * error(jnp.broadcast_to(PICTURES.mean(axis=0)[None], x0.shape))


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_samplers_arrive_at_pictures_of_the_set(kind):
    process = VariancePreserving(VariancePreservingConfig(prediction=kind))
    z = jax.random.normal(jax.random.key(3), (8, 3, 3, 2))
    keys = jax.random.split(jax.random.key(4), 8)
    advance = stepper(process, ideal_denoiser(process, PICTURES), keys)
    for name in ("ddim", "dpm++2m", "heun"):
        arrives_at_the_set(finished(sample(advance, z, table(name, process, 50))))


def arrives_at_the_set(found):
    gaps = jnp.abs(found[:, None] - PICTURES[None]).max(axis=(2, 3, 4))
    assert float(gaps.min(axis=1).max()) < 0.1
    assert len(set(np.asarray(gaps.argmin(axis=1)))) > 1  # not all at the same


def test_figures_of_the_perfect_eye():
    points = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    ways = figures.walk(points, CONFIG, "ddim", 20, count=5)
    assert ways.shape == (21, 5, 2)
    gaps = np.linalg.norm(ways[-1][:, None] - points[None], axis=-1)
    assert gaps.min(axis=1).max() < 0.1
    left, right = figures.paths(points, CONFIG, ("ddim", "euler"), 20, count=5).axes
    np.testing.assert_array_equal(left.lines[0].get_xdata(), ways[:, 0, 0])
    assert right.get_title() == "euler, 20 steps"
    (axis,) = figures.arrows(points, (0.5,), grid=5).axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), np.sqrt(0.5) * points)
    pictures = np.clip(np.asarray(RNG.standard_normal((4, 8, 8, 3)), np.float32), -1, 1)
    figure = figures.answers(pictures, 2, CONFIG, (1, 999))
    assert figure.axes[0].get_title() == "t = 1\n100% sure"
    answer = figure.axes[2].images[0].get_array()
    np.testing.assert_allclose(answer, (pictures[2] + 1) * 127.5, atol=1)
