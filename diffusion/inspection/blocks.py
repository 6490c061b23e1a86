"""Every block of a network, fed what the reference fed to its own, and compared with what came out.

A record holds the reference's inputs and outputs, in its layout (NCHW) and under its names; the
name map of the weights says which block of ours is meant. No PyTorch is needed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

from diffusion.inspection.rows import Row, compare
from diffusion.layers.attention import SpatialTransformer
from diffusion.layers.codebook import Codebook
from diffusion.layers.convolution import Conv2d, Downsample, Upsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock
from diffusion.layers.time_embedding import TimeEmbedding
from diffusion.stages.autoencoder_blocks import ImageAttention
from diffusion.stages.text_encoder import TextEncoder, TextLayer
from diffusion.stages.vae import VAE
from diffusion.weights.architectures import Architecture, dvae, structure, text_encoder, unet, vae
from diffusion.weights.files import Weights
from diffusion.weights.names import NameMap, theirs
from diffusion.weights.places import find, read_json

BLOCK_BOUND = 1e-5  # of the error relative to the largest output: of a block,
WHOLE_BOUND = 2e-5  # and of a whole network from its true input

# What counts as a block, and the child by which the name map finds it (none: it is in the map).
BLOCKS: Mapping[type[nnx.Module], str] = {
    TimeEmbedding: "linear1",
    ResidualBlock: "norm1",
    SpatialTransformer: "norm",
    ImageAttention: "norm",
    Downsample: "conv",
    Upsample: "conv",
    Codebook: "vectors",
    TextLayer: "norm1",
    Conv2d: "",
    GroupNorm: "",
    nnx.LayerNorm: "",
}
EMBEDDINGS = "embeddings"  # a module of the reference; two lines of our text encoder
# What the reference calls a network, and how ours comes by its weights: those of a pipeline, all.
PARTS: dict[str, Architecture] = {
    one.ARCHITECTURE.folder: one.ARCHITECTURE for one in (text_encoder, unet, vae)
}
NETWORKS = PARTS | {dvae.ARCHITECTURE.folder: dvae.ARCHITECTURE}
# The names of whole networks in a record.
WHOLE = ("unet", "text_encoder", "encode", "decode", "codes", "from_codes")


@dataclass(frozen=True)
class Call:
    """One call of a block of the reference."""

    inputs: tuple[np.ndarray, ...]
    output: np.ndarray


Record = dict[str, Call]  # by the name of the block in the reference


def blocks(network: nnx.Module, names: NameMap) -> dict[str, tuple[str, nnx.Module]]:
    """The blocks of a network: the reference's name -> our name and our block."""
    found = {}
    for name, block in _outermost(network):
        child = BLOCKS[type(block)]
        official = theirs(f"{name}.{child}", names).rpartition(".")[0] if child else None
        found[official or theirs(name, names)] = name, block
    if isinstance(network, TextEncoder):
        found[EMBEDDINGS] = EMBEDDINGS, network
    return found


def _outermost(network: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """The blocks inside, without those within another block."""
    found = {path: node for path, node in nnx.iter_graph(network) if path and type(node) in BLOCKS}
    for path, block in found.items():
        if not any(path[:i] in found for i in range(1, len(path))):
            yield ".".join(map(str, path)), block


def run(name: str, module: Any, *inputs: jax.Array) -> jax.Array:
    """A block, or a whole network, on the inputs that the reference gives to its own (NHWC)."""
    if name == EMBEDDINGS:
        tokens = inputs[0]
        return module.token_embedding(tokens) + module.position_embedding[: tokens.shape[1]][None]
    if name == "encode":
        if isinstance(module, VAE):
            return jnp.concatenate(module.posterior(*inputs), axis=-1)
        return module.encode(*inputs) / module.scaling_factor
    if name in ("codes", "from_codes"):
        return getattr(module, name)(*inputs)
    if name == "decode":  # the reference takes latents as the encoder left them
        return module.decode(inputs[0] * module.scaling_factor)
    if isinstance(module, TextLayer):
        n = inputs[0].shape[1]
        return module(inputs[0], jnp.tril(jnp.ones((n, n), bool)))
    return module(*inputs)


def load(root: Path, one: Architecture) -> Any:
    """The network of an architecture in a folder that need not be a whole model."""
    form, like = structure(one.read(read_json(root / one.config_file)))
    return nnx.merge(form, Weights.open(find(root, one.folder, one.stem), like, one.names).read())


def rows(
    network: nnx.Module, part: str, record: Record, wanted: Callable[[str], bool] | None = None
) -> Iterator[Row]:
    """One row a block, in the order of the record, then one for each whole network in it.

    Args:
        part: what the reference calls the network, one of `NETWORKS`.
        wanted: which names of the reference to compare; None: all.

    Raises ValueError where the two networks do not have the same blocks.
    """
    ours = blocks(network, NETWORKS[part].names)
    if different := ours.keys() ^ record.keys() - set(WHOLE):
        raise ValueError(f"{part}: only one side has the blocks {', '.join(sorted(different))}")

    # Blocks alike in everything but their numbers share one program.
    def apply(structure: Any, name: str, params: Any, inputs: list[jax.Array]) -> jax.Array:
        return run(name, nnx.merge(structure, params), *inputs)

    compiled = jax.jit(apply, static_argnums=(0, 1))
    for official, call in record.items():
        if wanted is not None and not wanted(official):
            continue
        whole = official in WHOLE
        name, block = (official, network) if whole else ours[official]
        structure, params = nnx.split(block)
        kind = official if whole or name == EMBEDDINGS else ""
        output = compiled(structure, kind, params, [jnp.asarray(nhwc(x)) for x in call.inputs])
        bound = WHOLE_BOUND if whole else BLOCK_BOUND
        yield compare(name, np.asarray(output), nhwc(call.output), bound)


def nhwc(x: np.ndarray) -> np.ndarray:
    """A map of the reference (b, c, h, w) as ours (b, h, w, c); other arrays as they are."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def save_record(path: Path, record: Record) -> None:
    """Write a record as safetensors; an array that occurs twice is written once."""
    arrays: dict[str, np.ndarray] = {}
    seen: dict[tuple[Any, bytes], str] = {}

    def key(array: np.ndarray) -> str:
        contents = (array.shape, array.tobytes())
        name = seen.setdefault(contents, str(len(seen)))
        arrays[name] = np.ascontiguousarray(array)
        return name

    calls = [
        [name, [key(x) for x in call.inputs], key(call.output)] for name, call in record.items()
    ]
    save_file(arrays, path, metadata={"calls": json.dumps(calls)})


def load_record(path: Path) -> Record:
    """What `save_record` wrote."""
    with safe_open(path, "numpy") as file:
        calls = json.loads(file.metadata()["calls"])
        array = file.get_tensor
        return {n: Call(tuple(map(array, inputs)), array(output)) for n, inputs, output in calls}
