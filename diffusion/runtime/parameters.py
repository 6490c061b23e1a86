"""Modules taken apart: their structure, and their parameters as plain nested dicts of arrays."""

import hashlib
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

# Nested plain dicts of arrays: the fastest thing to hand to a jitted function.
Params = dict[str, Any]


class SameKey(nnx.Rngs):
    """One random key for every parameter: enough for `shapes`, and ten times as fast to trace.

    `nnx.Rngs` counts the keys that it gives out, and each count takes longer than the one before.
    """

    def params(self) -> Array:
        return jax.random.key(0)


def shapes(create: Any) -> tuple[nnx.GraphDef[Any], Params]:
    """Structure and parameter shapes of the module that `create()` makes, without making it."""
    structure, state = nnx.split(nnx.eval_shape(create))
    return structure, nnx.to_pure_dict(state)


def split(module: nnx.Module) -> tuple[nnx.GraphDef[Any], Params]:
    """A module as its structure and its parameters, the latter as plain nested dicts."""
    structure, state = nnx.split(module)
    return structure, nnx.to_pure_dict(state)


def cast(tree: Any, dtype: Any) -> Any:
    """The same with all floating point arrays in `dtype`."""
    floating = jax.numpy.floating
    return jax.tree.map(
        lambda x: x.astype(dtype) if jax.numpy.issubdtype(x.dtype, floating) else x, tree
    )


def precision(params: Params) -> Any:
    """The type of the numbers that a network computes with."""
    return next((leaf.dtype for leaf in jax.tree.leaves(params)), jax.numpy.float32)


def fingerprint(params: Any) -> str:
    """Tells these weights, in whatever nested containers, from any others."""
    found = hashlib.sha256()
    for value in jax.tree.leaves(params):
        found.update(np.asarray(value).tobytes())
    return found.hexdigest()
