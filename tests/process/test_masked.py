"""Masks in place of noise: what disappears, what comes back, and in which order."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import VariancePreservingConfig
from diffusion.config_codes import MaskingConfig
from diffusion.process import Masking, Process, mixing, process, samplers
from diffusion.process.masked import fill, maskgit
from diffusion.process.sampling import finished, sample, stepper
from diffusion.stages.noisy_latent import initial_noise, picture_keys

MASK, CODES = 9, 8
MASKS = Masking(MaskingConfig(mask=MASK))
KEYS = picture_keys(0, jnp.arange(3))
ALL = jnp.ones((1, 4, 6, 1), bool)


@pytest.fixture
def noise():
    return initial_noise(picture_keys(1, jnp.arange(200)), (4, 6, 1))


def canvas(count=3):
    return jnp.full((count, 4, 6, 1), MASK, jnp.int32)


def test_it_fills_the_slot():
    assert isinstance(process(MaskingConfig()), Masking)
    assert isinstance(MASKS, Process)
    with pytest.raises(ValueError, match="Masking masks codes; take a model that mixes latents"):
        mixing(MASKS)
    other = process(VariancePreservingConfig())
    assert mixing(other) is other


def test_the_share_that_is_masked_is_a_cosine_of_the_way(noise):
    codes = jnp.zeros((200, 4, 6, 1), jnp.int32)
    for gone, share in ((0.0, 1.0), (0.5, 0.5**0.5), (2 / 3, 0.5), (1.0, 0.0)):
        t = jnp.full(200, 1000.0 * (1.0 - gone))
        x_t = MASKS.add_noise(codes, noise, t)
        assert x_t.dtype == jnp.int32
        assert float(jnp.mean(x_t == MASK)) == pytest.approx(share, abs=0.03)
        np.testing.assert_array_equal(x_t == MASK, MASKS.hidden(noise, t))
    linear = Masking(MaskingConfig(mask=MASK, rule="linear"))
    assert linear.share(0.25) == 0.75


def test_what_is_masked_early_is_masked_later(noise):
    few, many = (MASKS.hidden(noise, jnp.full(200, t)) for t in (300.0, 600.0))
    assert (many >= few).all()
    assert (many & ~few).any()


def test_a_painting_begins_with_masks_and_what_is_known_stays(noise):
    known = jnp.arange(24, dtype=jnp.int32).reshape(1, 4, 6, 1) % CODES
    np.testing.assert_array_equal(MASKS.begin(noise[:3], jnp.zeros((1, 4, 6, 1)), ALL), canvas())
    half = ALL.at[:, :2].set(False)
    begun = MASKS.begin(noise[:3], known, half)
    np.testing.assert_array_equal(begun[:, :2], jnp.broadcast_to(known, begun.shape)[:, :2])
    assert (begun[:, 2:] == MASK).all()
    kept = MASKS.kept(known, noise[:3], jnp.float32(500.0))
    np.testing.assert_array_equal(kept, jnp.broadcast_to(known, begun.shape))


def test_the_error_is_the_cross_entropy_behind_the_masks(noise):
    codes = jnp.full((2, 4, 6, 1), 3, jnp.int32)
    t = jnp.asarray([800.0, 0.0])
    alike = MASKS.error(jnp.zeros((2, 4, 6, CODES)), codes, noise[:2], t)
    np.testing.assert_allclose(alike, [np.log(CODES), 0.0], rtol=1e-6)  # nothing hidden: no error
    hidden = MASKS.hidden(noise[:2], t)
    sure = jnp.where(hidden, 0.0, -1e3) * jax.nn.one_hot(codes[..., 0], CODES)
    np.testing.assert_allclose(MASKS.error(sure, codes, noise[:2], t), alike, rtol=1e-6)
    right = 50.0 * jax.nn.one_hot(codes[..., 0], CODES)
    assert float(MASKS.error(right, codes, noise[:2], t)[0]) < 1e-6


def test_times_to_train_with_are_spread_over_the_whole_way():
    drawn = MASKS.draw_timesteps(jax.random.key(0), 10)
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(np.floor(drawn / 100), np.arange(10))
    np.testing.assert_array_equal(MASKS.weight(drawn), 1.0)


def test_the_schedule():
    table = maskgit(MASKS, 4)
    np.testing.assert_allclose(table.timestep, [1000, 750, 500, 250])
    np.testing.assert_allclose(table.masked[:3], np.cos(np.pi / 2 * np.arange(1, 4) / 4), rtol=1e-6)
    assert table.masked[3] == 0.0
    hotter = Masking(dataclasses.replace(MASKS.config, temperature=6.0))
    np.testing.assert_allclose(maskgit(hotter, 4).temperature, 3 * table.temperature, rtol=1e-6)
    np.testing.assert_allclose(table.temperature, [2, 4 / 3, 2 / 3, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="steps must be between 1 and 1000, got 0"):
        samplers.table("maskgit", MASKS, 0)


def test_its_samplers_are_its_own():
    with pytest.raises(ValueError, match="unknown sampler 'ddim'; choose one of maskgit"):
        samplers.table("ddim", MASKS, 4)
    with pytest.raises(ValueError, match="unknown sampler 'maskgit'"):
        samplers.table("maskgit", process(VariancePreservingConfig()), 4)
    with pytest.raises(ValueError, match='eta belongs to the sampler "ddim"'):
        samplers.table("maskgit", MASKS, 4, eta=1.0)


def predict(x_t, t):
    """Sure of code 5 in the first row, of nothing elsewhere."""
    logits = jnp.zeros((*x_t.shape[:3], CODES))
    return logits.at[:, 0, :, 5].set(9.0)


def test_every_step_leaves_as_many_masks_as_the_schedule_says():
    for steps in (1, 3, 12):
        rows = samplers.table("maskgit", MASKS, steps)
        seen = list(sample(stepper(MASKS, predict, KEYS), canvas(), rows))
        left = [np.sum(step.x_next == MASK, (1, 2, 3)) for step in seen]
        expected = [24]
        for share in rows.masked[:-1]:  # at least one is filled in, and one is left
            expected.append(max(min(int(24 * share), expected[-1] - 1), 1))
        expected = np.array([*expected[1:], 0])
        np.testing.assert_array_equal(left, np.tile(expected[:, None], (1, 3)))
        for before, after in pairwise(seen):
            stays = np.asarray(before.x_next) != MASK
            np.testing.assert_array_equal(
                np.asarray(after.x_next)[stays], np.asarray(before.x_next)[stays]
            )
        assert all((np.asarray(step.x0) < CODES).all() for step in seen)
        assert seen[-1].x_next.dtype == jnp.int32


def test_the_surest_come_first():
    row = maskgit(MASKS, 4).row(1)._replace(temperature=np.float32(0.0))
    drawn = jnp.full((3, 4, 6, 1), 5, jnp.int32)
    _, after = fill(
        MASK, row, predict(canvas(), None), canvas(), drawn, 0.0 * drawn, jnp.full(3, 24)
    )
    assert (after[:, 0] == 5).all()
    hot = row._replace(temperature=np.float32(1e6))
    doubts = jax.random.gumbel(jax.random.key(0), drawn.shape)
    _, other = fill(MASK, hot, predict(canvas(), None), canvas(), drawn, doubts, jnp.full(3, 24))
    assert (other[:, 0] == MASK).any()


def test_a_picture_depends_on_its_key_alone():
    def painted(keys):
        rows = samplers.table("maskgit", MASKS, 4)
        return finished(sample(stepper(MASKS, predict, keys), canvas(len(keys)), rows))

    together = painted(KEYS)
    np.testing.assert_array_equal(together[1:2], painted(KEYS[1:2]))
    assert (together[0] != together[1]).any()


def test_a_painting_that_begins_with_a_picture_has_the_masks_of_its_place(noise):
    whole, rest = (samplers.table("maskgit", MASKS, 8, strength=s) for s in (1.0, 0.5))
    np.testing.assert_allclose(rest.masked, whole.masked[4:] / whole.masked[3], rtol=1e-6)
    np.testing.assert_array_equal(rest.step, [4, 5, 6, 7])
    codes = jnp.zeros((200, 4, 6, 1), jnp.int32)
    x_t = MASKS.add_noise(codes, noise, jnp.full(200, rest.timestep[0]))
    masked = np.sum(np.asarray(x_t) == MASK, (1, 2, 3))
    assert masked.mean() / 24 == pytest.approx(whole.masked[3], abs=0.03)
    keys = picture_keys(0, jnp.arange(200))
    seen = list(sample(stepper(MASKS, predict, keys), x_t, rest))
    left = np.sum(np.asarray(seen[0].x_next) == MASK, (1, 2, 3))
    np.testing.assert_array_equal(left, np.maximum(np.floor(masked * rest.masked[0]), 1))
    stays = np.asarray(x_t) != MASK
    assert (np.asarray(seen[-1].x_next)[stays] == 0).all()
