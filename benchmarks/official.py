"""The networks of SD 1.5 and 2.1 in their true size, beside those of diffusers and transformers."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import torch
from flax import nnx

from benchmarks.peers import as_ours, peers, prepare
from benchmarks.roofline import flops
from benchmarks.timing import BOUND_HALF, Options, Row, Work, measure, ours, size
from diffusion.config import sd_v1, sd_v2
from diffusion.layers.attention import attention as our_attention
from diffusion.pipeline import TextEncoderStage, UNetStages, VAEStages
from diffusion.runtime.parameters import Params
from diffusion.weights import folder
from parity import reference

TITLES = {"sd1": "SD 1.5", "sd2": "SD 2.1"}
CONFIGS = {"sd1": sd_v1(), "sd2": sd_v2()}
# Where PyTorch is faster in channels last: on a CPU the VAE, not the U-Net (docs/speed.md); on a
# GPU cuDNN's convolutions in general.
LAST_ON_CPU = ("vae",)
KINDS: dict[str, Any] = {"text_encoder": TextEncoderStage, "unet": UNetStages, "vae": VAEStages}


@dataclass(frozen=True)
class Case:
    """A work of one network."""

    name: str
    family: str
    sizes: dict[str, Any]  # of the inputs, as in `reference.Model`
    method: str  # of the networks of both sides
    result: Callable[[Any], Any]  # a tensor, or several in a tuple, of what theirs returns
    inputs: tuple[int, ...]  # which of `reference.inputs`


def unet(options: Options) -> Iterator[Row]:
    """One pass of the U-Net."""
    works = (
        ("sd1", 64, 1),
        ("sd1", 64, 2),
        ("sd1", 32, 1),
        ("sd1", 32, 2),
        ("sd2", 64, 2),
        ("sd2", 96, 1),
    )
    cases = [
        Case(
            f"U-Net {TITLES[family]}, {side}x{side}, batch {batch}",
            family,
            {"latent": (side, side), "batch": batch},
            "__call__",
            lambda output: output.sample,
            (0, 1, 2),
        )
        for family, side, batch in works
    ]
    return _rows("unet", cases, options)


def vae(options: Options) -> Iterator[Row]:
    """A latent to a picture, and a picture to a latent."""
    sizes = {"picture": (512, 512), "batch": 1}
    decode = Case(
        "VAE decoder, 512x512",
        "sd1",
        sizes,
        "decode",
        lambda output: output.sample,
        (1,),
    )
    encode = Case(
        "VAE encoder, 512x512",
        "sd1",
        sizes,
        "encode",
        lambda output: (output.latent_dist.mean, output.latent_dist.logvar),
        (0,),
    )
    return _rows("vae", (decode, encode), options)


def text(options: Options) -> Iterator[Row]:
    """Two prompts to their contexts."""
    cases = [
        Case(
            f"text encoder {title}, batch 2",
            family,
            {"batch": 2},
            "__call__",
            lambda output: output.last_hidden_state,
            (0,),
        )
        for family, title in TITLES.items()
    ]
    return _rows("text_encoder", cases, options)


def attention(options: Options) -> Iterator[Row]:
    """Self-attention as at the finest level of the U-Net of SD 1.5."""
    n, heads, width = 4096, 8, 40
    for batch in (1, 2):
        name = f"attention, {n:,} tokens, {heads} heads x {width}, batch {batch}"
        if not options.wants(name):
            continue
        theirs = torch.randn(3, batch, n, heads * width, dtype=_dtype(options)).unbind()
        inputs = [as_ours(x) for x in theirs]
        contenders = [
            ours("ours", jax.jit(partial(our_attention, heads=heads)), *inputs),
            *peers(partial(_attention, heads), theirs, lambda mixed: mixed, options),
        ]
        # JAX remembers what it traced of a function: what is counted must be another one.
        products = flops(partial(our_attention, heads=heads), *inputs)
        work = Work(name, contenders, products)
        yield from measure(work, options.repeats, _bound(options))


def _attention(
    heads: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    def apart(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    mixed = torch.nn.functional.scaled_dot_product_attention(*map(apart, (query, key, value)))
    return mixed.transpose(1, 2).flatten(-2)


def _rows(part: str, cases: Sequence[Case], options: Options) -> Iterator[Row]:
    """The rows of the cases that are wanted; one family at a time is in memory."""
    for family in CONFIGS:
        wanted = [case for case in cases if case.family == family and options.wants(case.name)]
        if wanted:
            yield from _rows_of(family, part, wanted, options)
            gc.collect()


def _rows_of(family: str, part: str, cases: list[Case], options: Options) -> Iterator[Row]:
    network, params = _pair(family, part, options)
    structure, _ = structure_of(CONFIGS[family], part)
    contestants = {"ours": KINDS[part](structure, lambda: params)}
    if part == "unet" and jax.default_backend() == "cpu" and not options.half:
        positions = CONFIGS[family].latent_size ** 2
        contestants["ours, transformed once"] = UNetStages(structure, lambda: params, positions)
    for case in cases:
        model = replace(reference.FULL[family], **case.sizes)
        drawn = reference.inputs(model, part, seed=0)
        theirs = [_in(options, drawn[i]) for i in case.inputs]
        inputs = [as_ours(x) for x in theirs]
        function = network if case.method == "__call__" else getattr(network, case.method)
        contenders = [
            *(
                ours(name, getattr(stages, case.method), *inputs)
                for name, stages in contestants.items()
            ),
            *peers(function, theirs, case.result, options),
        ]
        products = flops(partial(_apply, structure, case.method), params, *inputs)
        work = Work(case.name, contenders, products, size(params))
        yield from measure(work, options.repeats, _bound(options))


def _dtype(options: Options) -> torch.dtype:
    return torch.bfloat16 if options.half else torch.float32


def _in(options: Options, x: torch.Tensor) -> torch.Tensor:
    return x.to(_dtype(options)) if x.is_floating_point() else x


def _bound(options: Options) -> float | None:
    return BOUND_HALF if options.half else None


def _pair(family: str, part: str, options: Options) -> tuple[Any, Params]:
    """A network of the reference with random weights, and the same weights as ours."""
    network = getattr(reference.build(reference.FULL[family], seed=0, tiny=False), part)
    with tempfile.TemporaryDirectory() as place:
        network.save_pretrained(Path(place) / part)
        dtype = "bfloat16" if options.half else "float32"
        params = folder.load_part(Path(place), CONFIGS[family], part, dtype)[1]
    last = part in LAST_ON_CPU or jax.default_backend() != "cpu"
    layout = torch.channels_last if last else torch.contiguous_format
    return network.to(prepare(), _dtype(options), memory_format=layout), params


def _apply(structure: nnx.GraphDef[Any], method: str, params: Params, *inputs: Any) -> Any:
    """A method of our network, for the count of its operations."""
    return getattr(nnx.merge(structure, params), method)(*inputs)
