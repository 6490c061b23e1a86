"""The transformer that denoises: PixArt's, which listens, and DiT's, which hears a class."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import DiTConfig
from diffusion.runtime.parameters import SameKey
from diffusion.stages.dit import DiT, place_code
from diffusion.stages.dit_blocks import cut, joined

WORDS = DiTConfig(
    layers=1, heads=3, head_width=4, context_width=8, sample_size=4, learned_variance=False
)
LABEL = dataclasses.replace(WORDS, context_width=1, classes=5, learned_variance=True)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    latents, context = (rng.standard_normal((2, *s), np.float32) for s in ((4, 8, 4), (5, 8)))
    return jnp.asarray(latents), jnp.asarray([37, 800]), jnp.asarray(context)


@pytest.fixture(scope="module")
def jitted(build):
    structure, params = nnx.split(build(lambda: DiT(WORDS, rngs=SameKey(0))))
    call = jax.jit(lambda params, *inputs: nnx.merge(structure, params)(*inputs))
    return lambda *inputs: np.asarray(call(params, *inputs))


def test_words_timestep_and_canvas_change_the_prediction(jitted, inputs):
    """Of the picture that they belong to; its neighbour never notices."""
    latents, timesteps, context = inputs
    prediction = jitted(*inputs)
    assert prediction.shape == latents.shape
    for changed in (
        (latents, timesteps, context.at[0].add(1.0)),
        (latents, timesteps.at[0].set(38), context),
        (latents.at[0].add(1.0), timesteps, context),
    ):
        other = jitted(*changed)
        assert np.abs(other[0] - prediction[0]).max() > 1e-3
        np.testing.assert_allclose(other[1], prediction[1], atol=1e-5)


def test_timesteps_may_lie_between_whole_ones(jitted, inputs):
    """As those of a straight path do."""
    latents, timesteps, context = inputs
    whole, between, above = (
        jitted(latents, timesteps.astype(jnp.float32) + more, context) for more in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(whole, jitted(*inputs), atol=1e-6)
    assert 1e-4 < np.abs(between - whole).max() < np.abs(above - whole).max()


def test_a_new_network_says_zero_and_its_blocks_pass_on_what_they_get():
    """All gates are closed, whatever the time and the words are."""
    latents, timesteps = jnp.ones((1, 4, 4, 4)), jnp.asarray([500])
    x = jax.random.normal(jax.random.key(0), (1, 4, 12))

    def fresh(config, context):
        network = DiT(config, rngs=nnx.Rngs(0))
        told = (network.words if config is WORDS else network.label)(timesteps, context, (4, 4))
        passed = network.blocks[0](x, told.blocks, told.context)
        return passed, network(latents, timesteps, context)

    for config, context in ((WORDS, jnp.ones((1, 3, 8))), (LABEL, jnp.asarray([[2]]))):
        passed, said = jax.jit(fresh, static_argnums=0)(config, context)
        np.testing.assert_array_equal(passed, x)
        np.testing.assert_array_equal(said, 0.0 * latents)


def test_a_label_stands_in_place_of_words_and_the_variance_is_left_out(build, inputs):
    latents, timesteps, _ = inputs
    network = build(lambda: DiT(LABEL, rngs=SameKey(0)))
    assert network.exit.linear2.out_features == 2 * 2 * 8
    call = jax.jit(lambda labels: network(latents, timesteps, labels))
    first, other = (call(jnp.asarray([[n], [5]])) for n in (0, 1))
    assert first.shape == latents.shape
    assert np.abs(first[0] - other[0]).max() > 1e-3
    np.testing.assert_allclose(first[1], other[1], atol=1e-6)


def test_the_column_comes_before_the_row():
    code = place_code(2, 3, 8, base=2).reshape(2, 3, 8)
    np.testing.assert_array_equal(code[0, :, :4], code[1, :, :4])
    np.testing.assert_array_equal(code[:, 0, 4:], code[:, 2, 4:])
    np.testing.assert_allclose(code[1, 0, 4:], np.r_[np.sin([1, 0.01]), np.cos([1, 0.01])], 1e-6)


def test_a_larger_canvas_is_squeezed_onto_the_trained_one():
    small, large = place_code(2, 2, 8, base=2), place_code(4, 4, 8, base=2).reshape(4, 4, 8)
    np.testing.assert_allclose(large[::2, ::2].reshape(4, 8), small, atol=1e-7)
    half = place_code(4, 4, 8, base=4, scale=2)
    np.testing.assert_allclose(half, large.reshape(16, 8), atol=1e-7)


def test_every_norm_has_the_right_eps():
    for config, second in ((WORDS, 1e-6), (LABEL, 1e-5)):
        network = nnx.eval_shape(lambda config=config: DiT(config, rngs=SameKey(0)))
        found = {
            ".".join(map(str, path)): module.epsilon
            for path, module in nnx.iter_graph(network)
            if isinstance(module, nnx.LayerNorm)
        }
        assert found == {"blocks.0.norm1": 1e-6, "blocks.0.norm2": second, "exit.norm": 1e-6}


def test_patches_go_row_by_row_and_come_back():
    latents = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    patches = cut(latents, 2)
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], latents[1, 2:, 2:4].ravel())
    np.testing.assert_array_equal(joined(patches, 2, 2), latents)


def test_latents_that_cannot_be_cut_are_refused(inputs):
    with pytest.raises(ValueError, match="latents of 3x8: the sides must be multiples of 2"):
        nnx.eval_shape(lambda: DiT(WORDS, rngs=SameKey(0))(inputs[0][:, :3], *inputs[1:]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head_width": 3, "heads": 2}, "width is 6; give a multiple of 4"),
        ({"sample_size": 5}, "sample_size is 5; give a multiple of 2"),
        ({"told_scale": 8, "heads": 2}, "told_scale needs a width in three parts; 8"),
        ({"classes": 5}, "context_width must be 1"),
        ({"layers": 0}, "layers is 0; give whole numbers"),
    ],
)
def test_what_cannot_be_built_is_said(changes, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(WORDS, **changes)


def test_every_parameter_is_trained(build, inputs, trained):
    told = dataclasses.replace(WORDS, told_scale=8)  # has all that the others have
    network = build(lambda: DiT(told, rngs=SameKey(0)))
    loss = lambda network, weights: jnp.sum(weights * network(*inputs))  # noqa: E731
    trained(network, loss, (2, 4, 8, 4))
