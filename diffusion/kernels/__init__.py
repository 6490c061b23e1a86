"""How the equations of `diffusion.layers` run fast.

Each module here gives the numbers of an equation in another order of work, and chooses the order
by shape and device: `attention`, `convolution` (in the forms `plain`, `gathered`, `phases` and
`winograd`), `normalisation` and `chunks`. Only these modules ask what the machine is good at
(`device`). `gradients` and `data_dependency` hold tools.
"""
