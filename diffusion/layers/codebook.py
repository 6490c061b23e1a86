"""A codebook: a few vectors that stand for all others (van den Oord et al. 2017, section 3.1)."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

ROUNDS = 20  # of k-means: after them, the garden's codes hardly move


def squared_distances(
    x: Float[Array, "b h w d"], codes: Float[Array, "k d"]
) -> Float[Array, "b h w k"]:
    """|x - c|^2 to every code, in float32.

    Subtracted, not multiplied out: x^2 - 2xc + c^2 loses the digits that tell near codes apart.
    """
    x, codes = x.astype(jnp.float32), codes.astype(jnp.float32)
    return jnp.square(x[..., None, :] - codes[None, None, None]).sum(axis=-1)


def gumbel_softmax(
    logits: Float[Array, "*b k"], noise: Float[Array, "*b k"], temperature: Float[Array, ""] | float
) -> Float[Array, "*b k"]:
    """softmax((logits + noise) / temperature): shares of a mixture (Jang et al. 2017, eq. 2).

    With noise of the Gumbel distribution the largest share is a draw from the softmax of the
    logits; the lower the temperature, the nearer it is to 1.
    """
    return jax.nn.softmax((logits + noise) / temperature, axis=-1)


def kl_to_uniform(logits: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """KL divergence of softmax(logits) from all codes being as likely, in nats: 0 to log k."""
    log_q = jax.nn.log_softmax(logits, axis=-1)
    return jnp.sum(jnp.exp(log_q) * (log_q + math.log(logits.shape[-1])), axis=-1)


def revived(
    codes: Float[Array, "k d"], x: Float[Array, "b h w d"], fresh: Float[Array, "k d"]
) -> Float[Array, "k d"]:
    """The codes, with a fresh one in place of each that is nearest to no position of a map.

    Restarts of Dhariwal et al. 2020 (section 3.1), where the fresh ones are drawn from the map.
    """
    used = counts(squared_distances(x, codes).argmin(axis=-1), len(codes)) > 0
    return jnp.where(used[:, None], codes, fresh)


def counts(codes: Int[Array, "b h w"], size: int) -> Int[Array, " {size}"]:
    """How often each code of a codebook of that size occurs."""
    return jnp.bincount(codes.ravel(), length=size)


def perplexity(counted: Int[Array, " k"]) -> Float[Array, ""]:
    """exp of the entropy: how many codes, equally often used, would be as hard to guess."""
    share = counted / jnp.maximum(counted.sum(), 1)
    return jnp.exp(jax.scipy.special.entr(share).sum())


@partial(jax.jit, static_argnums=1)
def k_means(points: Float[Array, "n d"], count: int, key: Array) -> Float[Array, "{count} d"]:
    """`count` centres of points (Lloyd 1982), begun at as many of the points.

    A centre that no point is nearest to stays where it is.

    Raises ValueError where there are fewer points than centres.
    """
    if len(points) < count:
        raise ValueError(f"codes: {count} centres need as many points, and there are {len(points)}")
    points = points.astype(jnp.float32)

    def closer(_: Int[Array, ""], centres: Float[Array, "k d"]) -> Float[Array, "k d"]:
        nearest = squared_distances(points[None, None], centres)[0, 0].argmin(axis=-1)
        size = jax.ops.segment_sum(jnp.ones(len(points)), nearest, count)[:, None]
        means = jax.ops.segment_sum(points, nearest, count) / jnp.maximum(size, 1.0)
        return jnp.where(size > 0.0, means, centres)

    first = jax.random.choice(key, points, (count,), replace=False)
    return jax.lax.fori_loop(0, ROUNDS, closer, first)


class Codebook(nnx.Module):
    """Each vector of a map becomes the nearest of `count` codes."""

    traced = True

    def __init__(self, count: int, channels: int, *, rngs: nnx.Rngs):
        self.vectors = nnx.Embed(count, channels, rngs=rngs)

    @property
    def codes(self) -> Float[Array, "k d"]:
        return self.vectors.embedding[...]

    def nearest(self, x: Float[Array, "b h w d"]) -> Int[Array, "b h w"]:
        """The number of the nearest code; the first of those that are equally near."""
        return squared_distances(x, self.codes).argmin(axis=-1)

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        return self.codes[self.nearest(x)]
