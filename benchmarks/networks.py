"""The networks of SD 1.5 and 2.1 in their true size, beside those of diffusers and transformers."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import torch

from benchmarks.peers import LAST, as_ours, device, formed, network, pair
from benchmarks.roofline import counted, flops
from benchmarks.timing import Call, Options, Work
from diffusion.config import sd_v1, sd_v2
from diffusion.layers.attention import attention as our_attention
from diffusion.runtime.programs import Network
from diffusion.runtime.transformed_kernels import prepare
from diffusion.weights import folder
from parity import reference
from parity.blocks import PARTS

TITLES = {"sd1": "SD 1.5", "sd2": "SD 2.1"}
CONFIGS = {"sd1": sd_v1(), "sd2": sd_v2()}
# Where PyTorch is faster in channels last: on a CPU the VAE, not the U-Net (docs/speed.md); on a
# GPU cuDNN's convolutions in general.
LAST_ON_CPU = ("vae",)


@dataclass(frozen=True)
class Case:
    """A work of one network."""

    name: str
    part: str  # the reference's name of the network
    family: str
    sizes: dict[str, Any]  # of the inputs, as in `reference.Model`
    ours: str = "__call__"  # the method, and that of theirs
    theirs: str = "__call__"


WORKS = (
    ("sd1", 64, 1),
    ("sd1", 64, 2),
    ("sd1", 32, 1),
    ("sd1", 32, 2),
    ("sd2", 64, 2),
    ("sd2", 96, 1),
)
PICTURE = {"picture": (512, 512), "batch": 1}
CASES = (
    *(
        Case(
            f"U-Net {TITLES[family]}, {side}x{side}, batch {batch}",
            "unet",
            family,
            {"latent": (side, side), "batch": batch},
        )
        for family, side, batch in WORKS
    ),
    Case("VAE decoder, 512x512", "vae", "sd1", PICTURE, "decode", "decode"),
    Case("VAE encoder, 512x512", "vae", "sd1", PICTURE, "posterior", "encode"),
    *(
        Case(f"text encoder {title}, batch 2", "text_encoder", family, {"batch": 2})
        for family, title in TITLES.items()
    ),
)


def unet(options: Options) -> Iterator[Work]:
    """One pass of the U-Net."""
    return _works("unet", options)


def vae(options: Options) -> Iterator[Work]:
    """A latent to a picture, and a picture to a latent."""
    return _works("vae", options)


def text(options: Options) -> Iterator[Work]:
    """Two prompts to their contexts."""
    return _works("text_encoder", options)


def _works(part: str, options: Options) -> Iterator[Work]:
    """Those that are wanted; the weights of one family at a time are on the disk."""
    layouts = (LAST,) if part in LAST_ON_CPU or options.gpu else ("",)
    for family, config in CONFIGS.items():
        cases = [one for one in CASES if (one.part, one.family) == (part, family)]
        wanted = [one for one in cases if options.wants(one.name)]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory() as folder_:
            place = Path(folder_)
            built = reference.build(reference.FULL[family], seed=0, tiny=False)
            getattr(built, part).save_pretrained(place / part)
            del built
            gc.collect()
            for case in wanted:
                inputs = map(as_ours, _inputs(case, half=False))
                facts = counted(getattr(config, PARTS[part].slot), case.ours, *inputs)
                sides = pair(
                    ours, theirs, place, case, options.half, options=options, layouts=layouts
                )
                yield Work(case.name, sides, **facts)


def _inputs(case: Case, half: bool) -> list[torch.Tensor]:
    model = replace(reference.FULL[case.family], **case.sizes)
    drawn = reference.inputs(model, case.part, seed=0)
    chosen = {"encode": drawn[:1], "decode": drawn[1:]}.get(case.theirs, drawn)
    return [x.bfloat16() if half and x.is_floating_point() else x for x in chosen]


def ours(place: Path, case: Case, half: bool) -> dict[str, Call]:
    config, slot = CONFIGS[case.family], PARTS[case.part].slot
    structure, params = folder.load_part(place, config, slot, "bfloat16" if half else "float32")
    networks = {"ours": Network(structure, lambda: params)}
    if slot == "denoiser" and jax.default_backend() == "cpu" and not half:
        once = partial(prepare, positions=config.latent_size**2)
        networks["ours, transformed once"] = Network(structure, lambda: params, once)
    inputs = [as_ours(x) for x in _inputs(case, half)]
    if case.ours == "decode":
        inputs = [inputs[0] * config.autoencoder.scaling_factor]
    return {name: partial(getattr(one, case.ours), *inputs) for name, one in networks.items()}


def theirs(place: Path, case: Case, half: bool, form: str) -> Call:
    module = network(place, case.part, form, torch.bfloat16 if half else torch.float32)
    function = formed(getattr(module, case.theirs), form)
    inputs = [x.to(device()) for x in _inputs(case, half)]

    @torch.inference_mode()
    def call() -> Any:
        output = function(*inputs)
        if case.theirs == "encode":
            return output.latent_dist.mean, output.latent_dist.logvar
        return output.last_hidden_state if case.part == "text_encoder" else output.sample

    return call


N, HEADS, WIDTH = 4096, 8, 40  # as at the finest level of the U-Net of SD 1.5


def attention(options: Options) -> Iterator[Work]:
    """Self-attention by itself."""
    for batch in (1, 2):
        name = f"attention, {N:,} tokens, {HEADS} heads x {WIDTH}, batch {batch}"
        if options.wants(name):
            shape = jax.ShapeDtypeStruct((batch, N, HEADS * WIDTH), "float32")
            products = flops(partial(our_attention, heads=HEADS), shape, shape, shape)
            sides = pair(ours_attends, theirs_attends, batch, options.half, options=options)
            yield Work(name, sides, products)


def _heard(batch: int, half: bool) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values."""
    drawn = torch.randn(3, batch, N, HEADS * WIDTH, generator=torch.Generator().manual_seed(0))
    return (drawn.bfloat16() if half else drawn).unbind()


def ours_attends(batch: int, half: bool) -> dict[str, Call]:
    attend = jax.jit(partial(our_attention, heads=HEADS))
    inputs = [as_ours(x) for x in _heard(batch, half)]
    return {"ours": lambda: attend(*inputs)}


def theirs_attends(batch: int, half: bool, form: str) -> Call:
    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        apart = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in inputs)
        mixed = torch.nn.functional.scaled_dot_product_attention(*apart)
        return mixed.transpose(1, 2).flatten(-2)

    inputs = [x.to(device()) for x in _heard(batch, half)]
    return torch.inference_mode()(partial(formed(attend, form), *inputs))
