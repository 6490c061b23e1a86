"""A camera shows what lies where it looks."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.stages.moving_noise import CENTRE
from diffusion.stages.moving_view import through_camera

SIDE = 40


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).uniform(-1, 1, (SIDE, SIDE, 3)).astype(np.float32)


def shown(picture, *views):
    return np.asarray(through_camera(jnp.asarray(picture), jnp.array(views, jnp.float32)))


def test_at_rest_it_shows_the_picture(picture):
    still, clouds, trees = shown(picture, (0, 0, 0, 0), (0, 0, 0.4, 0), (0, 0, 0, 0.2))
    np.testing.assert_allclose(still, picture, atol=1e-5)
    np.testing.assert_array_equal(clouds, still)
    np.testing.assert_array_equal(trees, still)


def test_to_the_right_all_goes_to_the_left(picture):
    [right] = shown(picture, (4 / SIDE, 0, 0, 0))
    np.testing.assert_allclose(right[:, :-4], picture[:, 4:], atol=1e-5)
    beyond = np.repeat(picture[:, -1:], 4, axis=1)
    np.testing.assert_allclose(right[:, -4:], beyond, atol=1e-5)


def test_what_comes_closer_is_larger():
    """Twice as close, a slope is half as steep, and the centre stays where it is."""
    across = np.linspace(0, 1, SIDE, dtype=np.float32)
    down, right = np.meshgrid(across, across, indexing="ij")
    [near] = shown(np.stack([down, right, right], -1), (0, np.log(2), 0, 0))
    steps = np.diff(near[5:-5, 0, 0])
    assert steps.mean() == pytest.approx(0.5 / (SIDE - 1), rel=0.02)
    row = (CENTRE[1] * SIDE - 0.5) / (SIDE - 1)  # of the centre, between two pixels
    centre = near[int(CENTRE[1] * SIDE) - 1 : int(CENTRE[1] * SIDE) + 1, 0, 0].mean()
    assert centre == pytest.approx(row, abs=1e-3)
    centre = near[0, SIDE // 2 - 1 : SIDE // 2 + 1, 1].mean()
    assert centre == pytest.approx(0.5, abs=1e-3)
