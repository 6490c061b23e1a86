import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.runtime.parameters import SameKey
from diffusion.stages.unet_up import UNetUp

SKIPS = [*[(8, 8, 8)] * 3, (4, 4, 8), *[(4, 4, 12)] * 2, (2, 2, 12), *[(2, 2, 16)] * 2]


@pytest.fixture(scope="module")
def call(tiny, build):
    """The stage as a function of its skips alone; without transformers, which change none."""
    config = dataclasses.replace(tiny.denoiser, attention=(False,) * 3)
    up = build(lambda: UNetUp(config, rngs=SameKey(0)))
    rng = np.random.default_rng(0)
    shapes = ((1, 2, 2, 16), (1, config.time_width), (1, 5, 8))
    h, time, context = (jnp.asarray(rng.standard_normal(s, np.float32)) for s in shapes)
    jitted = jax.jit(lambda up, skips: up(h, skips, time, context))
    return lambda skips: np.asarray(jitted(up, skips))


@pytest.fixture(scope="module")
def skips():
    rng = np.random.default_rng(1)
    return tuple(jnp.asarray(rng.standard_normal((1, *shape), np.float32)) for shape in SKIPS)


def test_every_skip_is_heard_and_each_in_its_place(call, skips):
    out = call(skips)
    assert out.shape == (1, 8, 8, 4)
    for i in range(len(skips)):
        louder = (*skips[:i], 2.0 * skips[i], *skips[i + 1 :])
        assert np.abs(call(louder) - out).max() > 1e-3
    swapped = (skips[1], skips[0], *skips[2:])
    assert np.abs(call(swapped) - out).max() > 1e-3


def test_skips_in_the_wrong_order_do_not_fit(call, skips):
    with pytest.raises(TypeError, match="concatenate"):
        call(skips[::-1])
    with pytest.raises(ValueError, match="zip"):
        call(skips[1:])


def test_the_latest_skip_is_used_first(tiny):
    """Read off the first residual block of each level: its input is [h; the latest skip]."""
    up = nnx.eval_shape(lambda: UNetUp(tiny.denoiser, rngs=SameKey(0)))
    inputs = [[r.conv1.kernel.shape[2] for r in block.residuals] for block in up.blocks]
    assert inputs == [[32, 32, 28], [28, 24, 20], [20, 16, 16]]
    assert [block.upsample is not None for block in up.blocks] == [True, True, False]
    assert [block.transformers[0] is not None for block in up.blocks] == [False, True, True]


def test_a_new_network_predicts_nothing(tiny):
    fresh = jax.jit(lambda: UNetUp(tiny.denoiser, rngs=SameKey(0)).conv_out.kernel[...])
    assert not jnp.any(fresh())
