import jax
import jax.numpy as jnp
import numpy as np

from diffusion.runtime.parameters import SameKey
from diffusion.stages.unet_bottleneck import UNetBottleneck


def test_residual_transformer_residual(tiny, build):
    stage = build(lambda: UNetBottleneck(tiny.denoiser, rngs=SameKey(0)))
    shapes = ((1, 2, 2, 16), (1, tiny.denoiser.time_width), (1, 5, 8))
    rng = np.random.default_rng(0)
    h, time, context = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)

    def look(stage, h, time, context):
        expected = stage.transformer(stage.residual1(h, time), context)
        return stage.residual2(expected, time), stage(h, time, context)

    expected, found = jax.jit(look)(stage, h, time, context)
    assert expected.shape == h.shape
    assert jnp.abs(expected - h).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert stage.transformer.block.self_attention.heads == tiny.denoiser.heads[-1]
