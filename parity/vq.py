"""Discrete autoencoders beside the reference's VQModel, block by block and whole.

Two tiny ones with random weights: built as celebahq's, and as aMUSEd's (no attention in the middle;
here also with another width on both sides of its codes).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel

from diffusion.inspection import blocks
from diffusion.inspection.blocks import Record
from diffusion.inspection.rows import Row
from diffusion.weights.architectures import dvae
from parity import reference

PART = dvae.ARCHITECTURE.folder
SEED = 1  # of the weights and inputs that are recorded


TINY: Mapping[str, dict[str, Any]] = {
    "celebahq": reference.autoencoder(
        4, 8, 12, layers_per_block=2, norm_num_groups=2, num_vq_embeddings=32, scaling_factor=1.0
    ),
    "amused": reference.autoencoder(
        4, 8, norm_num_groups=2, latent_channels=6, vq_embed_dim=5, num_vq_embeddings=24,
        lookup_from_codebook=True, mid_block_add_attention=False, scaling_factor=0.18215,
    ),
}  # fmt: skip


def build(kind: str, seed: int) -> VQModel:
    """With codes about as far apart as the latents."""
    reference.quiet()
    torch.manual_seed(seed)
    model = VQModel(**TINY[kind]).eval()
    reference.randomise(model, reference.GAINS)
    with torch.no_grad():
        model.quantize.embedding.weight.normal_()
    return model


@torch.no_grad()
def record(model: VQModel, seed: int) -> Record:
    """What goes in and out of every block; of the whole, also codes of pictures and back."""
    draw = torch.Generator().manual_seed(seed)
    side = 2 ** (len(model.config.block_out_channels) - 1)
    images = torch.rand(2, 3, 4 * side, 2 * side, generator=draw) * 2 - 1
    latents = torch.randn(2, model.config.vq_embed_dim or 3, 4, 2, generator=draw)
    codes = torch.randint(model.config.num_vq_embeddings, (2, 4, 2), generator=draw)

    # Where codes alone are meant, pixel values are in [0, 1]; ours are in [-1, 1] everywhere.
    from_zero = model.config.lookup_from_codebook
    pixels = (images + 1) / 2 if from_zero else images
    with reference.watching(model) as found:
        encoded, decoded = model.encode(pixels).latents, model.decode(latents).sample
    if (gap := nearest_gap(model, encoded)) < 1e-3 or nearest_gap(model, latents) < 1e-3:
        raise ValueError(f"two codes are about equally near ({gap}); take another seed")
    _, _, (_, _, numbers) = model.quantize(encoded)
    vectors = model.quantize.embedding(codes).permute(0, 3, 1, 2)
    shown = model.decode(vectors).sample  # a code is the nearest to itself
    call = reference.call
    if from_zero:
        decoded, shown = 2 * decoded - 1, 2 * shown - 1
    return found | {
        "encode": call((images,), encoded),
        "decode": call((latents,), decoded),
        "codes": call((images,), numbers.reshape(codes.shape)),
        "from_codes": call((codes,), shown),
    }


def nearest_gap(model: VQModel, latents: torch.Tensor) -> float:
    """How much farther the second nearest code is, at the least: rounding must not decide."""
    codes = model.quantize.embedding.weight
    distances = (latents.permute(0, 2, 3, 1)[..., None, :] - codes).square().sum(-1)
    nearest = distances.topk(2, largest=False).values
    return float((nearest[..., 1] - nearest[..., 0]).min())


def rows(seed: int) -> Iterator[Row]:
    """Both, read from the files that the reference writes."""
    for kind in TINY:
        with tempfile.TemporaryDirectory() as place:
            theirs = build(kind, seed)
            theirs.save_pretrained(Path(place) / PART)
            ours = blocks.load(Path(place), dvae.ARCHITECTURE)
            for row in blocks.rows(ours, PART, record(theirs, seed)):
                yield dataclasses.replace(row, block=f"{kind}: {row.block}")


def write_golden(place: Path) -> None:
    for kind in TINY:
        root, model = place / "vq" / kind, build(kind, SEED)
        model.save_pretrained(root / PART)
        blocks.save_record(root / "record.safetensors", record(model, SEED))
