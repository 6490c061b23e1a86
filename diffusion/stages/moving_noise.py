"""Noise that moves with what it will become: the dots of a canvas that the view goes across.

What a painting is of, its noise decides. So where the noise of the frames goes to the left, the
garden does (Burgert et al. 2025, "Go-with-the-Flow"). Between whole positions noise cannot be mixed
from its neighbours: a mean of two has half the variance. It is therefore drawn in fine grains, and
a position has the sum of those that it covers, over the root of their number, which is standard
normal again (Chang et al. 2024, "How I Warped Your Noise"). No grain counts twice in a frame.

What leaves the canvas at one side comes in at the other. So what the noise as a whole decides
stays: all of a sky's noise says whether it is day or night.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

GRAINS = 8  # along each side of a position
SKY = 0.42  # of the height: where clouds are
CENTRE = (0.5, 0.6)  # across and down, in sides: to where the view comes closer

Views = Float[Array, "*b 3"]
"""Where the view is, to the right, in sides; the logarithm of its zoom; where the clouds are, to
the right, in sides. Zeros: the whole canvas, as a picture shows it."""


def grains(key: Array, size: tuple[int, int, int]) -> Float[Array, "H W z"]:
    """Fine noise for maps of shape `size` (h, w, channels)."""
    h, w, z = size
    return jax.random.normal(key, (h * GRAINS, w * GRAINS, z))


def seen(fine: Float[Array, "H W z"], views: Float[Array, "f 3"]) -> Float[Array, "f h w z"]:
    """The noise of each frame: what its view shows of the grains.

    Args:
        fine: see `grains`.
        views: see `Views`; no zoom below 0.
    """
    h, w = fine.shape[0] // GRAINS, fine.shape[1] // GRAINS
    pan, zoom, drift = views[:, 0], jnp.exp(views[:, 1]), views[:, 2]
    rows = _covered(h, CENTRE[1], jnp.zeros_like(pan), zoom)
    land = _covered(w, CENTRE[0], pan, zoom)
    sky = _covered(w, CENTRE[0], pan - drift, zoom)
    strips = jnp.einsum("fyi,ijz->fyjz", rows, fine)
    below = jnp.einsum("fyjz,fxj->fyxz", strips, land)
    above = jnp.einsum("fyjz,fxj->fyxz", strips, sky)
    return jnp.where((jnp.arange(h) < SKY * h)[None, :, None, None], above, below)


def moving_noise(
    key: Array, views: Float[Array, "f 3"], size: tuple[int, int, int]
) -> Float[Array, "f h w z"]:
    """The noise that the frames of a film have in common, gone where each one's view has gone."""
    return seen(grains(key, size), views)


def _covered(
    count: int, centre: float, shift: Float[Array, " f"], zoom: Float[Array, " f"]
) -> Float[Array, "f {count} G"]:
    """Which grains each position of a row or a column covers: 1 over the root of their number."""
    total = count * GRAINS
    places = jnp.arange(count + 1)[None] / count - centre
    asked = places / zoom[:, None] + centre + shift[:, None]
    edges: Int[Array, "f n"] = jnp.rint(asked * total).astype(jnp.int32)
    low, high = edges[:, :-1, None], edges[:, 1:, None]
    inside = (jnp.arange(total)[None, None] - low) % total < high - low
    return inside / jnp.sqrt((high - low).astype(jnp.float32))
