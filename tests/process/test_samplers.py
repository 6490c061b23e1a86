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
from diffusion.process import Process, VariancePreserving, samplers, schedule
from diffusion.process.samplers import SamplerTable
from diffusion.process.sampling import Predict, Step, finished, one_step, sample, stepper

CONFIG = VariancePreservingConfig()
PROCESS = VariancePreserving(CONFIG)
VELOCITY = VariancePreserving(VariancePreservingConfig(prediction="v"))
ALPHA_BARS = schedule.alpha_bars(CONFIG)
ALL = list(samplers.SAMPLERS)
NAMES = [name for name in ALL if name != "lcm"]  # it ends at 50 steps, and does not solve anything
TRIANGLE = ((-1.0, 0.0), (1.0, 0.5), (0.3, -0.9))


def posterior_mean(points: jax.Array | np.ndarray, z: jax.Array, alpha_bar: jax.Array) -> jax.Array:
    """E[x0 | z] for z of shape (B, h, w, c), points (K, h, w, c) and alpha_bar ()."""
    distance = jnp.sum((z[:, None] - jnp.sqrt(alpha_bar) * points[None]) ** 2, axis=(2, 3, 4))
    share = jax.nn.softmax(-distance / (2.0 * (1.0 - alpha_bar)), axis=1)
    return jnp.einsum("bk,khwc->bhwc", share, points)


@functools.cache
def oracle(*points: tuple[float, ...], kind: str = "epsilon") -> Predict:
    """A network that has learned its data perfectly."""
    data = np.float32(points).reshape(len(points), 1, 1, -1)

    def predict(z: jax.Array, timesteps: jax.Array) -> jax.Array:
        alpha_bar = jnp.asarray(ALPHA_BARS, jnp.float32)[timesteps]
        x0 = posterior_mean(data, z, alpha_bar[0])
        level = alpha_bar[:, None, None, None]
        epsilon = (z - jnp.sqrt(level) * x0) / jnp.sqrt(1.0 - level)
        return schedule.target(x0, epsilon, alpha_bar, kind)

    return predict


advance = jax.jit(one_step, static_argnums=(0, 1))  # one program for all tables of a shape


def latents(
    predict: Predict,
    noise: jax.Array,
    table: SamplerTable,
    keys: jax.Array,
    process: Process = PROCESS,
) -> jax.Array:
    """What the one loop leaves."""
    step = lambda *inputs: advance(process, predict, *inputs, keys)  # noqa: E731
    return finished(sample(step, noise, table))


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def rows(table: SamplerTable) -> list[SamplerTable]:
    return [table.row(call) for call in range(len(table.step))]


def head(table: SamplerTable, calls: int) -> SamplerTable:
    return SamplerTable(*(column[:calls] for column in table))


def assert_same_table(one: SamplerTable, other: SamplerTable) -> None:
    for field, a, b in zip(SamplerTable._fields, one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=field)


# The tables.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 25, 501, 999, 1000])
def test_every_table_is_finite_and_ends_clean(name, steps):
    table = samplers.table(name, PROCESS, steps)
    assert all(np.isfinite(column).all() for column in table)
    assert {column.dtype for column in table[:2]} == {np.dtype(np.int32)}
    assert {column.dtype for column in table[2:]} == {np.dtype(np.float32)}
    assert len(table.step) == (2 * steps - 1 if name == "heun" else steps)
    assert sorted(set(table.step.tolist())) == list(range(steps))
    if name != "ddim":
        last = rows(table)[-1]
        assert (last.z_from_z, last.z_from_x0, last.z_from_memory, last.z_from_noise) == (
            0,
            1,
            0,
            0,
        )


def test_the_timesteps_of_stable_diffusion():
    for name in ("ddpm", "ddim", "euler", "euler_a"):
        assert samplers.table(name, PROCESS, 4).timestep.tolist() == [751, 501, 251, 1]
    heun = samplers.table("heun", PROCESS, 4)
    assert heun.timestep.tolist() == [751, 501, 501, 251, 251, 1, 1]
    assert heun.step.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert samplers.table("dpm++2m", PROCESS, 4).timestep.tolist() == [801, 601, 401, 201]
    assert samplers.table("dpm++2m", PROCESS, 25).timestep[[0, -1]].tolist() == [951, 39]


