"""The U-Net as a whole: its parts have files of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import UNetConfig, sd_v1
from diffusion.layers.normalisation import GroupNorm
from diffusion.runtime.parameters import SameKey
from diffusion.stages.unet import UNet


@pytest.fixture(scope="module")
def unet(tiny, build):
    return build(lambda: UNet(tiny.denoiser, rngs=SameKey(0)))


@pytest.fixture(scope="module")
def jitted(unet):
    structure, params = nnx.split(unet)
    call = jax.jit(lambda params, *inputs: nnx.merge(structure, params)(*inputs))
    return lambda *inputs: np.asarray(call(params, *inputs))


@pytest.fixture(scope="module")
def inputs():
    latents = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    context = jax.random.normal(jax.random.key(1), (2, 5, 8))
    return latents, jnp.asarray([37, 800]), context


@pytest.fixture(scope="module")
def prediction(jitted, inputs):
    return jitted(*inputs)


def test_stages_one_by_one_are_the_whole(unet, inputs, prediction):
    """Four programs against one."""
    latents, timesteps, context = inputs
    stage = nnx.jit(lambda module, *inputs: module(*inputs))
    time = stage(unet.time_embedding, timesteps)
    h, skips = stage(unet.down, latents, time, context)
    h = stage(unet.bottleneck, h, time, context)
    composed = stage(unet.up, h, skips, time, context)
    assert composed.shape == latents.shape
    assert jnp.std(composed) > 0.1
    np.testing.assert_allclose(composed, prediction, atol=2e-5)


def test_jit_changes_nothing(build, inputs):
    """One level is enough, and quick: eagerly, each operation is a program of its own."""
    config = UNetConfig(
        block_out_channels=(8,),
        layers_per_block=1,
        attention=(True,),
        heads=(2,),
        context_width=8,
        norm_groups=4,
    )
    unet = build(lambda: UNet(config, rngs=SameKey(0)))
    compiled = nnx.jit(lambda unet, *inputs: unet(*inputs))(unet, *inputs)
    np.testing.assert_allclose(unet(*inputs), compiled, atol=1e-5)


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
    for path, child in nnx.iter_modules(module):
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


def test_every_parameter_is_trained(unet, inputs, trained):
    trained(unet, lambda unet, weights: jnp.sum(weights * unet(*inputs)), (2, 8, 8, 4))
