"""What is in a picture: its attributes, its layout, and which combinations training never sees."""

from collections.abc import Mapping
from typing import NamedTuple

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
"""The values of each attribute. A scene stores the position of its value in the tuple."""

GROWS: Mapping[str, str] = {"tree_kind": "trees", "flowers": "flower_amount"}
"""A tree has a kind, and a flower a colour, only where one grows. This names the attribute that
says whether one does."""

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
"""Combinations that training never sees. Four test whether a colour goes to the right object, two
whether the model counts. A scene is held out if it shows all values of one combination."""

_Batch = Array | np.ndarray


class Scene(NamedTuple):
    """What is in each picture of a batch: one array a field."""

    house: Int[_Batch, " b"]  # colour of the walls
    roof: Int[_Batch, " b"]  # colour of the roof
    roof_shape: Int[_Batch, " b"]  # gabled, flat, dome
    door: Int[_Batch, " b"]  # colour of the door
    trees: Int[_Batch, " b"]  # how many, 0 to 3
    tree_kind: Int[_Batch, " b"]  # the same for all trees of a picture; 0 where there are none
    flowers: Int[_Batch, " b"]  # the same colour for all flowers; 0 where there are none
    flower_amount: Int[_Batch, " b"]  # none, few (4), many (12)
    sky: Int[_Batch, " b"]  # the hour: day, sunset, night
    light: Int[_Batch, " b"]  # where the sun stands, or at night the moon
    season: Int[_Batch, " b"]  # colours the ground and the leaves
    weather: Int[_Batch, " b"]  # snow falls only in winter, rain in every other season
    style: Int[_Batch, " b"]  # oil painting, pencil sketch
    layout: Float[_Batch, "b k"]  # what words leave open, see LAYOUT


def value(scene: Scene, index: int, attribute: str) -> str:
    """The value of `attribute` in picture `index` of the batch, as a word of `ATTRIBUTES`."""
    return ATTRIBUTES[attribute][int(getattr(scene, attribute)[index])]


def sample_scenes(rng: np.random.Generator, count: int, *, held_out: bool = False) -> Scene:
    """Sample `count` scenes as NumPy arrays: int32 attributes and a float32 layout.

    Without `held_out`, none of them matches a combination of `HELD_OUT`; with it, all of them do.
    A generator in the same state gives the same scenes.

    Raises ValueError if `count` is negative.
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


def draw_scenes(rng: np.random.Generator, count: int) -> Scene:
    """Sample `count` scenes of every kind, held out or not."""

    def pick(name: str, *weights: float) -> np.ndarray:
        return rng.choice(len(ATTRIBUTES[name]), count, p=weights or None).astype(np.int32)

    trees = pick("trees", 0.16, 0.28, 0.28, 0.28)
    season = pick("season", 0.26, 0.26, 0.24, 0.24)
    winter = season == ATTRIBUTES["season"].index("winter")
    snow, rain = pick("weather", 0.40, 0.20, 0.0, 0.40), pick("weather", 0.50, 0.25, 0.25, 0.0)
    weather = np.where(winter, snow, rain)
    few, more = pick("flower_amount", 0.60, 0.20, 0.20), pick("flower_amount", 0.20, 0.40, 0.40)
    amount = np.where(winter, few, more)
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


def is_there(scene: Scene, attribute: str) -> Bool[_Batch, " b"]:
    """In which pictures `attribute` can be seen: a tree's kind only where there is a tree."""
    if attribute in GROWS:
        return getattr(scene, GROWS[attribute]) > 0
    return np.ones(np.shape(scene.house), bool)


def shows(scene: Scene, combination: Mapping[str, str]) -> Bool[np.ndarray, " b"]:
    """In which pictures all values of `combination` (attribute -> value) can be seen."""
    match = np.ones(np.shape(scene.house), bool)
    for name, word in combination.items():
        match &= np.asarray(getattr(scene, name)) == ATTRIBUTES[name].index(word)
        match &= np.asarray(is_there(scene, name))
    return match


def is_held_out(scene: Scene) -> Bool[np.ndarray, " b"]:
    """Which scenes match a combination of `HELD_OUT`, and so belong to no training set."""
    return np.any([shows(scene, combination) for combination in HELD_OUT], axis=0)
