"""The renderer: one layer after another, back to front, then the style."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.datasets.garden import palette
from diffusion.datasets.garden.composition import View, at_time, compose
from diffusion.datasets.garden.drawing import Drawing, fill_rows
from diffusion.datasets.garden.house import render_house
from diffusion.datasets.garden.land import render_flowers, render_ground, render_trees
from diffusion.datasets.garden.motion import Clips, times
from diffusion.datasets.garden.scene import Scene
from diffusion.datasets.garden.sky import render_air, render_sky, render_stars, render_weather

LAYERS = {  # name -> top row, bottom row, layer: none of its shapes reaches beyond these rows
    "air": (0.00, 0.70, render_air),
    "stars": (0.00, 0.70, render_stars),
    "sky": (0.00, 0.38, render_sky),
    "ground": (0.50, 1.00, render_ground),
    "trees": (0.16, 0.88, render_trees),
    "house": (0.28, 0.85, render_house),
    "flowers": (0.81, 1.00, render_flowers),
    "weather": (0.00, 1.00, render_weather),
}


@functools.partial(jax.jit, static_argnames=("size", "without"))
def render(scene: Scene, size: int = 64, without: str = "") -> Float[Array, "b size size 3"]:
    """Render a batch of scenes as float32 RGB pictures in [-1, 1], `size` pixels a side.

    Lengths are fractions of the side, so a scene looks alike at every size.

    Args:
        without: a layer to leave out, one of `LAYERS`, to see where it is.

    Raises ValueError if `size` is below 8, where nothing can be told apart.
    """
    if size < 8:
        raise ValueError(f"size is {size}; a picture needs at least 8 pixels a side")
    return jax.vmap(lambda one: _render_one(one, size, without))(scene)


@functools.partial(jax.jit, static_argnames=("frames", "size"))
def render_clips(
    clips: Clips, frames: int = 16, size: int = 64
) -> Float[Array, "b frames size size 3"]:
    """Render clips as float32 RGB pictures in [-1, 1]: the times from 0 to 1, evenly spread.

    The picture of a clip in which nothing happens, and nothing falls, is that of `render`.
    """

    def one(scene: Scene, motion: Array) -> Array:
        view = compose(scene)
        return jax.vmap(lambda time: _draw(at_time(view, motion, time), size, ""))(times(frames))

    return jax.vmap(one)(clips.scenes, jnp.asarray(clips.motion))


@functools.partial(jax.jit, static_argnames=("size",))
def render_moments(
    clips: Clips, time: Float[Array, " b"], size: int = 64
) -> Float[Array, "b size size 3"]:
    """Render one moment of each clip, at its own time from 0 to 1; see `render_clips`."""

    def one(scene: Scene, motion: Array, time: Array) -> Array:
        return _draw(at_time(compose(scene), motion, time), size, "")

    return jax.vmap(one)(clips.scenes, jnp.asarray(clips.motion), time)


def _render_one(scene: Scene, size: int, without: str) -> Float[Array, "size size 3"]:
    return _draw(compose(scene), size, without)


def _draw(view: View, size: int, without: str) -> Float[Array, "size size 3"]:
    drawing = _blank(view, size)
    for name, (top, bottom, layer) in LAYERS.items():
        if view.moment is not None:
            top, bottom = 0.0, 1.0  # sun and moon go down, and the view moves
        if name != without:
            drawing = fill_rows(drawing, top, bottom, functools.partial(layer, view=view))
    return _apply_style(drawing, view)


def _blank(view: View, size: int) -> Drawing:
    """An empty drawing. A hand is not a ruler: its coordinates are bent a little."""
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = centres[None, :], centres[:, None]
    phase = 2 * np.pi * view.free["brush"]
    colour, ink = jnp.zeros((size, size, 3)), jnp.zeros((size, size))
    if view.moment is not None:  # what is seen of the world, bent as it is in the still picture
        zoom = view.moment.zoom
        x, y = 0.5 + (x - 0.5) / zoom + view.moment.view_x, 0.6 + (y - 0.6) / zoom
        bent_x, bent_y = jnp.sin(19.0 * y + phase), jnp.sin(17.0 * x + 2.0 * phase)
        return Drawing(colour, ink, 0.004 * bent_x + x, 0.004 * bent_y + y, 1.0 / size / zoom)
    return Drawing(
        colour,
        ink,
        x=0.004 * _sine(19.0 * y, phase) + x,
        y=0.004 * _sine(17.0 * x, 2.0 * phase) + y,
        pixel=1.0 / size,
    )


def _sine(angle: np.ndarray, phase: Array) -> Array:
    """sin(angle + phase), with the sines of the constant angles taken before compilation.

    Every shape uses bent coordinates, and XLA would take these sines again for each of them.
    """
    return np.sin(angle) * jnp.cos(phase) + np.cos(angle) * jnp.sin(phase)


def _apply_style(drawing: Drawing, view: View) -> Float[Array, "h w 3"]:
    """The same drawing in oil or in pencil, from colours in [0, 1] to values in [-1, 1]."""
    x, y, ink = drawing.x, drawing.y, drawing.ink[..., None]
    phase = 2 * np.pi * view.free["brush"]
    sway = jnp.sin(9.0 * x - 14.0 * y + phase)
    grey = jnp.mean(drawing.colour, axis=-1, keepdims=True)

    stroke = jnp.sin(31.0 * x + 17.0 * y + 2.2 * sway)[..., None]
    oil = grey + 1.12 * (drawing.colour - grey)
    oil = oil * (1.0 + 0.035 * stroke - 0.30 * ink)

    hatch = jnp.sin(46.0 * (x + 0.9 * y) + 1.2 * sway)[..., None]
    wash = palette.PAPER + 0.60 * (drawing.colour - palette.PAPER)
    wash = wash - 0.035 * (1.0 - 0.6 * grey) * (1.0 + hatch)
    pencil = wash + 0.85 * ink * (palette.GRAPHITE - wash)

    picture = jnp.where(view.has("style", "pencil sketch"), pencil, oil)
    return jnp.clip(picture, 0.0, 1.0) * 2.0 - 1.0
