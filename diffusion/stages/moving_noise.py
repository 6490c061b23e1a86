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
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.stages.prompt_travel import between

GRAINS = 8  # along each side of a position
SKY = 0.42  # of the height: where clouds are
FOOT = 0.78  # of the height: where trees stand
CENTRE = (0.5, 0.6)  # across and down, in sides: to where the view comes closer
SWAYS = 2  # times to the right and to the left in a film

Views = Float[Array, "*b 4"]
"""Where the view is, to the right, in sides; the logarithm of its zoom; where the clouds are, to
the right, in sides; how far trees lean to the right, in sides for a side of height. Zeros: the
whole canvas, as a picture shows it."""


def grains(key: Array, size: tuple[int, int, int]) -> Float[Array, "H W z"]:
    """Fine noise for maps of shape `size` (h, w, channels)."""
    h, w, z = size
    return jax.random.normal(key, (h * GRAINS, w * GRAINS, z))


def places(ends: Float[Array, "k 2 4"], way: Float[Array | np.ndarray, " f"]) -> Views:
    """The `Views` of each frame: straight from one end to the other, but that trees sway.

    Args:
        ends: see `Views`; of trees, how far they lean at most.
        way: how far each frame is, 0 to 1.
    """
    swing = jnp.sin(2 * jnp.pi * SWAYS * jnp.asarray(way))
    return between(ends, way).at[..., 3].multiply(swing[None])


def sky(rows: int) -> Bool[np.ndarray, " {rows}"]:
    """Which rows of a map are sky."""
    return np.arange(rows) < SKY * rows


def seen(fine: Float[Array, "H W z"], views: Float[Array, "f 4"]) -> Float[Array, "f h w z"]:
    """The noise of each frame: what its view shows of the grains.

    Args:
        fine: see `grains`.
        views: see `Views`; no zoom below 0.
    """
    h, w = fine.shape[0] // GRAINS, fine.shape[1] // GRAINS
    pan, closer, drift, lean = views.T[..., None]
    zoom = jnp.exp(closer)
    row = (np.arange(h)[None] + 0.5) / h
    above = jnp.asarray(np.maximum(FOOT - row, 0.0), jnp.float32)  # where trees stand
    goes = jnp.where(sky(h)[None], drift, 0.0) + lean * above
    rows = _covered(h, CENTRE[1], jnp.zeros_like(pan), zoom)[:, 0]
    columns = _covered(w, CENTRE[0], pan - goes, zoom)
    strips = jnp.einsum("fyi,ijz->fyjz", rows, fine)
    return jnp.einsum("fyjz,fyxj->fyxz", strips, columns)


def moving_noise(
    key: Array, views: Float[Array, "f 4"], size: tuple[int, int, int]
) -> Float[Array, "f h w z"]:
    """The noise that the frames of a film have in common, gone where each one's view has gone."""
    return seen(grains(key, size), views)


def _covered(
    count: int, centre: float, shift: Float[Array, "f r"], zoom: Float[Array, "f 1"]
) -> Float[Array, "f r {count} G"]:
    """Which grains each position of a row or a column covers: 1 over the root of their number."""
    total = count * GRAINS
    lines = (jnp.arange(count + 1) / count - centre)[None, None]
    asked = lines / zoom[..., None] + centre + shift[..., None]
    edges: Int[Array, "f r n"] = jnp.rint(asked * total).astype(jnp.int32)
    low, high = edges[..., :-1, None], edges[..., 1:, None]
    inside = (jnp.arange(total)[None, None, None] - low) % total < high - low
    return inside / jnp.sqrt((high - low).astype(jnp.float32))
