"""The transformer that fills in codes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config_codes import MaskedTransformerConfig
from diffusion.presets import garden_masked
from diffusion.runtime.parameters import SameKey
from diffusion.stages.masked import MaskedTransformer
from diffusion.stages.masked_blocks import ResponseNorm
from diffusion.weights.architectures import structure

CONFIG = MaskedTransformerConfig(
    codes=7, vocabulary=9, channels=6, blocks=1, block_heads=2, width=8, layers=1, heads=2,
    mlp_width=5, context_width=4, size_code=2,
)  # fmt: skip
HALVED = dataclasses.replace(CONFIG, halves=True, width=6)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    codes = jnp.asarray(rng.integers(9, size=(2, 4, 6, 1)), jnp.int32)
    return codes, jnp.zeros(2), jnp.asarray(rng.standard_normal((2, 5, 4), np.float32))


@pytest.mark.parametrize(
    ("config", "tensors", "parameters"),
    [
        (MaskedTransformerConfig(), 474, 603_537_664),
        (MaskedTransformerConfig(halves=True), 478, 608_257_792),
        (garden_masked().denoiser, 154, 4_882_816),
    ],
    ids=["amused-256", "amused-512", "garden"],
)
def test_they_have_as_many_parameters(config, tensors, parameters):
    leaves = jax.tree.leaves(structure(config)[1])
    assert len(leaves) == tensors
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters


@pytest.mark.parametrize("config", [CONFIG, HALVED], ids=["whole", "halved"])
def test_codes_words_and_summary_change_what_it_says(build, inputs, config):
    """Of the picture that they belong to; its neighbour never notices."""
    codes, t, context = inputs
    network = build(lambda: MaskedTransformer(config, rngs=SameKey(0)))
    call = jax.jit(lambda *inputs: network(*inputs))
    logits = call(*inputs)
    assert logits.shape == (2, 4, 6, 7)
    for changed in (
        (codes.at[0, 0, 0].set((codes[0, 0, 0] + 1) % 9), context),
        (codes, context.at[0, 0].add(1.0)),
        (codes, context.at[0, -1].add(1.0)),
    ):
        other = call(changed[0], t, changed[1])
        assert np.abs(other[0] - logits[0]).max() > 1e-3
        np.testing.assert_allclose(other[1], logits[1], atol=1e-5)
    np.testing.assert_array_equal(call(codes, t + 500.0, context), logits)  # it is not told


def test_it_is_told_the_sizes(build, inputs):
    """A canvas of another shape with the same codes everywhere does not say the same."""
    network = build(lambda: MaskedTransformer(CONFIG, rngs=SameKey(0)))
    told = [
        network.condition(inputs[2][:, -1], jnp.asarray([[w, h, 0.0, 0.0, 6.0]] * 2))
        for w, h in ((64.0, 96.0), (96.0, 64.0))
    ]
    assert np.abs(told[0] - told[1]).max() > 1e-3


def test_the_response_norm_by_hand():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2, 3, 4), np.float32))
    norm = ResponseNorm(4)
    np.testing.assert_array_equal(norm(x), x)  # a new one
    norm.gamma[...] = jnp.full((1, 1, 1, 4), 2.0)
    norm.beta[...] = jnp.full((1, 1, 1, 4), 0.5)
    sizes = np.sqrt(np.square(np.asarray(x)).sum((1, 2)))
    expected = 2 * x * (sizes / sizes.mean())[:, None, None] + 0.5 + x
    np.testing.assert_allclose(norm(x), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_built_is_said():
    with pytest.raises(ValueError, match="vocabulary is 7; give more than the 7 codes"):
        dataclasses.replace(CONFIG, vocabulary=7)
    with pytest.raises(ValueError, match="layers is 0; give whole numbers"):
        dataclasses.replace(CONFIG, layers=0)
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        structure(dataclasses.replace(CONFIG, heads=3))


def test_every_parameter_is_trained(build, inputs, trained):
    network = build(lambda: MaskedTransformer(HALVED, rngs=SameKey(0)))
    used = np.zeros((9, 6), bool)
    used[np.unique(inputs[0])] = True
    loss = lambda network, weights: jnp.sum(weights * network(*inputs))  # noqa: E731
    told = np.ones((14, 6), bool)
    told[[9, 11]] = False  # the sines of the two sizes that are 0
    masks = {"codes.vectors.embedding": used, "condition.linear1.kernel": told}
    trained(network, loss, (2, 4, 6, 7), masks)


def test_nothing_has_a_bias():
    network = nnx.eval_shape(lambda: MaskedTransformer(CONFIG, rngs=SameKey(0)))
    names = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(network))}
    assert not {name for name in names if name.endswith("bias")}
