"""Single files with the original names: the reference's own conversion beside ours.

A file is written here with random weights; `diffusers.loaders.single_file_utils` takes it apart,
and so do we. What the reference says of every name is recorded for the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders import single_file_utils as utils
from flax.traverse_util import flatten_dict
from safetensors.torch import save_file

from diffusion.inspection.rows import Row
from diffusion.weights import folder, stored
from diffusion.weights.architectures import structure, text_encoder, unet, vae
from diffusion.weights.files import Weights
from diffusion.weights.names import from_file, theirs
from parity import reference
from parity.full_size import synthetic_tokenizer

GOLDEN = "single_file"
ONES = {one.folder: one for one in (unet.ARCHITECTURE, vae.ARCHITECTURE, text_encoder.ARCHITECTURE)}
State = dict[str, torch.Tensor]


def original(pipeline: StableDiffusionPipeline, root: Path, family: str) -> State:
    """All tensors of a pipeline under their original names, as our maps have them."""
    config, tensors = folder.load_config(root), {}
    for part, one in ONES.items():
        network = getattr(config, one.slot)
        spellings = one.originals(network)
        spelling = spellings[-1 if part == "text_encoder" and family == "sd2" else 0]
        state = {
            k.removeprefix("text_model."): v
            for k, v in getattr(pipeline, part).state_dict().items()
        }
        _, like = structure(network)
        for ours in (".".join(map(str, path)) for path in flatten_dict(like)):
            name = spelling.prefix + theirs(ours, spelling.names or one.names)
            value = state[theirs(ours, one.names)]
            if part == "vae" and "attn_1" in name and value.ndim == 2:
                value = value[..., None, None]
            tensors[name] = value.contiguous()
        for end, parts in spelling.fused.items():
            for first in [name for name in tensors if name.endswith(parts[0])]:
                stem = first.removesuffix(parts[0])
                tensors[stem + end] = torch.cat([tensors.pop(stem + part) for part in parts])
    return tensors


def converted(pipeline: StableDiffusionPipeline, tensors: State, family: str) -> dict[str, State]:
    """What the reference makes of a file, by part."""
    found = {
        "unet": utils.convert_ldm_unet_checkpoint(dict(tensors), pipeline.unet.config),
        "vae": utils.convert_ldm_vae_checkpoint(dict(tensors), pipeline.vae.config),
    }
    if family == "sd2":
        words = utils.convert_open_clip_checkpoint(pipeline.text_encoder, dict(tensors))
    else:
        words = utils.convert_ldm_clip_checkpoint(dict(tensors))
    return found | {"text_encoder": words}


def rows(seed: int, *, tiny: bool = True) -> Iterator[Row]:
    """Every tensor of both models: theirs from the file, and ours; equal to the bit.

    In full size also the memory that it takes to load the file.
    """
    for family, model in (reference.TINY if tiny else reference.FULL).items():
        with tempfile.TemporaryDirectory() as place:
            root, path = Path(place) / "folder", Path(place) / "model.safetensors"
            pipeline = reference.build(model, seed, tiny=tiny)
            if not tiny:
                pipeline = pipeline.to(torch.float16)  # as most such files are
            pipeline.save_pretrained(root)
            tensors = original(pipeline, root, family)
            save_file(tensors, path)
            for part, state in converted(pipeline, tensors, family).items():
                yield _compare(f"{family} {part}", root, path, part, state)
            if not tiny:
                text = folder.load_config(root).text_encoder
                synthetic_tokenizer(text.vocab_size, text.length).save(root / "tokenizer")
                for dtype in ("float32", "bfloat16"):
                    yield _memory(family, path, root / "tokenizer", dtype)


def _memory(family: str, path: Path, tokenizer: Path, dtype: str) -> Row:
    """What loading takes at its peak, beyond the weights that it leaves in memory: 10 % at most."""
    code = (
        "import re, sys, jax, diffusion\n"
        "told = lambda: open('/proc/self/status').read()\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', told())[1]) * 1024\n"
        "jax.block_until_ready(jax.numpy.zeros(1))\n"
        "before, (path, tokenizer, dtype) = peak(), sys.argv[1:]\n"
        "artist = diffusion.load(path, tokenizer=tokenizer, dtype=dtype)\n"
        "leaves = jax.block_until_ready(jax.tree.leaves([one.params for one in artist.networks]))\n"
        "print(peak() - before, sum(leaf.nbytes for leaf in leaves))\n"
    )
    order = [sys.executable, "-c", code, path, tokenizer, dtype]
    told = subprocess.run(order, check=True, capture_output=True, text=True).stdout
    taken, weights = map(int, told.split())
    beyond = max(0.0, taken / weights - 1.0)
    return Row(f"{family} in {dtype}: memory", (weights,), taken - weights, beyond, 0.1)


def _compare(name: str, root: Path, path: Path, part: str, state: State) -> Row:
    one, config = ONES[part], folder.load_config(root)
    network = getattr(config, one.slot)
    keys = [entry.key for entry in stored.contents(path)]
    spelling = next(s for s in one.originals(network) if any(k.startswith(s.prefix) for k in keys))
    _, like = structure(network)
    flat = flatten_dict(Weights.open([path], like, one.names, spelling).read())
    wrong = 0
    for place, value in flat.items():
        mine = ".".join(map(str, place))
        official = theirs(mine, one.names)
        there = state[official if official in state else f"text_model.{official}"]
        expected = from_file(there.numpy().reshape(_shape(there, value)), mine)
        wrong += not np.array_equal(np.asarray(value), expected.astype(value.dtype))
    return Row(f"{name}: tensors that differ", (len(flat),), wrong, wrong, 0.0)


def _shape(there: torch.Tensor, ours: np.ndarray) -> tuple[int, ...]:
    """A 1x1 convolution as a Linear layer, where ours is one."""
    return tuple(there.shape[: ours.ndim])


def write_golden(folder_: Path) -> None:
    """The original name of every official one, as the reference says (it hands tensors through)."""
    (folder_ / GOLDEN).mkdir(parents=True, exist_ok=True)
    for family, model in reference.TINY.items():
        with tempfile.TemporaryDirectory() as place:
            pipeline = reference.build(model, 0, tiny=True)
            pipeline.save_pretrained(place)
            tensors = original(pipeline, Path(place), family)
            names: dict[str, dict[str, str]] = {}
            for part, state in converted(pipeline, tensors, family).items():
                given = {value.data_ptr(): key for key, value in tensors.items()}
                names[part] = {
                    official.removesuffix(".weight"): given[value.data_ptr()].removesuffix(
                        ".weight"
                    )
                    for official, value in sorted(state.items())
                    if official.endswith(".weight") and value.data_ptr() in given
                }
        text = json.dumps(names, indent=0, ensure_ascii=False)
        (folder_ / GOLDEN / f"{family}.json").write_text(text + "\n")
