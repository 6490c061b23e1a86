"""The painter of codes beside the reference's aMUSEd: network, process, finished pictures.

The network is compared block by block, with and without fewer tokens than codes. In painting both
sides draw the same numbers, so that every code of every step has to be the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import AmusedPipeline, AmusedScheduler, UVit2DModel, VQModel
from diffusers.schedulers import scheduling_amused
from safetensors.numpy import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

import diffusion
from diffusion.config_codes import MaskingConfig
from diffusion.inspection import blocks
from diffusion.inspection.blocks import Record
from diffusion.inspection.rows import Row, compare
from diffusion.pipeline import Artist
from diffusion.process.masked import Masking, fill, maskgit
from diffusion.runtime.parameters import split
from diffusion.settings import Settings
from diffusion.stages.noisy_latent import picture_keys
from diffusion.weights import files
from diffusion.weights.architectures import masked
from parity import reference, transformer_blocks, vq
from parity.full_size import changed
from parity.transformers import GAINS

CODES, MASK = 24, 31
TEXT = reference.TINY_TEXT | {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64,
    "hidden_act": "quick_gelu", "projection_dim": 16,
}  # fmt: skip
TRANSFORMER = {
    "hidden_size": 24, "cond_embed_dim": 16, "micro_cond_encode_dim": 8, "micro_cond_embed_dim": 40,
    "encoder_hidden_size": 16, "vocab_size": MASK + 1, "codebook_size": CODES, "in_channels": 12,
    "block_out_channels": 12, "num_res_blocks": 2, "block_num_heads": 3, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 20, "sample_size": 4,
}  # fmt: skip
AUTOENCODER = vq.TINY["amused"] | {
    "block_out_channels": (4, 4, 4, 4, 8), "down_block_types": ["DownEncoderBlock2D"] * 5,
    "up_block_types": ["UpDecoderBlock2D"] * 5, "num_vq_embeddings": CODES,
    "vq_embed_dim": 6,
}  # fmt: skip
KINDS = {"amused": {}, "amused512": {"downsample": True, "upsample": True}}
ASKED = Settings(
    "a red house with two old trees and yellow flowers", negative="night", seed=3, count=2,
    steps=12, guidance=10.0,
)  # fmt: skip
COUNTS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 25, 100)  # of steps, for the process alone
PARTS = ("embed", "encoder_proj_layer_norm", "cond_embed", "mlm_layer")
SIZES = (96.0, 64.0, 0.0, 0.0, 6.0)  # of 6 columns and 4 rows of codes


def build(kind: str, seed: int) -> UVit2DModel:
    torch.manual_seed(seed)
    network = UVit2DModel(**TRANSFORMER, **KINDS[kind]).eval()
    reference.randomise(network, GAINS)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "channelwise_norm" in name:  # they begin as zeros
                parameter.normal_(0.0, 0.3)
    return network


def pipeline(seed: int) -> AmusedPipeline:
    """A whole model with random weights."""
    reference.quiet()
    transformer = build("amused", seed)
    text = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT)).eval()
    autoencoder = VQModel(**AUTOENCODER).eval()
    for part in (text, autoencoder):
        reference.randomise(part, reference.GAINS)
    names = {"vocab": "vocab.json", "merges": "merges.txt"}
    paths = {name: str(reference.VOCABULARY / file) for name, file in names.items()}
    with torch.no_grad():
        autoencoder.quantize.embedding.weight.normal_()
    return AmusedPipeline(
        vqvae=autoencoder,
        tokenizer=CLIPTokenizer(**paths, pad_token="!", model_max_length=77),
        text_encoder=text,
        transformer=transformer,
        scheduler=AmusedScheduler(mask_token_id=MASK),
    )


@torch.no_grad()
def record(network: Any, seed: int) -> Record:
    """What goes in and out of every block, and of the whole."""
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(MASK + 1, (2, 4, 6), generator=draw)
    words = torch.randn(2, 9, 16, generator=draw)
    summary = torch.randn(2, 16, generator=draw)
    sizes = torch.tensor([SIZES] * 2)
    seen: dict[str, tuple[Any, Any, Any]] = {}
    hooks = [
        part.register_forward_hook(_hook(seen, name), with_kwargs=True)
        for name, part in _parts(network)
    ]
    logits = network(codes, words, summary, sizes)
    for hook in hooks:
        hook.remove()
    found: Record = {}
    call = reference.call
    for name, (args, given, out) in seen.items():
        if name == "cond_embed":
            found[name] = call((summary, sizes), out)
        elif "attention_blocks" in name:
            found[name] = call(
                (_map(args[0], found), given["encoder_hidden_states"]), _map(out, found)
            )
        elif "transformer_layers" in name:
            told = given["added_cond_kwargs"]["pooled_text_emb"]
            found[name] = call((args[0], told, given["encoder_hidden_states"]), out)
        else:
            found[name] = call(tuple(args), out)
    context = torch.cat([words, summary[:, None]], dim=1)
    found["transformer"] = call((codes[:, None], torch.zeros(2), context), logits)
    return found


def _parts(network: Any) -> Iterator[tuple[str, nn.Module]]:
    for name in PARTS:
        yield name, getattr(network, name)
    for side in ("down_block", "up_block"):
        block = getattr(network, side)
        for change in ("downsample", "upsample"):
            if getattr(block, change) is not None:
                yield f"{side}.{change}", getattr(block, change)
        for kind in ("res_blocks", "attention_blocks"):
            for i, one in enumerate(getattr(block, kind)):
                yield f"{side}.{kind}.{i}", one
    for i, layer in enumerate(network.transformer_layers):
        yield f"transformer_layers.{i}", layer


def _hook(seen: dict[str, tuple[Any, Any, Any]], name: str) -> Any:
    def hook(_: nn.Module, args: Any, given: Any, out: Any) -> None:
        seen[name] = args, given, out

    return hook


def _map(tokens: torch.Tensor, found: Record) -> torch.Tensor:
    """Tokens as the map that they are of, which the block before gave."""
    shape = next(reversed(found.values())).output.shape
    return tokens.swapaxes(1, 2).reshape(shape)


@contextmanager
def drawing(seed: int, count: int) -> Iterator[None]:
    """The reference draws what `MaskTable.apply` draws for the first pictures of a seed."""
    keys = picture_keys(seed, jnp.arange(count, dtype=jnp.uint32))
    call = {"codes": 0, "doubts": 0}

    def gumbel(which: str, shape: tuple[int, ...]) -> torch.Tensor:
        now = jnp.uint32(call[which])
        call[which] += 1
        part = ("codes", "doubts").index(which)

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.gumbel(jax.random.split(jax.random.fold_in(key, now))[part], shape)

        return torch.from_numpy(np.array(jax.vmap(draw)(keys)))

    def multinomial(probs: torch.Tensor, one: int, generator: Any = None) -> torch.Tensor:
        rows = gumbel("codes", (len(probs) // count, probs.shape[1])).reshape(probs.shape)
        return (probs.log() + rows).argmax(-1, keepdim=True)

    def doubts(probs: torch.Tensor, generator: Any = None) -> torch.Tensor:
        return gumbel("doubts", (probs.shape[1],))

    saved = torch.multinomial, scheduling_amused.gumbel_noise
    torch.multinomial, scheduling_amused.gumbel_noise = multinomial, doubts
    try:
        yield
    finally:
        torch.multinomial, scheduling_amused.gumbel_noise = saved


def paint(theirs: AmusedPipeline, asked: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Codes (steps, b, h, w) after every step of the reference, and pictures in [0, 1]."""
    steps: list[np.ndarray] = []
    count = asked.count or 1
    theirs.set_progress_bar_config(disable=True)
    with drawing(asked.seed, count):
        pictures = theirs(
            prompt=asked.prompt,
            negative_prompt=asked.negative,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            num_images_per_prompt=count,
            output_type="np",
            callback=lambda i, t, codes: steps.append(codes.numpy().copy()),
        ).images
    return np.stack(steps).astype(np.int32), pictures