@pytest.mark.parametrize(
    ("name", "eta", "final"),
    [
        ("ddpm", 0.0, 1.0),
        ("euler", 0.0, 1.0),
        ("euler_a", 0.0, 1.0),
        ("ddim", 0.0, ALPHA_BARS[0]),
        ("ddim", 0.4, ALPHA_BARS[0]),
        ("ddim", 1.0, ALPHA_BARS[0]),
    ],
)
def test_a_step_keeps_the_marginals_of_training(name, eta, final):
    """With the true x0, z ~ N(sqrt(ab) x0, 1 - ab) goes to N(sqrt(next ab) x0, 1 - next ab)."""
    table = samplers.table(name, PROCESS, 20, eta=eta)
    alpha_bar = ALPHA_BARS[table.timestep]
    following = np.append(alpha_bar[1:], final)
    mean = table.z_from_z * np.sqrt(alpha_bar) + table.z_from_x0
    variance = table.z_from_z**2 * (1.0 - alpha_bar) + table.z_from_noise**2
    np.testing.assert_allclose(mean, np.sqrt(following), atol=1e-6)
    np.testing.assert_allclose(variance, 1.0 - following, atol=1e-6)


def test_ddim_with_all_its_noise_is_ddpm_until_the_last_step():
    ddim, ddpm = samplers.table("ddim", PROCESS, 20, eta=1.0), samplers.table("ddpm", PROCESS, 20)
    assert_same_table(head(ddim, 19), head(ddpm, 19))
    assert ddim.z_from_noise[-1] > 0 == ddpm.z_from_noise[-1]


def test_euler_is_ddim_until_the_last_step():
    euler, ddim = samplers.table("euler", PROCESS, 20), samplers.table("ddim", PROCESS, 20)
    assert_same_table(head(euler, 19), head(ddim, 19))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_where_the_end_is_clean_ddim_is_euler(spacing):
    clean = VariancePreserving(VariancePreservingConfig(clean_end=True))
    tables = (samplers.table(name, clean, 20, spacing=spacing) for name in ("ddim", "euler"))
    assert_same_table(*tables)
    assert samplers.table("ddim", clean, 20, eta=1.0).z_from_noise[-1] == 0


@pytest.mark.parametrize("clean", [False, True])
def test_evenly_spaced_ddim_lands_beside_the_next_timestep(clean):
    """As AnimateDiff's pipeline of the reference: from 999 on 959, though it is told 957 next."""
    process = VariancePreserving(VariancePreservingConfig(beta_rule="linear", clean_end=clean))
    table = samplers.table("ddim", process, 25, spacing="linspace")
    assert table.timestep[[0, 1, 2, -3, -2, -1]].tolist() == [999, 957, 916, 83, 42, 0]
    bars = process.alpha_bars
    lands = np.append(bars[table.timestep[:-1] - 40], 1.0 if clean else bars[0])
    sigma = np.sqrt(1.0 - bars[table.timestep])
    np.testing.assert_allclose(table.z_from_z, np.sqrt(1.0 - lands) / sigma, atol=1e-6)
    alpha = np.sqrt(bars[table.timestep])
    expected = np.sqrt(lands) - alpha * np.sqrt(1.0 - lands) / sigma
    np.testing.assert_allclose(table.z_from_x0, expected, atol=1e-6)


def test_ancestral_euler_is_ddpm():
    assert_same_table(samplers.table("euler_a", PROCESS, 20), samplers.table("ddpm", PROCESS, 20))


# Image to image: the last part of a table.


@pytest.mark.parametrize("name", ALL)
def test_strength_keeps_the_last_steps(name):
    whole = samplers.table(name, PROCESS, 25)
    part = samplers.table(name, PROCESS, 25, strength=0.4)
    assert sorted(set(part.step.tolist())) == list(range(15, 25))
    assert len(part.step) == (19 if name == "heun" else 10)
    np.testing.assert_array_equal(part.timestep, whole.timestep[-len(part.step) :])
    for field, column, longer in zip(SamplerTable._fields, part, whole, strict=True):
        later = slice(1, None) if field in ("z_from_x0", "z_from_memory") else slice(None)
        np.testing.assert_array_equal(column[later], longer[-len(part.step) :][later], field)


@pytest.mark.parametrize("name", NAMES)
def test_trailing_timesteps_are_those_of_the_process(name):
    table = samplers.table(name, PROCESS, 4, spacing="trailing")
    kept = table.timestep if name != "heun" else table.timestep[[0, 1, 3, 5]]
    assert kept.tolist() == [999, 749, 499, 249]
    assert all(np.isfinite(column).all() for column in table)


