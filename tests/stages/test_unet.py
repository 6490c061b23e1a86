"""The U-Net as a whole: its parts have files of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import sd_v1
from diffusion.layers.normalisation import GroupNorm
from diffusion.runtime.parameters import SameKey
from diffusion.stages.unet import UNet


@pytest.fixture(scope="module")
def create(tiny, build):
    """Two levels of one block each: a longer U repeats them."""

    def create(*attention):
        small = dataclasses.replace(
            tiny.denoiser,
            block_out_channels=(8, 12),
            layers_per_block=1,
            attention=attention,
            heads=(2, 3),
        )
        return build(lambda: UNet(small, rngs=SameKey(0)))

    return create


@pytest.fixture(scope="module")
def unet(create):
    return create(True, False)


@pytest.fixture(scope="module")
def jitted(unet):
    structure, params = nnx.split(unet)
    call = jax.jit(lambda params, *inputs: nnx.merge(structure, params)(*inputs))
    return lambda *inputs: np.asarray(call(params, *inputs))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    latents, context = (rng.standard_normal((2, *s), np.float32) for s in ((4, 4, 4), (5, 8)))
    return jnp.asarray(latents), jnp.asarray([37, 800]), jnp.asarray(context)


@pytest.fixture(scope="module")
def prediction(jitted, inputs):
    return jitted(*inputs)


def test_stages_one_by_one_are_the_whole(unet, inputs, prediction):
    """Four programs against one."""
    latents, timesteps, context = inputs
    stage = jax.jit(lambda module, *inputs: module(*inputs))
    time = stage(unet.time_embedding, timesteps)
    h, skips = stage(unet.down, latents, time, context)
    h = stage(unet.bottleneck, h, time, context)
    composed = stage(unet.up, h, skips, time, context)
    assert composed.shape == latents.shape
    assert jnp.std(composed) > 0.1
    np.testing.assert_allclose(composed, prediction, atol=2e-5)


def test_words_timestep_and_canvas_change_the_prediction(jitted, inputs, prediction):
    """Of the picture that they belong to; its neighbour never notices."""
    latents, timesteps, context = inputs
    changes = [
        (latents, timesteps, context.at[0].add(1.0)),
        (latents, timesteps.at[0].set(38), context),
        (latents.at[0].add(1.0), timesteps, context),
    ]
    for changed in changes:
        other = jitted(*changed)
        assert np.abs(other[0] - prediction[0]).max() > 1e-3
        np.testing.assert_allclose(other[1], prediction[1], atol=1e-5)


@pytest.fixture(scope="module")
def official():
    return nnx.eval_shape(lambda: UNet(sd_v1().denoiser, rngs=SameKey(0)))


def norms(module):
    """eps of every normalisation, sorted by where it stands."""
    found = {"transformer": [], "other": [], "layer": []}
    for path, child in nnx.iter_graph(module):
        if isinstance(child, nnx.LayerNorm):
            found["layer"].append(child.epsilon)
        elif isinstance(child, GroupNorm):
            inside = any("transformer" in str(part) for part in path)
            found["transformer" if inside else "other"].append(child.eps)
    return found


def test_every_norm_of_stable_diffusion_has_the_right_eps(official):
    """22 residual blocks of two and the last one; 16 transformers of one, and three LayerNorms."""
    assert norms(official) == {
        "transformer": [1e-6] * 16,
        "other": [1e-5] * 45,
        "layer": [1e-5] * 48,
    }


def test_the_ledger_of_stable_diffusion(official):
    """Shapes on the way down, and back: twelve skips, the first from conv_in."""
    latents = jax.ShapeDtypeStruct((1, 64, 64, 4), jnp.float32)
    context = jax.ShapeDtypeStruct((1, 77, 768), jnp.float32)
    time = jax.ShapeDtypeStruct((1, 1280), jnp.float32)
    h, skips = nnx.eval_shape(lambda unet, *x: unet.down(*x), official, latents, time, context)
    ledger = [skip.shape[1:] for skip in skips]
    assert ledger == [
        *[(64, 64, 320)] * 3,
        (32, 32, 320),
        *[(32, 32, 640)] * 2,
        (16, 16, 640),
        *[(16, 16, 1280)] * 2,
        *[(8, 8, 1280)] * 3,
    ]
    assert h.shape == (1, 8, 8, 1280)
    h = nnx.eval_shape(lambda unet, *x: unet.bottleneck(*x), official, h, time, context)
    assert h.shape == (1, 8, 8, 1280)
    out = nnx.eval_shape(lambda unet, *x: unet.up(*x), official, h, skips, time, context)
    assert out.shape == (1, 64, 64, 4)


def test_every_parameter_is_trained(create, inputs, trained):
    """One transformer, that of the bottleneck, is enough: the others are called like it."""
    loss = lambda unet, weights: jnp.sum(weights * unet(*inputs))  # noqa: E731
    trained(create(False, False), loss, (2, 4, 4, 4))