def ours(artist: Artist, asked: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The same of ours."""
    found = np.stack([np.asarray(step.x_next)[..., 0] for step in artist.sample(asked)])
    pictures = np.asarray(artist.autoencoder.decode(jnp.asarray(found[-1])[..., None]))
    return found, np.clip((pictures + 1) / 2, 0, 1)


def process_rows(seed: int) -> Iterator[Row]:
    """Paintings with random logits: the reference's scheduler, step by step."""
    rng = np.random.default_rng(seed)
    for rule in ("cosine", "linear"):
        process = Masking(MaskingConfig(mask=MASK, rule=rule))
        pairs = [_trajectories(process, steps, rng) for steps in COUNTS]
        one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
        yield compare(f"codes of {sum(COUNTS)} steps, {rule}", one, other, bound=0.0)


def _trajectories(
    process: Masking, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    scheduler = AmusedScheduler(mask_token_id=MASK, masking_schedule=process.config.rule)
    scheduler.set_timesteps(steps)
    table, step = maskgit(process, steps), jax.jit(fill)
    x = jnp.full((2, 16, 16, 1), MASK, jnp.int32)
    x[:, :3].block_until_ready()
    theirs = torch.full((2, 16, 16), MASK)
    found: list[np.ndarray] = []
    other: list[np.ndarray] = []
    for call, timestep in enumerate(scheduler.timesteps):
        logits = rng.standard_normal((2, 16, 16, CODES), np.float32)
        drawn = rng.integers(CODES, size=(2, 16, 16, 1), dtype=np.int32)
        doubts = rng.gumbel(size=(2, 16, 16, 1)).astype(np.float32)
        begun = jnp.full(2, 256)
        given = (jnp.asarray(a) for a in (logits, np.asarray(x), drawn, doubts))
        _, x = step(jnp.int32(MASK), table.row(call), *given, begun)
        saved = torch.multinomial, scheduling_amused.gumbel_noise
        torch.multinomial = lambda *_, d=drawn, **__: torch.from_numpy(d.reshape(-1, 1)).long()
        scheduling_amused.gumbel_noise = lambda *_, d=doubts, **__: torch.from_numpy(
            d.reshape(2, -1)
        )
        theirs = scheduler.step(
            torch.from_numpy(logits.transpose(0, 3, 1, 2).copy()), int(timestep), theirs
        ).prev_sample
        torch.multinomial, scheduling_amused.gumbel_noise = saved
        found.append(np.asarray(x)[..., 0])
        other.append(theirs.numpy().astype(np.int32))
    return np.stack(found), np.stack(other)


def rows(seed: int) -> Iterator[Row]:
    """Each network, what is saved of it, the process, and whole paintings."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as place:
            root, theirs = Path(place), build(kind, seed)
            theirs.save_pretrained(root / "transformer")
            network = blocks.load(root, masked.ARCHITECTURE)
            yield from transformer_blocks.rows(network, record(theirs, seed))
            one, copy = masked.ARCHITECTURE, root / "copy"
            path = copy / one.folder / f"{one.stem}.safetensors"
            files.save_params(path, split(network)[1], one.names)
            yield changed(kind, one, root, copy)
    yield from process_rows(seed)
    with tempfile.TemporaryDirectory() as place:
        model = pipeline(seed)
        model.save_pretrained(place)
        artist = diffusion.load(place)
        codes, pictures = paint(model, ASKED)
        found, shown = ours(artist, ASKED)
        yield compare("codes of 12 steps", found, codes, bound=0.0)
        yield compare("pictures", shown, pictures, blocks.WHOLE_BOUND)
        artist.save(Path(place) / "copy")
        again = AmusedPipeline.from_pretrained(Path(place) / "copy")
        yield compare("codes of what was saved", paint(again, ASKED)[0], codes, bound=0.0)


def write_golden(place: Path) -> None:
    for kind in KINDS:
        root = place / kind
        shutil.rmtree(root, ignore_errors=True)
        network = build(kind, 0).to(torch.float16)
        network.save_pretrained(root / "model/transformer")
        loaded = UVit2DModel.from_pretrained(root / "model/transformer", torch_dtype=torch.float32)
        blocks.save_record(root / "transformer.safetensors", record(loaded, 0))
    root = place / "amused"
    pipeline(0).to(torch.float16).save_pretrained(root / "model")
    loaded = AmusedPipeline.from_pretrained(root / "model", torch_dtype=torch.float32)
    codes, pictures = paint(loaded, ASKED)
    shown = np.ascontiguousarray(np.round(255 * pictures).astype(np.uint8))
    save_file({"codes": codes, "pictures": shown}, root / "painted.safetensors")
