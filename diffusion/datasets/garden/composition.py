"""The composition of one picture: where everything stands, and how the hour tints it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.datasets.garden import palette
from diffusion.datasets.garden.motion import Moment, moment
from diffusion.datasets.garden.scene import ATTRIBUTES, LAYOUT, Scene


class View(NamedTuple):
    """All that the layers of one picture need to know. Lengths are fractions of its side."""

    scene: Scene  # of one picture: its fields have no batch axis
    free: Mapping[str, Float[Array, ""]]  # the scene's layout, by the names in LAYOUT
    house_x: Float[Array, ""]  # middle of the house
    house_half: Float[Array, ""]  # half its width
    base: Float[Array, ""]  # the line where the house meets the ground
    door_offset: Float[Array, ""]  # from the middle of the house to the middle of its door
    tree_x: Float[Array, "3"]
    tree_scale: Float[Array, "3"]
    tree_depth: Float[Array, "3"]  # 0 far, 1 near
    light_x: Float[Array, ""]  # middle of the sun or the moon
    light_y: Float[Array, ""]
    shade: Float[Array, ""]  # the side on which shadows fall: 1 right, -1 left
    tint: Float[Array, "1 1 3"]  # by which the hour multiplies the colours of the ground
    moment: Moment | None = None  # of a clip

    def has(self, attribute: str, word: str) -> Bool[Array, ""]:
        """Whether `attribute` has this value."""
        return getattr(self.scene, attribute) == ATTRIBUTES[attribute].index(word)

    def tone(self, attribute: str, table: np.ndarray) -> Float[Array, "1 1 3"]:
        """The colour that `table` gives to the scene's value of `attribute`, which may change."""
        if self.moment is not None and attribute in ("sky", "season"):
            moment = self.moment
            return between(table, moment.hour if attribute == "sky" else moment.season)
        return jnp.asarray(table)[getattr(self.scene, attribute)].reshape(1, 1, 3)

    @property
    def night(self) -> Float[Array, ""]:
        """Whether it is night, 0 or 1; in a clip also how far it has come."""
        if self.moment is None:
            return self.has("sky", "night").astype(jnp.float32)
        return jnp.clip(2.0 * self.moment.hour - 3.0, 0.0, 1.0)

    @property
    def falling(self) -> Float[Array, ""]:
        """The share of the rain or snow that falls."""
        return jnp.ones(()) if self.moment is None else self.moment.falling


def between(table: Array | np.ndarray, position: Float[Array, ""]) -> Float[Array, "1 1 3"]:
    """The colour at a position between the rows of a table."""
    rows = jnp.asarray(table)
    low = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, len(table) - 2)
    share = position - low
    return ((1.0 - share) * rows[low] + share * rows[low + 1]).reshape(1, 1, 3)


def at_time(view: View, motion: Int[Array, ""], time: Float[Array, ""]) -> View:
    """The composition at a time of a clip, 0 to 1."""
    now = moment(view.scene, motion, time, view.light_y)
    return view._replace(moment=now, light_y=now.light_y, tint=between(palette.TINT, now.hour))


def compose(scene: Scene) -> View:
    """Give everything its place. The house stands between the trees, never behind them."""
    free = {name: scene.layout[i] for i, name in enumerate(LAYOUT)}
    together = (scene.trees == 2) & (free["tree_together"] < 0.4)
    case = jnp.where(together, 4, scene.trees)
    # By number of trees (0, 1, 2, 3, or 2 side by side), before mirroring.
    house_x = jnp.array([0.50, 0.60, 0.50, 0.605, 0.66])[case]
    tree_x = jnp.array([
        [0.00, 0.00, 0.00],
        [0.17, 0.00, 0.00],
        [0.13, 0.87, 0.00],
        [0.085, 0.288, 0.92],
        [0.11, 0.32, 0.00],
    ])[case]  # fmt: skip
    scale = jnp.array([1.0, 1.0, 0.92, 0.72, 0.78])[case]
    room = jnp.array([0.10, 0.03, 0.015, 0.01, 0.01])[case]
    width = jnp.array([0.44, 0.44, 0.41, 0.37, 0.41])[case] + 0.04 * free["house_width"]
    jitter = jnp.stack([free["tree_0"], free["tree_1"], free["tree_2"]]) - 0.5
    growth = jnp.stack([free["tree_size_0"], free["tree_size_1"], free["tree_size_2"]])
    house_x = house_x + room * (2.0 * free["house_x"] - 1.0)
    tree_x = tree_x + 0.03 * jitter
    mirrored = free["mirror"] < 0.5
    door = jnp.floor(free["door_place"] * 4.0)  # 0 left, 1 and 2 middle, 3 right
    return View(
        scene=scene,
        free=free,
        house_x=jnp.where(mirrored, 1.0 - house_x, house_x),
        house_half=width / 2,
        base=0.79 + 0.03 * free["house_base"],
        door_offset=jnp.where(door == 0, -0.40, jnp.where(door == 3, 0.40, 0.0)) * (width / 2),
        tree_x=jnp.where(mirrored, 1.0 - tree_x, tree_x),
        tree_scale=scale * (0.92 + 0.16 * growth),
        tree_depth=jitter + 0.5,
        light_x=jnp.array([0.15, 0.85, 0.50])[scene.light] + 0.05 * (free["light_x"] - 0.5),
        light_y=0.125 + 0.04 * free["light_y"],
        shade=jnp.array([1.0, -1.0, 0.4])[scene.light],
        tint=jnp.asarray(palette.TINT)[scene.sky].reshape(1, 1, 3),
    )
