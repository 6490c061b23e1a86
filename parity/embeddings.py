"""Textual inversion: tokens and contexts of prompts with words that were added to a model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import diffusion
from diffusion.inspection.rows import Row, compare

MODEL = Path(__file__).parents[1] / "data/golden/sd1/model"
GOLDEN = "embeddings"
SINGLE, SEVERAL = "<cat>", "gold"  # one vector, three
PROMPTS = (
    "a <cat> in gold",
    "A <CAT>, golden!",
    "two <cat>s and<cat>more gold",
    "gold " * 40,
    "a red house",
)
BOUND = 1e-5


def write_files(folder: Path, width: int) -> dict[Path, str]:
    """Two files, each with its token where it does not say."""
    draw = torch.Generator().manual_seed(0)
    cat = torch.randn(width, generator=draw)
    gold = torch.randn(3, width, generator=draw)
    save_torch({SINGLE: cat}, folder / "cat.safetensors")
    save_torch({"emb_params": gold}, folder / "gold.safetensors")
    return {folder / "cat.safetensors": "", folder / "gold.safetensors": ""}


def reference(folder: Path) -> tuple[StableDiffusionPipeline, np.ndarray, np.ndarray]:
    """The reference with both files; its tokens and contexts."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipeline.load_textual_inversion(folder / "cat.safetensors")
    pipeline.load_textual_inversion(folder / "gold.safetensors", token=SEVERAL)
    prompts = pipeline.maybe_convert_prompt(list(PROMPTS), pipeline.tokenizer)
    tokens = pipeline.tokenizer(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        context = pipeline.text_encoder(tokens)[0]
    return pipeline, tokens.numpy().astype(np.int32), context.numpy()


def rows(seed: int) -> Iterator[Row]:
    """Files that are given, and both ways of folders that were saved after it."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        files = write_files(root, 16)
        pipeline, tokens, context = reference(root)
        pipeline.save_pretrained(root / "theirs")
        artist = diffusion.load(MODEL, embeddings={str(path): "" for path in files})
        artist.save(root / "ours")
        again = StableDiffusionPipeline.from_pretrained(root / "ours", dtype=torch.float32)
        prompts = again.maybe_convert_prompt(list(PROMPTS), again.tokenizer)
        told = again.tokenizer(prompts, padding="max_length", max_length=77, truncation=True)
        yield compare("ours, saved, tokens of the reference", np.array(told.input_ids), tokens, 0.0)
        for name, model in (("files", artist), ("their folder", diffusion.load(root / "theirs"))):
            ours = model.tokenizer(list(PROMPTS))
            yield compare(f"{name}: tokens", ours, tokens, 0.0)
            found = np.asarray(model.text_encoder(jnp.asarray(ours)))
            yield compare(f"{name}: context", found, context, BOUND)


def write_golden(folder: Path) -> None:
    place = folder / GOLDEN
    place.mkdir(parents=True, exist_ok=True)
    write_files(place, 16)
    pipeline, tokens, context = reference(place)
    pipeline.tokenizer.save_pretrained(place / "tokenizer")
    arrays = {"tokens": tokens, "context": context[:, :12].copy()}
    save_file(arrays, place / "told.safetensors", {"prompts": json.dumps(PROMPTS)})
