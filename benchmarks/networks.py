"""The networks of SD 1.5 and 2.1 in their true size, beside those of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import torch

from benchmarks.peers import LAST, as_ours, device, formed, network, pair, random_model
from benchmarks.roofline import counted, flops
from benchmarks.timing import Call, Options, Work
from diffusion.inspection.blocks import PARTS
from diffusion.kernels.attention import attend
from diffusion.runtime.programs import Network
from diffusion.runtime.transformed_kernels import prepare
from diffusion.weights import folder
from parity import reference

# Where PyTorch is faster in channels last: on a CPU the VAE, not the U-Net (docs/speed.md); on a
# GPU cuDNN's convolutions in general.
LAST_ON_CPU = ("vae",)
N, HEADS, WIDTH = 4096, 8, 40  # of attention by itself: the finest level of the U-Net of SD 1.5


@dataclass(frozen=True)
class Case:
    """A work of one network."""

    name: str
    family: str
    part: str  # the reference's name of the network
    sizes: dict[str, Any]  # of the inputs, as in `reference.Model`
    ours: str = "__call__"  # the method, and that of theirs
    theirs: str = "__call__"

    def inputs(self, half: bool) -> list[torch.Tensor]:
        model = replace(reference.FULL[self.family], **self.sizes)
        drawn = reference.inputs(model, self.part, seed=0)
        chosen = {"encode": drawn[:1], "decode": drawn[1:]}.get(self.theirs, drawn)
        return [x.bfloat16() if half and x.is_floating_point() else x for x in chosen]


TITLES = {"sd1": "SD 1.5", "sd2": "SD 2.1"}
PASSES = {"sd1": ((64, 1), (64, 2), (32, 1), (32, 2)), "sd2": ((64, 2), (96, 1))}  # side, batch
PICTURE = {"picture": (512, 512), "batch": 1}
CASES = [
    Case(f"U-Net {TITLES[family]}, {side}x{side}, batch {b}", family, "unet", sizes)
    for family, passes in PASSES.items()
    for side, b in passes
    for sizes in [{"latent": (side, side), "batch": b}]
]
CASES += [
    Case("VAE decoder, 512x512", "sd1", "vae", PICTURE, "decode", "decode"),
    Case("VAE encoder, 512x512", "sd1", "vae", PICTURE, "posterior", "encode"),
]
CASES += [
    Case(f"text encoder {title}, batch 2", family, "text_encoder", {"batch": 2})
    for family, title in TITLES.items()
]


def works(part: str, options: Options) -> Iterator[Work]:
    """Those that are wanted; the weights of one family at a time are on the disk."""
    layouts = (LAST,) if part in LAST_ON_CPU or options.gpu else ("",)
    for family in TITLES:
        cases = [one for one in CASES if (one.part, one.family) == (part, family)]
        if not (wanted := [one for one in cases if options.wants(one.name)]):
            continue
        with random_model(family) as place:
            config = getattr(folder.load_config(place), PARTS[part].slot)
            for case in wanted:
                products = counted(config, case.ours, *map(as_ours, case.inputs(half=False)))
                sides = pair(ours, theirs, (place, case, options.half), options, layouts)
                yield Work(case.name, sides, products)


unet, vae, text = (partial(works, part) for part in ("unet", "vae", "text_encoder"))


def ours(place: Path, case: Case, half: bool) -> dict[str, Call]:
    config, slot = folder.load_config(place), PARTS[case.part].slot
    form, params = folder.load_part(place, config, slot, "bfloat16" if half else "float32")
    networks = {"ours": Network(form, lambda: params)}
    if slot == "denoiser" and jax.default_backend() == "cpu" and not half:
        once = partial(prepare, form, positions=config.latent_size**2)
        networks["ours, transformed once"] = Network(form, lambda: params, once)
    inputs = [as_ours(x) for x in case.inputs(half)]
    if case.ours == "decode":
        inputs = [inputs[0] * config.autoencoder.scaling_factor]
    return {name: partial(getattr(one, case.ours), *inputs) for name, one in networks.items()}


def theirs(place: Path, case: Case, half: bool, form: str) -> Call:
    module = network(place, case.part, form, torch.bfloat16 if half else torch.float32)
    function = formed(getattr(module, case.theirs), form)
    inputs = [x.to(device()) for x in case.inputs(half)]

    @torch.inference_mode()
    def call() -> Any:
        output = function(*inputs)
        if case.theirs == "encode":
            return output.latent_dist.mean, output.latent_dist.logvar
        return output.last_hidden_state if case.part == "text_encoder" else output.sample

    return call


def attention(options: Options) -> Iterator[Work]:
    """Self-attention by itself."""
    for batch in (1, 2):
        name = f"attention, {N:,} tokens, {HEADS} heads x {WIDTH}, batch {batch}"
        if options.wants(name):
            shape = jax.ShapeDtypeStruct((batch, N, HEADS * WIDTH), "float32")
            products = flops(partial(attend, heads=HEADS), shape, shape, shape)
            sides = pair(our_attention, their_attention, (batch, options.half), options)
            yield Work(name, sides, products)


def heard(batch: int, half: bool) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values."""
    drawn = torch.randn(3, batch, N, HEADS * WIDTH, generator=torch.Generator().manual_seed(0))
    return (drawn.bfloat16() if half else drawn).unbind()


def our_attention(batch: int, half: bool) -> dict[str, Call]:
    compiled = jax.jit(partial(attend, heads=HEADS))
    return {"ours": partial(compiled, *map(as_ours, heard(batch, half)))}


def their_attention(batch: int, half: bool, form: str) -> Call:
    def attended(*inputs: torch.Tensor) -> torch.Tensor:
        apart = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in inputs)
        mixed = torch.nn.functional.scaled_dot_product_attention(*apart)
        return mixed.transpose(1, 2).flatten(-2)

    inputs = [x.to(device()) for x in heard(batch, half)]
    return torch.inference_mode()(partial(formed(attended, form), *inputs))
