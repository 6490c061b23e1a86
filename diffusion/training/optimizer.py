"""From gradients to steps."""

from typing import Any

import jax
import optax
import optax.contrib

from diffusion.runtime.parameters import Params
from diffusion.training.train_config import TrainConfig

MUON_RMS = 0.2  # of a step, in learning rates: so that Adam's fit (Liu et al. 2025, section 2.2)


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW or Muon with clipping, linear warm-up and cosine decay.

    AdamW is of Loshchilov & Hutter 2019, and Muon of Jordan et al. 2024: it makes the step of a
    kernel orthogonal, and leaves all else to AdamW. Weight decay is for matrices and kernels;
    biases and scales are left alone.
    """
    peak, warmup = config.learning_rate, min(config.warmup, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config.steps, peak / 100)
    decayed = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    decay = config.weight_decay
    if config.optimizer == "muon":
        rule = optax.contrib.muon(
            rate,
            adam_b2=0.99,
            weight_decay=decay,
            weight_decay_mask=decayed,
            adam_weight_decay=decay,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=MUON_RMS,
        )
    else:
        rule = optax.adamw(rate, b2=0.99, weight_decay=decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def _matrices(params: Params) -> Any:
    """What is a matrix from inputs to outputs: kernels. Of a convolution's, a window's values are
    the inputs."""

    def as_matrix(path: Any, value: jax.Array) -> Any:
        if path[-1].key != "kernel":
            return None
        inputs = tuple(range(value.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(inputs, (value.ndim - 1,))

    return jax.tree_util.tree_map_with_path(as_matrix, params)
