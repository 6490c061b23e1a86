"""The lower layers of a picture: hill, meadow and path, the trees, and the flowers."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.datasets.garden import palette
from diffusion.datasets.garden.composition import View, between
from diffusion.datasets.garden.drawing import (
    Drawing,
    box,
    cell_hash,
    circle,
    ellipse,
    fill,
    triangle,
)
from diffusion.datasets.garden.scene import ATTRIBUTES


def render_ground(drawing: Drawing, view: View) -> Drawing:
    """A hill far away, the meadow, the path to the door, and the shadow of the house."""
    x, y, free, base = drawing.x, drawing.y, view.free, view.base
    turn = 2 * np.pi * free["hill_phase"]
    far = 0.60 - 0.045 * (0.5 + free["hill"]) * jnp.sin(5.5 * x + turn)
    near = 0.69 + 0.016 * jnp.sin(6.0 * x + 2.0 * turn)
    hill = view.tone("season", palette.HILL) * view.tint
    meadow = view.tone("season", palette.MEADOW) * view.tint
    drawing = fill(drawing, far - y, hill * (1.12 - 0.5 * (y - 0.55))[..., None])
    drawing = fill(drawing, near - y, meadow * (1.04 - 0.45 * (y - 0.69))[..., None], outline=0.7)

    # The path is 0.10 wide at the door and 0.20 at the lower edge of the picture.
    door = view.house_x + view.door_offset
    depth = jnp.clip((y - base) / (1.0 - base), 0.0, 1.0)
    bend = 0.16 * (free["path"] - 0.5) * depth**2
    path = jnp.maximum(jnp.abs(x - door - bend) - 0.05 - 0.05 * depth, base - 0.02 - y)
    drawing = fill(drawing, path, view.tone("season", palette.PATH) * view.tint, outline=0.5)

    shadow = ellipse(x - view.house_x - 0.04 * view.shade, y - base, view.house_half * 1.12, 0.028)
    return fill(drawing, shadow, meadow * 0.45, 0.45, outline=0.0)


def render_trees(drawing: Drawing, view: View) -> Drawing:
    """Up to three trees of one kind, each with its shadow, its trunk and its crown.

    A pixel belongs to the nearest tree alone: where two crowns meet, each is cut half-way.
    """
    shown = view.scene.trees > 0
    away = jnp.abs(drawing.x[None] - view.tree_x[:, None, None])
    absent = jnp.arange(3) >= view.scene.trees
    nearest = jnp.argmin(away + 9.0 * absent[:, None, None], axis=0)
    scale = view.tree_scale[nearest]
    foot = view.base - 0.015 + 0.03 * view.tree_depth[nearest]
    # From here on, (0, 0) is the foot of the pixel's own tree, and a tree is 0.5 high or so.
    x, y = drawing.x - view.tree_x[nearest], drawing.y - foot
    if view.moment is not None:  # the higher, the further
        x = x - view.moment.lean * jnp.clip(-y, 0.0, 1.0) * (1.0 + 0.2 * view.tree_depth[nearest])
    x, y = x / scale, y / scale
    oak, pine, poplar, apple = (view.has("tree_kind", kind) for kind in ATTRIBUTES["tree_kind"])

    shadow = ellipse(x - 0.04 * view.shade, y, 0.12, 0.022) * scale
    ground = view.tone("season", palette.MEADOW) * view.tint
    drawing = fill(drawing, shadow, ground * 0.45, 0.4 * shown, outline=0.0)

    half = jnp.select([oak, pine, poplar], [0.034, 0.022, 0.018], 0.022)
    flare = jnp.clip(1.0 + 5.0 * (y + 0.05), 1.0, 1.3)  # wider at the foot
    trunk = box(x / flare, y + 0.11, half, 0.12) * scale
    drawing = fill(drawing, trunk, palette.BARK * view.tint, shown)

    lobes = jnp.minimum(circle(jnp.abs(x) - 0.056, y + 0.25, 0.076), circle(x, y + 0.325, 0.088))
    tiers = jnp.minimum(triangle(x, y + 0.52, 0.068, 0.17), triangle(x, y + 0.42, 0.096, 0.19))
    tiers = jnp.minimum(tiers, triangle(x, y + 0.31, 0.122, 0.23))
    slender = ellipse(x, y + 0.31, 0.060, 0.24)
    rounded = ellipse(x, y + 0.25, 0.118, 0.105)
    crown = jnp.select([oak, pine, poplar], [lobes, tiers, slender], rounded)
    drawing = fill(drawing, scale * crown, _leaves(x, y, view) * view.tint, shown)

    # Blossom or fruit on a loose grid, kept inside the crown of an apple tree.
    column, row = jnp.floor(x / 0.086 + 0.5), jnp.floor((y + 0.25) / 0.076 + 0.5)
    wander = cell_hash(column, row + 5.0, view.free["flower_seed"]) - 0.5
    dot = circle(
        x - 0.086 * column - 0.022 * wander, y + 0.25 - 0.076 * row + 0.018 * wander, 0.025
    )
    inside = (column**2 + row**2 < 2.0) & shown & apple
    fruit = view.tone("season", palette.FRUIT) * view.tint
    return fill(drawing, dot * scale, fruit, inside, outline=0.5)


def _leaves(x: Array, y: Array, view: View) -> Float[Array, "h w 3"]:
    """The colour of leaves: lighter where the light comes from, and in winter white on top."""
    scene, pine, poplar = view.scene, view.has("tree_kind", "pine"), view.has("tree_kind", "poplar")
    leaves = jnp.asarray(palette.LEAVES)[scene.tree_kind, scene.season].reshape(1, 1, 3)
    if view.moment is not None:
        kinds = jnp.asarray(palette.LEAVES)[scene.tree_kind]
        leaves = between(kinds, view.moment.season)
    middle = jnp.select([pine, poplar], [-0.30, -0.31], -0.26)
    sunny = jnp.clip(0.5 - 2.2 * (y - middle) - 2.6 * x * view.shade, 0.0, 1.0)
    leaves = leaves * (0.74 + 0.42 * sunny)[..., None]
    tip = jnp.select([y < -0.385, y < -0.265], [-0.52, -0.415], -0.305)  # of a pine's three tiers
    drift = jnp.where(pine, y - tip - 0.35 * jnp.abs(x) < 0.035, sunny > 0.62)
    return jnp.where((view.has("season", "winter") & drift)[..., None], palette.SNOW, leaves)


def render_flowers(drawing: Drawing, view: View) -> Drawing:
    """A bed of 6 x 2 cells with at most one flower a cell: 12 are many, 4 are few."""
    wide, tall, bed = 1.0 / 6.0, 0.082, 0.833
    seed = view.free["flower_seed"]
    column, row = jnp.floor(drawing.x / wide), jnp.floor((drawing.y - bed) / tall)
    across = cell_hash(column, row, seed) - 0.5
    down = cell_hash(column + 17.0, row, seed) - 0.5
    x = drawing.x - wide * (column + 0.5) - 0.06 * across
    y = drawing.y - bed - tall * (row + 0.5) - 0.02 * down
    turn = jnp.floor(3.0 * seed)
    few = (row == jnp.floor(2.0 * view.free["path"])) & ((column + turn) % 3.0 != 0)
    grown = (row >= 0) & (row <= 1) & (column >= 0) & (column <= 5)
    shown = grown & (view.has("flower_amount", "many") | (view.has("flower_amount", "few") & few))

    leaf = ellipse(x, y - 0.022, 0.038, 0.014)
    drawing = fill(drawing, leaf, palette.LEAF_GREEN * view.tint, shown, outline=0.5)
    # Five petals: a circle whose radius swings with cos 5a, by the multiple angle formula.
    radius = jnp.sqrt(x**2 + y**2 + 1e-8)
    c = y / radius
    petals = radius - 0.0295 - 0.0045 * (16.0 * c**5 - 20.0 * c**3 + 5.0 * c)
    tint = 0.25 + 0.75 * view.tint  # at night a flower keeps more of its colour than the meadow
    colour = view.tone("flowers", palette.FLOWERS) * tint
    drawing = fill(drawing, petals, colour, shown, outline=0.7)
    heart = view.tone("flowers", palette.HEART) * tint
    return fill(drawing, radius - 0.010, heart, shown, outline=0.0)
