"""A denoiser of films: frames are painted as pictures are, and motion modules join them."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Real

from diffusion.stages.motion import MotionAdapter


class MovingDenoiser(nnx.Module):
    """A U-Net and a motion adapter, called as any denoiser is: a batch holds the frames of films.

    A film that is longer than the adapter has learnt is seen through windows that overlap, and what
    is said of a frame is a mean, weighed by how far it is from the ends of each window.

    Args:
        frames: of each film in a batch.
        loop: does the first frame follow the last?
    """

    def __init__(
        self,
        image: Callable[..., Array],  # a U-Net
        motion: MotionAdapter,
        length: int,  # frames that the adapter has learnt
        frames: int,
        loop: bool = False,
    ):
        self.image, self.motion = image, motion
        self.length, self.frames, self.loop = length, frames, loop

    def __call__(
        self,
        x_t: Float[Array, "bf h w c"],
        timesteps: Real[Array, " bf"],
        context: Float[Array, "bf n d"],
        *told: Float[Array, " bf"],
    ) -> Float[Array, "bf h w z"]:
        seen = windows(self.frames, self.length, self.loop)
        motion = self.motion.over(seen.shape[1])
        inputs = (x_t, timesteps, context, *told)
        if len(seen) == 1:
            return self.image(*inputs, motion=motion)

        def through(x: Array) -> Array:
            films = x.reshape(-1, self.frames, *x.shape[1:])
            return films[:, seen].reshape(-1, *x.shape[1:])

        said = self.image(*map(through, inputs), motion=motion)
        said = said.reshape(-1, *seen.shape, *said.shape[1:])
        weights = shares(seen, self.frames)
        weighed = said * jnp.asarray(weights, said.dtype)[None, :, :, None, None, None]
        empty = jnp.zeros((len(said), self.frames, *said.shape[3:]), said.dtype)
        return empty.at[:, seen].add(weighed).reshape(x_t.shape[:-1] + said.shape[-1:])


def windows(frames: int, length: int, loop: bool = False) -> Int[np.ndarray, "windows shown"]:
    """Which frames are seen together: `length` of them, and again half of these and the next half.

    The windows of a loop go on beyond the last frame with the first.
    """
    shown = min(frames, length)
    stride = max(1, shown // 2)
    if loop:
        return (np.arange(0, frames, stride)[:, None] + np.arange(shown)) % frames
    starts = [*range(0, frames - shown, stride), frames - shown]
    return np.array(starts)[:, None] + np.arange(shown)


def shares(
    seen: Int[np.ndarray, "windows shown"], frames: int
) -> Float[np.ndarray, "windows shown"]:
    """How much a window's word counts for each of its frames: 1, 2, 3, ..., 3, 2, 1 of the sum."""
    shown = np.arange(seen.shape[1])
    weight = np.broadcast_to(1.0 + np.minimum(shown, shown[::-1]), seen.shape)
    total = np.zeros(frames)
    np.add.at(total, seen, weight)
    return (weight / total[seen]).astype(np.float32)
