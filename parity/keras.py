"""The Keras sample beside ours, on one backend: layer by layer, and fifty steps of training.

Both sides call the same primitives of JAX, so nothing may differ, not in the last bit. What Keras
made is recorded for the tests, which need no Keras (`write_golden`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from safetensors.numpy import save_file

from diffusion.config import ConvAutoencoderConfig
from diffusion.inspection.rows import Row, compare
from diffusion.stages.conv_autoencoder import ConvAutoencoder, Grow, Shrink, as_printed
from diffusion.training.conv_autoencoder import keras_adam, mean_squared_error

os.environ["KERAS_BACKEND"] = "jax"  # before the first import

import keras

STEPS = 50
RATE = 1e-3  # what Keras takes where nobody says otherwise
TINY = {"side": 16, "width": 8}  # of what is recorded


def sample(side: int = 256, width: int = 32, *, completed: bool) -> keras.Model:
    """The sample as printed, or with the padding and the last layer that make it train."""
    layers = keras.layers
    padding = "same" if completed else "valid"
    inputs = layers.Input(shape=(side, side, 3))
    x = layers.Conv2D(width, (3, 3), activation="relu", padding=padding)(inputs)
    x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Conv2D(width, (3, 3), activation="relu", padding=padding)(x)
    x = layers.UpSampling2D((2, 2))(x)
    if completed:
        x = layers.Conv2D(3, (3, 3), padding="same")(x)
    model = keras.Model(inputs, x)
    model.compile(optimizer="adam", loss="mean_squared_error")
    return model


def carry(model: keras.Model, network: nnx.Module) -> None:
    """The weights of Keras' convolutions into ours, in order; the axes lie alike."""
    theirs = iter(model.get_weights())
    for conv in convolutions(network):
        conv.kernel[...], conv.bias[...] = next(theirs), next(theirs)


def convolutions(network: nnx.Module) -> list[nnx.Conv]:
    """From the picture to the picture."""
    found = [module for _, module in nnx.iter_graph(network) if isinstance(module, nnx.Conv)]
    if isinstance(network, ConvAutoencoder):  # Flax goes by the alphabet
        found = [*(s.conv for s in network.shrinks), *(g.conv for g in network.grows)]
        found.append(network.conv_out)
    return found


def tensors(bricks: list[nnx.Module], x: jax.Array) -> Iterator[jax.Array]:
    """What each layer of Keras returns, made by our bricks."""
    for brick in bricks:
        if isinstance(brick, Shrink | Grow):
            yield jax.nn.relu(brick.conv(x))
        x = brick(x)
        yield x


def layer_rows(title: str, model: keras.Model, network: Any, images: np.ndarray) -> Iterator[Row]:
    carry(model, network)
    whole = isinstance(network, ConvAutoencoder)
    bricks = [*network.shrinks, *network.grows, network.conv_out] if whole else network.layers
    layers = model.layers[1:]  # without the input
    watched = keras.Model(model.inputs[0], [layer.output for layer in layers])
    for layer, ours, theirs in zip(
        layers, tensors(list(bricks), jax.numpy.asarray(images)), watched(images), strict=True
    ):
        yield compare(f"{title}: {type(layer).__name__}", np.asarray(ours), np.asarray(theirs), 0)


def trained(
    network: ConvAutoencoder, optimizer: optax.GradientTransformation, images: np.ndarray
) -> Callable[[], list[np.ndarray]]:
    """Each call is one step; it returns the weights, in Keras' order."""
    structure, params = nnx.split(network)
    state = optimizer.init(nnx.to_pure_dict(params))
    params = nnx.to_pure_dict(params)

    @jax.jit
    def step(params: Any, state: Any, images: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            ours = nnx.merge(structure, params)
            return mean_squared_error(ours.decode(ours.encode(images)), images)

        changes, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, changes), state

    def one() -> list[np.ndarray]:
        nonlocal params, state
        params, state = step(params, state, images)
        convs = convolutions(nnx.merge(structure, params))
        return [np.asarray(p[...]) for conv in convs for p in (conv.kernel, conv.bias)]

    return one


def flat(weights: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in weights])


def pictures(seed: int, count: int, side: int) -> np.ndarray:
    """Soft blots in [-1, 1]: noise of an eighth of the size, made large."""
    draw = np.random.default_rng(seed).uniform(-1, 1, (count, 8, 8, 3))
    return np.asarray(jax.image.resize(draw, (count, side, side, 3), "cubic"), np.float32)


def training_rows(seed: int, side: int = 32) -> Iterator[Row]:
    """Fifty steps on one batch: with Keras' Adam nothing differs, with optax's it does.

    The rows of optax have no bound: they show how much the place of eps matters.
    """
    images = pictures(seed, 4, side)
    model = sample(side, completed=True)
    network = ConvAutoencoder(ConvAutoencoderConfig(), rngs=nnx.Rngs(0))
    carry(model, network)
    sides = {
        "as Keras": (trained(network, keras_adam(RATE), images), 0.0),
        "optax.adam": (trained(network, optax.adam(RATE), images), np.inf),
        "optax.adam, eps 1e-7": (trained(network, optax.adam(RATE, eps=1e-7), images), np.inf),
    }
    for step in range(1, STEPS + 1):
        model.train_on_batch(images, images)
        theirs = flat(model.get_weights())
        for name, (one, bound) in sides.items():
            ours = flat(one())
            if step in (1, 10, STEPS):
                yield compare(f"weights after {step} steps, {name}", ours, theirs, bound)


def rows(seed: int) -> Iterator[Row]:
    """The sample as printed, completed, and in training."""
    keras.utils.set_random_seed(seed)
    images = pictures(seed, 1, 256)
    yield from layer_rows(
        "as printed", sample(completed=False), as_printed(rngs=nnx.Rngs(0)), images
    )
    ours = ConvAutoencoder(ConvAutoencoderConfig(), rngs=nnx.Rngs(0))
    yield from layer_rows("completed", sample(completed=True), ours, images)
    yield from training_rows(seed)


def write_golden(place: Path, seed: int = 0) -> None:
    """What Keras makes of one batch before and after `STEPS` steps, and its weights."""
    keras.utils.set_random_seed(seed)
    model, images = sample(**TINY, completed=True), pictures(seed, 2, TINY["side"])
    printed = sample(**TINY, completed=False)
    arrays = {"images": images, "before": flat(model.get_weights())}
    arrays |= {"printed weights": flat(printed.get_weights())}
    arrays |= {"printed": np.asarray(printed(images)), "completed": np.asarray(model(images))}
    for _ in range(STEPS):
        model.train_on_batch(images, images)
    save_file(arrays | {"after": flat(model.get_weights())}, place / "keras.safetensors")
