"""Masks in place of noise: a picture's codes disappear one by one, and come back many at a time.

x_t is a map of numbers of codes, or of the mask. At a timestep t of T each code is masked with a
probability, the share

    m(t) = cos(pi/2 (1 - t / T)),

and a denoiser says how likely each code is behind every mask. Painting begins with masks alone.
Each step draws a code everywhere, keeps those that the denoiser is sure of, and masks the others
again (MaskGIT: Chang et al. 2022, https://arxiv.org/abs/2202.04200, sections 3.2 and 3.3).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int, Key, Real

from diffusion.config_codes import MaskingConfig
from diffusion.process.schedule import check_steps, evenly_drawn

Codes = Int[Array, "b h w 1"]
Logits = Float[Array, "b h w k"]
Noise = Float[Array, "b h w 1"]
Level = Float[Array, " b"]
Timesteps = Real[Array, " b"]


class MaskTable(NamedTuple):
    """MaskGIT's schedule as a table, one row a call of the denoiser; see `tables.Table`."""

    step: Int[Array | np.ndarray, "*calls"]
    timestep: Float[Array | np.ndarray, "*calls"]
    masked: Float[Array | np.ndarray, "*calls"]  # afterwards, of what was masked at the beginning
    temperature: Float[Array | np.ndarray, "*calls"]

    def row(self, call: int) -> "MaskTable":
        return MaskTable(*(column[call] for column in self))

    def last(self, keep: np.ndarray) -> "MaskTable":
        """What is masked at the beginning is then what the last of the left out rows leaves."""
        skipped = int(len(keep) - keep.sum())
        rest = MaskTable(*(column[keep] for column in self))
        return (
            rest if skipped == 0 else rest._replace(masked=rest.masked / self.masked[skipped - 1])
        )

    def apply(
        self, process: "Masking", logits: Logits, x_t: Codes, memory: Codes,
        keys: Key[Array, " b"], call: Any,
    ) -> tuple[Codes, Codes, Codes]:  # fmt: skip
        """x0, the next x_t, and what was masked at the beginning, which the memory keeps."""
        at_call = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, call)))(keys)
        draws = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(at_call[:, 0])
        doubts = jax.vmap(lambda key: jax.random.gumbel(key, x_t.shape[1:]))(at_call[:, 1])
        begun = jnp.where(call == 0, x_t == process.mask, memory)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        drawn = (logits + draws).argmax(axis=-1, keepdims=True)
        x0, x_next = fill(process.mask, self, logits, x_t, drawn, doubts, begun.sum((1, 2, 3)))
        return x0, x_next, begun.astype(x_t.dtype)


def fill(
    mask: int,
    row: MaskTable,
    logits: Logits,
    x_t: Codes,
    drawn: Codes,
    doubts: Noise,
    begun: Int[Array, " b"],
) -> tuple[Codes, Codes]:
    """One step: the codes drawn behind all masks, and the same with the least sure masked again.

    Args:
        drawn: a code for each place, from the softmax of the logits.
        doubts: Gumbel noise; times the temperature it is added to the log probabilities, so that
            the order is not the same in every painting.
        begun: how many places were masked at the beginning.

    What is not masked stays for good. At least one place is filled in, and one is left until the
    last step (`AmusedScheduler` of the reference).
    """
    unknown = x_t == mask
    x0 = jnp.where(unknown, drawn, x_t).astype(x_t.dtype)
    sure = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), drawn, axis=-1)
    sure = jnp.where(unknown, sure + row.temperature * doubts, jnp.inf)
    left = jnp.floor(begun * row.masked).astype(jnp.int32)
    left = jnp.maximum(jnp.minimum(left, unknown.sum((1, 2, 3)) - 1), 1)
    in_order = jnp.sort(sure.reshape(len(x_t), -1), axis=-1)
    bound = jnp.take_along_axis(in_order, left[:, None], axis=-1)[:, :, None, None]
    again = (sure < bound) & (row.masked > 0.0)
    return x0, jnp.where(again, mask, x0).astype(x_t.dtype)


