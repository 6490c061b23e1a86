"""A drawing, and the shapes that fill it.

Every shape is a signed distance function: a formula for the distance from a pixel to the shape's
edge, negative inside. A pixel on the edge is covered in part, which makes edges smooth at every
size. Shapes are laid over one another, back to front, with the "over" operator of Porter and Duff,
"Compositing digital images" (1984). The distances are textbook geometry.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Colour = Float[Array | np.ndarray, "#h #w 3"]
Number = float | Array | np.ndarray


class Drawing(NamedTuple):
    """A picture half done. Lengths are fractions of its side, x to the right and y down."""

    colour: Float[Array, "h w 3"]  # in [0, 1]
    ink: Float[Array, "h w"]  # outlines: dark in a pencil sketch, hardly seen in an oil painting
    x: Float[Array, "h w"]  # centres of the pixels
    y: Float[Array, "h w"]
    pixel: float | Array  # side of a pixel


def fill(
    drawing: Drawing,
    distance: Float[Array, "h w"],
    colour: Colour,
    opacity: Number = 1.0,
    outline: float = 1.0,
) -> Drawing:
    """Lay one shape over the drawing; `outline` is the strength of its pencil line, 0 to 1."""
    cover = jnp.clip(0.5 - distance / drawing.pixel, 0.0, 1.0) * opacity
    edge = jnp.clip(0.5 - (jnp.abs(distance) - 0.005) / drawing.pixel, 0.0, 1.0) * opacity
    return drawing._replace(
        colour=drawing.colour + cover[..., None] * (colour - drawing.colour),
        ink=jnp.maximum(drawing.ink * (1.0 - cover), edge * outline),
    )


def fill_rows(
    drawing: Drawing, top: float, bottom: float, draw: Callable[[Drawing], Drawing]
) -> Drawing:
    """Apply `draw` to the rows from `top` to `bottom` only, to save the work on all others."""
    size = len(drawing.y)
    rows = slice(math.floor(top * size), math.ceil(bottom * size))
    colour, ink, x, y, pixel = drawing
    band = draw(Drawing(colour[rows], ink[rows], x[rows], y[rows], pixel))
    return drawing._replace(colour=colour.at[rows].set(band.colour), ink=ink.at[rows].set(band.ink))


def circle(x: Array, y: Array, radius: Number) -> Array:
    """Distance to a circle around the origin."""
    return jnp.sqrt(x**2 + y**2) - radius


def ellipse(x: Array, y: Array, width: Number, height: Number) -> Array:
    """Distance to an ellipse with these half axes, exact to first order at its edge."""
    level = jnp.sqrt((x / width) ** 2 + (y / height) ** 2 + 1e-6)
    slope = jnp.sqrt((x / width**2) ** 2 + (y / height**2) ** 2 + 1e-6)
    return level * (level - 1.0) / slope


def box(x: Array, y: Array, width: Number, height: Number) -> Array:
    """Distance to a box with half sides `width` and `height`."""
    return jnp.maximum(jnp.abs(x) - width, jnp.abs(y) - height)


def triangle(x: Array, y: Array, width: Number, height: Number) -> Array:
    """Distance to a triangle: tip at the origin, base of half side `width` at y = `height`."""
    side = (jnp.abs(x) * height - y * width) / jnp.sqrt(width**2 + height**2)
    return jnp.maximum(side, y - height)


def cell_hash(column: Array, row: Array, seed: Array) -> Array:
    """A number in [0, 1) for each cell of a grid: integer mixing, the same on every machine."""
    mixed = (
        column.astype(jnp.int32).astype(jnp.uint32) * np.uint32(0x9E3779B1)
        + row.astype(jnp.int32).astype(jnp.uint32) * np.uint32(0x85EBCA77)
        + (seed * 65536.0).astype(jnp.uint32) * np.uint32(0xC2B2AE3D)
    )
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(0x2C1B3C6D)
    mixed = mixed ^ (mixed >> 13)
    return (mixed & np.uint32(0xFFFF)).astype(jnp.float32) / 65536.0
