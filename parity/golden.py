"""`python -m parity.golden` writes what the tests compare with, so that they need no PyTorch.

data/golden/{sd1,sd2}/model/             a tiny model in float16, written by the reference
data/golden/{sd1,sd2}/{part}.safetensors  the record of each network, with these weights in float32
data/golden/{sd1,sd2}/painted.safetensors  noise ("canvas"), and the final latents of the reference
data/golden/{sd1,sd2}/odd.safetensors      what the U-Net says of maps with odd sides
data/golden/{pixart,dit}/                 the same of a transformer alone: model/, and its record
data/golden/{amused,amused512}/           a painter of codes: model/, record, painted codes
data/golden/motion/                       a tiny motion adapter for sd1's U-Net, and its record
data/golden/vq/{celebahq,amused}/          tiny VQModels, and the record of each
data/golden/embeddings/                    two embeddings, and what the reference makes of prompts
data/golden/single_file/{sd1,sd2}.json     the original name of every official one
data/golden/{samplers,flow,tokenizer,keras}.*  see those modules of this package
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.numpy import save_file

import diffusion
from diffusion.inspection.blocks import PARTS, save_record
from parity import (
    embeddings,
    flow,
    keras,
    masked,
    motion,
    odd,
    pipeline,
    reference,
    samplers,
    single_file,
    tokenizer,
    transformers,
    vq,
)

GOLDEN = Path(__file__).parents[1] / "data/golden"
SEED = 0


def write(place: Path) -> None:
    """Write all fixtures, in place of those that are there."""
    place.mkdir(parents=True, exist_ok=True)
    for family, model in reference.TINY.items():
        root = place / family
        shutil.rmtree(root, ignore_errors=True)
        reference.build(model, SEED, tiny=True).to(torch.float16).save_pretrained(root / "model")
        loaded = StableDiffusionPipeline.from_pretrained(root / "model", dtype=torch.float32)
        for part in PARTS:
            inputs = reference.inputs(model, part, SEED)
            record = reference.record(getattr(loaded, part), part, inputs)
            save_record(root / f"{part}.safetensors", record)
        artist = diffusion.load(root / "model")
        side = artist.config.latent_size
        noise, _ = pipeline.noise(artist, SEED, side, side)
        arrays = {"canvas": np.ascontiguousarray(noise.numpy())}
        for sampler in pipeline.EXACT:
            arrays[sampler] = pipeline.paint(artist, loaded, sampler, SEED).numpy()
        save_file(arrays, root / "painted.safetensors")
        save_file(odd.record(loaded.unet, odd.SMALL, SEED), root / odd.GOLDEN)
    for family in ("pixart", "dit"):
        _write_transformer(place / family, transformers.TINY[family])
    motion.write_golden(place)
    vq.write_golden(place)
    masked.write_golden(place)
    keras.write_golden(place)
    samplers.write_golden(place)
    flow.write_golden(place)
    tokenizer.write_golden(place)
    single_file.write_golden(place)
    embeddings.write_golden(place)


def _write_transformer(root: Path, model: transformers.Model) -> None:
    shutil.rmtree(root, ignore_errors=True)
    built = transformers.build(model, SEED, tiny=True).to(torch.float16)
    (root / "model").mkdir(parents=True)
    transformers.save(built, model, root / "model")
    loaded = model.kind.from_pretrained(root / "model/transformer", torch_dtype=torch.float32)
    found = transformers.record(loaded, model, SEED)
    save_record(root / "transformer.safetensors", found)


if __name__ == "__main__":
    reference.quiet()
    write(GOLDEN)
