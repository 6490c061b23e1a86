"""How much arithmetic a work is, and how fast this machine multiplies matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from benchmarks.timing import Options, Row, Work, measure, ours
from diffusion.kernels import device

PRODUCTS = ((2048, 2048, 2048), (4096, 1280, 5120))  # n, m, k: (n, m) = (n, k) (k, m)
ON_GPU = ((8192, 8192, 8192),)  # fills one


def peak(options: Options) -> Iterator[Row]:
    """Rows of the products whose fastest is taken for the peak of the machine."""
    dtype = jnp.bfloat16 if options.half else jnp.float32
    for n, m, k in PRODUCTS if jax.default_backend() == "cpu" else ON_GPU:
        draw = jax.random.split(jax.random.key(0))
        one = jax.random.normal(draw[0], (n, k), dtype)
        other = jax.random.normal(draw[1], (k, m), dtype)
        contender = ours("JAX", jax.jit(jnp.matmul), one, other)
        work = Work(
            f"{dtype.__name__} product, {n} x {k} x {m}", [contender], flops=2.0 * n * m * k
        )
        yield from measure(work, options.repeats)


def flops(function: Callable[..., Any], *inputs: Any) -> float:
    """Floating point operations of the matrix products and convolutions of a function.

    Counted from what JAX traces, so `inputs` may be shapes, and as if for another platform, where
    convolutions have their plain form. Two for each product, those with the zeros of a padding
    included.
    """
    with (
        mock.patch.object(jax, "default_backend", return_value="tpu"),
        mock.patch.object(device, "_is_ampere", return_value=False),  # its kernels say nothing
    ):
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