@pytest.mark.parametrize(
    ("steps", "timesteps"),
    [
        (1, [999]),
        (2, [999, 499]),
        (4, [999, 759, 499, 259]),
        (8, [999, 879, 759, 639, 499, 379, 259, 139]),
    ],
)
@pytest.mark.parametrize("spacing", schedule.SPACINGS)
def test_latent_consistency_jumps_to_x0_and_takes_fresh_noise(steps, timesteps, spacing):
    table = samplers.table("lcm", PROCESS, steps, spacing=spacing)
    assert table.timestep.tolist() == timesteps
    arrives = ALPHA_BARS[timesteps[1:]]
    np.testing.assert_allclose(table.z_from_noise, np.append(np.sqrt(1 - arrives), 0), rtol=1e-6)
    np.testing.assert_allclose(table.z_from_x0, np.append(np.sqrt(arrives), 1), rtol=1e-6)
    assert np.abs(table.z_from_z).max() < 1e-6
    assert samplers.table("lcm", PROCESS, 50).timestep.tolist() == list(range(999, 0, -20))


@pytest.mark.parametrize("steps", [0, 51])
def test_latent_consistency_has_fifty_steps(steps):
    with pytest.raises(ValueError, match=f'"lcm" takes 1 to 50 steps, got {steps}; 4 is a good'):
        samplers.table("lcm", PROCESS, steps)


def test_latent_consistency_keeps_what_is_clean():
    """At t = 0 c_skip is 1 and c_out 0 (Song et al. 2023, section 3): a short process shows it."""
    short = VariancePreserving(VariancePreservingConfig(train_steps=1))
    table = samplers.table("lcm", short, 1)
    assert (table.timestep[0], table.z_from_z[0], table.z_from_x0[0]) == (0, 1, 0)


def test_dpm_solver_enters_at_first_order():
    """There it is DDIM (Lu et al. 2022, arXiv 2211.01095, section 4): nothing is remembered yet."""
    table = samplers.table("dpm++2m", PROCESS, 25, strength=0.4)
    alpha, alpha_next = np.sqrt(ALPHA_BARS[table.timestep[:2]])
    sigma, sigma_next = np.sqrt(1.0 - ALPHA_BARS[table.timestep[:2]])
    assert table.z_from_memory[0] == 0.0
    np.testing.assert_allclose(table.z_from_z[0], sigma_next / sigma, rtol=1e-5)
    weight = alpha_next - alpha * sigma_next / sigma
    np.testing.assert_allclose(table.z_from_x0[0], weight, rtol=1e-5)
    assert table.z_from_memory[1] != 0.0


@pytest.mark.parametrize("name", ALL)
def test_full_strength_is_the_whole_table(name):
    whole, full = samplers.table(name, PROCESS, 7), samplers.table(name, PROCESS, 7, strength=1.0)
    assert_same_table(whole, full)


@pytest.mark.parametrize(
    ("steps", "strength", "kept"),
    # 50 x 0.58 is 28.999999999999996: the reference takes 28 steps.
    [(1, 1.0, 1), (2, 0.99, 1), (4, 0.3, 1), (10, 0.75, 7), (50, 0.58, 28), (50, 0.02, 1)],
)
def test_the_number_of_steps_that_strength_leaves(steps, strength, kept):
    assert len(samplers.table("ddim", PROCESS, steps, strength=strength).step) == kept


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_strength_out_of_range_is_an_error(strength):
    with pytest.raises(ValueError, match=r"strength must be above 0 .* at most 1"):
        samplers.table("euler", PROCESS, 25, strength=strength)


@pytest.mark.parametrize("steps", [1, 3, 49, 999])
def test_strength_without_a_step_is_an_error_that_names_enough(steps):
    with pytest.raises(ValueError, match="less than one step") as caught:
        samplers.table("ddim", PROCESS, steps, strength=0.999 / steps)
    enough = float(str(caught.value).split("strength of ")[1].split()[0])
    assert len(samplers.table("ddim", PROCESS, steps, strength=enough).step) >= 1


# The steps, against the papers' formulas written out.


