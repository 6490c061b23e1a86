"""One module's parameters in one safetensors file, by their path in the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from diffusion.replacing import replacing

# Nested plain dicts of arrays: the fastest thing to hand to a jitted function.
Params = dict[str, Any]


class SameKey(nnx.Rngs):
    """One random key for every parameter: enough for `shapes`, and ten times as fast to trace.

    `nnx.Rngs` counts the keys that it gives out, and each count takes longer than the one before.
    """

    def params(self) -> Array:
        return jax.random.key(0)


def split(module: nnx.Module) -> tuple[nnx.GraphDef[Any], Params]:
    """A module as its structure and its parameters, the latter as plain nested dicts."""
    structure, state = nnx.split(module)
    return structure, nnx.to_pure_dict(state)


def save_params(path: Path, params: Params, dtype: str = "float32") -> None:
    """Write parameters as safetensors, all in `dtype`; the file appears whole or not at all."""
    flat = {
        ".".join(str(part) for part in name): np.asarray(value, dtype=dtype)
        for name, value in flatten_dict(params).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        save_file({name: np.ascontiguousarray(value) for name, value in flat.items()}, draft)


def load_params(path: Path, like: Params) -> Params:
    """Read parameters as float32.

    Args:
        like: the expected nesting, with anything that has a `.shape` at its leaves.

    Raises FileNotFoundError, or ValueError that lists what is missing, left over or mis-shaped.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} is missing; copy the model folder again")
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"weights file {path} is damaged ({error}); copy the model folder again"
        ) from error
    expected = {".".join(map(str, name)): (name, leaf) for name, leaf in flatten_dict(like).items()}
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"left over {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} has shape {found[name].shape} instead of {leaf.shape}"
        for name, (_, leaf) in expected.items()
        if name in found and found[name].shape != leaf.shape
    ]
    problems += [
        f"{name} holds values that are not finite"
        for name, value in found.items()
        if not np.isfinite(value).all()
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (" ..." if len(problems) > 5 else "")
        raise ValueError(
            f"weights file {path} does not fit config.json beside it "
            f"({len(problems)} problems: {shown}); use the two files of one model"
        )
    flat = {name: jnp.asarray(found[key], jnp.float32) for key, (name, _) in expected.items()}
    return unflatten_dict(flat)


def shapes(create: Any) -> tuple[nnx.GraphDef[Any], Params]:
    """Structure and parameter shapes of the module that `create()` makes, without making it."""
    structure, state = nnx.split(nnx.eval_shape(create))
    return structure, nnx.to_pure_dict(state)
