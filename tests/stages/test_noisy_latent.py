import jax.numpy as jnp
import numpy as np

from diffusion.stages.noisy_latent import initial_noise, picture_keys

SIZE = (8, 6, 4)


def test_a_picture_depends_on_seed_and_number_alone():
    together = initial_noise(picture_keys(7, jnp.arange(5)), SIZE)
    alone = initial_noise(picture_keys(7, jnp.asarray([3])), SIZE)
    assert together.shape == (5, *SIZE)
    np.testing.assert_array_equal(together[3], alone[0])


def test_every_seed_and_every_number_has_a_canvas_of_its_own():
    canvases = [
        initial_noise(picture_keys(seed, jnp.arange(3)), SIZE) for seed in (0, 1, 2**32 - 1)
    ]
    flat = np.concatenate(canvases).reshape(9, -1)
    overlap = np.corrcoef(flat) - np.eye(9)
    assert np.abs(overlap).max() < 0.3  # 192 numbers each: a correlation has deviation 0.07


def test_the_canvas_is_standard_normal():
    z = np.asarray(initial_noise(picture_keys(0, jnp.arange(100)), (16, 16, 4)), np.float64)
    assert abs(z.mean()) < 0.02  # 102,400 numbers: deviation 0.003
    assert abs(z.var() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15
