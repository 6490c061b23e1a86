"""The reference: Stable Diffusion of PyTorch's `diffusers` and `transformers`, random weights.

No weights are downloaded: where two networks agree on random numbers in every block, they agree on
trained ones. Parameters that begin as zeros or ones are random too, for nothing hides like a zero.
"""

from __future__ import annotations

import gc
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import VectorQuantizer
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPTextEmbeddings

from diffusion.inspection.blocks import Call, Record

VOCABULARY = Path(__file__).parents[1] / "data/garden/tokenizer"

# The blocks that are recorded, and by which of their arguments.
RECORDED: dict[type[nn.Module], tuple[str, ...]] = {
    Timesteps: ("timesteps",),
    TimestepEmbedding: ("sample",),
    ResnetBlock2D: ("input_tensor", "temb"),
    Transformer2DModel: ("hidden_states", "encoder_hidden_states"),
    Attention: ("hidden_states",),
    Downsample2D: ("hidden_states",),
    Upsample2D: ("hidden_states",),
    VectorQuantizer: ("z",),
    CLIPTextEmbeddings: ("input_ids",),
    CLIPEncoderLayer: ("hidden_states",),
    nn.Conv2d: ("input",),
    nn.GroupNorm: ("input",),
    nn.LayerNorm: ("input",),
}

# The tiny networks are turned so that a mistake shows: what is added to the residual stream is so
# little that every eps matters, queries and keys are so large that attention is not uniform, and
# gates so large that the two kinds of gelu differ.
GAINS = (
    (re.compile(r"(^|\.)conv_in\."), 0.05),
    (re.compile(r"\.(conv2|proj_out)\.|attentions\.0\.to_out\."), 0.1),
    (re.compile(r"\.proj_in\."), 0.3),
    (re.compile(r"\.ff\.net\.0\."), 4.0),
    (re.compile(r"\.(to_q|to_k|q_proj|k_proj)\."), 2.0),
)


@dataclass(frozen=True)
class Model:
    """Options of the reference's networks, and the sizes of what they are compared on."""

    text_encoder: dict[str, Any]
    unet: dict[str, Any]
    vae: dict[str, Any]
    prediction: str
    pad_token: str
    latent: tuple[int, int]  # height and width of the U-Net's input
    picture: tuple[int, int]  # height and width of the VAE encoder's, in pixels
    batch: int


def autoencoder(*widths: int, **options: Any) -> dict[str, Any]:
    """Options of an autoencoder by levels, whichever it is."""
    levels = len(widths)
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        **options,
    }


def _vae(*widths: int, **options: Any) -> dict[str, Any]:
    return autoencoder(*widths, layers_per_block=2, scaling_factor=0.18215, **options)


@contextmanager
def kept(
    build: Callable[..., Any],
    save: Callable[..., None],
    record: Callable[..., Any],
    model: Any,
    seed: int,
    *,
    tiny: bool,
) -> Iterator[tuple[Path, Any]]:
    """The files and the record of a network that is built, saved, recorded and let go of."""
    with tempfile.TemporaryDirectory() as place:
        theirs = build(model, seed, tiny=tiny)
        save(theirs, model, Path(place))
        found = record(theirs, model, seed)
        del theirs
        gc.collect()
        yield Path(place), found


TINY_UNET = {"sample_size": 16, "block_out_channels": (4, 8, 12, 12), "norm_num_groups": 2}
TINY_VAE = _vae(4, 8, 12, 12, norm_num_groups=2, sample_size=128)
TINY_TEXT = {"vocab_size": 1024, "bos_token_id": 1022, "eos_token_id": 1023}
# Not square, and more than one position at the coarsest level: 2x1.
TINY_SIZES: dict[str, Any] = {"latent": (16, 8), "picture": (32, 16), "batch": 2}

TINY = {
    "sd1": Model(
        text_encoder=TINY_TEXT
        | {
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "hidden_act": "quick_gelu",
        },
        unet=TINY_UNET | {"cross_attention_dim": 16, "attention_head_dim": 2},
        vae=TINY_VAE,
        prediction="epsilon",
        pad_token="<|endoftext|>",
        **TINY_SIZES,
    ),
    "sd2": Model(
        text_encoder=TINY_TEXT
        | {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "intermediate_size": 96,
            "hidden_act": "gelu",
        },
        unet=TINY_UNET
        | {
            "cross_attention_dim": 24,
            "attention_head_dim": [1, 2, 3, 3],
            "use_linear_projection": True,
            "upcast_attention": True,
            "layers_per_block": 1,  # so that the official depth is not taken for granted
        },
        vae=TINY_VAE | {"layers_per_block": 1},
        prediction="v_prediction",
        pad_token="!",
        **TINY_SIZES,
    ),
}

