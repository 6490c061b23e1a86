"""Noise that moves stays noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.stages.moving_noise import FOOT, GRAINS, SKY, grains, moving_noise, places, seen

SIZE = (16, 16, 64)


@pytest.fixture(scope="module")
def fine():
    return grains(jax.random.key(0), SIZE)


def shown(fine, *views):
    return np.asarray(seen(fine, jnp.array(views, jnp.float32)))


@pytest.mark.parametrize(
    "view", [(0, 0, 0, 0), (0.08, 0, 0, 0), (0, 0.14, 0, 0), (0.03, 0.07, -0.4, 0)]
)
def test_each_frame_is_standard_normal(fine, view):
    noise = shown(fine, view)[0].reshape(-1, SIZE[2])
    assert noise.mean() == pytest.approx(0.0, abs=0.03)
    assert noise.var() == pytest.approx(1.0, abs=0.03)
    between = np.corrcoef(noise)  # positions are independent of each other
    assert np.abs(between[~np.eye(len(between), dtype=bool)]).max() < 0.65
    assert np.square(between[~np.eye(len(between), dtype=bool)]).mean() < 1.2 / SIZE[2]


def test_the_view_goes_across_it(fine):
    still, right = shown(fine, (0, 0, 0, 0), (1 / 16, 0, 0, 0))
    np.testing.assert_allclose(right, np.roll(still, -1, axis=1), atol=1e-5)
    np.testing.assert_allclose(still.mean((0, 1)), right.mean((0, 1)), atol=1e-5)
    # Between two positions the noise is not a mean of theirs, which would be weaker.
    half = shown(fine, (0.5 / 16, 0, 0, 0))[0]
    for near in (still, right):
        assert np.corrcoef(half.ravel(), near.ravel())[0, 1] == pytest.approx(0.5, abs=0.03)


def test_the_clouds_go_and_the_land_stays(fine):
    still, drifted = shown(fine, (0, 0, 0, 0), (0, 0, 2 / 16, 0))
    sky = int(np.ceil(SKY * SIZE[0]))
    np.testing.assert_array_equal(drifted[sky:], still[sky:])
    np.testing.assert_allclose(drifted[:sky], np.roll(still[:sky], 2, axis=1), atol=1e-5)


def test_what_comes_closer_is_larger(fine):
    """Twice as close, a position covers a quarter of the grains: those about the centre."""
    near = shown(fine, (0, np.log(2), 0, 0))[0]
    row, column = 9, 8  # from 9/16 down, in the middle
    top = round((((row / 16) - 0.6) / 2 + 0.6) * 16 * GRAINS)
    left = 8 * GRAINS
    side = GRAINS // 2
    part = np.asarray(fine)[top : top + side, left : left + side]
    np.testing.assert_allclose(near[row, column], part.sum((0, 1)) / side, atol=1e-4)


def test_a_map_may_have_an_odd_side():
    noise = moving_noise(jax.random.key(1), jnp.zeros((2, 4)), (5, 7, 2))
    assert noise.shape == (2, 5, 7, 2)
    assert np.asarray(noise).all()


def test_trees_sway_more_at_the_top(fine):
    """Below their feet nothing moves; twice in a film they are at rest between both sides."""
    ends = jnp.array([[[0, 0, 0, 0.16]] * 2], jnp.float32)
    way = np.linspace(0, 1, 17, dtype=np.float32)
    leans = np.asarray(places(ends, way))[0, :, 3]
    assert leans[[0, 4, 8, 12, 16]] == pytest.approx(0.0, abs=1e-6)
    assert leans[[2, 10]] == pytest.approx(0.16)
    assert leans[[6, 14]] == pytest.approx(-0.16)
    still, leaning = shown(fine, (0, 0, 0, 0), (0, 0, 0, 0.2))
    foot = int(np.ceil(FOOT * SIZE[0]))
    np.testing.assert_array_equal(leaning[foot:], still[foot:])
    alike = [np.corrcoef(leaning[y].ravel(), still[y].ravel())[0, 1] for y in (11, 9, 7)]
    assert 1.0 > alike[0] > alike[1] > alike[2] > 0.0


def test_view_and_clouds_go_straight():
    ends = jnp.array([[[0, 0.1, 0.4, 0], [0.2, 0.3, 0, 0]]], jnp.float32)
    middle = places(ends, np.array([0.5], np.float32))[0, 0]
    np.testing.assert_allclose(middle, [0.1, 0.2, 0.2, 0.0], atol=1e-6)
