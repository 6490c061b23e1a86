"""What moves in a film: measured on films whose movement is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from diffusion.evaluation import film_measures as measures

SIDE = 64


@pytest.fixture(scope="module")
def wide() -> np.ndarray:
    """A plane of hills and valleys, twice as wide as a film."""
    noise = np.random.default_rng(0).standard_normal((2 * SIDE, 2 * SIDE))
    return gaussian_filter(noise, 3.0).astype(np.float32)


def seen_at(wide: np.ndarray, x: int) -> np.ndarray:
    return wide[:SIDE, SIDE // 2 + x : SIDE // 2 + x + SIDE]


@pytest.mark.parametrize("pixels", [-5, 0, 4])
def test_a_view_that_moves_is_found(wide, pixels):
    film = np.stack([seen_at(wide, round(-pixels * time)) for time in np.linspace(0, 1, 16)])
    assert measures.view(film) == measures.View(pixels / SIDE, 1.0)


@pytest.mark.parametrize("scale", [1.1, 1 / 1.1])
def test_a_view_that_comes_closer_or_widens_is_found(wide, scale):
    whole = wide[:SIDE, :SIDE]
    film = np.stack([whole, measures.scaled(whole, scale)])
    assert measures.view(film) == measures.View(0.0, scale)


def test_a_scale_keeps_the_middle_and_one_keeps_all(wide):
    plane = wide[: SIDE + 1, : SIDE + 1]
    np.testing.assert_array_equal(measures.scaled(plane, 1.0), plane)
    middle = SIDE // 2
    assert measures.scaled(plane, 1.3)[middle, middle] == pytest.approx(plane[middle, middle])
    # What lies a quarter away from the middle lies a half away when it is twice as near.
    near = measures.scaled(plane, 2.0)
    assert near[0, middle] == pytest.approx(plane[middle // 2, middle])


@pytest.mark.parametrize("step", [-2, 2])
def test_clouds_drift_before_a_sun_that_stands(step):
    film = np.zeros((16, SIDE, SIDE), np.float32)
    film[:, 4:10, 40:46] = 2.0  # the sun
    for i, frame in enumerate(film):
        x = 29 + step * (i - 7)
        frame[12:18, x : x + 6] = 1.0
    assert measures.drift(film) == pytest.approx(15 * step / SIDE)


def test_what_comes_and_goes_twice_sways():
    times = np.arange(16) / 16
    there = np.zeros((16, SIDE, SIDE), np.float32)
    there[:, 20:30, 20:30] = np.sin(4 * np.pi * times)[:, None, None]
    assert measures.swaying(there) == pytest.approx(1.0)
    there[:, 20:30, 20:30] = times[:, None, None]
    assert measures.swaying(there) < 0.2


def test_what_stands_still_has_no_numbers():
    film = np.full((16, SIDE, SIDE, 3), 90, np.uint8)
    grey = measures.grey(film)
    assert grey.max() == pytest.approx(90 / 255)
    assert measures.view(grey).scale in measures.SCALES
    assert measures.swaying(grey) == 0
    assert measures.change(grey) == measures.flicker(grey) == 0


def test_flicker_is_counted_below_the_horizon_alone():
    film = np.zeros((3, 100, 10), np.float32)
    film[1, :50] = 1.0  # the sky
    assert measures.flicker(film) == 0
    film[1] = 1.0
    assert measures.flicker(film) == pytest.approx(1.0)
    assert measures.change(film) == 0
