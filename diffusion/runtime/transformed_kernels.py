"""Kernels transformed once for Winograd's form instead of in every pass.

At 36 points a kernel takes four times its memory. That buys most where kernels are large beside
their maps, as in the middle of a U-Net: there their transform costs as much as the product. Time of
a convolution, batch 2, with its kernel transformed on the way and before (Zen 3, 2 cores,
2026-11-25):

    16x16, 1,280 channels   136 and 68 ms    32x32, 640   88 and 55    64x64, 320   71 and 71

A convolution that may be prepared like this says how much smaller than the latent its map is
(`Conv2d.downscale`); what network it stands in does not matter.
"""

from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx

from diffusion.kernels.convolution import MEDIUM
from diffusion.kernels.device import suits_a_cpu
from diffusion.kernels.winograd import SIDE, kernel_at_points
from diffusion.layers.convolution import Conv2d
from diffusion.runtime.devices import free_memory
from diffusion.runtime.parameters import Params

POSITIONS = 16 * 16, 32 * 32  # of the smallest and the largest map for which it pays
Place: TypeAlias = tuple[Any, ...]  # of a convolution in the parameters: the keys on the way


def prepare(structure: nnx.GraphDef[Any], params: Params, positions: int) -> Params:
    """The parameters of a denoiser in the form that is fastest where it runs.

    Kernels for which it pays are transformed, if half of the free memory is enough for them.
    """
    if not suits_a_cpu(jax.tree.leaves(params)[0]):
        return params
    places = worthwhile(structure, params, positions)
    if transformed_bytes(params, places) > free_memory() // 2:
        return params
    return transformed(params, places)


def worthwhile(structure: nnx.GraphDef[Any], params: Params, positions: int) -> list[Place]:
    """The convolutions of a network for which it pays.

    Args:
        positions: of a latent, height times width.
    """
    least, most = POSITIONS
    found: list[Place] = []
    # A module is a pytree. JAX walks it in a quarter of the time of `nnx.iter_graph`: with SD 1.5
    # this takes 8 ms, and the merge 17.
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        nnx.merge(structure, params), is_leaf=lambda node: isinstance(node, Conv2d)
    ):
        if not isinstance(leaf, Conv2d) or leaf.downscale is None:
            continue
        here, wide = positions // leaf.downscale**2, min(leaf.kernel.shape[2:])
        if least <= here <= most and wide >= MEDIUM:
            found.append(tuple(getattr(key, "name", None) or key.idx for key in path))
    return found


def transformed(params: Params, places: list[Place]) -> Params:
    """The same parameters; at these places the kernels are at points, (36, c, d)."""
    copy: Params = jax.tree.map(lambda leaf: leaf, params)
    for place in places:
        convolution = _at(copy, place)
        convolution["kernel"] = _transform(convolution["kernel"])
    return copy


def transformed_bytes(params: Params, places: list[Place]) -> int:
    """How much memory the kernels at points take, in addition to the parameters; 0: none would."""
    kernels = [_at(params, place)["kernel"] for place in places]
    return sum(SIDE**2 * int(np.prod(k.shape[2:])) * k.dtype.itemsize for k in kernels)


def _at(params: Params, place: Place) -> Params:
    for key in place:
        params = params[key]
    return params


_transform = jax.jit(lambda kernel: kernel_at_points(kernel, after=kernel))
