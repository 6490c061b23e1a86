import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.presets import garden64, sd_v1
from diffusion.runtime import tiled_decoding
from diffusion.runtime.parameters import SameKey
from diffusion.runtime.tiled_decoding import decode_in_tiles, whole_decode_bytes
from diffusion.stages.vae import VAE
from diffusion.weights import folder

LEVEL = 2 / 255  # of the 256 in a picture of 8 bits


@pytest.fixture(scope="module")
def vae(tiny, build):
    return build(lambda: VAE(tiny.autoencoder, rngs=SameKey(0)))


@pytest.fixture(scope="module")
def shipped():
    place = folder.find("garden64")
    structure, params = folder.load_part(place, folder.load_config(place), "autoencoder")
    return nnx.merge(structure, params)


@pytest.fixture(scope="module")
def latents():
    """Half of a latent is quiet and dark, half of it loud and bright: no tile is like the whole."""
    noise = np.random.default_rng(0).standard_normal((1, 16, 16, 4)).astype(np.float32)
    return np.where(np.arange(16)[None, None, :, None] < 8, 0.3 * noise - 1, noise + 1)


decode = jax.jit(lambda vae, z: vae.decode(z))


def whole(vae, latents):
    return np.asarray(decode(vae, jnp.asarray(latents)))


@pytest.mark.parametrize(
    ("height", "width", "tile", "dtype", "bound"),
    [
        (8, 8, 4, "float32", 1e-5),
        (7, 10, 4, "float32", 1e-5),
        (3, 5, 8, "bfloat16", 0.1),
        (2, 3, 1, "float32", 1e-5),
    ],
)
def test_equals_the_whole_decode_at_every_size(vae, height, width, tile, dtype, bound):
    vae = jax.tree.map(lambda leaf: leaf.astype(dtype), vae)
    noise = np.random.default_rng(1).standard_normal((1, height, width, 4))
    z = np.asarray(noise, jnp.dtype(dtype))
    decoded = decode_in_tiles(vae, z, tile)
    assert decoded.shape == (1, 2 * height, 2 * width, 3)
    assert decoded.dtype == z.dtype
    decoded, expected = (x.astype(np.float32) for x in (decoded, whole(vae, z)))
    np.testing.assert_allclose(decoded, expected, atol=bound)


def test_equals_the_whole_decode_of_the_shipped_model(shipped, latents):
    np.testing.assert_allclose(
        decode_in_tiles(shipped, latents, 8), whole(shipped, latents), atol=2e-5
    )


@pytest.mark.parametrize("offset", [-50.0, 50.0])
def test_a_mean_far_from_zero_costs_no_digits(shipped, latents, offset):
    z = latents + np.float32(offset)
    np.testing.assert_allclose(decode_in_tiles(shipped, z, 8), whole(shipped, z), atol=1e-4)


def test_no_seam(shipped, latents):
    """What is wrong along the borders of the tiles is what is wrong elsewhere: rounding.

    The control are tiles that are decoded apart from each other, which are levels off.
    """
    expected = whole(shipped, latents)
    apart = np.concatenate(
        [
            np.concatenate([whole(shipped, z) for z in np.split(band, 2, axis=2)], axis=2)
            for band in np.split(latents, 2, axis=1)
        ],
        axis=1,
    )

    def steps(pictures):
        """The mean step across the border of two tiles, and across all others beside it."""
        wrong = np.abs(np.diff(pictures - expected, axis=2)).mean(axis=(0, 1, 3))
        border = np.arange(1, 64) == 32
        return wrong[border].mean(), wrong[~border].mean()

    across, elsewhere = steps(apart)
    assert across > 10 * LEVEL
    assert across > 3 * elsewhere
    across, elsewhere = steps(decode_in_tiles(shipped, latents, 8))
    assert across < 1e-5
    assert across < 2 * elsewhere


def test_same_picture_bit_for_bit(vae, latents):
    """Also beside another; and the latents stay as they are."""
    latents = latents[:, :8, :8]
    before = latents.copy()
    first = decode_in_tiles(vae, latents, 4)
    np.testing.assert_array_equal(latents, before)
    np.testing.assert_array_equal(first, decode_in_tiles(vae, latents, 4))
    both = decode_in_tiles(vae, np.concatenate([latents + 1, latents]), 4)
    np.testing.assert_array_equal(both[1:], first)


def compiled():
    programs = [value for value in vars(tiled_decoding).values() if hasattr(value, "_cache_size")]
    return [program._cache_size() for program in programs]


def test_another_size_compiles_nothing(vae, latents):
    decode_in_tiles(vae, latents[:, :5, :9], 4)
    before = compiled()
    assert min(before) >= 1
    decode_in_tiles(vae, latents[:, :7, :5], 4)
    decode_in_tiles(vae, latents, 4)
    assert compiled() == before


def test_little_more_than_one_map_at_a_time(shipped):
    """The largest map is that of 32 channels at the resolution of the picture."""
    z = np.random.default_rng(2).standard_normal((1, 48, 48, 4)).astype(np.float32)
    decode_in_tiles(shipped, z[:, :9, :9], 8)  # compiles
    tracemalloc.start()
    try:
        decode_in_tiles(shipped, z, 8)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * (4 * 48) ** 2 * 32 * 4


@pytest.mark.parametrize("tile", [0, -8])
def test_a_senseless_tile_is_refused(vae, latents, tile):
    with pytest.raises(ValueError, match=f"tile is {tile}"):
        decode_in_tiles(vae, latents, tile)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 96)])
def test_what_the_whole_decode_needs(height, width):
    """At least XLA's own account of its scratch and a quarter of that, and not twice as much."""
    config = garden64().autoencoder
    like = nnx.eval_shape(lambda: VAE(config, rngs=SameKey(0)))
    z = jax.ShapeDtypeStruct((1, height // 4, width // 4, 4), jnp.float32)
    scratch = decode.lower(like, z).compile().memory_analysis().temp_size_in_bytes
    assert 1.25 * scratch < whole_decode_bytes(config, height, width) < 2.5 * scratch


def test_what_the_whole_decode_of_stable_diffusion_needs():
    """As measured: the process grew by 1416 and by 4729 MiB."""
    small, large = (
        whole_decode_bytes(sd_v1().autoencoder, side, side) / 2**20 for side in (512, 1024)
    )
    assert 1416 < small < 1.1 * 1416
    assert 4729 < large < 1.25 * 4729
