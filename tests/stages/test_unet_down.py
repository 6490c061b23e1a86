import jax
import numpy as np
import pytest
from flax import nnx

from diffusion.stages.unet_down import UNetDown


@pytest.fixture(scope="module")
def down(tiny, build):
    return build(lambda: UNetDown(tiny.denoiser, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def inputs(tiny):
    shapes = ((1, 8, 8, 4), (1, tiny.denoiser.time_width), (1, 5, 8))
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


def test_every_map_on_the_way_is_kept(down, inputs):
    look = nnx.jit(lambda down, *inputs: (down.conv_in(inputs[0]), *down(*inputs)))
    first, h, skips = look(down, *inputs)
    assert [skip.shape[1:] for skip in skips] == [
        *[(8, 8, 8)] * 3,
        (4, 4, 8),
        *[(4, 4, 12)] * 2,
        (2, 2, 12),
        *[(2, 2, 16)] * 2,
    ]
    np.testing.assert_allclose(skips[0], first, atol=1e-6)
    np.testing.assert_array_equal(skips[-1], h)


def test_a_level_is_residual_transformer_residual_transformer_downsample(down, inputs):
    def look(down, latents, time, context):
        block, h = down.blocks[0], down.conv_in(latents)
        first = block.transformers[0](block.residuals[0](h, time), context)
        second = block.transformers[1](block.residuals[1](first, time), context)
        return (first, second, block.downsample(second)), *block(h, time, context)

    parts, h, skips = nnx.jit(look)(down, *inputs)
    for skip, expected in zip(skips, parts, strict=True):
        np.testing.assert_allclose(skip, expected, atol=1e-6)
    np.testing.assert_array_equal(h, skips[-1])


def test_only_the_levels_that_listen_have_transformers(down):
    assert [block.transformers[0] is not None for block in down.blocks] == [True, True, False]
    assert [block.downsample is not None for block in down.blocks] == [True, True, False]
    heads = [b.transformers[0].block.cross_attention.heads for b in down.blocks[:2]]
    assert heads == [2, 3]


def test_downsample_pads_on_all_sides(down):
    assert [b.downsample.conv.padding for b in down.blocks[:2]] == [((1, 1), (1, 1))] * 2
