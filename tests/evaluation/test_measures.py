"""The numbers of an evaluation, against what is known of them."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from diffusion.evaluation.measures import frechet, nearest, share, spread

ALL = np.ones((200, 4), bool)


def test_the_share_of_independent_pictures_has_wilsons_interval():
    right = np.random.default_rng(0).random((800, 1)) < 0.9
    found = share(right, np.ones_like(right))
    known = scipy.stats.binomtest(int(right.sum()), 800).proportion_ci(method="wilson")
    assert found.share == right.mean()
    assert found.total == 800
    np.testing.assert_allclose((found.low, found.high), (known.low, known.high), atol=1e-4)


def test_pictures_that_agree_count_as_one():
    captions = np.random.default_rng(0).random((200, 1)) < 0.8
    together, alone = share(np.tile(captions, 4), ALL), share(captions, ALL[:, :1])
    assert together.share == alone.share
    np.testing.assert_allclose(together[1:3], alone[1:3], atol=1e-3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        p = draw.beta(18, 2, (60, 1))  # captions are easy or hard: 0.9 on average
        found = share(draw.random((60, 4)) < p, np.ones((60, 4), bool))
        hits += found.low <= 0.9 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_one_failure_is_not_more_certain_than_none():
    none, one, two = np.ones((3, 200, 4), bool)
    one[7, 2] = two[7, 2] = two[50, 0] = False
    widths = [found.high - found.low for found in (share(x, ALL) for x in (none, one, two))]
    assert widths == sorted(widths)


def test_nine_failures_are_rather_too_uncertain_and_ten_say_how_they_scatter():
    nine, ten = np.ones((2, 200, 4), bool)
    nine[:9, 0] = ten[:10, 0] = False
    wide, width = (found.high - found.low for found in (share(nine, ALL), share(ten, ALL)))
    known = scipy.stats.binomtest(790, 800).proportion_ci(method="wilson")
    assert width == pytest.approx(known.high - known.low, rel=0.05)  # one a caption: no cluster
    assert width < wide < 4 * width


def test_only_what_was_asked_counts():
    right, asked = np.zeros((3, 2), bool), np.zeros((3, 2), bool)
    right[0], asked[:2] = True, True
    assert share(right, asked).share == 0.5
    nothing = share(right, np.zeros_like(asked))
    assert nothing.total == 0
    assert np.isnan(nothing.share)


@pytest.mark.parametrize("value", [False, True])
def test_all_or_nothing_is_not_certain(value):
    found = share(np.full((50, 4), value), ALL[:50])
    assert found.share == value
    assert 0 < found.high - found.low < 0.1


def test_frechet_is_that_of_the_matrix_root():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(500, 6)), draw.normal(size=(400, 6)) @ draw.normal(size=(6, 6))
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    known = np.sum((one.mean(0) - other.mean(0)) ** 2)
    known += np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet(one, other) == pytest.approx(known, rel=1e-6)


def test_frechet_of_a_set_with_itself_is_nothing_and_of_a_shift_its_square():
    x = np.random.default_rng(0).normal(size=(300, 8))
    assert frechet(x, x) == pytest.approx(0.0, abs=1e-6)
    assert frechet(x, x + 2.0) == pytest.approx(8 * 4.0, rel=1e-6)


def test_spread_is_the_mean_distance_of_pairs():
    features = np.zeros((1, 3, 2))
    features[0, 1], features[0, 2] = (3, 4), (0, 4)
    assert spread(features) == pytest.approx((5 + 4 + 3) / 3)


def test_the_nearest_is_found():
    draw = np.random.default_rng(0)
    others = draw.normal(size=(700, 12)).astype(np.float32)
    order = draw.permutation(700)[:600]
    distances, which = nearest(others[order] + np.float32(0.01), others)
    assert np.array_equal(which, order)
    np.testing.assert_allclose(distances, 0.01, rtol=0.02)
