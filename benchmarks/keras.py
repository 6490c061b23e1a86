"""The U-Net of SD 1.5 beside that of KerasCV, which can run on JAX too.

Its weights are those that Keras draws, so shapes are compared, and no values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.memory import random_params
from benchmarks.roofline import flops
from benchmarks.timing import Options, Row, Work, measure, ours, size
from diffusion.config import sd_v1
from diffusion.pipeline import UNetStages


def keras(options: Options) -> Iterator[Row]:
    """One pass of the U-Net."""
    if find_spec("keras_cv") is None:
        yield Row("U-Net SD 1.5", "KerasCV", note="keras-cv is not installed")
        return
    unet, text = sd_v1().denoiser, sd_v1().text_encoder
    structure, like = structure_of(sd_v1(), "unet")
    stages = UNetStages(structure, lambda: jax.device_put(random_params(like)))
    for side, batch in ((64, 1), (64, 2), (32, 1), (32, 2)):
        name = f"U-Net SD 1.5, {side}x{side}, batch {batch}"
        if not options.wants(name):
            continue
        latents = jnp.ones((batch, side, side, unet.latent_channels))
        sinusoids = jnp.ones((batch, unet.block_out_channels[0]))
        context = jnp.ones((batch, text.length, text.width))
        inputs = (latents, jnp.full(batch, 500), context)
        contenders = [
            replace(ours("ours", stages, *inputs), outputs=shape),
            replace(
                ours("KerasCV", their_unet(side), latents, sinusoids, context),
                outputs=shape,
                peer=True,
            ),
        ]
        products = flops(stages.whole.function, like, *inputs)
        yield from measure(Work(name, contenders, products, size(like)), options.repeats)


def their_unet(side: int) -> Callable[..., jax.Array]:
    """Their network as a compiled function of its inputs."""
    os.environ["KERAS_BACKEND"] = "jax"  # read when it is imported
    from keras_cv.models.stable_diffusion import DiffusionModel

    model = DiffusionModel(8 * side, 8 * side, 77, download_weights=False)
    weights = [variable.value for variable in model.trainable_variables]

    @jax.jit
    def apply(weights: list[jax.Array], *inputs: jax.Array) -> jax.Array:
        return model.stateless_call(weights, [], list(inputs))[0]

    return partial(apply, weights)


def shape(result: Any) -> list[np.ndarray]:
    return [np.array(result.shape)]
