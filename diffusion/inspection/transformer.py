"""What a diffusion transformer does at a step: its gates, what blocks add, how far they look."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real, UInt8

from diffusion.inspection.trace import Activations, Trace
from diffusion.process import mixing
from diffusion.process.samplers import guide
from diffusion.stages.dit import DiT
from diffusion.stages.dit_blocks import joined

GATES = (2, 5)  # among the six vectors of a block: of its self-attention, and of its MLP
PARTS = ("looks", "listens", "thinks")  # what a block does, in this order


def gates(dit: DiT, timesteps: Real[Array, " t"]) -> Float[np.ndarray, "2 layers t"]:
    """How far the gates of every block are open at each timestep: the mean of their sizes."""
    nobody = jnp.zeros((len(timesteps), 1, dit.words.caption.linear1.in_features))
    six = dit.words(timesteps, nobody, (1, 1)).blocks
    sizes = [jnp.abs(block.modulation(six)[:, GATES, :]).mean(axis=-1) for block in dit.blocks]
    return np.asarray(jnp.stack(sizes)).transpose(2, 0, 1)


def layers(activations: Activations) -> int:
    """How many blocks the transformer has."""
    return sum(name.startswith("blocks.") and name.count(".") == 1 for name in activations.tensors)


def added(activations: Activations) -> Float[np.ndarray, "layers 3"]:
    """The size of what each part of a block adds, as a share of what the block was given.

    Of the first picture with its words; the parts are `PARTS`, sizes are lengths of tokens.
    """
    tensors = activations.tensors
    length = lambda x: float(jnp.linalg.norm(x, axis=-1).mean())  # noqa: E731
    given, found = tensors["patches"][0], []
    for i in range(layers(activations)):
        looks, listens, thinks = (
            tensors[f"blocks.{i}.{part}"][0]
            for part in ("self_attention", "cross_attention", "feed_forward")
        )
        gate, mlp_gate = tensors[f"blocks.{i}.modulation"][0, GATES, :]
        parts = gate[None] * looks, listens, mlp_gate[None] * thinks
        found.append([length(part) / length(given) for part in parts])
        given = tensors[f"blocks.{i}"][0]
    return np.array(found)


def looked_far(
    weights: Float[Array | np.ndarray, "heads n n"], columns: int
) -> Float[Array | np.ndarray, " heads"]:
    """How far each head looks, in patches: the mean distance, weighted with its attention.

    Args:
        columns: of patches in a row.
    """
    row, column = jnp.divmod(jnp.arange(weights.shape[1]), columns)
    distance = jnp.hypot(row[:, None] - row[None], column[:, None] - column[None])
    return (weights * distance[None]).sum(axis=-1).mean(axis=-1)


def seen_without(run: Trace, index: int, left_out: Sequence[int]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture that the network sees at a step where some blocks pass on what they get."""
    artist, step = run.artist, run.steps[index]
    b = len(step.x_t)
    keep = jnp.ones(len(artist.denoiser.module.blocks), bool)
    keep = keep.at[jnp.asarray(left_out, int)].set(False)
    both = artist.denoiser.compiled(_keeping)(
        jnp.concatenate([step.x_t, step.x_t]),
        jnp.full(2 * b, step.t),
        jnp.repeat(run.context, b, axis=0),
        keep,
    )
    prediction = guide(both[b:], both[:b], run.guidance)
    x0 = mixing(artist.process).to_x0(prediction, step.x_t, jnp.full(b, step.t))
    return np.asarray(artist.decode(x0)[0])


def _keeping(dit: DiT, latents: Array, t: Array, context: Array, keep: Array) -> Array:
    """The whole network, but for the blocks that are not kept."""
    _, h, w, z = latents.shape
    told = dit.words(t, context, (h, w))
    x = dit.patches(latents)
    for block, kept in zip(dit.blocks, keep, strict=True):
        x = jnp.where(kept, block(x, told.blocks, told.context), x)
    return joined(dit.exit(x, told.exit), h // dit.patch, dit.patch)[..., :z]
