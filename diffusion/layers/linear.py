"""x W + b: Flax's, with the product of `diffusion.kernels.products`."""

from typing import Any

from flax import nnx

from diffusion.kernels.products import dot_general


class Linear(nnx.Linear):
    def __init__(self, width: int, out: int, **settings: Any):
        super().__init__(width, out, dot_general=dot_general, **settings)
