"""The garden: an endless picture book of houses, drawn by code.

A `Scene` says what is in a picture. Its categories are what words can name (`ATTRIBUTES`); its
`layout` is everything that words leave open, so that no two pictures are the same. `render` paints
a batch of scenes with signed distance functions: every shape is a formula for the distance to its
edge, and a pixel on the edge is covered in part. All lengths are fractions of the picture's side,
x to the right and y down, so one scene looks alike at 64, 128 or 512 pixels.

Distance functions: the two-dimensional primitives are textbook geometry. Painting back to front
is the "over" operator of Porter and Duff, "Compositing digital images" (1984).
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "house": ("red", "blue", "yellow", "white", "green", "purple", "orange", "pink"),
    "roof": ("red", "blue", "green", "yellow", "orange", "purple", "brown", "grey"),
    "roof_shape": ("gabled", "flat", "dome"),
    "door": ("red", "blue", "green", "yellow", "brown", "white"),
    "trees": ("none", "one", "two", "three"),
    "tree_kind": ("oak", "pine", "poplar", "apple"),
    "flowers": ("red", "yellow", "white", "purple", "blue"),
    "flower_amount": ("none", "few", "many"),
    "sky": ("day", "sunset", "night"),
    "light": ("left", "right", "middle"),
    "season": ("spring", "summer", "autumn", "winter"),
    "weather": ("clear", "cloudy", "rain", "snow"),
    "style": ("oil painting", "pencil sketch"),
}
"""The values of each category; a scene stores the position of its value in the tuple."""

GROWS: Mapping[str, str] = {"tree_kind": "trees", "flowers": "flower_amount"}
"""What only something that grows can have, and the category that says whether it does: a tree has
a kind, and a flower its colour, only where there is one."""

LAYOUT = (
    "mirror", "house_x", "house_width", "house_base", "wall_height", "roof_height",
    "door_place", "chimney", "tree_together", "tree_0", "tree_1", "tree_2",
    "tree_size_0", "tree_size_1", "tree_size_2", "hill", "hill_phase", "path",
    "light_x", "light_y", "moon_phase", "cloud_x", "cloud_y", "cloud_size",
    "flower_seed", "weather_seed", "brush", "warmth",
)  # fmt: skip
"""The names of the free variables, each in [0, 1), in the order of `Scene.layout`."""

HELD_OUT: tuple[Mapping[str, str], ...] = (
    {"house": "purple", "roof": "green"},
    {"house": "blue", "roof": "orange"},
    {"house": "yellow", "door": "blue"},
    {"house": "pink", "flowers": "white"},
    {"trees": "two", "tree_kind": "pine", "sky": "sunset"},
    {"trees": "three", "tree_kind": "apple", "season": "winter"},
)
"""Combinations kept out of all training: four ask whether colours bind to their object, two
whether the model counts. A scene that matches any one of them in full is held out."""


_Batch = Array | np.ndarray


class Scene(NamedTuple):
    """A batch of pictures to be, as a struct of arrays (int32 categories, float32 layout)."""

    house: Int[_Batch, " b"]  # colour of the walls
    roof: Int[_Batch, " b"]  # colour of the roof
    roof_shape: Int[_Batch, " b"]  # gabled, flat, dome
    door: Int[_Batch, " b"]  # colour of the door
    trees: Int[_Batch, " b"]  # how many, 0 to 3
    tree_kind: Int[_Batch, " b"]  # one kind a picture; 0 where there is no tree
    flowers: Int[_Batch, " b"]  # one colour a picture; 0 where there is no flower
    flower_amount: Int[_Batch, " b"]  # none, few (4), many (12)
    sky: Int[_Batch, " b"]  # the hour: day, sunset, night
    light: Int[_Batch, " b"]  # where the sun (at night the moon) stands
    season: Int[_Batch, " b"]  # colours of ground and leaves
    weather: Int[_Batch, " b"]  # snow falls in winter only, rain never does then
    style: Int[_Batch, " b"]  # how it is painted
    layout: Float[_Batch, "b k"]  # what words leave open, see LAYOUT


def value(scene: Scene, index: int, attribute: str) -> str:
    """The name of the value that `attribute` has in picture `index` of the batch."""
    return ATTRIBUTES[attribute][int(getattr(scene, attribute)[index])]


def sample_scenes(rng: np.random.Generator, count: int, *, held_out: bool = False) -> Scene:
    """Draw `count` scenes as numpy arrays; the same generator state gives the same scenes.

    Training uses the default, which never draws a combination of `HELD_OUT`; `held_out=True`
    draws nothing else. Raises ValueError if `count` is negative.
    """
    if count < 0:
        raise ValueError(f"count is {count}; ask for 0 or more scenes")
    kept = [draw_scenes(rng, 0)]
    missing = count
    while missing > 0:
        drawn = draw_scenes(rng, max(count, 16))
        wanted = np.flatnonzero(is_held_out(drawn) == held_out)[:missing]
        kept.append(Scene(*(field[wanted] for field in drawn)))
        missing -= len(wanted)
    return Scene(*(np.concatenate(fields) for fields in zip(*kept, strict=True)))


def is_there(scene: Scene, attribute: str) -> Bool[_Batch, " b"]:
    """In which pictures `attribute` can be seen; see `GROWS`."""
    if attribute in GROWS:
        return getattr(scene, GROWS[attribute]) > 0
    return np.ones(np.shape(scene.house), bool)


def is_held_out(scene: Scene) -> Bool[np.ndarray, " b"]:
    """Which scenes match a combination of `HELD_OUT`, and so belong to no training set."""
    return np.any([shows(scene, combination) for combination in HELD_OUT], axis=0)


def shows(scene: Scene, combination: Mapping[str, str]) -> Bool[np.ndarray, " b"]:
    """Which scenes have all of these values (attribute -> value), where they can be seen."""
    match = np.ones(np.shape(scene.house), bool)
    for name, word in combination.items():
        match &= np.asarray(getattr(scene, name)) == ATTRIBUTES[name].index(word)
        match &= np.asarray(is_there(scene, name))
    return match


def draw_scenes(rng: np.random.Generator, count: int) -> Scene:
    """As `sample_scenes`, but of all scenes, whether they are held out or not."""

    def pick(name: str, *weights: float) -> np.ndarray:
        return rng.choice(len(ATTRIBUTES[name]), count, p=weights or None).astype(np.int32)

    trees = pick("trees", 0.16, 0.28, 0.28, 0.28)
    season = pick("season", 0.26, 0.26, 0.24, 0.24)
    winter = season == ATTRIBUTES["season"].index("winter")
    weather = np.where(
        winter, pick("weather", 0.40, 0.20, 0.00, 0.40), pick("weather", 0.50, 0.25, 0.25, 0.00)
    )
    amount = np.where(
        winter,
        pick("flower_amount", 0.60, 0.20, 0.20),
        pick("flower_amount", 0.20, 0.40, 0.40),
    )
    return Scene(
        house=pick("house"),
        roof=pick("roof"),
        roof_shape=pick("roof_shape", 0.40, 0.30, 0.30),
        door=pick("door"),
        trees=trees,
        tree_kind=np.where(trees > 0, pick("tree_kind"), np.int32(0)),
        flowers=np.where(amount > 0, pick("flowers"), np.int32(0)),
        flower_amount=amount,
        sky=pick("sky", 0.44, 0.26, 0.30),
        light=pick("light"),
        season=season,
        weather=weather,
        style=pick("style", 0.6, 0.4),
        layout=rng.random((count, len(LAYOUT)), np.float32),
    )


# --- Colours: red, green, blue in [0, 1], in the order of ATTRIBUTES -----------------------------

_PAINT = {
    "red": (0.84, 0.13, 0.12),
    "blue": (0.16, 0.38, 0.86),
    "yellow": (0.98, 0.83, 0.18),
    "white": (0.97, 0.96, 0.93),
    "green": (0.10, 0.56, 0.30),
    "purple": (0.52, 0.22, 0.70),
    "orange": (0.97, 0.52, 0.09),
    "pink": (0.98, 0.60, 0.72),
    "brown": (0.44, 0.25, 0.13),
    "grey": (0.47, 0.49, 0.53),
}


def _palette(attribute: str) -> np.ndarray:
    return np.array([_PAINT[name] for name in ATTRIBUTES[attribute]], np.float32)


def _colours(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


_HOUSE, _ROOF, _DOOR, _FLOWER = map(_palette, ("house", "roof", "door", "flowers"))
# A sky is painted from its top through its middle to the horizon.
_SKY_TOP = _colours((0.27, 0.56, 0.92), (0.43, 0.28, 0.58), (0.04, 0.06, 0.21))
_SKY_MIDDLE = _colours((0.52, 0.77, 0.97), (0.95, 0.47, 0.42), (0.09, 0.13, 0.36))
_SKY_LOW = _colours((0.87, 0.94, 0.97), (1.00, 0.80, 0.46), (0.20, 0.27, 0.52))
_SKY_GREY = _colours((0.66, 0.71, 0.78), (0.66, 0.50, 0.55), (0.12, 0.14, 0.22))
_CLOUD = _colours((0.97, 0.97, 0.98), (0.98, 0.78, 0.70), (0.36, 0.39, 0.52))
_LIGHT = _colours((1.00, 0.90, 0.28), (1.00, 0.62, 0.18), (0.98, 0.95, 0.76))
_TINT = _colours((1.00, 1.00, 1.00), (1.00, 0.88, 0.82), (0.60, 0.64, 0.84))
_PANE = _colours((0.72, 0.87, 0.96), (1.00, 0.86, 0.50), (1.00, 0.86, 0.42))
_GREYNESS = np.array([0.0, 0.40, 0.80, 0.70], np.float32)  # by weather
_MEADOW = _colours((0.60, 0.82, 0.34), (0.33, 0.62, 0.22), (0.82, 0.62, 0.27), (0.93, 0.95, 0.99))
_HILL = _colours((0.46, 0.70, 0.42), (0.24, 0.50, 0.28), (0.66, 0.43, 0.22), (0.78, 0.84, 0.93))
_PATH = _colours((0.90, 0.79, 0.58), (0.88, 0.76, 0.54), (0.70, 0.50, 0.30), (0.74, 0.74, 0.80))
# Leaves by kind of tree (oak, pine, poplar, apple), then by season.
_LEAVES = np.stack(
    [
        _colours((0.42, 0.66, 0.20), (0.15, 0.42, 0.13), (0.86, 0.38, 0.10), (0.66, 0.71, 0.76)),
        _colours((0.08, 0.40, 0.30), (0.05, 0.34, 0.24), (0.08, 0.34, 0.22), (0.16, 0.40, 0.34)),
        _colours((0.62, 0.78, 0.16), (0.38, 0.60, 0.12), (0.95, 0.74, 0.12), (0.76, 0.79, 0.74)),
        _colours((0.62, 0.78, 0.40), (0.30, 0.58, 0.20), (0.72, 0.58, 0.16), (0.72, 0.77, 0.80)),
    ]
)
_FRUIT = _colours((1.00, 0.80, 0.88), (0.86, 0.12, 0.12), (0.80, 0.10, 0.10), (0.80, 0.16, 0.16))
_SNOW = np.array([0.97, 0.98, 1.00], np.float32)
_BARK = np.array([0.40, 0.26, 0.16], np.float32)
_STONE = np.array([0.60, 0.50, 0.46], np.float32)
_TRIM = np.array([0.98, 0.95, 0.88], np.float32)
_LEAF_GREEN = np.array([0.13, 0.42, 0.16], np.float32)
_HEART = _colours((0.99, 0.80, 0.20), (0.86, 0.42, 0.06), *[(0.99, 0.80, 0.20)] * 3)
_PAPER = np.array([0.985, 0.975, 0.945], np.float32)
_GRAPHITE = np.array([0.24, 0.24, 0.27], np.float32)

# --- The canvas ----------------------------------------------------------------------------------

_Plane = Float[Array, "h w"]
_Colour = Float[Array, "#h #w 3"]


class _Canvas(NamedTuple):
    colour: Float[Array, "h w 3"]  # in [0, 1]
    ink: Float[Array, "h w"]  # outlines, which a pencil draws dark and a brush hardly at all
    x: Float[Array, "h w"]  # pixel centres
    y: Float[Array, "h w"]
    pixel: float  # side of a pixel


def _paint(
    canvas: _Canvas,
    distance: _Plane,
    colour: _Colour,
    opacity: float | _Batch = 1.0,
    line: float = 1.0,
) -> _Canvas:
    """Lay a shape over the canvas; `line` is how strongly a pencil would outline it."""
    cover = jnp.clip(0.5 - distance / canvas.pixel, 0.0, 1.0) * opacity
    edge = jnp.clip(0.5 - (jnp.abs(distance) - 0.005) / canvas.pixel, 0.0, 1.0) * opacity
    return canvas._replace(
        colour=canvas.colour + cover[..., None] * (colour - canvas.colour),
        ink=jnp.maximum(canvas.ink * (1.0 - cover), edge * line),
    )


def _is(scene: Scene, attribute: str, name: str) -> Array:
    return getattr(scene, attribute) == ATTRIBUTES[attribute].index(name)


def _tone(colour: Array | np.ndarray) -> Float[Array, "1 1 3"]:
    return jnp.asarray(colour).reshape(1, 1, 3)


def _circle(x: Array, y: Array, radius: float | Array) -> Array:
    return jnp.sqrt(x**2 + y**2) - radius


def _ellipse(x: Array, y: Array, width: float | Array, height: float | Array) -> Array:
    """Half axes `width` and `height`; the distance is exact to first order at the edge."""
    level = jnp.sqrt((x / width) ** 2 + (y / height) ** 2 + 1e-6)
    slope = jnp.sqrt((x / width**2) ** 2 + (y / height**2) ** 2 + 1e-6)
    return level * (level - 1.0) / slope


def _box(x: Array, y: Array, width: float | Array, height: float | Array) -> Array:
    """Half sides `width` and `height`."""
    return jnp.maximum(jnp.abs(x) - width, jnp.abs(y) - height)


def _triangle(x: Array, y: Array, width: float | Array, height: float | Array) -> Array:
    """Tip at the origin, base of half side `width` at y = `height`."""
    side = (jnp.abs(x) * height - y * width) / jnp.sqrt(width**2 + height**2)
    return jnp.maximum(side, y - height)


def _hash(column: Array, row: Array, seed: Array) -> Array:
    """A number in [0, 1) for each cell of a grid: integer mixing, the same on every machine."""
    mixed = (
        column.astype(jnp.int32).astype(jnp.uint32) * np.uint32(0x9E3779B1)
        + row.astype(jnp.int32).astype(jnp.uint32) * np.uint32(0x85EBCA77)
        + (seed * 65536.0).astype(jnp.uint32) * np.uint32(0xC2B2AE3D)
    )
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(0x2C1B3C6D)
    mixed = mixed ^ (mixed >> 13)
    return (mixed & np.uint32(0xFFFF)).astype(jnp.float32) / 65536.0


# --- The painting, back to front -----------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="size")
def render(scene: Scene, size: int = 64) -> Float[Array, "b size size 3"]:
    """Paint a batch of scenes as float32 RGB pictures in [-1, 1], `size` pixels a side.

    Raises ValueError if `size` is below 8, where nothing can be told apart.
    """
    if size < 8:
        raise ValueError(f"size is {size}; a picture needs at least 8 pixels a side")
    return jax.vmap(lambda one: _picture(one, size))(scene)


def _picture(scene: Scene, size: int) -> Float[Array, "size size 3"]:
    free = {name: scene.layout[i] for i, name in enumerate(LAYOUT)}
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = centres[None, :], centres[:, None]
    # A hand is not a ruler: everything is bent a little.
    phase = 2 * np.pi * free["brush"]
    bent_x = 0.004 * _wave(19.0 * y, phase) + x
    bent_y = 0.004 * _wave(17.0 * x, 2.0 * phase) + y
    blank = jnp.zeros((size, size, 3)), jnp.zeros((size, size))
    canvas = _Canvas(*blank, x=bent_x, y=bent_y, pixel=1.0 / size)

    place = _places(scene, free)
    tint = _tone(jnp.asarray(_TINT)[scene.sky])
    canvas = _within(0.00, 0.70, canvas, lambda band: _paint_air(band, scene, free, place))
    canvas = _within(0.00, 0.38, canvas, lambda band: _paint_sky(band, scene, free, place))
    canvas = _within(0.50, 1.00, canvas, lambda band: _paint_ground(band, scene, free, place, tint))
    canvas = _within(0.16, 0.88, canvas, lambda band: _paint_trees(band, scene, free, place, tint))
    house_tint = 0.5 + 0.5 * tint  # at night a house keeps more of its colour than a meadow does
    canvas = _within(
        0.28, 0.85, canvas, lambda band: _paint_house(band, scene, free, place, house_tint)
    )
    canvas = _within(0.81, 1.00, canvas, lambda band: _paint_flowers(band, scene, free, tint))
    canvas = _paint_weather(canvas, scene, free)
    return _finish(canvas, scene, free)


def _within(
    top: float, bottom: float, canvas: _Canvas, paint: Callable[[_Canvas], _Canvas]
) -> _Canvas:
    """Paint the rows from `top` to `bottom` only: no shape of that group reaches beyond them."""
    size = len(canvas.y)
    rows = slice(math.floor(top * size), math.ceil(bottom * size))
    band = paint(
        canvas._replace(
            colour=canvas.colour[rows], ink=canvas.ink[rows], x=canvas.x[rows], y=canvas.y[rows]
        )
    )
    return canvas._replace(
        colour=canvas.colour.at[rows].set(band.colour), ink=canvas.ink.at[rows].set(band.ink)
    )


def _wave(angle: np.ndarray, phase: Array) -> Array:
    """sin(angle + phase), with the sines of the constant angles taken before compilation.

    Every shape uses bent coordinates, and XLA would take these sines again for each of them.
    """
    return np.sin(angle) * jnp.cos(phase) + np.cos(angle) * jnp.sin(phase)


def _places(scene: Scene, free: Mapping[str, Array]) -> dict[str, Array]:
    """Where house and trees stand: house between the trees, never behind them."""
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
    return {
        "house_x": jnp.where(mirrored, 1.0 - house_x, house_x),
        "house_half": width / 2,
        "base": 0.79 + 0.03 * free["house_base"],
        "tree_x": jnp.where(mirrored, 1.0 - tree_x, tree_x),
        "tree_scale": scale * (0.92 + 0.16 * growth),
        "tree_depth": jitter + 0.5,
        "light_x": jnp.array([0.15, 0.85, 0.50])[scene.light] + 0.05 * (free["light_x"] - 0.5),
        "light_y": 0.125 + 0.04 * free["light_y"],
        "shade": jnp.array([1.0, -1.0, 0.4])[scene.light],  # which side the shadows fall
    }


def _paint_air(
    canvas: _Canvas, scene: Scene, free: Mapping[str, Array], place: Mapping[str, Array]
) -> _Canvas:
    """The colours of the air from top to horizon, the glow of sun or moon, and stars."""
    x, y = canvas.x, canvas.y
    top, middle, low, grey = (
        _tone(jnp.asarray(table)[scene.sky])
        for table in (_SKY_TOP, _SKY_MIDDLE, _SKY_LOW, _SKY_GREY)
    )
    height = (y / 0.62)[..., None]
    colour = jnp.where(
        height < 0.5,
        top + (middle - top) * height * 2.0,
        middle + (low - middle) * jnp.clip(height * 2.0 - 1.0, 0.0, 1.0),
    )
    colour = colour + jnp.asarray(_GREYNESS)[scene.weather] * (grey - colour)
    light = _tone(jnp.asarray(_LIGHT)[scene.sky])
    distance_2 = (x - place["light_x"]) ** 2 + (y - place["light_y"]) ** 2
    glow = 0.55 * jnp.exp(-distance_2 / 0.018)
    canvas = canvas._replace(colour=colour + glow[..., None] * (light - colour))

    column, row = jnp.floor(x * 7.0), jnp.floor(y * 8.0)
    seed = free["weather_seed"]
    across, down = _hash(column, row, seed), _hash(row + 31, column, seed)
    star = _circle(
        (x * 7.0 - column - 0.2 - 0.6 * across) / 7.0,
        (y * 8.0 - row - 0.2 - 0.6 * down) / 8.0,
        0.009,
    )
    shown = _is(scene, "sky", "night") & _is(scene, "weather", "clear") & (across + down > 0.7)
    return _paint(canvas, star, _tone(_TRIM), 0.9 * shown, line=0.3)


def _paint_sky(
    canvas: _Canvas, scene: Scene, free: Mapping[str, Array], place: Mapping[str, Array]
) -> _Canvas:
    """Sun or moon, and clouds; a cloud never takes the place of the light."""
    x, y = canvas.x, canvas.y
    night = _is(scene, "sky", "night")
    light = _tone(jnp.asarray(_LIGHT)[scene.sky])
    dx, dy = x - place["light_x"], y - place["light_y"]
    moon = jnp.maximum(
        _circle(dx, dy, 0.075),
        -_circle(dx - 0.045 - 0.03 * free["moon_phase"], dy + 0.02, 0.07),
    )
    canvas = _paint(canvas, jnp.where(night, moon, _circle(dx, dy, 0.072)), light, line=0.8)

    grey = _tone(jnp.asarray(_SKY_GREY)[scene.sky])
    cloud = _tone(jnp.asarray(_CLOUD)[scene.sky])
    cloud = cloud + 0.35 * (scene.weather >= 2) * (grey * 0.9 - cloud)
    size = 0.9 + 0.25 * free["cloud_size"]
    slots = jnp.array([0.18, 0.84, 0.51])
    offsets = (free["cloud_x"] - 0.5) * 0.10, (0.5 - free["cloud_y"]) * 0.10
    clouds = [
        _cloud(
            x - slots[(scene.light + i + 1) % 3] - offsets[i],
            y - 0.12 - 0.06 * free["cloud_y" if i else "cloud_x"],
            size,
        )
        for i in range(2)
    ]
    veil = _cloud(dx - 0.05, dy - 0.075, 0.75 * size)
    return _paint(canvas, jnp.minimum(jnp.minimum(*clouds), veil), cloud, scene.weather > 0)


def _cloud(x: Array, y: Array, size: Array) -> Array:
    left = _circle(x + 0.075 * size, y, 0.042 * size)
    right = _circle(x - 0.080 * size, y + 0.004, 0.048 * size)
    puffs = jnp.minimum(jnp.minimum(left, right), _circle(x, y + 0.022, 0.060 * size))
    return jnp.maximum(puffs, y - 0.026 * size)


def _paint_ground(
    canvas: _Canvas, scene: Scene, free: Mapping[str, Array], place: Mapping[str, Array],
    tint: _Colour,
) -> _Canvas:  # fmt: skip
    x, y = canvas.x, canvas.y
    turn = 2 * np.pi * free["hill_phase"]
    far = 0.60 - 0.045 * (0.5 + free["hill"]) * jnp.sin(5.5 * x + turn)
    near = 0.69 + 0.016 * jnp.sin(6.0 * x + 2.0 * turn)
    hill = _tone(jnp.asarray(_HILL)[scene.season]) * tint
    meadow = _tone(jnp.asarray(_MEADOW)[scene.season]) * tint
    canvas = _paint(canvas, far - y, hill * (1.12 - 0.5 * (y - 0.55))[..., None])
    canvas = _paint(canvas, near - y, meadow * (1.04 - 0.45 * (y - 0.69))[..., None], line=0.7)
    # The path widens from the door towards whoever looks.
    door = place["house_x"] + _door_offset(free, place)
    depth = jnp.clip((y - place["base"]) / (1.0 - place["base"]), 0.0, 1.0)
    bend = 0.16 * (free["path"] - 0.5) * depth**2
    path = jnp.maximum(jnp.abs(x - door - bend) - 0.05 - 0.05 * depth, place["base"] - 0.02 - y)
    path_colour = _tone(jnp.asarray(_PATH)[scene.season]) * tint
    canvas = _paint(canvas, path, path_colour, line=0.5)
    shadow = _ellipse(
        x - place["house_x"] - 0.04 * place["shade"], y - place["base"],
        place["house_half"] * 1.12, 0.028,
    )  # fmt: skip
    return _paint(canvas, shadow, meadow * 0.45, 0.45, line=0.0)


def _paint_trees(
    canvas: _Canvas, scene: Scene, free: Mapping[str, Array], place: Mapping[str, Array],
    tint: _Colour,
) -> _Canvas:  # fmt: skip
    # A pixel belongs to the nearest tree alone: where two crowns meet, each is cut half-way.
    shown = scene.trees > 0
    away = jnp.abs(canvas.x[None] - place["tree_x"][:, None, None])
    absent = jnp.arange(3) >= scene.trees
    nearest = jnp.argmin(away + 9.0 * absent[:, None, None], axis=0)
    scale = place["tree_scale"][nearest]
    foot = place["base"] - 0.015 + 0.03 * place["tree_depth"][nearest]
    x, y = (canvas.x - place["tree_x"][nearest]) / scale, (canvas.y - foot) / scale
    oak, pine, poplar, apple = (_is(scene, "tree_kind", kind) for kind in ATTRIBUTES["tree_kind"])

    ground = _tone(jnp.asarray(_MEADOW)[scene.season]) * tint
    shadow = _ellipse(x - 0.04 * place["shade"], y, 0.12, 0.022) * scale
    canvas = _paint(canvas, shadow, ground * 0.45, 0.4 * shown, line=0.0)

    half = jnp.select([oak, pine, poplar], [0.034, 0.022, 0.018], 0.022)
    flare = jnp.clip(1.0 + 5.0 * (y + 0.05), 1.0, 1.3)
    trunk = _box(x / flare, y + 0.11, half, 0.12) * scale
    canvas = _paint(canvas, trunk, _tone(_BARK) * tint, shown)

    lobes = jnp.minimum(_circle(jnp.abs(x) - 0.056, y + 0.25, 0.076), _circle(x, y + 0.325, 0.088))
    tiers = jnp.minimum(_triangle(x, y + 0.52, 0.068, 0.17), _triangle(x, y + 0.42, 0.096, 0.19))
    tiers = jnp.minimum(tiers, _triangle(x, y + 0.31, 0.122, 0.23))
    slender = _ellipse(x, y + 0.31, 0.060, 0.24)
    rounded = _ellipse(x, y + 0.25, 0.118, 0.105)
    crown = scale * jnp.select([oak, pine, poplar], [lobes, tiers, slender], rounded)
    leaves = _tone(jnp.asarray(_LEAVES)[scene.tree_kind, scene.season])
    winter = _is(scene, "season", "winter")
    # Light from the side of the sun; in winter snow lies on the upper part.
    middle = jnp.select([pine, poplar], [-0.30, -0.31], -0.26)
    sunny = jnp.clip(0.5 - 2.2 * (y - middle) - 2.6 * x * place["shade"], 0.0, 1.0)
    leaves = leaves * (0.74 + 0.42 * sunny)[..., None]
    tip = jnp.select([y < -0.385, y < -0.265], [-0.52, -0.415], -0.305)  # of a pine's three tiers
    drift = jnp.where(pine, y - tip - 0.35 * jnp.abs(x) < 0.035, sunny > 0.62)
    leaves = jnp.where((winter & drift)[..., None], _tone(_SNOW), leaves)
    canvas = _paint(canvas, crown, leaves * tint, shown)

    # Blossom or fruit on a loose grid, kept inside the crown.
    column, row = jnp.floor(x / 0.086 + 0.5), jnp.floor((y + 0.25) / 0.076 + 0.5)
    wander = _hash(column, row + 5.0, free["flower_seed"]) - 0.5
    dot = _circle(
        x - 0.086 * column - 0.022 * wander, y + 0.25 - 0.076 * row + 0.018 * wander, 0.025
    )
    inside = (column**2 + row**2 < 2.0) & shown & apple
    fruit = _tone(jnp.asarray(_FRUIT)[scene.season]) * tint
    return _paint(canvas, dot * scale, fruit, inside, line=0.5)


def _door_offset(free: Mapping[str, Array], place: Mapping[str, Array]) -> Array:
    """A door stands in the middle, or left or right of it."""
    side = jnp.floor(free["door_place"] * 4.0)  # 0 left, 1 and 2 middle, 3 right
    return jnp.where(side == 0, -0.40, jnp.where(side == 3, 0.40, 0.0)) * place["house_half"]


def _paint_house(
    canvas: _Canvas, scene: Scene, free: Mapping[str, Array], place: Mapping[str, Array],
    tint: _Colour,
) -> _Canvas:  # fmt: skip
    half, base = place["house_half"], place["base"]
    x, y = canvas.x - place["house_x"], canvas.y
    gabled, flat = _is(scene, "roof_shape", "gabled"), _is(scene, "roof_shape", "flat")
    wall_height = 0.25 + 0.03 * free["wall_height"] + jnp.where(flat, 0.05, 0.0)
    eaves = base - wall_height
    shading = (1.0 - 0.16 * jax.nn.sigmoid(14.0 * x * place["shade"] / half))[..., None]
    warmth = 1.0 + 0.05 * (free["warmth"] - 0.5)

    rise = 0.17 + 0.03 * free["roof_height"]
    chimney = _box(x - 0.55 * half, y - eaves + 0.085, 0.028, 0.075)
    canvas = _paint(
        canvas, chimney, _tone(_STONE) * tint, (free["chimney"] < 0.6) & gabled, line=0.9
    )
    walls = _tone(jnp.asarray(_HOUSE)[scene.house]) * shading * tint * warmth
    canvas = _paint(canvas, _box(x, y - base + wall_height / 2, half, wall_height / 2), walls)
    shadow = _box(x, y - eaves - 0.012, half, 0.022)
    canvas = _paint(canvas, shadow, walls * 0.72, line=0.0)

    roof = jnp.select(
        [gabled, flat],
        [
            _triangle(x, y - eaves + rise, half + 0.055, rise + 0.008),
            _box(x, y - eaves + 0.034, half + 0.035, 0.045),
        ],
        jnp.maximum(_ellipse(x, y - eaves, half + 0.02, rise), y - eaves - 0.008),
    )
    roof_colour = _tone(jnp.asarray(_ROOF)[scene.roof]) * tint
    streak = 1.0 - 0.10 * jax.nn.sigmoid(10.0 * x * place["shade"] / half)
    canvas = _paint(canvas, roof, roof_colour * (streak - 0.5 * (y - eaves + 0.09))[..., None])

    offset = _door_offset(free, place)
    door_half, door_height = 0.056, 0.19
    door_x = x - offset
    door_y = y - base + door_height / 2
    frame = _box(door_x, door_y + 0.006, door_half + 0.013, door_height / 2 + 0.006)
    canvas = _paint(canvas, frame, _tone(_TRIM) * 0.94 * tint)
    door = _box(door_x, door_y, door_half, door_height / 2)
    canvas = _paint(canvas, door, _tone(jnp.asarray(_DOOR)[scene.door]) * tint, line=0.6)
    knob = _circle(door_x - 0.032, door_y - 0.005, 0.010)
    canvas = _paint(canvas, knob, _tone(np.array([0.25, 0.2, 0.15], np.float32)) * tint, line=0.0)

    # Two windows beside a door in the middle; beside a door at the side, one larger.
    single = jnp.abs(offset) > 0
    pane_y = y - eaves - 0.105
    pane_half = jnp.where(single, 0.055, 0.036)
    side = jnp.sign(offset)
    spread = jnp.where(single, jnp.abs(x + 0.45 * side * half), jnp.abs(jnp.abs(x) - 0.64 * half))
    pane = jnp.maximum(spread - pane_half, jnp.abs(pane_y) - 0.042)
    lit = _tone(jnp.asarray(_PANE)[scene.sky])
    canvas = _paint(canvas, pane - 0.012, _tone(_TRIM) * 0.94 * tint)
    canvas = _paint(canvas, pane, lit + 0.0 * tint, line=0.6)
    bars = jnp.maximum(jnp.minimum(spread, jnp.abs(pane_y)) - 0.004, pane)
    return _paint(canvas, bars, _tone(_TRIM) * 0.9 * tint, 0.8, line=0.3)


def _paint_flowers(
    canvas: _Canvas, scene: Scene, free: Mapping[str, Array], tint: _Colour
) -> _Canvas:
    """Flowers grow in a bed of 6 x 2 cells, one at most a cell: 12 are many, 4 are few."""
    wide, tall, bed = 1.0 / 6.0, 0.082, 0.833
    seed = free["flower_seed"]
    column, row = jnp.floor(canvas.x / wide), jnp.floor((canvas.y - bed) / tall)
    across = _hash(column, row, seed) - 0.5
    down = _hash(column + 17.0, row, seed) - 0.5
    x = canvas.x - wide * (column + 0.5) - 0.06 * across
    y = canvas.y - bed - tall * (row + 0.5) - 0.02 * down
    turn = jnp.floor(3.0 * seed)
    few = (row == jnp.floor(2.0 * free["path"])) & ((column + turn) % 3.0 != 0)
    grown = (row >= 0) & (row <= 1) & (column >= 0) & (column <= 5)
    shown = grown & (
        _is(scene, "flower_amount", "many") | (_is(scene, "flower_amount", "few") & few)
    )

    leaf = _ellipse(x, y - 0.022, 0.038, 0.014)
    canvas = _paint(canvas, leaf, _tone(_LEAF_GREEN) * tint, shown, line=0.5)
    # Five petals: a circle whose radius swings; cos 5a by the multiple angle formula.
    radius = jnp.sqrt(x**2 + y**2 + 1e-8)
    c = y / radius
    petals = radius - 0.0295 - 0.0045 * (16.0 * c**5 - 20.0 * c**3 + 5.0 * c)
    flower = _tone(jnp.asarray(_FLOWER)[scene.flowers])
    canvas = _paint(canvas, petals, flower * (0.25 + 0.75 * tint), shown, line=0.7)
    heart = _tone(jnp.asarray(_HEART)[scene.flowers])
    return _paint(canvas, radius - 0.010, heart * (0.25 + 0.75 * tint), shown, line=0.0)


def _paint_weather(canvas: _Canvas, scene: Scene, free: Mapping[str, Array]) -> _Canvas:
    x, y, seed = canvas.x, canvas.y, free["weather_seed"]
    slanted = (x + 0.28 * y) * 11.0
    column = jnp.floor(slanted)
    fall = y * 4.5 + 7.0 * _hash(column, jnp.zeros_like(column), seed)
    row = jnp.floor(fall)
    shift = 0.5 * (_hash(column, row, seed) - 0.5)
    streak = _box((slanted - column - 0.5 - shift) / 11.0, (fall - row - 0.5) / 4.5, 0.006, 0.05)
    drop = _tone(np.array([0.80, 0.88, 0.97], np.float32))
    canvas = _paint(canvas, streak, drop, 0.75 * _is(scene, "weather", "rain"), line=0.35)

    column, row = jnp.floor(x * 8.0), jnp.floor(y * 8.0)
    across, down = _hash(column, row + 3.0, seed), _hash(row, column + 41.0, seed)
    flake = _circle(
        (x * 8.0 - column - 0.25 - 0.5 * across) / 8.0, (y * 8.0 - row - 0.25 - 0.5 * down) / 8.0,
        0.015,
    )  # fmt: skip
    shown = _is(scene, "weather", "snow") & (across + down > 0.55)
    return _paint(canvas, flake, _tone(_SNOW), 0.95 * shown, line=0.55)


def _finish(canvas: _Canvas, scene: Scene, free: Mapping[str, Array]) -> Float[Array, "h w 3"]:
    """The same picture in oil or in pencil, from colour in [0, 1] to values in [-1, 1]."""
    x, y, ink = canvas.x, canvas.y, canvas.ink[..., None]
    phase = 2 * np.pi * free["brush"]
    sway = jnp.sin(9.0 * x - 14.0 * y + phase)
    stroke = jnp.sin(31.0 * x + 17.0 * y + 2.2 * sway)[..., None]
    grey = jnp.mean(canvas.colour, axis=-1, keepdims=True)
    oil = grey + 1.12 * (canvas.colour - grey)
    oil = oil * (1.0 + 0.035 * stroke - 0.30 * ink)

    wash = _tone(_PAPER) + 0.60 * (canvas.colour - _tone(_PAPER))
    hatch = jnp.sin(46.0 * (x + 0.9 * y) + 1.2 * sway)[..., None]
    wash = wash - 0.035 * (1.0 - 0.6 * grey) * (1.0 + hatch)
    pencil = wash + 0.85 * ink * (_tone(_GRAPHITE) - wash)
    return (
        jnp.clip(jnp.where(_is(scene, "style", "pencil sketch"), pencil, oil), 0.0, 1.0) * 2.0 - 1.0
    )
