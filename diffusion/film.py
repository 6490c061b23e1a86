"""What joins the frames of a film: motion modules, or a walk from one picture to another."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffusion.motion_config import MotionConfig, PromptTravelConfig
from diffusion.runtime.parameters import Params
from diffusion.runtime.programs import Network
from diffusion.stages.moving import MovingDenoiser
from diffusion.stages.moving_noise import places
from diffusion.stages.prompt_travel import MOVES

APART = 0.5  # of what frames have of their own is kept where nothing happens
NEARER = 0.7  # of the zoom that prompt travel says, so that what is named stays in sight
AHEAD = 1.5  # noise of clouds goes so much farther than they are to go; they lag behind


class MotionModules:
    """A motion adapter, and the denoiser that it joins the frames of."""

    def __init__(self, config: MotionConfig, adapter: Network, denoiser: Network):
        self.config, self.adapter = config, adapter
        self._parts = {"image": denoiser, "motion": adapter}

    def joined(self, frames: int, loop: bool) -> Network:
        """The denoiser of a film of so many frames, called as any denoiser: a batch is its frames.

        Its numbers are those of the two, not copies.
        """
        image, motion = (part.module for part in self._parts.values())
        module = MovingDenoiser(image, motion, self.config.length, frames, loop)
        return Network(nnx.split(module)[0], self._params, self._prepared)

    def _params(self) -> Params:
        return {name: part.params for name, part in self._parts.items()}

    def _prepared(self, params: Params) -> Params:
        return {
            name: jax.tree.unflatten(jax.tree.structure(params[name]), part.leaves)
            for name, part in self._parts.items()
        }


class Travel(NamedTuple):
    """What finds the ends of a film in a sentence that says what happens."""

    config: PromptTravelConfig
    network: Network


def shares(frames: int, loop: bool) -> Float[np.ndarray, " frames"]:
    """How far each frame is on the way: 0 to 1; in a loop to 1 and back."""
    if not loop:
        return np.linspace(0.0, 1.0, frames, dtype=np.float32)
    return (1.0 - np.abs(1.0 - 2.0 * np.arange(frames) / frames)).astype(np.float32)


def slerp(
    one: Float[Array, "*n"], other: Float[Array, "*n"], share: Float[Array, ""]
) -> Float[Array, "*n"]:
    """From one noise to another along an arc (Shoemake 1985), so that all between are noise.

    A straight mix has variance a^2 + (1 - a)^2, below 1, and what is painted from it looks washed
    out. Between two that are the same, or opposite, the mix is straight.
    """
    lengths = jnp.linalg.norm(one) * jnp.linalg.norm(other)
    cosine = jnp.vdot(one, other) / jnp.maximum(lengths, 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    bent = jnp.abs(jnp.sin(angle)) > 1e-3
    sine = jnp.where(bent, jnp.sin(angle), 1.0)
    first = jnp.where(bent, jnp.sin((1.0 - share) * angle) / sine, 1.0 - share)
    second = jnp.where(bent, jnp.sin(share * angle) / sine, share)
    return first * one + second * other


def view_moves(route: Float[Array, "f 4"]) -> bool:
    return bool(jnp.ptp(route[:, :2], axis=0).max() > MOVES)


def sky_moves(route: Float[Array, "f 4"]) -> bool:
    return bool(jnp.ptp(route[:, 2]) > MOVES)


def stands_still(ends: Float[Array, "k 2 m d"], views: Float[Array, "1 2 4"]) -> bool:
    """Are all frames told the same, and is nothing to move?"""
    return not np.asarray(views).any() and bool((ends[:, 0] == ends[:, 1]).all())


def route_of(ends: Float[Array, "1 2 4"], way: Float[np.ndarray, " f"]) -> Float[Array, "f 4"]:
    """Where each frame's view is, as far to the left of the canvas as to its right, and its noise.

    Args:
        ends: of one film; see `diffusion.stages.moving_noise.places`.
        way: see `shares`.
    """
    [route] = places(ends, way)
    pan = route[:, 0]
    middle = (pan.min() + pan.max()) / 2
    return route.at[:, 0].add(-middle).at[:, 1].multiply(NEARER).at[:, 2].multiply(AHEAD)


def on_the_way(
    one: Float[Array, "h w z"], other: Float[Array, "h w z"], way: Float[np.ndarray, " f"]
) -> Float[Array, "f h w z"]:
    """The noise of each frame of a walk."""
    return jax.vmap(lambda share: slerp(one, other, share))(jnp.asarray(way))
