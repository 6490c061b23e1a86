"""The Keras sample; what Keras made of it is recorded by `parity.golden`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors.numpy import load_file

from diffusion.config import ConvAutoencoderConfig
from diffusion.runtime.parameters import SameKey
from diffusion.stages.conv_autoencoder import ConvAutoencoder, as_printed
from diffusion.training.conv_autoencoder import keras_adam, mean_squared_error
from diffusion.weights.folder import shipped

GOLDEN = load_file(shipped("golden") / "keras.safetensors")
WIDTH = 8  # of what is recorded
CONFIG = ConvAutoencoderConfig(block_out_channels=(WIDTH,))


def parameters(module):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module)))


def carried(convolutions, flat):
    """Keras' weights in a row, into ours."""
    for conv in convolutions:
        for parameter in (conv.kernel, conv.bias):
            size = math.prod(parameter.shape)
            parameter[...] = jnp.asarray(flat[:size]).reshape(parameter.shape)
            flat = flat[size:]
    assert not len(flat)


def flattened(convolutions):
    return np.concatenate([p[...].ravel() for c in convolutions for p in (c.kernel, c.bias)])


def in_order(network):
    return [network.shrinks[0].conv, network.grows[0].conv, network.conv_out]


def test_as_printed_a_picture_does_not_come_back():
    printed = nnx.eval_shape(lambda: as_printed(rngs=SameKey(0)))
    images = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    assert nnx.eval_shape(lambda net, x: net(x), printed, images).shape == (1, 250, 250, 32)
    assert parameters(printed) == 10_144


def test_completed_it_does_by_way_of_more_numbers_than_a_picture_has():
    network = nnx.eval_shape(lambda: ConvAutoencoder(ConvAutoencoderConfig(), rngs=SameKey(0)))
    images = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    latents = nnx.eval_shape(lambda net, x: net.encode(x), network, images)
    assert latents.shape == (1, 128, 128, 32)
    assert latents.size > 2.6 * images.size
    assert nnx.eval_shape(lambda net, x: net.decode(x), network, latents).shape == images.shape
    assert parameters(network) == 11_011


def test_two_levels_mirror_each_other():
    config = ConvAutoencoderConfig(block_out_channels=(4, 6))
    network = nnx.eval_shape(lambda: ConvAutoencoder(config, rngs=SameKey(0)))
    widths = [conv.conv.kernel.shape[2:] for conv in (*network.shrinks, *network.grows)]
    assert widths == [(3, 4), (4, 6), (6, 6), (6, 4)]
    assert network.conv_out.kernel.shape[2:] == (4, 3)
    assert (config.downscale, config.latent_channels) == (4, 6)
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    draw = lambda net, x: net.draw(x, jax.random.key(0))  # noqa: E731
    latents, costs = nnx.eval_shape(draw, network, images)
    assert latents.shape == (1, 2, 2, 6)
    assert costs == {}
    assert nnx.eval_shape(lambda net, x: net.decode(x), network, latents).shape == images.shape


def test_it_does_what_keras_does():
    images = GOLDEN["images"]
    printed = as_printed(width=WIDTH, rngs=nnx.Rngs(0))
    carried([brick.conv for brick in printed.layers], GOLDEN["printed weights"])
    found = jax.jit(lambda net, x: net(x))(printed, images)
    np.testing.assert_allclose(found, GOLDEN["printed"], atol=1e-6)
    network = ConvAutoencoder(CONFIG, rngs=nnx.Rngs(0))
    carried(in_order(network), GOLDEN["before"])
    decoded = jax.jit(lambda net, x: net.decode(net.encode(x)))(network, images)
    np.testing.assert_allclose(decoded, GOLDEN["completed"], atol=1e-6)


def after_fifty_steps(optimizer):
    network = ConvAutoencoder(CONFIG, rngs=nnx.Rngs(0))
    carried(in_order(network), GOLDEN["before"])
    structure, state = nnx.split(network)
    params, images = nnx.to_pure_dict(state), jnp.asarray(GOLDEN["images"])

    @jax.jit
    def step(params, moments):
        def loss(params):
            ours = nnx.merge(structure, params)
            return mean_squared_error(ours.decode(ours.encode(images)), images)

        changes, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, changes), moments

    moments = optimizer.init(params)
    for _ in range(50):
        params, moments = step(params, moments)
    return flattened(in_order(nnx.merge(structure, params)))


def test_fifty_steps_end_where_those_of_keras_end():
    """But for rounding: with all of XLA's optimisations, not a bit differs (`make parity`)."""
    moved = np.abs(GOLDEN["after"] - GOLDEN["before"]).max()
    assert moved > 0.01
    assert np.abs(after_fifty_steps(keras_adam(1e-3)) - GOLDEN["after"]).max() < 1e-4


def test_the_place_of_eps_matters():
    """In the first step Keras' 1e-7 does what 1e-7 / sqrt(1 - b2) does after the correction."""
    gradient = {"a": jnp.asarray([1e-7, -1e-6, 1e-3])}

    def first(optimizer):
        return optimizer.update(gradient, optimizer.init(gradient), gradient)[0]["a"]

    ours, theirs = first(keras_adam(1e-3)), first(optax.adam(1e-3, eps=1e-7 / 0.001**0.5))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert abs(first(optax.adam(1e-3, eps=1e-7))[0] / ours[0]) > 10