def maskgit(process: "Masking", steps: int, spacing: str = "leading") -> MaskTable:
    """The schedule of a painting from masks alone; the last step leaves none.

    Raises ValueError if `steps` is not between 1 and T, or the spacing is unknown.
    """
    gone = (np.arange(1, steps + 1) / steps).astype(np.float32)
    masked = process.share(gone)
    masked[-1:] = 0.0
    return MaskTable(
        step=np.arange(steps, dtype=np.int32),
        timestep=process.timesteps(steps, spacing),
        masked=masked,
        temperature=np.linspace(process.config.temperature, 0.0, steps, dtype=np.float32),
    )


SAMPLERS: Mapping[str, Callable[..., MaskTable]] = MappingProxyType({"maskgit": maskgit})


class Masking:
    """Codes behind masks; the state is int32 with one channel.

    Args:
        config: the number of the mask, and how the share that is masked falls.
    """

    samplers = SAMPLERS

    def __init__(self, config: MaskingConfig):
        self.config = config
        self.train_steps = config.train_steps
        self.prediction = config.prediction
        self.mask = config.mask

    def share(self, gone: Any) -> Any:
        """How much is masked when that part of the way from masks to codes is gone."""
        if self.config.rule == "linear":
            return 1.0 - gone
        numpy = jnp if isinstance(gone, jax.Array) else np
        return numpy.cos(gone * np.float32(np.pi / 2))

    def timesteps(self, steps: int, spacing: str = "leading") -> Float[np.ndarray, " steps"]:
        """From T, where all is masked, evenly spaced down to T / steps, whatever the spacing."""
        check_steps(self.train_steps, steps, spacing)
        return (self.train_steps * np.arange(steps, 0, -1) / steps).astype(np.float32)

    def encode(self, autoencoder: Any, images: Float[Array, "b H W k"], *key: Array) -> Codes:
        """Pictures as the numbers of their codes. They are not drawn: the key is not used."""
        return autoencoder.codes(images)[..., None].astype(jnp.int32)

    def begin(
        self, noise: Noise, known: Real[Array, "_ h w 1"], mask: Bool[Array, "_ _ _ 1"]
    ) -> Codes:
        """Masks where it shall be painted, what is known elsewhere."""
        canvas = jnp.where(mask, self.mask, known).astype(jnp.int32)
        return jnp.broadcast_to(canvas, noise.shape)

    def add_noise(self, x0: Codes, noise: Noise, t: Timesteps) -> Codes:
        """Hide each code with the probability m(t): where the noise is among its lowest values."""
        return jnp.where(self.hidden(noise, t), self.mask, x0).astype(jnp.int32)

    def hidden(self, noise: Noise, t: Timesteps) -> Bool[Array, "b h w 1"]:
        share = self.share(1.0 - t / self.train_steps)
        return norm.cdf(noise) < share[:, None, None, None]

    def kept(self, known: Real[Array, "_ h w 1"], noise: Noise, arrives: Real[Array, ""]) -> Codes:
        """What is known is never masked."""
        return jnp.broadcast_to(known.astype(jnp.int32), noise.shape)

    def error(self, prediction: Logits, x0: Codes, noise: Noise, t: Timesteps) -> Level:
        """The mean cross-entropy of what is behind the masks, in nats; 0 where there are none."""
        log_p = jnp.take_along_axis(jax.nn.log_softmax(prediction, axis=-1), x0, axis=-1)
        hidden = self.hidden(noise, t)
        return -jnp.sum(log_p, (1, 2, 3), where=hidden) / jnp.maximum(hidden.sum((1, 2, 3)), 1)

    def draw_timesteps(self, key: Array, count: int) -> Float[Array, " count"]:
        """To train with, fewest masks first, one from each of `count` equal parts of (0, T]."""
        return self.train_steps * evenly_drawn(key, count)

    def weight(self, t: Timesteps) -> Level:
        """All alike."""
        return jnp.ones(t.shape)
