import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffusion.stages.unet_bottleneck import UNetBottleneck


def test_residual_transformer_residual(tiny, build):
    stage = build(lambda: UNetBottleneck(tiny.denoiser, rngs=nnx.Rngs(0)))
    shapes = ((1, 2, 2, 16), (1, tiny.denoiser.time_width), (1, 5, 8))
    h, time, context = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes))
    run = nnx.jit(lambda module, *inputs: module(*inputs))
    expected = run(stage.residual1, h, time)
    expected = run(stage.transformer, expected, context)
    expected = run(stage.residual2, expected, time)
    assert expected.shape == h.shape
    assert jnp.abs(expected - h).max() > 0.1
    np.testing.assert_allclose(run(stage, h, time, context), expected, atol=1e-5)
    assert stage.transformer.block.self_attention.heads == tiny.denoiser.heads[-1]
