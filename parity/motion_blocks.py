"""Motion modules, fed what the reference fed to its own, and compared. No PyTorch is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file

from diffusion.inspection.blocks import BLOCK_BOUND, WHOLE_BOUND, Record, nhwc
from diffusion.inspection.rows import Row, compare
from diffusion.stages.motion import MotionAdapter, MotionModule
from diffusion.stages.moving import MovingDenoiser
from diffusion.weights import adapter, folder
from diffusion.weights.architectures import motion, structure
from diffusion.weights.names import theirs

FRAMES = 3  # not as many as films side by side: who confuses them is found out
FILM = "film"  # the name of the whole network in a record


def load(root: Path, motion_root: Path) -> tuple[Any, MotionAdapter]:
    """The U-Net in a folder, and the adapter in another."""
    config = adapter.load_config(motion_root)
    params = adapter.read_adapter(adapter.open_adapter(motion_root, config), config)
    image = folder.load_network(root, "denoiser")
    return image, nnx.merge(structure(config)[0], params)


def modules(motion_adapter: MotionAdapter) -> dict[str, tuple[str, MotionModule]]:
    """The reference's name -> our name and our module."""
    return {
        theirs(f"{name}.norm", motion.NAMES).removesuffix(".norm"): (name, module)
        for path, module in nnx.iter_graph(motion_adapter)
        if isinstance(module, MotionModule)
        for name in [".".join(map(str, path))]
    }


def compared(
    image: Any,
    motion_adapter: MotionAdapter,
    record: Record,
    wanted: Callable[[str], bool] = lambda name: True,
) -> Iterator[Row]:
    """One row a module, then that of the whole network.

    Raises ValueError where the two do not have the same modules.
    """
    ours = modules(motion_adapter)
    if different := ours.keys() ^ record.keys() - {FILM}:
        raise ValueError(f"only one side has the modules {', '.join(sorted(different))}")
    length = next(iter(ours.values()))[1].length
    whole = MovingDenoiser(image, motion_adapter, length, FRAMES)

    def apply(structure: Any, film: bool, params: Any, inputs: list[jax.Array]) -> jax.Array:
        module = nnx.merge(structure, params)
        return module(*inputs) if film else module(*inputs, frames=FRAMES)

    compiled = jax.jit(apply, static_argnums=(0, 1))
    for official, call in record.items():
        if not wanted(official):
            continue
        name, module = (FILM, whole) if official == FILM else ours[official]
        form, params = nnx.split(module)
        inputs = [jnp.asarray(nhwc(x)) for x in call.inputs]
        output = compiled(form, official == FILM, params, inputs)
        bound = WHOLE_BOUND if official == FILM else BLOCK_BOUND
        yield compare(name, np.asarray(output), nhwc(call.output), bound)


def rows(root: Path, record: Record) -> Iterator[Row]:
    """Of a folder with unet/ and motion_adapter/; last, how many tensors saving changes."""
    place = root / adapter.FOLDER
    yield from compared(*load(root, place), record)
    config = adapter.load_config(place)
    params = adapter.read_adapter(adapter.open_adapter(place, config), config)
    with tempfile.TemporaryDirectory() as saved:
        adapter.save_adapter(Path(saved), config, params)
        yield _changed(place, Path(saved))


def _changed(one: Path, other: Path) -> Row:
    """How many tensors are not the same, bit for bit; tables of places are computed anew."""
    file = f"{adapter.ONE.stem}.safetensors"
    before, after = load_file(one / file), load_file(other / file)
    same = [
        np.allclose(before[name], after[name], rtol=0, atol=1e-5)
        if name.endswith(".pe")
        else np.array_equal(before[name], after[name])
        for name in before.keys() & after.keys()
    ]
    names = before.keys() | after.keys()
    wrong = float(len(names) - sum(same))
    return Row("motion adapter: tensors that saving changed", (len(names),), wrong, wrong, 0.0)
