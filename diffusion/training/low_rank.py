"""Training a LoRA: a network stays as it is, and two thin matrices beside each kernel learn.

Hu et al. 2021, https://arxiv.org/abs/2106.09685, eq. 3: W' = W + B A, with B zero at first, so that
a training begins with the network as it was. Of a convolution, A is a convolution to `rank`
channels and B a 1x1 convolution; that is the same sum.
"""

import math

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from diffusion.runtime.parameters import Params


def factors(params: Params, rank: int, seed: int) -> Params:
    """Where a kernel (..., in, out) stands: down (..., in, rank) and up (rank, out).

    A rank beyond the sides of a kernel is cut to them.
    """
    key = jax.random.key(seed)
    found = {}
    for i, (path, kernel) in enumerate(flatten_dict(params).items()):
        if path[-1] == "kernel":
            inputs, out = math.prod(kernel.shape[:-1]), kernel.shape[-1]
            thin = min(rank, inputs, out)
            down = jax.random.normal(jax.random.fold_in(key, i), (*kernel.shape[:-1], thin))
            found[path] = {"down": down / math.sqrt(inputs), "up": jnp.zeros((thin, out))}
    return unflatten_dict(found)


def merged(params: Params, given: Params) -> Params:
    """The network with what `given`, its factors, have learnt."""
    flat, thin = flatten_dict(params), flatten_dict(given)

    def changed(path: tuple[str | int, ...], value: Array) -> Array:
        if (*path, "up") not in thin:
            return value
        return value + thin[*path, "down"] @ thin[*path, "up"]

    return unflatten_dict({path: changed(path, value) for path, value in flat.items()})
