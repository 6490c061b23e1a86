"""The colours of the garden: red, green, blue in [0, 1], in the order of `ATTRIBUTES`."""

from typing import Any

import numpy as np

from diffusion.datasets.garden.scene import ATTRIBUTES

_NAMED = {
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


def _colours(*rows: tuple[Any, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


def _colour(*rgb: float) -> np.ndarray:
    return np.array([[rgb]], np.float32)  # for all pixels of a shape


# What a caption names by its colour.
HOUSE, ROOF, DOOR, FLOWERS = (
    _colours(*(_NAMED[name] for name in ATTRIBUTES[attribute]))
    for attribute in ("house", "roof", "door", "flowers")
)

# By sky: day, sunset, night.
AIR = _colours(  # at the top, in the middle, at the horizon, and where clouds make it grey
    ((0.27, 0.56, 0.92), (0.43, 0.28, 0.58), (0.04, 0.06, 0.21)),
    ((0.52, 0.77, 0.97), (0.95, 0.47, 0.42), (0.09, 0.13, 0.36)),
    ((0.87, 0.94, 0.97), (1.00, 0.80, 0.46), (0.20, 0.27, 0.52)),
    ((0.66, 0.71, 0.78), (0.66, 0.50, 0.55), (0.12, 0.14, 0.22)),
)
CLOUD = _colours((0.97, 0.97, 0.98), (0.98, 0.78, 0.70), (0.36, 0.39, 0.52))
SUN_OR_MOON = _colours((1.00, 0.90, 0.28), (1.00, 0.62, 0.18), (0.98, 0.95, 0.76))
TINT = _colours((1.00, 1.00, 1.00), (1.00, 0.88, 0.82), (0.60, 0.64, 0.84))  # of all on the ground
PANE = _colours((0.72, 0.87, 0.96), (1.00, 0.86, 0.50), (1.00, 0.86, 0.42))

# By weather: clear, cloudy, rain, snow. How grey the air is, from 0 to 1.
GREYNESS = np.array([0.0, 0.40, 0.80, 0.70], np.float32)

# By season: spring, summer, autumn, winter.
MEADOW = _colours((0.60, 0.82, 0.34), (0.33, 0.62, 0.22), (0.82, 0.62, 0.27), (0.93, 0.95, 0.99))
HILL = _colours((0.46, 0.70, 0.42), (0.24, 0.50, 0.28), (0.66, 0.43, 0.22), (0.78, 0.84, 0.93))
PATH = _colours((0.90, 0.79, 0.58), (0.88, 0.76, 0.54), (0.70, 0.50, 0.30), (0.74, 0.74, 0.80))
FRUIT = _colours((1.00, 0.80, 0.88), (0.86, 0.12, 0.12), (0.80, 0.10, 0.10), (0.80, 0.16, 0.16))

# By kind of tree (oak, pine, poplar, apple), then by season.
LEAVES = _colours(
    ((0.42, 0.66, 0.20), (0.15, 0.42, 0.13), (0.86, 0.38, 0.10), (0.66, 0.71, 0.76)),
    ((0.08, 0.40, 0.30), (0.05, 0.34, 0.24), (0.08, 0.34, 0.22), (0.16, 0.40, 0.34)),
    ((0.62, 0.78, 0.16), (0.38, 0.60, 0.12), (0.95, 0.74, 0.12), (0.76, 0.79, 0.74)),
    ((0.62, 0.78, 0.40), (0.30, 0.58, 0.20), (0.72, 0.58, 0.16), (0.72, 0.77, 0.80)),
)

# By colour of the flower: its heart.
HEART = _colours((0.99, 0.80, 0.20), (0.86, 0.42, 0.06), *[(0.99, 0.80, 0.20)] * 3)

# The same in every picture.
SNOW = _colour(0.97, 0.98, 1.00)
RAIN = _colour(0.80, 0.88, 0.97)
BARK = _colour(0.40, 0.26, 0.16)
STONE = _colour(0.60, 0.50, 0.46)
TRIM = _colour(0.98, 0.95, 0.88)  # frames of doors and windows, and stars
KNOB = _colour(0.25, 0.20, 0.15)
LEAF_GREEN = _colour(0.13, 0.42, 0.16)
PAPER = _colour(0.985, 0.975, 0.945)
GRAPHITE = _colour(0.24, 0.24, 0.27)
