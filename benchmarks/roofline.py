"""How much arithmetic a work is, and how fast this machine multiplies matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from benchmarks.timing import Call, Options, Side, Work
from diffusion.weights.architectures import structure

PRODUCTS = ((2048, 2048, 2048), (4096, 1280, 5120))  # n, m, k: (n, m) = (n, k) (k, m)
ON_GPU = ((8192, 8192, 8192),)  # fills one


def peak(options: Options) -> Iterator[Work]:
    """The products whose fastest is taken for the peak of the machine."""
    dtype = "bfloat16" if options.half else "float32"
    for n, m, k in ON_GPU if options.gpu else PRODUCTS:
        sides = [Side(product, (n, m, k, dtype))]
        yield Work(f"{dtype} product, {n} x {k} x {m}", sides, flops=2.0 * n * m * k)


def product(n: int, m: int, k: int, dtype: str) -> dict[str, Call]:
    draw = jax.random.split(jax.random.key(0))
    one, other = (
        jax.random.normal(draw[0], (n, k), dtype),
        jax.random.normal(draw[1], (k, m), dtype),
    )
    multiply = jax.jit(jnp.matmul)
    return {"JAX": lambda: multiply(one, other)}


def counted(config: Any, method: str, *inputs: Any) -> dict[str, Any]:
    """Operations of a network's method and bytes of its parameters in float32, as of a `Work`.

    Args:
        config: of the network.
        inputs: of the method, or their shapes.
    """
    form, like = structure(config)

    def apply(params: Any, *inputs: Any) -> Any:
        return getattr(nnx.merge(form, params), method)(*inputs)

    return {"flops": flops(apply, like, *inputs), "weights": size(like)}


def size(params: Any) -> int:
    """Bytes of parameters, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def flops(function: Callable[..., Any], *inputs: Any) -> float:
    """Floating point operations of the matrix products and convolutions of a function.

    Counted from what JAX traces, so `inputs` may be shapes, and as if for another platform, where
    convolutions have their plain form. Two for each product, those with the zeros of a padding
    included.
    """
    with mock.patch.object(jax, "default_backend", return_value="tpu"):
        return _flops(jax.make_jaxpr(function)(*inputs).jaxpr)


def _flops(jaxpr: Jaxpr) -> float:
    return sum(_flops_of(equation) for equation in jaxpr.eqns)


def _flops_of(equation: JaxprEqn) -> float:
    options = equation.params
    if equation.primitive.name == "dot_general":
        contracted = options["dimension_numbers"][0][0]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * equation.outvars[0].aval.size * depth
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        depth = kernel.size / kernel.shape[options["dimension_numbers"].rhs_spec[0]]
        # A dilated input is the gradient of a stride: only one value in so many is not a zero.
        return 2.0 * equation.outvars[0].aval.size * depth / math.prod(options["lhs_dilation"])
    times = options["length"] if equation.primitive.name == "scan" else 1
    return times * sum(map(_flops, _inner(options)))


def _inner(options: dict[str, Any]) -> Iterator[Jaxpr]:
    """The programs that an equation holds."""
    for value in options.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one
