import jax
import jax.numpy as jnp
import numpy as np

from diffusion.layers.time_embedding import TimeEmbedding, guidance_sinusoids, sinusoids
from diffusion.runtime.parameters import SameKey


def plain(timesteps, width):
    half = width // 2
    rows = []
    for t in timesteps:
        angles = [t * 10_000 ** (-i / half) for i in range(half)]
        rows.append([np.cos(a) for a in angles] + [np.sin(a) for a in angles])
    return np.array(rows)


def test_cosine_comes_first():
    np.testing.assert_array_equal(sinusoids(jnp.asarray([0]), 6), [[1, 1, 1, 0, 0, 0]])


def test_sinusoids_of_stable_diffusion():
    timesteps = [0, 1, 37, 500, 999]
    features = sinusoids(jnp.asarray(timesteps), 320)
    assert features.shape == (5, 320)
    # The angle reaches 999, whose spacing in float32 is 6e-5.
    np.testing.assert_allclose(features, plain(timesteps, 320), atol=2e-4)


def test_frequencies_go_from_one_almost_down_to_a_ten_thousandth():
    """i / half, not i / (half - 1): the slowest of 160 is 10000^(-159/160)."""
    features = sinusoids(jnp.asarray([1]), 320)
    np.testing.assert_allclose(np.arcsin(features[0, -1]), 10_000 ** (-159 / 160), rtol=1e-4)


def test_two_linear_layers_with_silu_between(build):
    layer = build(lambda: TimeEmbedding(6, 10, rngs=SameKey(0)))
    first, second = layer.linear1, layer.linear2
    h = plain([3, 800], 6) @ np.asarray(first.kernel, np.float64) + np.asarray(first.bias)
    h = h / (1 + np.exp(-h))
    expected = h @ np.asarray(second.kernel, np.float64) + np.asarray(second.bias)
    found = jax.jit(lambda layer, t: layer(t))(layer, jnp.asarray([3, 800]))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_code_of_guidance_has_sines_first_and_ends_at_a_ten_thousandth():
    code = np.asarray(guidance_sinusoids(jnp.asarray([1.0, 1.5, 8.5]), 256))
    np.testing.assert_array_equal(code[0], [0.0] * 128 + [1.0] * 128)
    angles = 7500.0 * 10_000.0 ** (-np.arange(128) / 127)
    np.testing.assert_allclose(code[2], np.r_[np.sin(angles), np.cos(angles)], atol=2e-3)
    np.testing.assert_allclose(code[1, 127], np.sin(500.0 / 10_000), rtol=1e-5)


def test_guidance_is_added_to_the_sinusoids(build):
    layer = build(lambda: TimeEmbedding(6, 10, 8, rngs=SameKey(0)))
    t, scale = jnp.asarray([3, 800]), jnp.asarray([2.0, 7.5])
    code = guidance_sinusoids(scale, 8) @ layer.guidance.kernel[...]
    features = sinusoids(t, 6) + code
    expected = layer.linear2(jax.nn.silu(layer.linear1(features)))
    np.testing.assert_allclose(layer(t, scale), expected, atol=1e-5)
    assert np.abs(np.asarray(layer(t, scale) - layer(t))).max() > 0.01
