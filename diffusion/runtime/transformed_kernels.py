"""The U-Net's kernels, transformed once for Winograd's form instead of in every pass.

At 36 points a kernel takes four times its memory. That buys most where kernels are large beside
their maps, as in the middle of the U: there their transform costs as much as the product. Time of
a convolution, batch 2, with its kernel transformed on the way and before (Zen 3, 2 cores,
2026-11-25):

    16x16, 1,280 channels   136 and 68 ms    32x32, 640   88 and 55    64x64, 320   71 and 71
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from diffusion.kernels.device import suits_a_cpu
from diffusion.kernels.winograd import SIDE, kernel_at_points
from diffusion.layers.convolution import MEDIUM
from diffusion.runtime.devices import free_memory
from diffusion.runtime.parameters import Params

POSITIONS = 16 * 16, 32 * 32  # of the smallest and the largest map for which it pays


def prepare(params: Params, positions: int) -> Params:
    """The parameters of a denoiser in the form that is fastest where it runs.

    Kernels for which it pays are transformed, if half of the free memory is enough for them.
    """
    needed = transformed_bytes(params, positions)
    if not suits_a_cpu(jax.tree.leaves(params)[0]) or needed > free_memory() // 2:
        return params
    return transformed(params, positions)


def transformed(params: Params, positions: int) -> Params:
    """The same parameters; the kernels for which it pays are at points, (36, c, d).

    Args:
        params: of a `UNet`.
        positions: of a latent, height times width.
    """
    copy: Params = jax.tree.map(lambda leaf: leaf, params)
    for convolution in _convolutions(copy, positions):
        convolution["kernel"] = _transform(convolution["kernel"])
    return copy


def transformed_bytes(params: Params, positions: int) -> int:
    """How much memory the kernels at points take, in addition to the parameters; 0: none would."""
    kernels = [convolution["kernel"] for convolution in _convolutions(params, positions)]
    return sum(SIDE**2 * int(np.prod(k.shape[2:])) * k.dtype.itemsize for k in kernels)


def _convolutions(params: Params, positions: int) -> Iterator[Params]:
    """The 3x3 convolutions of the residual blocks on maps of the right size."""
    down, up = params["down"]["blocks"], params["up"]["blocks"]
    least, most = POSITIONS
    for level in down:
        if least <= positions // 4**level <= most:
            for block in (down[level], up[len(up) - 1 - level]):
                for residual in block["residuals"].values():
                    for name in ("conv1", "conv2"):
                        if min(residual[name]["kernel"].shape[2:]) >= MEDIUM:
                            yield residual[name]


_transform = jax.jit(lambda kernel: kernel_at_points(kernel, after=kernel))
