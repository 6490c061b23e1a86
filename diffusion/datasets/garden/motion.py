"""What may happen in a garden: at each moment of a clip, how far it has gone.

A still picture shows a moment of it; a clip shows all, from time 0 to time 1. Rain and snow fall in
every clip that has them. Nothing else moves where nothing is said to happen.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion.datasets.garden.scene import ATTRIBUTES, Scene, draw_scenes, sample_scenes

_WITH_TREES = ("one", "two", "three")
_NO_WINTER = ("spring", "summer", "autumn")
_CLOUDS = ("cloudy", "rain", "snow")

MOTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sun rises": {"sky": ("day",)},
    "sun sets": {"sky": ("day", "sunset")},
    "night falls": {"sky": ("sunset", "night")},
    "rain begins": {"weather": ("cloudy", "rain"), "season": _NO_WINTER},
    "rain ends": {"weather": ("cloudy", "rain"), "season": _NO_WINTER},
    "snow begins": {"weather": ("cloudy", "snow"), "season": ("winter",)},
    "snow ends": {"weather": ("cloudy", "snow"), "season": ("winter",)},
    "clouds drift left": {"weather": _CLOUDS},
    "clouds drift right": {"weather": _CLOUDS},
    "leaves turn": {
        "season": ("summer", "autumn"),
        "trees": _WITH_TREES,
        "tree_kind": ("oak", "poplar", "apple"),
    },
    "trees sway": {"trees": _WITH_TREES},
    "view moves left": {},
    "view moves right": {},
    "view comes closer": {},
    "view widens": {},
}
"""What may happen -> the values of attributes that a moment of it can have."""

STILL = len(MOTIONS)
"""The position, after those of `MOTIONS`, of nothing that happens."""

HELD_OUT: tuple[Mapping[str, str], ...] = (
    {"motion": "snow begins", "house": "pink"},
    {"motion": "night falls", "trees": "three"},
    {"motion": "clouds drift left", "roof": "blue"},
    {"motion": "view comes closer", "style": "pencil sketch"},
)
"""Combinations of motion and scene that training never sees."""

CHANGES: Mapping[str, tuple[str, str, str, str]] = {
    "sun rises": ("sky", "day", "sunset", "day"),
    "sun sets": ("sky", "day", "day", "sunset"),
    "night falls": ("sky", "sunset", "sunset", "night"),
    "rain begins": ("weather", "rain", "cloudy", "rain"),
    "rain ends": ("weather", "rain", "rain", "cloudy"),
    "snow begins": ("weather", "snow", "cloudy", "snow"),
    "snow ends": ("weather", "snow", "snow", "cloudy"),
    "leaves turn": ("season", "summer", "summer", "autumn"),
}
"""What changes in a clip: motion -> attribute, its value in the scene, at time 0 and at time 1."""

HORIZON = 0.66  # where sun and moon come up, behind the hills
RAIN_FALLS, SNOW_FALLS = 1.3, 0.45  # sides of the picture in a clip
DRIFT = 0.40  # of the clouds, in sides of the picture
LEAN = 0.16  # of swaying trees, at most, in sides for a side of height
PAN, ZOOM = 0.08, 1.15  # of the view: sides of the picture, times; nothing that is named leaves it


DRAWN = 64  # scenes at a time, among which those are found in which something can happen


class Moment(NamedTuple):
    """One picture of a clip: what is another than in the still picture of its scene."""

    hour: Float[Array, ""]  # 0 day, 1 sunset, 2 night, and between them
    season: Float[Array, ""]  # as the positions in ATTRIBUTES, and between them
    light_y: Float[Array, ""]  # middle of the sun or moon, in sides from the top
    falling: Float[Array, ""]  # share of the rain or snow that falls
    fallen: Float[Array, ""]  # how far the rain or snow has come since time 0, in sides
    drift: Float[Array, ""]  # of the clouds, to the right
    lean: Float[Array, ""]  # of the trees, to the right
    view_x: Float[Array, ""]  # of the view, to the right
    zoom: Float[Array, ""]  # of the view: 2 shows the middle half


class Clips(NamedTuple):
    """Scenes, and what happens in each."""

    scenes: Scene
    motion: Int[Array | np.ndarray, " b"]  # a position in MOTIONS, or STILL


def moment(
    scene: Scene, motion: Int[Array, ""], time: Float[Array, ""], light_y: Float[Array, ""]
) -> Moment:
    """How far the motion of one scene has gone.

    Args:
        time: 0 to 1.
        light_y: where the sun or the moon of the still picture stands.
    """
    names = list(MOTIONS)

    def during(name: str, value: Array, otherwise: Array | float) -> Array:
        return jnp.where(motion == names.index(name), value, otherwise)

    begins = jnp.clip(time / 0.8, 0.0, 1.0)  # at the end all of it falls, for a while
    hour = jnp.asarray(scene.sky, jnp.float32)
    hour = during("sun rises", 1.0 - time, during("sun sets", time, hour))
    hour = during("night falls", 1.0 + time, hour)
    down = light_y + (HORIZON - light_y) * time
    # The sun goes down in the first half of an evening, the moon comes up in the second.
    turn = light_y + (HORIZON - light_y) * (1.0 - jnp.abs(2.0 * time - 1.0))
    height = during("sun rises", light_y + HORIZON - down, during("sun sets", down, light_y))
    height = during("night falls", turn, height)
    falling = jnp.ones(())
    for name in ("rain begins", "snow begins"):
        falling = during(name, begins, falling)
    for name in ("rain ends", "snow ends"):
        falling = during(name, 1.0 - begins, falling)
    rains = jnp.asarray(scene.weather == ATTRIBUTES["weather"].index("rain"))
    speed = jnp.where(rains, RAIN_FALLS, SNOW_FALLS)
    season = jnp.asarray(scene.season, jnp.float32)
    grows = ZOOM**time
    drifts = during("clouds drift right", DRIFT * time, 0.0)
    drifts = during("clouds drift left", -DRIFT * time, drifts)
    return Moment(
        hour=hour,
        season=during("leaves turn", 1.0 + time, season),
        light_y=height,
        falling=falling,
        fallen=speed * time,
        drift=drifts,
        lean=during("trees sway", LEAN * jnp.sin(4.0 * jnp.pi * time), 0.0),
        view_x=during("view moves left", -PAN * time, during("view moves right", PAN * time, 0.0)),
        zoom=during("view comes closer", grows, during("view widens", ZOOM / grows, 1.0)),
    )


def views(clips: Clips) -> Float[Array, "b 2 4"]:
    """Where view and clouds are at time 0 and at time 1, and how far the trees sway.

    The four are those of `diffusion.stages.moving_noise.places`.
    """

    def one(scene: Scene, motion: Array) -> Array:
        def at(time: Array) -> Array:
            now = moment(scene, motion, time, jnp.zeros(()))
            sways = jnp.where(motion == list(MOTIONS).index("trees sway"), LEAN, 0.0)
            return jnp.stack([now.view_x, jnp.log(now.zoom), now.drift, sways])

        return jax.vmap(at)(times(2))

    return jax.vmap(one)(clips.scenes, jnp.asarray(clips.motion))


def possible(values: Mapping[str, str]) -> list[str]:
    """Of which motions a still picture with these values can be a moment."""
    return [
        motion
        for motion, moments in MOTIONS.items()
        if all(values[name] in words for name, words in moments.items())
    ]


def sample_clips(
    rng: np.random.Generator, count: int, still_share: float = 0.2, *, held_out: bool = False
) -> Clips:
    """Scenes in each of which something happens, each motion as often as the others.

    Args:
        still_share: the share of clips in which nothing does, 0 to 1.
        held_out: each clip is one of the held-out combinations, which otherwise never come.

    Held-out scenes never come. A generator in the same state gives the same clips.
    """
    if held_out:
        names = [list(MOTIONS).index(combination["motion"]) for combination in HELD_OUT]
        motion = np.resize(np.array(names, np.int32), count)
    else:
        motion = rng.integers(len(MOTIONS), size=count).astype(np.int32)
        motion[rng.random(count) < still_share] = STILL
    scenes = [draw_scenes(rng, 0), *(_scene_for(rng, int(each), held_out) for each in motion)]
    return Clips(Scene(*(np.concatenate(fields) for fields in zip(*scenes, strict=True))), motion)


def _scene_for(rng: np.random.Generator, position: int, held_out: bool) -> Scene:
    """A scene in which this can happen."""
    while True:
        drawn = sample_scenes(rng, DRAWN)
        for place in range(DRAWN):
            if _fits(drawn, place, position, held_out):
                return Scene(*(field[place : place + 1] for field in drawn))


def _fits(scenes: Scene, place: int, position: int, held_out: bool) -> bool:
    """Can this happen in a scene, and is it a held-out combination or not, as asked?"""
    if position == STILL:
        return not held_out
    name = list(MOTIONS)[position]
    values = {key: words[int(getattr(scenes, key)[place])] for key, words in ATTRIBUTES.items()}
    attribute, own, *_ = CHANGES.get(name, ("style", values["style"]))
    begins = values[attribute] == own
    shown = any(
        all((values | {"motion": name})[key] == word for key, word in combination.items())
        for combination in HELD_OUT
    )
    return begins and name in possible(values) and shown == held_out


def times(frames: int) -> Float[Array, " frames"]:
    """From 0 to 1."""
    return jnp.linspace(0.0, 1.0, frames)
