"""Rectified flow: straight lines, float timesteps, and the samplers that can walk along them."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import RectifiedFlowConfig
from diffusion.process import Process, RectifiedFlow, process, samplers
from diffusion.process.flow import KNOWN, shifted
from diffusion.process.ideal_denoiser import ideal_denoiser
from diffusion.process.sampling import finished, one_step, sample

FLOW = RectifiedFlow(RectifiedFlowConfig())
SHIFTED = RectifiedFlow(RectifiedFlowConfig(shift=3.0))
T = jnp.asarray([0.0, 250.5, 700.0, 1000.0])
NAMES = [name for name in samplers.SAMPLERS if name != "heun"]
TRIANGLE = np.float32([(-1.0, 0.0), (1.0, 0.5), (0.3, -0.9)]).reshape(3, 1, 1, 2)
SPACINGS = ("leading", "trailing")  # "karras" is of the other process


def levels_of(table: samplers.SamplerTable, flow: RectifiedFlow) -> tuple[np.ndarray, ...]:
    """alpha and sigma where each step begins, and where it ends: at the picture."""
    alpha, sigma = flow.levels(np.asarray(table.timestep))
    return alpha, sigma, np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0)


def test_it_fills_the_slot():
    found = process(RectifiedFlowConfig(shift=3.0))
    assert isinstance(found, RectifiedFlow)
    assert isinstance(found, Process)
    assert (found.train_steps, found.prediction) == (1000, "velocity")


def test_a_latent_moves_straight_from_picture_to_noise(latents, noise):
    ends = FLOW.add_noise(latents, noise, T)
    np.testing.assert_array_equal(ends[0], latents[0])
    np.testing.assert_array_equal(ends[3], noise[3])  # nothing is left of the picture, nothing NaN
    np.testing.assert_allclose(ends[1], latents[1] + 0.2505 * (noise - latents)[1], atol=1e-6)
    np.testing.assert_array_equal(FLOW.target(latents, noise, T), noise - latents)
    np.testing.assert_allclose(FLOW.to_x0(noise - latents, ends, T), latents, atol=1e-6)


def test_levels(latents):
    alpha, sigma = FLOW.levels(np.asarray(T))
    assert alpha.dtype == sigma.dtype == np.float64
    np.testing.assert_allclose(alpha + sigma, 1.0, rtol=1e-15)
    np.testing.assert_allclose(FLOW.alpha(T), alpha, atol=1e-7)
    np.testing.assert_allclose(FLOW.sigma(T), sigma, atol=1e-7)
    np.testing.assert_allclose(FLOW.snr(T), [np.inf, (0.7495 / 0.2505) ** 2, 9 / 49, 0], rtol=1e-5)
    half = latents.astype(jnp.bfloat16)
    assert FLOW.to_x0(half, latents, T).dtype == jnp.float32


def test_timesteps_are_numbers_and_the_last_is_shifted_twice():
    """Those of FlowMatchEulerDiscreteScheduler in diffusers 0.42.1."""
    np.testing.assert_allclose(FLOW.timesteps(4), [1000, 667, 334, 1], rtol=1e-6)
    four, many = SHIFTED.timesteps(4), SHIFTED.timesteps(28)
    np.testing.assert_allclose(four, [1000, 857.692, 602.151, 8.92857], rtol=1e-5)
    expected = [1000, 987.381, 974.108, 110.906, 8.92857]
    np.testing.assert_allclose(many[[0, 1, 2, -2, -1]], expected, rtol=1e-5)
    assert four[-1] == np.float32(1000 * shifted(shifted(0.001, 3.0), 3.0))
    assert four.dtype == np.float32
    assert FLOW.timesteps(1).tolist() == [1000]


def test_trailing_timesteps_are_all_a_step_apart():
    np.testing.assert_allclose(FLOW.timesteps(4, "trailing"), [1000, 750, 500, 250])
    # 3 / 2 / (1 + 2 / 2) of 1000.
    np.testing.assert_allclose(SHIFTED.timesteps(2, "trailing"), [1000, 750])
    with pytest.raises(ValueError, match="unknown spacing 'even'; choose one of leading, trailing"):
        FLOW.timesteps(4, "even")


@pytest.mark.parametrize("spacing", KNOWN)
@pytest.mark.parametrize("shift", [0.3, 1.0, 1.7, 12.0])
@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_timesteps_begin_at_pure_noise_and_fall(steps, shift, spacing):
    timesteps = RectifiedFlow(RectifiedFlowConfig(shift=shift)).timesteps(steps, spacing)
    assert len(timesteps) == steps
    assert timesteps[0] == 1000
    assert (np.diff(timesteps) < 0).all()
    assert timesteps[-1] > 0


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_out_of_range_is_an_error(steps):
    with pytest.raises(ValueError, match=f"steps must be between 1 and 1000, got {steps}"):
        samplers.table("euler", FLOW, steps)


@pytest.mark.parametrize("spacing", KNOWN)
@pytest.mark.parametrize("steps", [1, 4, 25])
def test_ddim_is_euler_s_method_on_the_flow(steps, spacing):
    """In (signal, spread) both are z + ds v, and so is the last step, which ends at the picture."""
    ddim = samplers.table("ddim", SHIFTED, steps, spacing=spacing)
    euler = samplers.table("euler", SHIFTED, steps, spacing=spacing)
    for field, one, other in zip(samplers.SamplerTable._fields, ddim, euler, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7, err_msg=field)
    _, s, _, s_next = levels_of(euler, SHIFTED)
    # z + (s' - s) v with v = (z - x0) / s.
    np.testing.assert_allclose(euler.z_from_z, 1 + (s_next - s) / s, atol=1e-7)
    np.testing.assert_allclose(euler.z_from_x0, -(s_next - s) / s, atol=1e-7)
    assert not euler.z_from_noise.any()


@pytest.mark.parametrize(("name", "eta"), [*((name, 0.0) for name in NAMES), ("ddim", 0.5)])
@pytest.mark.parametrize("spacing", KNOWN)
def test_every_sampler_keeps_the_marginals_of_training(name, eta, spacing):
    """With the true x0, z ~ N(alpha x0, sigma^2) goes to N(alpha' x0, sigma'^2)."""
    for steps in (1, 2, 20):
        table = samplers.table(name, SHIFTED, steps, eta=eta, spacing=spacing)
        assert {column.dtype for column in table[1:]} == {np.dtype(np.float32)}
        alpha, sigma, next_alpha, next_sigma = levels_of(table, SHIFTED)
        mean = table.z_from_z * alpha + table.z_from_x0 + table.z_from_memory
        variance = table.z_from_z**2 * sigma**2 + table.z_from_noise**2
        np.testing.assert_allclose(mean, next_alpha, atol=1e-6)
        np.testing.assert_allclose(variance, next_sigma**2, atol=1e-6)


def test_ancestral_euler_is_ddpm_here_too():
    tables = (samplers.table(name, SHIFTED, 20) for name in ("euler_a", "ddpm"))
    for field, one, other in zip(samplers.SamplerTable._fields, *tables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=field)


def test_dpm_solver_remembers_from_the_third_step_on():
    """Before that there is no past, and then one that began infinitely far away."""
    table = samplers.table("dpm++2m", SHIFTED, 5)
    assert (table.z_from_memory != 0).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("spacing", KNOWN)
def test_heun_is_refused_by_name(spacing):
    with pytest.raises(ValueError, match=r'"heun" cannot .* pure noise.*choose "dpm\+\+2m"'):
        samplers.table("heun", FLOW, 4, spacing=spacing)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flow", [FLOW, SHIFTED], ids=["even", "shifted"])
def test_every_sampler_reaches_a_picture(name, flow):
    """With the ideal denoiser of three pictures, from pure noise."""
    noise = jax.random.normal(jax.random.key(0), (32, 1, 1, 2))
    keys = jax.random.split(jax.random.key(0), 32)
    predict = ideal_denoiser(flow, jnp.asarray(TRIANGLE))
    advance = jax.jit(lambda *inputs: one_step(flow, predict, *inputs, keys))
    z = finished(sample(advance, noise, samplers.table(name, flow, 50)))
    distance = np.abs(np.asarray(z)[:, None] - TRIANGLE).max(axis=(2, 3, 4))
    assert distance.min(axis=1).max() < 0.01
    assert set(distance.argmin(axis=1)) == {0, 1, 2}


def test_a_step_says_its_time_as_a_number():
    table = samplers.table("euler", SHIFTED, 4)
    advance = lambda x_t, memory, row, call: (x_t, x_t, x_t, memory)  # noqa: E731
    told = [step.t for step in sample(advance, jnp.zeros((1, 1, 1, 2)), table)]
    assert told == table.timestep.tolist()
    assert type(told[1]) is float


def test_the_ideal_denoiser_is_certain_of_a_single_picture():
    picture = jax.random.normal(jax.random.key(0), (1, 2, 3, 4))
    noise = jax.random.normal(jax.random.key(1), (1, 2, 3, 4))
    t = jnp.asarray([600.0])
    said = ideal_denoiser(FLOW, picture)(FLOW.add_noise(picture, noise, t), t)
    np.testing.assert_allclose(said, noise - picture, atol=1e-5)


# Training.


def test_the_logit_of_a_training_time_is_normal_and_one_comes_from_each_part():
    drawn = np.stack([FLOW.draw_timesteps(jax.random.key(i), 20) for i in range(100)])
    assert drawn.dtype == np.float32
    assert (np.diff(drawn) > 0).all()  # least noise first
    s = drawn.astype(float) / 1000
    logit = np.log(s / (1 - s))
    edges = [-np.inf, -1.6449, -1.2816, 0.0, 1.2816, 1.6449, np.inf]  # 5, 10, 50, 90, 95 %
    shares = [((low < logit) & (logit <= high)).mean() for low, high in pairwise(edges)]
    np.testing.assert_allclose(shares, [0.05, 0.05, 0.4, 0.4, 0.05, 0.05], atol=1e-3)
    np.testing.assert_allclose(
        SHIFTED.draw_timesteps(jax.random.key(0), 20), 1000 * shifted(s[0], 3.0), rtol=1e-5
    )


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_draw_at_the_very_end_is_still_a_timestep(monkeypatch, end, latents, noise):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, end))
    t = SHIFTED.draw_timesteps(jax.random.key(0), 4)
    assert np.isfinite(SHIFTED.add_noise(latents, noise, t)).all()
    assert (t.min(), t.max())[int(end)] == 1000 * end


def test_all_errors_weigh_the_same():
    np.testing.assert_array_equal(FLOW.weight(T), np.ones(4, np.float32))