FULL_TEXT = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
FULL = {
    "sd1": Model(
        text_encoder=FULL_TEXT
        | {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "hidden_act": "quick_gelu",
        },
        unet={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        vae=_vae(128, 256, 512, 512, sample_size=512),
        prediction="epsilon",
        pad_token="<|endoftext|>",
        latent=(64, 64),
        picture=(512, 512),
        batch=1,
    ),
    "sd2": Model(
        text_encoder=FULL_TEXT
        | {
            "hidden_size": 1024,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "hidden_act": "gelu",
        },
        unet={
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        vae=_vae(128, 256, 512, 512, sample_size=768),
        prediction="v_prediction",
        pad_token="!",
        latent=(96, 96),
        picture=(256, 256),
        batch=1,
    ),
}


def quiet() -> None:
    """Only errors of the reference are shown: it warns of much that does not matter here."""
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def build(model: Model, seed: int, *, tiny: bool) -> StableDiffusionPipeline:
    """A pipeline with random weights in float32.

    The tiny one has a tokenizer, and `GAINS` upon its weights; the full one has neither.
    """
    quiet()
    torch.manual_seed(seed)
    tokenizer = None
    if tiny:
        files = {"vocab": VOCABULARY / "vocab.json", "merges": VOCABULARY / "merges.txt"}
        tokenizer = CLIPTokenizer(
            **{name: str(path) for name, path in files.items()},
            pad_token=model.pad_token,
            model_max_length=77,
        )
    parts = {
        "text_encoder": CLIPTextModel(CLIPTextConfig(**model.text_encoder)),
        "unet": UNet2DConditionModel(**model.unet),
        "vae": AutoencoderKL(**model.vae),
    }
    for part in parts.values():
        randomise(part.eval(), GAINS if tiny else ())
    return StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            timestep_spacing="leading",
            prediction_type=model.prediction,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def randomise(module: nn.Module, gains: tuple[tuple[re.Pattern[str], float], ...]) -> None:
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            scale = 0.2 if name.endswith("weight") else 0.1
            parameter.add_(scale * torch.randn_like(parameter))
        for pattern, gain in gains:
            if pattern.search(name):
                parameter.mul_(gain)


def inputs(model: Model, part: str, seed: int) -> tuple[torch.Tensor, ...]:
    """Random inputs of a part; of the VAE, a picture to encode and latents to decode, unscaled."""
    draw = torch.Generator().manual_seed(seed)
    b = model.batch
    if part == "text_encoder":
        tokens = torch.randint(model.text_encoder["vocab_size"], (b, 77), generator=draw)
        tokens[:, -1] = model.text_encoder["eos_token_id"]
        return (tokens,)
    if part == "unet":
        latents = torch.randn(b, 4, *model.latent, generator=draw)
        context = torch.randn(b, 77, model.unet["cross_attention_dim"], generator=draw)
        timesteps = torch.randint(1000, (b,), generator=draw)
        return latents, timesteps, context
    height, width = model.picture
    picture = torch.rand(b, 3, height, width, generator=draw) * 2 - 1
    return picture, torch.randn(b, 4, height // 8, width // 8, generator=draw)


@torch.no_grad()
def record(network: nn.Module, part: str, inputs: tuple[torch.Tensor, ...]) -> Record:
    """Run a part, and keep what goes in and out of every block, and of the whole."""
    with watching(network) as found:
        found |= _whole(network, part, inputs)
    if part == "unet":  # ours is one block, from the timestep on
        embedding, sinusoids = found["time_embedding"], found.pop("time_proj")
        found["time_embedding"] = Call(sinusoids.inputs, embedding.output)
    return found


def _whole(network: nn.Module, part: str, inputs: tuple[torch.Tensor, ...]) -> Record:
    if part == "unet":
        latents, timesteps, context = inputs
        return {"unet": call(inputs, network(latents, timesteps, context).sample)}
    if part == "text_encoder":
        return {"text_encoder": call(inputs, network(*inputs).last_hidden_state)}
    picture, latents = inputs
    posterior = network.encode(picture).latent_dist
    moments = torch.cat([posterior.mean, posterior.logvar], dim=1)
    decoded = network.decode(latents).sample
    return {"encode": call((picture,), moments), "decode": call((latents,), decoded)}


@contextmanager
def watching(network: nn.Module) -> Iterator[Record]:
    """A record that fills with what goes in and out of every block, while this lasts."""
    found: Record = {}
    hooks = [
        block.register_forward_hook(_hook(found, name), with_kwargs=True)
        for name, block in _outermost(network, "")
    ]
    yield found
    for hook in hooks:
        hook.remove()


def _outermost(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    for key, child in module.named_children():
        path = f"{name}.{key}".lstrip(".")
        if type(child) in RECORDED:
            yield path, child
        else:
            yield from _outermost(child, path)


def _hook(found: Record, name: str) -> Callable[..., None]:
    def hook(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = inspect.signature(block.forward).bind(*args, **kwargs).arguments
        wanted = (given.get(argument) for argument in RECORDED[type(block)])
        output = output[0] if isinstance(output, tuple) else output
        found[name] = call(tuple(x for x in wanted if x is not None), output)

    return hook


def call(inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Call:
    return Call(tuple(map(_numpy, inputs)), _numpy(output))


def _numpy(x: torch.Tensor) -> np.ndarray:
    """The memory itself, not a copy: in evaluation nothing is changed in place."""
    return x.numpy() if x.is_floating_point() else x.numpy().astype(np.int32)
