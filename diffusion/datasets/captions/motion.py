"""What may happen in a scene: a still picture shows a moment of it, and a film all."""

from collections.abc import Mapping

from diffusion.datasets.captions.language import Values

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
"""What a caption may say that happens -> the values of attributes that a moment of it can have."""


def possible(values: Values) -> list[str]:
    """Of which motions a scene with these values can be a moment."""
    return [
        motion
        for motion, moments in MOTIONS.items()
        if all(values[name] in words for name, words in moments.items())
    ]
