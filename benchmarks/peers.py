"""PyTorch's side of a comparison: a function as it is, and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.timing import Contender, Options, cores
from parity.blocks import nhwc

FORMS = ("PyTorch", "torch.compile")


def prepare() -> torch.device:
    """Set PyTorch up as JAX is, and say where it works: on the same cores, or on the same GPU.

    On a GPU both round the factors of float32 products to TensorFloat-32.
    """
    torch.set_num_threads(cores())
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True  # XLA, too, tries what is fastest
    return torch.device("cuda")


def wait() -> None:
    """Until a GPU has done what it was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peers(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    result: Callable[[Any], Any],
    options: Options,
) -> list[Contender]:
    """PyTorch, eager and compiled, without gradients.

    Args:
        function: a network, or a method of one, where `prepare` says.
        result: the tensor, or a tuple of several, to compare, of what it returns.
    """
    device = prepare()
    inputs = [x.to(device) for x in inputs]

    def contender(name: str, function: Callable[..., Any], compiles: bool) -> Contender:
        @torch.inference_mode()
        def call() -> Any:
            found = result(function(*inputs))
            wait()
            return found

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
    return [nhwc(tensor.float().cpu().numpy()) for tensor in tensors]


def as_ours(x: torch.Tensor) -> jnp.ndarray:
    """An input of PyTorch as ours."""
    if not x.is_floating_point():
        return jnp.asarray(x.int().numpy())
    ours = jnp.asarray(nhwc(x.float().numpy()))
    return ours.astype(jnp.bfloat16) if x.dtype == torch.bfloat16 else ours


def as_theirs(x: Any) -> torch.Tensor:
    """An input of ours as PyTorch's."""
    x = np.array(x)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x)
