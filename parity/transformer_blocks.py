"""The blocks of a diffusion transformer, fed what the reference fed to its own, and compared.

The reference spreads a step over several modules, or has one in every block, so names are paired
here. No PyTorch is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffusion.inspection.blocks import BLOCK_BOUND, WHOLE_BOUND, Record, nhwc
from diffusion.inspection.rows import Row, compare
from diffusion.stages.dit_blocks import DiTBlock
from diffusion.weights.names import theirs

WHOLE = ("transformer", "transformer, padding masked")
FAINT = ", faint"  # ends the name of a block that saw little but zeros: there every eps shows
NAMES = {  # theirs -> ours
    "pos_embed": "patches",
    "adaln_single.emb.timestep_embedder": "words.time",
    "adaln_single": "words.modulation",
    "caption_projection": "words.caption",
    "norm1.emb.timestep_embedder": "label.time",
    "proj_out": "exit",
    "proj_out_2": "exit",
    "transformer_blocks.*": "blocks.*",
    "embed": "codes",
    "encoder_proj_layer_norm": "words_norm",
    "cond_embed": "condition",
    "down_block.downsample": "halve",
    "down_block.res_blocks.*": "down.maps.*",
    "down_block.attention_blocks.*": "down.attentions.*",
    "transformer_layers.*": "blocks.*",
    "up_block.res_blocks.*": "up.maps.*",
    "up_block.attention_blocks.*": "up.attentions.*",
    "up_block.upsample": "double",
    "mlm_layer": "exit",
}


def ours(official: str) -> str:
    """What we call a block of the reference."""
    return theirs(official.removesuffix(FAINT), NAMES)


def run(module: Any, *inputs: jax.Array) -> jax.Array:
    """A block on the inputs of the reference's, which has all vectors of the time side by side."""
    if isinstance(module, DiTBlock):
        x, time, *context = inputs
        b, _, width = x.shape
        return module(x, time.reshape(b, -1, width), *context)
    return module(*inputs)


def rows(
    network: nnx.Module, record: Record, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[Row]:
    """One row a block, in the order of the record, then those of the whole network."""

    def apply(structure: Any, params: Any, inputs: list[jax.Array]) -> jax.Array:
        return run(nnx.merge(structure, params), *inputs)

    compiled = jax.jit(apply, static_argnums=0)
    for official, call in record.items():
        if not wanted(official):
            continue
        whole = official in WHOLE
        path = [] if whole else ours(official).split(".")
        module = reduce(_child, path, network)
        structure, params = nnx.split(module)
        output = compiled(structure, params, [jnp.asarray(nhwc(x)) for x in call.inputs])
        name = official if whole else ours(official) + FAINT * official.endswith(FAINT)
        bound = WHOLE_BOUND if whole else BLOCK_BOUND
        yield compare(name, np.asarray(output), nhwc(call.output), bound)


def _child(module: Any, key: str) -> Any:
    return module[int(key)] if key.isdigit() else getattr(module, key)
