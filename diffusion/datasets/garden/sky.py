"""The upper layers of a picture: the air, sun or moon, clouds, and what falls from them."""

import jax.numpy as jnp
from jaxtyping import Array

from diffusion.datasets.garden import palette
from diffusion.datasets.garden.composition import View
from diffusion.datasets.garden.drawing import Drawing, box, cell_hash, circle, fill


def render_air(drawing: Drawing, view: View) -> Drawing:
    """The colours of the air from its top to the horizon, and the glow of sun or moon."""
    x, y = drawing.x, drawing.y
    top, middle, low, grey = (view.tone("sky", table) for table in palette.AIR)
    height = (y / 0.62)[..., None]
    colour = jnp.where(
        height < 0.5,
        top + (middle - top) * height * 2.0,
        middle + (low - middle) * jnp.clip(height * 2.0 - 1.0, 0.0, 1.0),
    )
    colour = colour + _greyness(view) * (grey - colour)
    light = view.tone("sky", palette.SUN_OR_MOON)
    distance_2 = (x - view.light_x) ** 2 + (y - view.light_y) ** 2
    glow = 0.55 * jnp.exp(-distance_2 / 0.018)
    return drawing._replace(colour=colour + glow[..., None] * (light - colour))


def _greyness(view: View) -> Array:
    """Of the air: while rain or snow begins or ends, between theirs and that of clouds."""
    table = jnp.asarray(palette.GREYNESS)
    now = table[view.scene.weather]
    if view.moment is None:
        return now
    return now - (view.scene.weather >= 2) * (1.0 - view.falling) * (now - table[1])


def render_stars(drawing: Drawing, view: View) -> Drawing:
    """On a clear night, at most one star in each cell of a grid."""
    x, y, luck = _scatter(drawing, view, 7.0, 0.2, (0, 31, 0))
    shown = view.night * (view.has("weather", "clear") & (luck > 0.7))
    return fill(drawing, circle(x, y, 0.009), palette.TRIM, 0.9 * shown, outline=0.3)


def _scatter(
    drawing: Drawing,
    view: View,
    columns: float,
    margin: float,
    salt: tuple[int, int, int],
    fallen: Array | float = 0.0,
) -> tuple[Array, Array, Array]:
    """How far each pixel is from the one dot in its cell, across and down; the cell's luck, 0 to 2.

    The grid has 8 rows. A dot keeps `margin` cells away from the edge of its cell.
    """
    x, y, seed = drawing.x * columns, (drawing.y - fallen) * 8.0, view.free["weather_seed"]
    column, row = jnp.floor(x), jnp.floor(y)
    across = cell_hash(column, row + salt[0], seed)
    down = cell_hash(row + salt[1], column + salt[2], seed)
    spread = 1.0 - 2.0 * margin
    dx = (x - column - margin - spread * across) / columns
    return dx, (y - row - margin - spread * down) / 8.0, across + down


def render_sky(drawing: Drawing, view: View) -> Drawing:
    """Sun or moon, then the clouds, which never hide it altogether."""
    scene, free = view.scene, view.free
    dx, dy = drawing.x - view.light_x, drawing.y - view.light_y
    moon = jnp.maximum(
        circle(dx, dy, 0.075),
        -circle(dx - 0.045 - 0.03 * free["moon_phase"], dy + 0.02, 0.07),
    )
    disc = jnp.where(view.night > 0.0, moon, circle(dx, dy, 0.072))
    drawing = fill(drawing, disc, view.tone("sky", palette.SUN_OR_MOON), outline=0.8)

    grey = view.tone("sky", palette.AIR[3])
    colour = view.tone("sky", palette.CLOUD)
    dark = 0.35 * (scene.weather >= 2) * view.falling  # in rain and snow
    colour = colour + dark * (grey * 0.9 - colour)
    size = 0.9 + 0.25 * free["cloud_size"]
    slots = jnp.array([0.18, 0.84, 0.51])  # left, right, middle; the light has one of them
    drift = 0.0 if view.moment is None else view.moment.drift
    offsets = (free["cloud_x"] - 0.5) * 0.10 + drift, (0.5 - free["cloud_y"]) * 0.10 + drift
    clouds = [
        _cloud(
            drawing.x - slots[(scene.light + i + 1) % 3] - offsets[i],
            drawing.y - 0.12 - 0.06 * free["cloud_y" if i else "cloud_x"],
            size,
        )
        for i in range(2)
    ]
    veil = _cloud(dx - 0.05 - drift, dy - 0.075, 0.75 * size)  # over the lower part of the light
    nearest = jnp.minimum(jnp.minimum(*clouds), veil)
    return fill(drawing, nearest, colour, scene.weather > 0)


def _cloud(x: Array, y: Array, size: Array) -> Array:
    """Distance to a cloud: three circles, cut off flat below."""
    left = circle(x + 0.075 * size, y, 0.042 * size)
    right = circle(x - 0.080 * size, y + 0.004, 0.048 * size)
    puffs = jnp.minimum(jnp.minimum(left, right), circle(x, y + 0.022, 0.060 * size))
    return jnp.maximum(puffs, y - 0.026 * size)


def render_weather(drawing: Drawing, view: View) -> Drawing:
    """Streaks of rain, or flakes of snow."""
    fallen = 0.0 if view.moment is None else view.moment.fallen
    x, y, seed = drawing.x, drawing.y - fallen, view.free["weather_seed"]
    slanted = (x + 0.28 * y) * 11.0
    column = jnp.floor(slanted)
    fall = y * 4.5 + 7.0 * cell_hash(column, jnp.zeros_like(column), seed)
    row = jnp.floor(fall)
    shift = 0.5 * (cell_hash(column, row, seed) - 0.5)
    streak = box((slanted - column - 0.5 - shift) / 11.0, (fall - row - 0.5) / 4.5, 0.006, 0.05)
    shown = view.has("weather", "rain") & (_chance(column, row, view) <= view.falling)
    drawing = fill(drawing, streak, palette.RAIN, 0.75 * shown, outline=0.35)

    x, y, luck = _scatter(drawing, view, 8.0, 0.25, (3, 0, 41), fallen)
    rarer = 1.45 * (1.0 - view.falling)  # no luck exceeds 2
    shown = view.has("weather", "snow") & (luck > 0.55 + rarer)
    return fill(drawing, circle(x, y, 0.015), palette.SNOW, 0.95 * shown, outline=0.55)


def _chance(column: Array, row: Array, view: View) -> Array:
    """By which a streak of rain begins to fall sooner or later; in still pictures all fall."""
    if view.moment is None:
        return jnp.zeros_like(column)
    return cell_hash(column + 5.0, row + 11.0, view.free["weather_seed"])
