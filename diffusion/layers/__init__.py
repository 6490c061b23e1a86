"""The bricks that several stages are built of, as equations; `diffusion.kernels` computes them."""
