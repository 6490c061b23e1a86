import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.config import VariancePreservingConfig
from diffusion.process import Process, VariancePreserving, process, schedule

CONFIG = VariancePreservingConfig()
ALPHA_BAR = jnp.asarray(schedule.alpha_bars(CONFIG)[[0, 250, 700, 999]])


def test_the_numbers_of_stable_diffusion():
    betas = schedule.betas(CONFIG)
    alpha_bars = schedule.alpha_bars(CONFIG)
    assert betas.dtype == alpha_bars.dtype == np.float64
    assert betas.shape == alpha_bars.shape == (1000,)
    np.testing.assert_allclose(betas[[0, -1]], [0.00085, 0.012], rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.sqrt(betas)), np.sqrt(betas)[1] - np.sqrt(betas)[0])
    np.testing.assert_allclose(alpha_bars[[0, -1]], [0.99915, 0.0046601], rtol=1e-4)


def test_linear_betas_are_those_of_other_models():
    """alpha_bar of AnimateDiff's schedule, and the betas of DiT's."""
    motion = schedule.alpha_bars(VariancePreservingConfig(beta_rule="linear"))
    expected = [0.571, 0.162, 0.0227, 0.00158]
    np.testing.assert_allclose(motion[[249, 499, 749, 999]], expected, rtol=3e-3)
    betas = schedule.betas(VariancePreservingConfig(1000, 0.0001, 0.02, "linear"))
    np.testing.assert_allclose(betas[[0, -1]], [0.0001, 0.02])
    np.testing.assert_allclose(np.diff(betas), 0.0199 / 999)


def test_snr_falls_at_every_timestep():
    snr = schedule.snr(schedule.alpha_bars(CONFIG))
    assert (np.diff(snr) < 0).all()
    np.testing.assert_allclose(schedule.snr(np.array([0.75])), [3.0])


def test_add_noise_has_the_moments_of_many_single_steps():
    """q(z_t | z_{t-1}) = N(sqrt(1 - beta) z_{t-1}, beta), applied t times, is add_noise's jump."""
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(schedule.betas(CONFIG)):
        mean, variance = np.sqrt(1.0 - beta) * mean, (1.0 - beta) * variance + beta
        if t in (0, 250, 700, 999):
            alpha_bar = jnp.full((1,), schedule.alpha_bars(CONFIG)[t])
            zero, one = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
            signal = schedule.add_noise(one, zero, alpha_bar)
            spread = schedule.add_noise(zero, one, alpha_bar)
            np.testing.assert_allclose(signal, mean, rtol=1e-5)
            np.testing.assert_allclose(spread**2, variance, rtol=1e-4)


