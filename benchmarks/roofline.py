"""How much arithmetic a work is, and how fast this machine multiplies matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Jaxpr, JaxprEqn

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


def counted(config: Any, method: str, *inputs: Any) -> float:
    """Operations of a method of a configuration's network; `inputs` may be shapes."""
    form, like = structure(config)

    def apply(params: Any, *inputs: Any) -> Any:
        return getattr(nnx.merge(form, params), method)(*inputs)

    return flops(apply, like, *inputs)


def flops(function: Callable[..., Any], *inputs: Any) -> float:
    """Floating point operations of the matrix products and convolutions of a function.

    Counted from what JAX traces, so `inputs` may be shapes, and as if for another platform, where
    convolutions have their plain form. Two for each product, those with the zeros of a padding
    included.
    """
    with mock.patch.object(jax, "default_backend", return_value="tpu"):
        return _flops(jax.make_jaxpr(function)(*inputs).jaxpr)


def _flops(jaxpr: Jaxpr) -> float:
    return sum(map(_flops_of, jaxpr.eqns))


def _flops_of(equation: JaxprEqn) -> float:
    options, (result, *_) = equation.params, equation.outvars
    if equation.primitive.name == "dot_general":
        contracted = options["dimension_numbers"][0][0]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * result.aval.size * depth
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        depth = kernel.size / kernel.shape[options["dimension_numbers"].rhs_spec[0]]
        # A dilated input is the gradient of a stride: only one value in so many is not a zero.
        return 2.0 * result.aval.size * depth / math.prod(options["lhs_dilation"])
    times = options["length"] if equation.primitive.name == "scan" else 1
    inner = (getattr(leaf, "jaxpr", leaf) for leaf in jax.tree.leaves([*options.values()]))
    return times * sum(_flops(program) for program in inner if isinstance(program, Jaxpr))
