"""Networks as compiled functions: structure apart from parameters, one program for each shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from diffusion.runtime.parameters import Params, cast


class Network:
    """A network: its structure, and its parameters for as long as they are needed.

    Call it, or a method or a part of its module by name: `denoiser(x_t, t, context)`,
    `denoiser.down(x_t, time, context)`, `autoencoder.decode(latents)`. Each is compiled, once for
    each shape. Inputs are brought to the precision of the parameters, outputs are float32.

    Args:
        structure: of the module.
        read: gives the parameters; called again after a release.
        prepare: the parameters in the form in which the programs take them.
    """

    def __init__(
        self,
        structure: nnx.GraphDef[Any],
        read: Callable[[], Params],
        prepare: Callable[[Params], Params] = lambda params: params,
    ):
        self.structure = structure
        self._read = read
        self._prepare = prepare
        self._params: Params | None = None
        self._leaves: tuple[Array, ...] = ()
        self._programs: dict[Callable[..., Any], Program] = {}

    @property
    def params(self) -> Params:
        """The parameters; read again where they have been released."""
        if self._params is None:
            self._params = self._read()
        return self._params

    @property
    def dtype(self) -> str:
        """The precision of the parameters, and of the arithmetic."""
        return jax.tree.leaves(self.params)[0].dtype.name

    @property
    def leaves(self) -> tuple[Array, ...]:
        """The parameters in a row: 686 arrays are handed over in half the time of a tree."""
        if not self._leaves:
            self._leaves = tuple(jax.tree.leaves(self._prepare(self.params)))
        return self._leaves

    @property
    def prepared_bytes(self) -> int:
        """What the prepared form takes, in addition to the parameters."""
        kept = {id(leaf) for leaf in jax.tree.leaves(self.params)}
        return sum(leaf.nbytes for leaf in self.leaves if id(leaf) not in kept)

    @property
    def module(self) -> Any:
        """The module with its parameters."""
        return nnx.merge(self.structure, self.params)

    def release(self) -> None:
        """Give the memory back. Whoever uses the network again waits until it is read again."""
        self._params, self._leaves = None, ()

    def compiled(self, function: Callable[..., Any]) -> Program:
        """`function(module, *inputs)` as a compiled function of the inputs alone.

        Whoever comes again with the same function gets the same program.
        """

        def apply(params: Params, *inputs: Any) -> Any:
            module = nnx.merge(self.structure, params)
            return cast(function(module, *cast(inputs, self.dtype)), jnp.float32)

        if function not in self._programs:
            self._programs[function] = Program(self, apply)
        return self._programs[function]

    def __call__(self, *inputs: Any) -> Any:
        return self.compiled(_call)(*inputs)

    def __getattr__(self, name: str) -> Program:
        """A method or a part of the module, compiled."""
        if name.startswith("_") or "structure" not in self.__dict__:
            raise AttributeError(name)
        kind = type(self.module)
        if not callable(getattr(self.module, name, None)):
            raise AttributeError(f"{kind.__name__} has no method or part {name!r}")
        self.__dict__[name] = self.compiled(lambda module, *inputs: getattr(module, name)(*inputs))
        return self.__dict__[name]


def _call(module: Any, *inputs: Any) -> Any:
    return module(*inputs)


class Program:
    """A function of a network's parameters and of inputs, compiled once for each shape of these."""

    def __init__(self, network: Network, function: Callable[..., Any]):
        self.network, self.function = network, function

        def apply(leaves: tuple[Array, ...], *inputs: Any) -> Any:
            tree = jax.tree.structure(network.params)
            return function(jax.tree.unflatten(tree, leaves), *inputs)

        self.compiled = jax.jit(apply)

    def __call__(self, *inputs: Any) -> Any:
        return self.compiled(self.network.leaves, *inputs)
