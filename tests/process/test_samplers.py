"""The samplers against a denoiser that is known in closed form.

Where the data are finitely many points x_k, the best guess of x0 given z is their posterior mean,

    E[x0 | z] = sum_k softmax_k(-|z - sqrt(alpha_bar) x_k|^2 / (2 (1 - alpha_bar))) x_k.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import VariancePreservingConfig
from diffusion.process import samplers, schedule

CONFIG = VariancePreservingConfig()
NAMES = list(samplers.SAMPLERS)
TRIANGLE = ((-1.0, 0.0), (1.0, 0.5), (0.3, -0.9))


def posterior_mean(points: jax.Array | np.ndarray, z: jax.Array, alpha_bar: jax.Array) -> jax.Array:
    """E[x0 | z] for z of shape (B, h, w, c), points (K, h, w, c) and alpha_bar ()."""
    distance = jnp.sum((z[:, None] - jnp.sqrt(alpha_bar) * points[None]) ** 2, axis=(2, 3, 4))
    share = jax.nn.softmax(-distance / (2.0 * (1.0 - alpha_bar)), axis=1)
    return jnp.einsum("bk,khwc->bhwc", share, points)


@functools.cache
def oracle(*points: tuple[float, ...], kind: str = "epsilon") -> samplers.Predict:
    """A network that has learned its data perfectly."""
    data = np.float32(points).reshape(len(points), 1, 1, -1)
    table = schedule.alpha_bars(CONFIG).astype(np.float32)

    def predict(z: jax.Array, timesteps: jax.Array) -> jax.Array:
        alpha_bar = jnp.asarray(table)[timesteps]
        x0 = posterior_mean(data, z, alpha_bar[0])
        level = alpha_bar[:, None, None, None]
        epsilon = (z - jnp.sqrt(level) * x0) / jnp.sqrt(1.0 - level)
        return schedule.target(x0, epsilon, alpha_bar, kind)

    return predict


sample = jax.jit(samplers.sample, static_argnums=(0, 4))


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def rows(plan: samplers.Plan) -> list[samplers.Plan]:
    return [samplers.Plan(*(column[i] for column in plan)) for i in range(len(plan.step))]


def head(plan: samplers.Plan, calls: int) -> samplers.Plan:
    return samplers.Plan(*(column[:calls] for column in plan))


def assert_same_table(one: samplers.Plan, other: samplers.Plan) -> None:
    for field, a, b in zip(samplers.Plan._fields, one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=field)


# The tables.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 25, 501, 999, 1000])
def test_every_plan_is_finite_and_ends_clean(name, steps):
    plan = samplers.plan(name, CONFIG, steps)
    assert all(np.isfinite(column).all() for column in plan)
    assert {column.dtype for column in plan[:2]} == {np.dtype(np.int32)}
    assert {column.dtype for column in plan[2:]} == {np.dtype(np.float32)}
    assert len(plan.step) == (2 * steps - 1 if name == "heun" else steps)
    assert sorted(set(plan.step.tolist())) == list(range(steps))
    np.testing.assert_allclose(plan.alpha_bar, schedule.alpha_bars(CONFIG)[plan.timestep])
    if name != "ddim":
        last = rows(plan)[-1]
        assert (last.z_from_z, last.z_from_x0, last.z_from_memory, last.z_from_noise) == (
            0,
            1,
            0,
            0,
        )


def test_the_timesteps_of_stable_diffusion():
    for name in ("ddpm", "ddim", "euler", "euler_a"):
        assert samplers.plan(name, CONFIG, 4).timestep.tolist() == [751, 501, 251, 1]
    heun = samplers.plan("heun", CONFIG, 4)
    assert heun.timestep.tolist() == [751, 501, 501, 251, 251, 1, 1]
    assert heun.step.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert samplers.plan("dpm++2m", CONFIG, 4).timestep.tolist() == [801, 601, 401, 201]
    assert samplers.plan("dpm++2m", CONFIG, 25).timestep[[0, -1]].tolist() == [951, 39]


@pytest.mark.parametrize(
    ("name", "eta", "final"),
    [
        ("ddpm", 0.0, 1.0),
        ("euler", 0.0, 1.0),
        ("euler_a", 0.0, 1.0),
        ("ddim", 0.0, schedule.alpha_bars(CONFIG)[0]),
        ("ddim", 0.4, schedule.alpha_bars(CONFIG)[0]),
        ("ddim", 1.0, schedule.alpha_bars(CONFIG)[0]),
    ],
)
def test_a_step_keeps_the_marginals_of_training(name, eta, final):
    """With the true x0, z ~ N(sqrt(ab) x0, 1 - ab) goes to N(sqrt(next ab) x0, 1 - next ab)."""
    plan = samplers.plan(name, CONFIG, 20, eta=eta)
    alpha_bar = plan.alpha_bar.astype(np.float64)
    following = np.append(alpha_bar[1:], final)
    mean = plan.z_from_z * np.sqrt(alpha_bar) + plan.z_from_x0
    variance = plan.z_from_z**2 * (1.0 - alpha_bar) + plan.z_from_noise**2
    np.testing.assert_allclose(mean, np.sqrt(following), atol=1e-6)
    np.testing.assert_allclose(variance, 1.0 - following, atol=1e-6)


def test_ddim_with_all_its_noise_is_ddpm_until_the_last_step():
    ddim, ddpm = samplers.plan("ddim", CONFIG, 20, eta=1.0), samplers.plan("ddpm", CONFIG, 20)
    assert_same_table(head(ddim, 19), head(ddpm, 19))
    assert ddim.z_from_noise[-1] > 0 == ddpm.z_from_noise[-1]


def test_euler_is_ddim_until_the_last_step():
    euler, ddim = samplers.plan("euler", CONFIG, 20), samplers.plan("ddim", CONFIG, 20)
    assert_same_table(head(euler, 19), head(ddim, 19))


def test_ancestral_euler_is_ddpm():
    assert_same_table(samplers.plan("euler_a", CONFIG, 20), samplers.plan("ddpm", CONFIG, 20))


# Image to image: the last part of a plan.


@pytest.mark.parametrize("name", NAMES)
def test_strength_keeps_the_last_steps(name):
    whole = samplers.plan(name, CONFIG, 25)
    part = samplers.plan(name, CONFIG, 25, strength=0.4)
    assert sorted(set(part.step.tolist())) == list(range(15, 25))
    assert len(part.step) == (19 if name == "heun" else 10)
    assert part.alpha_bar[0] == schedule.alpha_bars(CONFIG).astype(np.float32)[part.timestep[0]]
    for field, column, longer in zip(samplers.Plan._fields, part, whole, strict=True):
        later = slice(1, None) if field in ("z_from_x0", "z_from_memory") else slice(None)
        np.testing.assert_array_equal(column[later], longer[-len(part.step) :][later], field)


def test_dpm_solver_enters_at_first_order():
    """There it is DDIM (Lu et al. 2022, arXiv 2211.01095, section 4): nothing is remembered yet."""
    plan = samplers.plan("dpm++2m", CONFIG, 25, strength=0.4)
    alpha, alpha_next = np.sqrt(plan.alpha_bar[:2].astype(np.float64))
    sigma, sigma_next = np.sqrt(1.0 - plan.alpha_bar[:2].astype(np.float64))
    assert plan.z_from_memory[0] == 0.0
    np.testing.assert_allclose(plan.z_from_z[0], sigma_next / sigma, rtol=1e-5)
    weight = alpha_next - alpha * sigma_next / sigma
    np.testing.assert_allclose(plan.z_from_x0[0], weight, rtol=1e-5)
    assert plan.z_from_memory[1] != 0.0


@pytest.mark.parametrize("name", NAMES)
def test_full_strength_is_the_whole_plan(name):
    whole, full = samplers.plan(name, CONFIG, 7), samplers.plan(name, CONFIG, 7, strength=1.0)
    assert_same_table(whole, full)


@pytest.mark.parametrize(
    ("steps", "strength", "kept"),
    # 50 x 0.58 is 28.999999999999996: the reference takes 28 steps.
    [(1, 1.0, 1), (2, 0.99, 1), (4, 0.3, 1), (10, 0.75, 7), (50, 0.58, 28), (50, 0.02, 1)],
)
def test_the_number_of_steps_that_strength_leaves(steps, strength, kept):
    assert len(samplers.plan("ddim", CONFIG, steps, strength=strength).step) == kept


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_strength_out_of_range_is_an_error(strength):
    with pytest.raises(ValueError, match=r"strength must be above 0 .* at most 1"):
        samplers.plan("euler", CONFIG, 25, strength=strength)


@pytest.mark.parametrize("steps", [1, 3, 49, 999])
def test_strength_without_a_step_is_an_error_that_names_enough(steps):
    with pytest.raises(ValueError, match="less than one step") as caught:
        samplers.plan("ddim", CONFIG, steps, strength=0.999 / steps)
    enough = float(str(caught.value).split("strength of ")[1].split()[0])
    assert len(samplers.plan("ddim", CONFIG, steps, strength=enough).step) >= 1


# The steps, against the papers' formulas written out.


def test_heun_averages_the_slopes_at_both_ends():
    plan = samplers.plan("heun", CONFIG, 2)
    first, second, _ = rows(plan)
    z, x0, x0_ahead = (jnp.full((1, 1, 1, 1), value) for value in (0.8, -0.5, 0.3))
    zero = jnp.zeros_like(z)

    ahead, memory = samplers.update(first, z, x0, zero, zero)
    result, _ = samplers.update(second, ahead, x0_ahead, memory, zero)

    sigma, sigma_next = np.sqrt(1.0 / schedule.alpha_bars(CONFIG)[[501, 1]] - 1.0)
    scale, scale_next = np.sqrt(1.0 + sigma**2), np.sqrt(1.0 + sigma_next**2)  # x = scale z
    x = 0.8 * scale
    slope = (x - -0.5) / sigma
    x_ahead = x + (sigma_next - sigma) * slope
    slope_ahead = (x_ahead - 0.3) / sigma_next
    x_next = x + (sigma_next - sigma) * (slope + slope_ahead) / 2.0
    np.testing.assert_allclose(ahead, x_ahead / scale_next, rtol=1e-5)
    np.testing.assert_allclose(result, x_next / scale_next, rtol=1e-5)


def test_dpm_solver_extrapolates_from_the_last_x0():
    plan = samplers.plan("dpm++2m", CONFIG, 3)
    first, second, _ = rows(plan)
    z, x0_first, x0_second = (jnp.full((1, 1, 1, 1), value) for value in (0.8, -0.5, 0.3))
    zero = jnp.zeros_like(z)

    middle, memory = samplers.update(first, z, x0_first, zero, zero)
    result, _ = samplers.update(second, middle, x0_second, memory, zero)

    alpha_bar = schedule.alpha_bars(CONFIG)[[751, 501, 251]]
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)
    lam = np.log(alpha / sigma)
    h1, h2 = np.diff(lam)
    z1 = sigma[1] / sigma[0] * 0.8 - alpha[1] * np.expm1(-h1) * -0.5
    r = h1 / h2
    d = (1.0 + 1.0 / (2.0 * r)) * 0.3 - 1.0 / (2.0 * r) * -0.5
    z2 = sigma[2] / sigma[1] * z1 - alpha[2] * np.expm1(-h2) * d
    np.testing.assert_allclose(middle, z1, rtol=1e-5)
    np.testing.assert_allclose(result, z2, rtol=1e-5)


# The trajectories, against the oracle.


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpm++2m"])
def test_one_data_point_is_solved_exactly(name):
    """With x0 known for certain, a deterministic sampler stays on z = add_noise(x0, e) exactly."""
    plan = samplers.plan(name, CONFIG, 10)
    x0 = jnp.asarray(TRIANGLE[1]).reshape(1, 1, 1, 2)
    noise = jnp.ones_like(x0)
    z, memory = schedule.add_noise(x0, noise, jnp.asarray(plan.alpha_bar[:1])), jnp.zeros_like(x0)
    for row in rows(plan):
        expected = schedule.add_noise(x0, noise, jnp.full((1,), row.alpha_bar))
        np.testing.assert_allclose(z, expected, atol=1e-5)
        z, memory = samplers.update(row, z, x0, memory, jnp.zeros_like(z))


@jax.jit
def exact_path(z: jax.Array, sigma: jax.Array, sigma_end: jax.Array) -> jax.Array:
    """Follow dx/dsigma = (x - x0) / sigma by 2000 steps of RK4 in log sigma; z at both ends."""
    u, steps = jnp.log(sigma), 2000
    h = (jnp.log(sigma_end) - u) / steps

    points = jnp.asarray(TRIANGLE, jnp.float32).reshape(3, 1, 1, 2)

    def slope(u: jax.Array, x: jax.Array) -> jax.Array:
        alpha_bar = 1.0 / (1.0 + jnp.exp(2.0 * u))
        return x - posterior_mean(points, x * jnp.sqrt(alpha_bar), alpha_bar)

    def step(i: jax.Array, x: jax.Array) -> jax.Array:
        at = u + i * h
        k1 = slope(at, x)
        k2 = slope(at + h / 2, x + h / 2 * k1)
        k3 = slope(at + h / 2, x + h / 2 * k2)
        k4 = slope(at + h, x + h * k3)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    x = jax.lax.fori_loop(0, steps, step, z * jnp.sqrt(1.0 + sigma**2))
    return x / jnp.sqrt(1.0 + sigma_end**2)


@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm++2m", 2)]
)
def test_order_of_convergence(name, order):
    """Halving the step divides the error by 2^order, on the way from pure noise to t = 201.

    Plans of different length start at different timesteps, so each starts on the same exact path;
    the last steps are left out, as the jump to sigma = 0 is no small step for any solver.
    """
    strides, stop = [20, 10, 5], 201
    with jax.enable_x64(True):
        sigma = jnp.sqrt(1.0 / jnp.asarray(schedule.alpha_bars(CONFIG)) - 1.0)
        noise = jax.random.normal(jax.random.key(0), (16, 1, 1, 2))
        end = exact_path(noise, sigma[999], sigma[stop])
        errors = []
        for stride in strides:
            plan = samplers.plan(name, CONFIG, 1000 // stride - (name == "dpm++2m"))
            calls = (
                int(np.argmax(plan.timestep < stop)) - 1
            )  # those before the step that leaves t = 201
            assert plan.timestep[calls] == stop
            start = exact_path(noise, sigma[999], sigma[plan.timestep[0]])
            z = sample(oracle(*TRIANGLE), start, head(plan, calls), keys(16), "epsilon")
            errors.append(float(jnp.sqrt(jnp.mean((z - end) ** 2))))
    slope = np.polyfit(np.log(strides), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_reaches_a_data_point(name):
    noise = jax.random.normal(jax.random.key(0), (32, 1, 1, 2))
    plan = samplers.plan(name, CONFIG, 50)
    z = sample(oracle(*TRIANGLE), noise, plan, keys(32), "epsilon")
    distance = np.linalg.norm(np.asarray(z)[:, 0] - np.float32(TRIANGLE), axis=-1)
    # DDIM stops at alpha_bar[0], where noise of standard deviation 0.03 is left.
    assert distance.min(axis=1).max() < (0.12 if name == "ddim" else 0.01)
    assert set(distance.argmin(axis=1)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "eta"), [(name, 0.0) for name in NAMES] + [("ddim", 0.5), ("ddim", 1.0)]
)
def test_every_sampler_keeps_the_shares_of_the_data(name, eta):
    """Three quarters of the data here, one quarter there; so the samples, to 5 standard errors."""
    low, high = -1.0 / np.sqrt(3.0), np.sqrt(3.0)  # zero mean and unit variance, as latents have
    count = 4096
    noise = jax.random.normal(jax.random.key(5), (count, 1, 1, 1))
    plan = samplers.plan(name, CONFIG, 50, eta=eta)
    z = sample(oracle((low,), (low,), (low,), (high,)), noise, plan, keys(count), "epsilon")
    share = float(jnp.mean(z > (low + high) / 2.0))
    assert share == pytest.approx(0.25, abs=5.0 * np.sqrt(0.25 * 0.75 / count))


@pytest.mark.parametrize(
    ("name", "eta", "draws"),
    [
        ("ddim", 0.0, False),
        ("euler", 0.0, False),
        ("heun", 0.0, False),
        ("dpm++2m", 0.0, False),
        ("ddim", 0.5, True),
        ("ddpm", 0.0, True),
        ("euler_a", 0.0, True),
    ],
)
def test_only_stochastic_samplers_draw_noise(name, eta, draws):
    plan = samplers.plan(name, CONFIG, 5, eta=eta)
    noise = jax.random.normal(jax.random.key(0), (4, 1, 1, 2))
    one, other = (
        sample(oracle(*TRIANGLE), noise, head(plan, 4), keys(4, seed), "epsilon") for seed in (0, 1)
    )
    assert bool(jnp.any(one != other)) == draws


@pytest.mark.parametrize("name", NAMES)
def test_both_kinds_of_prediction_paint_the_same(name):
    plan = samplers.plan(name, CONFIG, 8)
    noise = jax.random.normal(jax.random.key(0), (4, 1, 1, 2))
    one, other = (
        sample(oracle(*TRIANGLE, kind=kind), noise, plan, keys(4), kind)
        for kind in ("epsilon", "v")
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


# The loop.


def test_sample_is_the_plain_loop():
    plan = samplers.plan("ddpm", CONFIG, 6)
    z = noise = jax.random.normal(jax.random.key(0), (3, 1, 1, 2))
    memory = jnp.zeros_like(z)
    predict = oracle(*TRIANGLE)
    for call, row in enumerate(rows(plan)):
        prediction = predict(z, jnp.full(3, row.timestep))
        x0 = schedule.to_x0(prediction, z, jnp.full(3, row.alpha_bar), "epsilon")
        fresh = jnp.stack(
            [jax.random.normal(jax.random.fold_in(key, call), (1, 1, 2)) for key in keys(3)]
        )
        z, memory = samplers.update(row, z, x0, memory, fresh)
    np.testing.assert_allclose(
        samplers.sample(predict, noise, plan, keys(3), "epsilon"), z, atol=1e-5
    )
    np.testing.assert_allclose(sample(predict, noise, plan, keys(3), "epsilon"), z, atol=1e-5)


def test_a_picture_does_not_depend_on_the_batch():
    plan = samplers.plan("euler_a", CONFIG, 6)
    noise = jax.random.normal(jax.random.key(0), (4, 1, 1, 2))
    batch = sample(oracle(*TRIANGLE), noise, plan, keys(4), "epsilon")
    alone = sample(oracle(*TRIANGLE), noise[2:3], plan, keys(4)[2:3], "epsilon")
    np.testing.assert_allclose(batch[2:3], alone, atol=1e-6)


def test_noise_is_new_for_every_picture_and_every_call():
    drawn = [samplers.noise_at(keys(3), jnp.asarray(call), (8, 8, 4)) for call in (0, 1)]
    noise = np.stack(drawn).reshape(6, -1)
    correlation = np.corrcoef(noise)
    assert np.abs(correlation - np.eye(6)).max() < 0.3
    np.testing.assert_allclose(noise.std(axis=1), 1.0, atol=0.2)


def test_another_sampler_or_number_of_steps_never_recompiles():
    traces = []

    @jax.jit
    def step(row, z, x0, memory, noise):
        traces.append(None)
        return samplers.update(row, z, x0, memory, noise)

    z = jnp.ones((2, 4, 4, 4))
    for name in NAMES:
        for steps in (1, 2, 25):
            for row in rows(samplers.plan(name, CONFIG, steps)):
                z, _ = step(row, z, z, z, z)
    assert len(traces) == 1


# Guidance.


def test_guidance_runs_from_the_empty_prompt_through_the_prompt():
    empty, prompt = jnp.full((1, 2, 2, 4), 0.25), jnp.full((1, 2, 2, 4), 0.75)
    np.testing.assert_array_equal(samplers.guide(empty, prompt, 0.0), empty)
    np.testing.assert_array_equal(samplers.guide(empty, prompt, 1.0), prompt)
    np.testing.assert_array_equal(samplers.guide(empty, prompt, 3.0), jnp.full_like(empty, 1.75))
    np.testing.assert_array_equal(samplers.guide(prompt, prompt, 7.5), prompt)


# Mistakes.


def test_an_unknown_sampler_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'plms'.*ddpm, ddim, euler, euler_a, heun, dpm"):
        samplers.plan("plms", CONFIG, 25)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [-1, 0, 1001, 10_000])
def test_steps_out_of_range_is_an_error(name, steps):
    with pytest.raises(ValueError, match=f"steps must be between 1 and 1000, got {steps}"):
        samplers.plan(name, CONFIG, steps)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan"), float("inf")])
def test_eta_out_of_range_is_an_error(eta):
    with pytest.raises(ValueError, match="eta must be between 0"):
        samplers.plan("ddim", CONFIG, 25, eta=eta)


def test_eta_is_for_ddim_alone():
    with pytest.raises(ValueError, match=r"eta belongs to the sampler \"ddim\".*'heun'"):
        samplers.plan("heun", CONFIG, 25, eta=0.5)