def test_add_noise_gives_each_picture_its_own_level(latents, noise):
    z = schedule.add_noise(latents, noise, ALPHA_BAR)
    for i in range(len(z)):
        alone = schedule.add_noise(latents[i : i + 1], noise[i : i + 1], ALPHA_BAR[i : i + 1])
        np.testing.assert_array_equal(z[i], alone[0])


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_a_perfect_prediction_gives_back_latent_and_noise(latents, noise, kind):
    z = schedule.add_noise(latents, noise, ALPHA_BAR)
    prediction = schedule.target(latents, noise, ALPHA_BAR, kind)
    # Epsilon is divided by sqrt(alpha_bar) = 0.07 at the noisy end: rounding grows as much.
    x0 = schedule.to_x0(prediction, z, ALPHA_BAR, kind)
    np.testing.assert_allclose(x0, latents, atol=2e-5)
    np.testing.assert_allclose(
        schedule.to_epsilon(prediction, z, ALPHA_BAR, kind), noise, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_the_process_says_the_same_by_timestep(latents, noise, kind):
    found = process(VariancePreservingConfig(prediction=kind))
    assert isinstance(found, VariancePreserving)
    assert isinstance(found, Process)
    assert (found.train_steps, found.prediction) == (1000, kind)
    t = jnp.asarray([0, 250, 700, 999])
    np.testing.assert_allclose(found.alpha(t), jnp.sqrt(ALPHA_BAR), rtol=1e-6)
    np.testing.assert_allclose(found.sigma(t), jnp.sqrt(1.0 - ALPHA_BAR), rtol=1e-6)
    np.testing.assert_allclose(found.snr(t), schedule.snr(ALPHA_BAR), rtol=1e-5)
    z = schedule.add_noise(latents, noise, ALPHA_BAR)
    np.testing.assert_array_equal(found.add_noise(latents, noise, t), z)
    target = schedule.target(latents, noise, ALPHA_BAR, kind)
    np.testing.assert_array_equal(found.target(latents, noise, t), target)
    expected = schedule.to_x0(noise, z, ALPHA_BAR, kind)
    np.testing.assert_array_equal(found.to_x0(noise, z, t), expected)
    assert found.timesteps(3).tolist() == [667, 334, 1]
    alpha, sigma = found.levels(np.array([250, 999]))
    np.testing.assert_array_equal(alpha**2 + sigma**2, 1.0)
    np.testing.assert_allclose(alpha**2, schedule.alpha_bars(CONFIG)[[250, 999]], rtol=1e-15)
    assert alpha.dtype == sigma.dtype == np.float64


def test_a_process_that_nobody_knows():
    @dataclasses.dataclass(frozen=True)
    class Unknown:
        train_steps: int = 1000
        prediction: str = "v"

    with pytest.raises(KeyError, match="Unknown"):
        process(Unknown())


@settings(max_examples=50)
@given(
    alpha_bar=st.floats(0.0047, 0.99915),
    z=st.floats(-5.0, 5.0),
    prediction=st.floats(-5.0, 5.0),
    kind=st.sampled_from(["epsilon", "v"]),
)
def test_any_prediction_is_one_pair_of_latent_and_noise(alpha_bar, z, prediction, kind):
    """x0 and epsilon read from an imperfect prediction still mix to z, and give the prediction."""
    alpha_bar = jnp.full((1,), alpha_bar)
    z, prediction = jnp.full((1, 1, 1, 1), z), jnp.full((1, 1, 1, 1), prediction)
    x0 = schedule.to_x0(prediction, z, alpha_bar, kind)
    epsilon = schedule.to_epsilon(prediction, z, alpha_bar, kind)
    np.testing.assert_allclose(schedule.add_noise(x0, epsilon, alpha_bar), z, atol=1e-4)
    np.testing.assert_allclose(schedule.target(x0, epsilon, alpha_bar, kind), prediction, atol=1e-4)


def test_the_arithmetic_stays_float32_for_a_half_precision_network(latents, noise):
    prediction = noise.astype(jnp.bfloat16)
    for kind in ("epsilon", "v"):
        assert schedule.to_x0(prediction, latents, ALPHA_BAR, kind).dtype == jnp.float32


def test_jit_equals_eager(latents, noise):
    for function in (schedule.add_noise, schedule.velocity):
        np.testing.assert_allclose(
            jax.jit(function)(latents, noise, ALPHA_BAR),
            function(latents, noise, ALPHA_BAR),
            atol=1e-6,
        )


def test_an_unknown_kind_is_an_error(latents, noise):
    for function in (schedule.target, schedule.to_x0, schedule.to_epsilon):
        with pytest.raises(ValueError, match=r"'sample'.*\"epsilon\" or \"v\""):
            function(latents, noise, ALPHA_BAR, "sample")


def test_timesteps_are_those_of_stable_diffusion():
    assert schedule.timesteps(CONFIG, 5).tolist() == [801, 601, 401, 201, 1]
    assert schedule.timesteps(CONFIG, 3).tolist() == [667, 334, 1]
    assert schedule.timesteps(CONFIG, 1).tolist() == [1]
    assert schedule.timesteps(CONFIG, 50).dtype == np.int32


def test_trailing_timesteps_begin_where_the_noise_is():
    trailing = {n: schedule.timesteps(CONFIG, n, "trailing").tolist() for n in (1, 2, 3, 4)}
    assert trailing == {1: [999], 2: [999, 499], 3: [999, 666, 332], 4: [999, 749, 499, 249]}
    everything = schedule.timesteps(CONFIG, 1000, "trailing")
    assert everything.tolist() == list(range(999, -1, -1))
    assert everything.dtype == np.int32
    with pytest.raises(ValueError, match="unknown spacing 'even'; choose one of leading, trailing"):
        schedule.timesteps(CONFIG, 4, "even")


def test_evenly_spaced_timesteps_go_from_end_to_end():
    assert schedule.timesteps(CONFIG, 4, "linspace").tolist() == [999, 666, 333, 0]
    assert schedule.timesteps(CONFIG, 4, "linspace").dtype == np.int32


@given(
    train_steps=st.integers(1, 1200),
    data=st.data(),
)
def test_timesteps_descend_within_range(train_steps, data):
    config = VariancePreservingConfig(train_steps=train_steps)
    steps = data.draw(st.integers(1, train_steps))
    timesteps = schedule.timesteps(config, steps)
    assert len(timesteps) == steps
    assert (np.diff(timesteps) == -(train_steps // steps)).all()
    assert timesteps[-1] >= 0
    assert timesteps[0] < train_steps


def test_all_the_timesteps_slide_back_into_range():
    assert schedule.timesteps(CONFIG, 1000).tolist() == list(range(999, -1, -1))
    assert schedule.timesteps(CONFIG, 999).tolist() == list(range(999, 0, -1))


@pytest.mark.parametrize("steps", [-1, 0, 1001, 10_000])
def test_steps_out_of_range_is_an_error(steps):
    with pytest.raises(ValueError, match=f"steps must be between 1 and 1000, got {steps}"):
        schedule.timesteps(CONFIG, steps)


@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_karras_spaces_the_seventh_root_evenly(steps):
    process = VariancePreserving(VariancePreservingConfig())
    t = process.timesteps(steps, "karras")
    assert (t.dtype, t[0]) == (np.float32, 999.0)
    assert steps == 1 or t[-1] < 1e-9
    alpha, sigma = process.levels(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-12)
    roots = (sigma / alpha) ** (1 / 7)
    np.testing.assert_allclose(roots, np.linspace(roots[0], roots[-1], steps), rtol=1e-5)


def test_between_two_timesteps_the_logarithm_of_the_ratio_is_interpolated():
    process = VariancePreserving(VariancePreservingConfig())
    whole = np.array([0, 1, 500, 999])
    inexact = process.levels(whole.astype(np.float32))
    for ours, exact in zip(inexact, process.levels(whole), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-9)
    alpha, sigma = process.levels(np.array([500.5]))
    (a, b), (c, d) = process.levels(np.array([500, 501]))
    np.testing.assert_allclose((sigma / alpha) ** 2, c / a * d / b, rtol=1e-9)
    t = jnp.asarray([0.0, 12.25, 998.5])
    exact = process.levels(np.asarray(t))
    np.testing.assert_allclose(process.alpha(t), exact[0], rtol=1e-5)
    np.testing.assert_allclose(process.sigma(t), exact[1], rtol=1e-3)
