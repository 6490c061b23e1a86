import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import DVAEConfig
from diffusion.runtime.parameters import SameKey
from diffusion.stages.dvae import COLDEST, DVAE
from diffusion.weights.architectures import structure

CONFIG = DVAEConfig(
    latent_channels=3, codes=8, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2,
    inner_channels=5, scaling_factor=0.5,
)  # fmt: skip
AMUSED = DVAEConfig(
    latent_channels=64, block_out_channels=(128, 256, 256, 512, 768), middle_attention=False
)


@pytest.fixture(scope="module")
def dvae(build):
    return build(lambda: DVAE(CONFIG, rngs=SameKey(0)))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)), jnp.float32)


def copied(module):
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.tree.map(jnp.copy, state))


@pytest.mark.parametrize(
    ("config", "tensors", "parameters", "downscale"),
    [(DVAEConfig(), 205, 55_322_782, 4), (AMUSED, 277, 146_244_675, 16)],
    ids=["celebahq", "amused"],
)
def test_the_official_ones_have_as_many_parameters(config, tensors, parameters, downscale):
    leaves = jax.tree.leaves(structure(config)[1])
    assert len(leaves) == tensors
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters
    assert config.downscale == downscale


def test_decode_takes_the_nearest_codes(dvae, images):
    def look(dvae, images):
        latents = dvae.encode(images)
        codes = dvae.codes(images)
        vectors = dvae.codebook.codes[codes] * dvae.scaling_factor
        return (
            (dvae.decode(latents), dvae.from_codes(codes), dvae.soft_decode(vectors)),
            dvae.soft_decode(latents),
            latents,
            codes,
        )

    decoded, soft, latents, codes = jax.jit(look)(dvae, images)
    assert latents.shape == (2, 4, 4, 3)
    assert codes.shape == (2, 4, 4)
    for other in decoded[1:]:
        np.testing.assert_allclose(decoded[0], other, atol=1e-5)
    assert jnp.abs(soft - decoded[0]).max() > 1e-3
    unscaled = np.asarray(latents)[..., None, :] / CONFIG.scaling_factor
    nearest = np.square(unscaled - np.asarray(dvae.codebook.codes)).sum(-1).argmin(-1)
    np.testing.assert_array_equal(codes, nearest)


def test_what_is_drawn_is_a_mixture_and_when_cold_a_code(dvae, images):
    draw = jax.jit(lambda dvae, t: dvae.draw(images, jax.random.key(1), t))
    codes = np.asarray(dvae.codebook.codes) * CONFIG.scaling_factor

    def farthest(temperature):
        latents = np.asarray(draw(dvae, temperature)[0])
        distance = np.abs(latents[..., None, :] - codes).max(-1)
        return np.median(distance.min(-1))

    assert farthest(1e-3) < 1e-4 < 0.01 < farthest(1.0)
    costs = draw(dvae, 1.0)[1]
    assert set(costs) == {"code_kl", "used", "perplexity"}
    assert 0 < costs["used"] <= 1
    assert 1 <= costs["perplexity"] <= 8


def test_the_kl_by_hand(dvae, images):
    """Nothing where all codes are as likely; log K a position where one of K is certain."""
    key = jax.random.key(1)
    kl = jax.jit(lambda dvae, warmth: dvae.draw(images, key, 1.0, warmth)[1]["code_kl"])
    alike, certain = copied(dvae), copied(dvae)
    alike.codebook.vectors.embedding[...] = jnp.ones((8, 3))
    certain.codebook.vectors.embedding[...] = 1e4 * dvae.codebook.codes
    assert kl(alike, 1.0) == pytest.approx(0.0, abs=1e-6)
    whole = math.log(8) * 32 / images.size
    assert kl(certain, 1.0) == pytest.approx(whole, rel=1e-4)
    assert kl(certain, 0.25) == pytest.approx(whole / 4, rel=1e-4)


def test_it_cools_down_in_the_first_half_and_the_kl_warms_up():
    begin, middle, end = (DVAE.anneal(jnp.float32(done)) for done in (0.0, 0.5, 1.0))
    assert (begin["temperature"], begin["warmth"]) == (1.0, 0.0)
    assert middle["temperature"] == pytest.approx(COLDEST)
    assert end["temperature"] == pytest.approx(COLDEST)
    assert middle["warmth"] == end["warmth"] == 1.0
    assert 0 < DVAE.anneal(jnp.float32(0.05))["warmth"] < 1


def after(dvae, method, images):
    """A copy, on which a method that changes it was called."""
    structure, state = nnx.split(dvae)

    def changed(state):
        copy = nnx.merge(structure, state)
        getattr(copy, method)(images, jax.random.key(0))
        return nnx.state(copy)

    return nnx.merge(structure, jax.jit(changed)(state))


def look(dvae, images):
    """Its latents as the encoder leaves them, their codes, and what they decode to as they are."""

    def all_of_it(dvae):
        latents = dvae.encode(images)
        return latents / dvae.scaling_factor, dvae.codes(images), dvae.soft_decode(latents)

    return [np.asarray(found) for found in jax.jit(all_of_it)(dvae)]


def test_the_codes_begin_where_the_latents_are_and_decode_the_same(dvae, images):
    begun = after(dvae, "begin", images)
    _, codes, decoded = look(begun, images)
    np.testing.assert_allclose(decoded, look(dvae, images)[2], atol=1e-4)  # in other units, no more
    assert len(np.unique(codes)) == 8
    with pytest.raises(ValueError, match="codes: 8 centres need as many points, and there are 4"):
        after(dvae, "begin", images[:1, :4, :4])


def test_a_dead_code_comes_back_at_a_latent(dvae, images):
    dead = copied(dvae)
    far = np.array(dead.codebook.codes)
    far[2] = 1e3
    dead.codebook.vectors.embedding[...] = jnp.asarray(far)
    latents, codes, _ = look(dead, images)
    used = np.bincount(codes.ravel(), minlength=8) > 0
    assert not used[2]
    found = np.asarray(after(dead, "tend", images).codebook.codes)
    np.testing.assert_array_equal(found[used], far[used])
    assert np.abs(latents.reshape(-1, 3) - found[2]).max(-1).min() < 1e-5


def test_every_parameter_is_trained(dvae, images, trained):
    def loss(dvae, weights):
        latents, _ = dvae.draw(images, jax.random.key(1), 1.0)
        return jnp.sum(weights * dvae.soft_decode(latents))

    trained(dvae, loss, (2, 8, 8, 3))
