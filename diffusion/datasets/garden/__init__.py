"""The garden: an endless picture book of houses, drawn by code.

A `Scene` says what is in a picture, and `render` draws it. What words can name is a category with
a few values (`ATTRIBUTES`). What words leave open is a number in the scene's `layout`, so that no
two pictures are the same.
"""

from diffusion.datasets.garden.motion import Clips, sample_clips
from diffusion.datasets.garden.renderer import render, render_clips, render_moments
from diffusion.datasets.garden.scene import (
    ATTRIBUTES,
    GROWS,
    HELD_OUT,
    LAYOUT,
    Scene,
    draw_scenes,
    is_held_out,
    is_there,
    sample_scenes,
    shows,
    value,
)

__all__ = [
    "ATTRIBUTES", "GROWS", "HELD_OUT", "LAYOUT", "Clips", "Scene", "draw_scenes", "is_held_out",
    "is_there", "render", "render_clips", "render_moments", "sample_clips", "sample_scenes",
    "shows", "value",
]  # fmt: skip
