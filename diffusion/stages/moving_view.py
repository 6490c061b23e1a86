"""A camera that goes over a picture: what each frame of a film would see of it.

Where a house stands is decided in the first glances, and always in much the same places. So a view
that is to move waits until there is something to see. One picture is painted, and then each view of
it once more from half of the noise (Meng et al. 2022, "SDEdit").
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.stages.moving_noise import CENTRE

STRENGTH = 0.5  # of the way that views of a picture go once more
EDGE = 4  # a picture goes on for a quarter of its side, as it ends: enough for any view


def through_camera(
    picture: Float[Array, "H W 3"], views: Float[Array, "f 4"]
) -> Float[Array, "f H W 3"]:
    """What each view shows of a picture, and beyond its edge, more of the edge.

    Args:
        views: see `diffusion.stages.moving_noise.Views`; clouds and trees are not looked at.
    """
    height, width, _ = picture.shape
    edges = height // EDGE, width // EDGE
    wide = jnp.pad(picture, [(edge, edge) for edge in edges] + [(0, 0)], mode="edge")
    centre = jnp.array([CENTRE[1] * height, CENTRE[0] * width])
    beside = jnp.array(edges)

    def one(view: Float[Array, "4"]) -> Float[Array, "H W 3"]:
        zoom = jnp.exp(view[1])
        looks_at = centre + jnp.array([0.0, width]) * view[0]
        moved = centre - (looks_at + beside) * zoom
        scale = jnp.full(2, zoom)
        return jax.image.scale_and_translate(
            wide, picture.shape, (0, 1), scale, moved, method="lanczos3"
        )

    return jax.vmap(one)(views)
