"""PyTorch's side of a comparison: a function as it is, and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.timing import Contender, Options, cores
from parity.blocks import nhwc

FORMS = ("PyTorch", "torch.compile")


def peers(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    result: Callable[[Any], Any],
    options: Options,
) -> list[Contender]:
    """PyTorch, eager and compiled, without gradients.

    Args:
        function: a network, or a method of one.
        result: the tensor, or a tuple of several, to compare, of what it returns.
    """
    torch.set_num_threads(cores())

    def contender(name: str, function: Callable[..., Any], compiles: bool) -> Contender:
        call = torch.inference_mode()(lambda: result(function(*inputs)))
        return Contender(name, call, outputs, peer=True, compiles=compiles)

    return [contender(name, formed(function, name), name != FORMS[0]) for name in forms(options)]


def forms(options: Options) -> tuple[str, ...]:
    """The names of the forms to measure: as it is and, unless it is not wanted, compiled."""
    return FORMS[: 1 + options.compile]


def formed(function: Callable[..., Any], form: str) -> Callable[..., Any]:
    """A function in one of the `FORMS`."""
    if form == FORMS[0]:
        return function
    torch._dynamo.reset()  # what other shapes have taught it would make it more general
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
    return compiled


def outputs(result: torch.Tensor | tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    """What PyTorch returned, with the channels where ours are."""
    tensors = result if isinstance(result, tuple) else (result,)
    return [nhwc(tensor.numpy()) for tensor in tensors]


def as_ours(x: torch.Tensor) -> jnp.ndarray:
    """An input of PyTorch as ours."""
    return jnp.asarray(nhwc(x.numpy() if x.is_floating_point() else x.int().numpy()))


def as_theirs(x: Any) -> torch.Tensor:
    """An input of ours as PyTorch's."""
    x = np.array(x)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x)