def test_heun_averages_the_slopes_at_both_ends():
    table = samplers.table("heun", PROCESS, 2)
    first, second, _ = rows(table)
    z, x0, x0_ahead = (jnp.full((1, 1, 1, 1), value) for value in (0.8, -0.5, 0.3))
    zero = jnp.zeros_like(z)

    ahead, memory = samplers.update(first, z, x0, zero, zero)
    result, _ = samplers.update(second, ahead, x0_ahead, memory, zero)

    sigma, sigma_next = np.sqrt(1.0 / ALPHA_BARS[[501, 1]] - 1.0)
    scale, scale_next = np.sqrt(1.0 + sigma**2), np.sqrt(1.0 + sigma_next**2)  # x = scale z
    x = 0.8 * scale
    slope = (x - -0.5) / sigma
    x_ahead = x + (sigma_next - sigma) * slope
    slope_ahead = (x_ahead - 0.3) / sigma_next
    x_next = x + (sigma_next - sigma) * (slope + slope_ahead) / 2.0
    np.testing.assert_allclose(ahead, x_ahead / scale_next, rtol=1e-5)
    np.testing.assert_allclose(result, x_next / scale_next, rtol=1e-5)


def test_dpm_solver_extrapolates_from_the_last_x0():
    table = samplers.table("dpm++2m", PROCESS, 3)
    first, second, _ = rows(table)
    z, x0_first, x0_second = (jnp.full((1, 1, 1, 1), value) for value in (0.8, -0.5, 0.3))
    zero = jnp.zeros_like(z)

    middle, memory = samplers.update(first, z, x0_first, zero, zero)
    result, _ = samplers.update(second, middle, x0_second, memory, zero)

    alpha_bar = ALPHA_BARS[[751, 501, 251]]
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
    table = samplers.table(name, PROCESS, 10)
    x0 = jnp.asarray(TRIANGLE[1]).reshape(1, 1, 1, 2)
    noise = jnp.ones_like(x0)
    z = PROCESS.add_noise(x0, noise, jnp.asarray(table.timestep[:1]))
    memory = jnp.zeros_like(x0)
    for row in rows(table):
        expected = PROCESS.add_noise(x0, noise, jnp.full(1, row.timestep))
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

    Tables of different length start at different timesteps, so each starts on the same exact path;
    the last steps are left out, as the jump to sigma = 0 is no small step for any solver.
    """
    strides, stop = [20, 10, 5], 201
    with jax.enable_x64(True):
        sigma = jnp.sqrt(1.0 / jnp.asarray(ALPHA_BARS) - 1.0)
        noise = jax.random.normal(jax.random.key(0), (16, 1, 1, 2))
        end = exact_path(noise, sigma[999], sigma[stop])
        errors = []
        for stride in strides:
            table = samplers.table(name, PROCESS, 1000 // stride - (name == "dpm++2m"))
            calls = (
                int(np.argmax(table.timestep < stop)) - 1
            )  # those before the step that leaves t = 201
            assert table.timestep[calls] == stop
            start = exact_path(noise, sigma[999], sigma[table.timestep[0]])
            z = latents(oracle(*TRIANGLE), start, head(table, calls), keys(16))
            errors.append(float(jnp.sqrt(jnp.mean((z - end) ** 2))))
    slope = np.polyfit(np.log(strides), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_reaches_a_data_point(name):
    noise = jax.random.normal(jax.random.key(0), (32, 1, 1, 2))
    table = samplers.table(name, PROCESS, 50)
    z = latents(oracle(*TRIANGLE), noise, table, keys(32))
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
    table = samplers.table(name, PROCESS, 50, eta=eta)
    z = latents(oracle((low,), (low,), (low,), (high,)), noise, table, keys(count))
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
        ("lcm", 0.0, True),
    ],
)
def test_only_stochastic_samplers_draw_noise(name, eta, draws):
    table = samplers.table(name, PROCESS, 5, eta=eta)
    noise = jax.random.normal(jax.random.key(0), (4, 1, 1, 2))
    one, other = (
        latents(oracle(*TRIANGLE), noise, head(table, 4), keys(4, seed)) for seed in (0, 1)
    )
    assert bool(jnp.any(one != other)) == draws


@pytest.mark.parametrize("name", ALL)
def test_both_kinds_of_prediction_paint_the_same(name):
    table = samplers.table(name, PROCESS, 8)
    noise = jax.random.normal(jax.random.key(0), (4, 1, 1, 2))
    one, other = (
        latents(oracle(*TRIANGLE, kind=process.prediction), noise, table, keys(4), process)
        for process in (PROCESS, VELOCITY)
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


# The loop.


def test_sample_is_the_plain_loop():
    table = samplers.table("ddpm", PROCESS, 6)
    noise = jax.random.normal(jax.random.key(0), (3, 1, 1, 2))
    predict = oracle(*TRIANGLE)
    z, memory, expected = noise, jnp.zeros_like(noise), []
    for call, row in enumerate(rows(table)):
        t = jnp.full(3, row.timestep)
        prediction = predict(z, t)
        x0 = schedule.to_x0(prediction, z, jnp.asarray(ALPHA_BARS, jnp.float32)[t], "epsilon")
        fresh = jnp.stack(
            [jax.random.normal(jax.random.fold_in(key, call), (1, 1, 2)) for key in keys(3)]
        )
        seen = z
        z, memory = samplers.update(row, z, x0, memory, fresh)
        expected.append(Step(int(row.step), int(row.timestep), seen, prediction, x0, z))
    found = list(sample(stepper(PROCESS, predict, keys(3)), noise, table))
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.t) == (other.index, other.t)
        for name in ("x_t", "prediction", "x0", "x_next"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    np.testing.assert_array_equal(finished(iter(found)), found[-1].x_next)


def test_a_step_is_taken_when_it_is_asked_for():
    asked = []

    def advance(x_t, memory, row, call):
        asked.append(int(call))
        return x_t, x_t, x_t, memory

    steps = sample(advance, jnp.zeros((1, 1, 1, 2)), samplers.table("heun", PROCESS, 3))
    assert asked == []
    first = next(steps)
    assert (asked, first.index, first.t) == ([0], 0, 667)
    assert [step.index for step in steps] == [0, 1, 1, 2]
    assert asked == [0, 1, 2, 3, 4]


def test_a_picture_does_not_depend_on_the_batch():
    table = samplers.table("euler_a", PROCESS, 6)
    noise = jax.random.normal(jax.random.key(0), (4, 1, 1, 2))
    batch = latents(oracle(*TRIANGLE), noise, table, keys(4))
    alone = latents(oracle(*TRIANGLE), noise[2:3], table, keys(4)[2:3])
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
    for name in ALL:
        for steps in (1, 2, 25):
            for row in rows(samplers.table(name, PROCESS, steps)):
                z, _ = step(row, z, z, z, z)
    assert len(traces) == 1


# Guidance.


def test_guidance_runs_from_the_empty_prompt_through_the_prompt():
    empty, prompt = jnp.full((1, 2, 2, 4), 0.25), jnp.full((1, 2, 2, 4), 0.75)
    np.testing.assert_array_equal(samplers.guide(empty, prompt, 0.0), empty)
    np.testing.assert_array_equal(samplers.guide(empty, prompt, 1.0), prompt)
    np.testing.assert_array_equal(samplers.guide(empty, prompt, 3.0), jnp.full_like(empty, 1.75))
    np.testing.assert_array_equal(samplers.guide(prompt, prompt, 7.5), prompt)


def test_guidance_of_what_each_canvas_has_of_its_own():
    rng = np.random.default_rng(0)
    empty, prompt = jnp.asarray(rng.normal(size=(2, 5, 4, 4, 3)), jnp.float32)
    together = samplers.guide(empty, prompt, 3.0)
    for kept in (0.0, 0.5, 1.0):
        apart = samplers.guide(empty, prompt, 3.0, jnp.float32(kept))
        mean, middle = (x.mean(axis=0, keepdims=True) for x in (apart, prompt))
        np.testing.assert_allclose(mean[0], together.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(apart - mean, kept * (prompt - middle), atol=1e-5)


# Mistakes.


def test_an_unknown_sampler_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'plms'.*ddpm, ddim, euler, euler_a, heun, dpm"):
        samplers.table("plms", PROCESS, 25)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [-1, 0, 1001, 10_000])
def test_steps_out_of_range_is_an_error(name, steps):
    with pytest.raises(ValueError, match=f"steps must be between 1 and 1000, got {steps}"):
        samplers.table(name, PROCESS, steps)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan"), float("inf")])
def test_eta_out_of_range_is_an_error(eta):
    with pytest.raises(ValueError, match="eta must be between 0"):
        samplers.table("ddim", PROCESS, 25, eta=eta)


def test_eta_is_for_ddim_alone():
    with pytest.raises(ValueError, match=r"eta belongs to the sampler \"ddim\".*'heun'"):
        samplers.table("heun", PROCESS, 25, eta=0.5)
