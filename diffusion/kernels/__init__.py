"""One convolution, several ways to compute it; `diffusion.layers.convolution` chooses.

All take a map (b, h, w, c) and a kernel (3, 3, c, d), and give the map that a 3x3 convolution with
a row of zeros on each side gives; `phases` repeats each position twice before it. `data_dependency`
is a tool of theirs.
"""
