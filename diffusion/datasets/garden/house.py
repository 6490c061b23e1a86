"""The house, in the middle of a picture: chimney, walls, roof, door and windows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion.datasets.garden import palette
from diffusion.datasets.garden.composition import View
from diffusion.datasets.garden.drawing import Drawing, box, circle, ellipse, fill, triangle


def render_house(drawing: Drawing, view: View) -> Drawing:
    """The whole house. At night it keeps more of its colour than the meadow does."""
    view = view._replace(tint=0.5 + 0.5 * view.tint)
    x, y = drawing.x - view.house_x, drawing.y
    height = 0.25 + 0.03 * view.free["wall_height"]
    height = height + jnp.where(view.has("roof_shape", "flat"), 0.05, 0.0)
    eaves = view.base - height
    drawing = _render_walls(drawing, view, x, height)
    drawing = _render_roof(drawing, view, x, y - eaves)
    drawing = _render_door(drawing, view, x - view.door_offset, y - view.base)
    return _render_windows(drawing, view, x, y - eaves)


def _render_walls(drawing: Drawing, view: View, x: Array, height: Array) -> Drawing:
    """A chimney on some gabled roofs, the walls, and the shadow of the eaves on them."""
    y, half, base = drawing.y, view.house_half, view.base
    eaves = base - height
    chimney = box(x - 0.55 * half, y - eaves + 0.085, 0.028, 0.075)
    shown = (view.free["chimney"] < 0.6) & view.has("roof_shape", "gabled")
    drawing = fill(drawing, chimney, palette.STONE * view.tint, shown, outline=0.9)

    shading = (1.0 - 0.16 * jax.nn.sigmoid(14.0 * x * view.shade / half))[..., None]
    warmth = 1.0 + 0.05 * (view.free["warmth"] - 0.5)
    walls = view.tone("house", palette.HOUSE) * shading * view.tint * warmth
    drawing = fill(drawing, box(x, y - base + height / 2, half, height / 2), walls)
    shadow = box(x, y - eaves - 0.012, half, 0.022)
    return fill(drawing, shadow, walls * 0.72, outline=0.0)


def _render_roof(drawing: Drawing, view: View, x: Array, y: Array) -> Drawing:
    """A gable, a flat roof or a dome; y = 0 is the line of the eaves."""
    half, rise = view.house_half, 0.17 + 0.03 * view.free["roof_height"]
    gable = triangle(x, y + rise, half + 0.055, rise + 0.008)
    flat = box(x, y + 0.034, half + 0.035, 0.045)
    dome = jnp.maximum(ellipse(x, y, half + 0.02, rise), y - 0.008)
    roof = jnp.select(
        [view.has("roof_shape", "gabled"), view.has("roof_shape", "flat")], [gable, flat], dome
    )
    shading = 1.0 - 0.10 * jax.nn.sigmoid(10.0 * x * view.shade / half)
    colour = view.tone("roof", palette.ROOF) * view.tint
    return fill(drawing, roof, colour * (shading - 0.5 * (y + 0.09))[..., None])


def _render_door(drawing: Drawing, view: View, x: Array, y: Array) -> Drawing:
    """A door with its frame and its knob; (0, 0) is the middle of the doorstep."""
    half, height = 0.056, 0.19
    y = y + height / 2
    frame = box(x, y + 0.006, half + 0.013, height / 2 + 0.006)
    drawing = fill(drawing, frame, palette.TRIM * 0.94 * view.tint)
    door = box(x, y, half, height / 2)
    drawing = fill(drawing, door, view.tone("door", palette.DOOR) * view.tint, outline=0.6)
    knob = circle(x - 0.032, y - 0.005, 0.010)
    return fill(drawing, knob, palette.KNOB * view.tint, outline=0.0)


def _render_windows(drawing: Drawing, view: View, x: Array, y: Array) -> Drawing:
    """Two windows beside a door in the middle, or one large window beside a door at the side.

    y = 0 is the line of the eaves. A window is not tinted: at sunset and at night it is lit.
    """
    single, side, wall = view.door_offset != 0, jnp.sign(view.door_offset), view.house_half
    half = jnp.where(single, 0.055, 0.036)
    across = jnp.abs(jnp.where(single, x + 0.45 * side * wall, jnp.abs(x) - 0.64 * wall))
    down = jnp.abs(y - 0.105)
    pane = jnp.maximum(across - half, down - 0.042)
    drawing = fill(drawing, pane - 0.012, palette.TRIM * 0.94 * view.tint)
    drawing = fill(drawing, pane, view.tone("sky", palette.PANE), outline=0.6)
    bars = jnp.maximum(jnp.minimum(across, down) - 0.004, pane)
    return fill(drawing, bars, palette.TRIM * 0.9 * view.tint, 0.8, outline=0.3)
