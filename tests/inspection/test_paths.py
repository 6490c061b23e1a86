"""Ways from noise to picture, in numbers and figures, drawn by the tiny model."""

import numpy as np
import pytest

from diffusion.config import RectifiedFlowConfig
from diffusion.inspection import paths as numbers
from diffusion.inspection.figures import paths
from diffusion.inspection.trace import trace
from diffusion.process.flow import RectifiedFlow

FLOW = RectifiedFlow(RectifiedFlowConfig())


@pytest.fixture(scope="module")
def run(artist):
    return trace(artist, "a red house", seed=1, steps=3, sampler="ddim", spacing="trailing")


def shown(figure):
    return [image.get_array() for axis in figure.axes for image in axis.images]


def test_a_detour_is_a_length_beside_a_distance():
    corner = np.array([[[0, 0], [0, 0]], [[3, 0], [1, 1]], [[3, 4], [2, 2]]], float)
    np.testing.assert_allclose(numbers.detour(corner), [7 / 5, 1.0])


def test_the_way_is_a_mixture_of_belief_and_noise(run):
    """In the scale of a flow the weights sum to 1, whatever the process is."""
    shares, way = numbers.noise_shares(run), numbers.way(run)
    assert way.shape == (4, *run.steps[0].x_t.shape)
    assert shares[0] > 0.9
    assert (np.diff(shares) < 0).all()
    alpha, sigma = run.artist.process.levels(np.asarray([run.steps[1].t]))
    noise = (np.asarray(run.steps[1].x_t) - alpha * np.asarray(run.steps[1].x0)) / sigma
    s = (sigma / (alpha + sigma)).item()
    np.testing.assert_allclose(shares[1], s, rtol=1e-5)
    np.testing.assert_allclose(way[1], (1 - s) * run.steps[1].x0 + s * noise, atol=1e-5)
    np.testing.assert_array_equal(way[-1], run.steps[-1].x_next)


def test_planes_show_levels_and_the_variance_they_leave(run):
    figure = paths.planes({"curved": run.artist.process, "straight": FLOW}, 4)
    left, right = figure.axes
    np.testing.assert_allclose(np.sum(left.lines[2].get_data(), axis=0), 1.0)
    np.testing.assert_allclose(np.square(left.lines[0].get_data()).sum(axis=0), 1.0)
    np.testing.assert_allclose(left.lines[3].get_ydata(), [1, 0.75, 0.5, 0.25])
    assert right.lines[1].get_ydata().min() == pytest.approx(0.5, abs=1e-3)


def test_ways_are_drawn_with_their_detour():
    way = np.array([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    figure = paths.ways({"walk": way}, np.zeros((1, 2)))
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), way[:, 0, 0])
    assert figure.axes[0].get_title() == "walk\n1.41 times as long"


def test_what_is_asked_is_what_training_draws(run):
    axis = paths.asked({"flow": FLOW, "curved": run.artist.process}, 3).axes[0]
    counts = axis.lines[0].get_ydata()
    assert counts.mean() == pytest.approx(1.0)
    assert counts[20] > 4 * counts[2]  # most from the middle
    np.testing.assert_allclose(axis.lines[1].get_xdata(), [1, 2 / 3, 1 / 3], rtol=1e-6)


def test_beliefs_come_nearer_to_the_end(run):
    axis = paths.beliefs({"tiny": run}).axes[0]
    x, y = axis.lines[0].get_data()
    np.testing.assert_array_equal(x, numbers.noise_shares(run))
    end = np.asarray(run.steps[-1].x_next[0])
    expected = np.linalg.norm(run.steps[1].x0[0] - end) / np.linalg.norm(end)
    assert y[1] == pytest.approx(expected)


def test_few_steps_are_painted_as_said(artist):
    figure = paths.few_steps({"tiny": artist}, "a red house", (1, 2), seed=3, sampler="euler")
    expected = artist.paint("a red house", seed=3, steps=2, sampler="euler")[0]
    np.testing.assert_array_equal(shown(figure)[1], expected)
    assert [axis.get_title() for axis in figure.axes] == ["1 step", "2 steps"]
