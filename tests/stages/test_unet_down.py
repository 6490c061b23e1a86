import jax
import numpy as np
import pytest

from diffusion.runtime.parameters import SameKey
from diffusion.stages.unet_down import UNetDown


@pytest.fixture(scope="module")
def down(tiny, build):
    return build(lambda: UNetDown(tiny.denoiser, rngs=SameKey(0)))


@pytest.fixture(scope="module")
def seen(tiny, down):
    """What comes out of the stage, and of the parts of its first level one after the other."""
    rng = np.random.default_rng(0)
    shapes = ((1, 8, 8, 4), (1, tiny.denoiser.time_width), (1, 5, 8))
    inputs = [rng.standard_normal(shape, np.float32) for shape in shapes]

    def look(down, latents, time, context):
        block, start = down.blocks[0], down.conv_in(latents)
        first = block.transformers[0](block.residuals[0](start, time), context)
        second = block.transformers[1](block.residuals[1](first, time), context)
        return (start, first, second, block.downsample(second)), *down(latents, time, context)

    return jax.jit(look)(down, *inputs)


def test_every_map_on_the_way_is_kept(seen):
    _, h, skips = seen
    assert [skip.shape[1:] for skip in skips] == [
        *[(8, 8, 8)] * 3,
        (4, 4, 8),
        *[(4, 4, 12)] * 2,
        (2, 2, 12),
        *[(2, 2, 16)] * 2,
    ]
    np.testing.assert_array_equal(skips[-1], h)


def test_a_level_is_residual_transformer_residual_transformer_downsample(seen):
    parts, _, skips = seen
    for skip, expected in zip(skips, parts, strict=False):
        np.testing.assert_allclose(skip, expected, atol=1e-6)


def test_only_the_levels_that_listen_have_transformers(down):
    assert [block.transformers[0] is not None for block in down.blocks] == [True, True, False]
    assert [block.downsample is not None for block in down.blocks] == [True, True, False]
    heads = [b.transformers[0].block.cross_attention.heads for b in down.blocks[:2]]
    assert heads == [2, 3]


def test_downsample_pads_on_all_sides(down):
    assert [b.downsample.conv.padding for b in down.blocks[:2]] == [((1, 1), (1, 1))] * 2
