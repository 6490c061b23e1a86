"""The reference's diffusion transformers, PixArt and DiT, with random weights; see `reference`."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel, PixArtTransformer2DModel
from torch import nn

from diffusion.inspection.blocks import Call, Record
from diffusion.inspection.rows import Row
from diffusion.runtime.parameters import split
from diffusion.weights import files, folder
from diffusion.weights.architectures import dit
from parity import transformer_blocks
from parity.full_size import changed
from parity.reference import kept, randomise

GAINS = tuple(  # see `reference.GAINS`
    (re.compile(pattern), gain)
    for pattern, gain in (
        (r"\.to_(q|k)\.", 2.0),
        (r"\.to_out\.", 0.05),
        (r"\.ff\.net\.0\.", 4.0),
    )
)
FAINT = 0.01
TOKENS, TOLD = 9, 5  # of a context; how many are no padding, where padding is masked

Seen = dict[str, tuple[Any, Any, Any]]  # arguments and output of a module


@dataclass(frozen=True)
class Model:
    kind: type[nn.Module]
    options: dict[str, Any]
    latent: tuple[int, int]
    batch: int

    @property
    def listens(self) -> bool:
        return self.kind is PixArtTransformer2DModel


TINY_SIZES = {"num_attention_heads": 3, "attention_head_dim": 8, "num_layers": 2}
TINY_WORDS = TINY_SIZES | {"cross_attention_dim": 24, "caption_channels": 16, "out_channels": 8}
TINY_LABEL = TINY_SIZES | {"num_embeds_ada_norm": 10, "out_channels": 8}
TINY = {  # not square, and larger than what it was trained on; DiT of the reference knows squares
    "pixart": Model(PixArtTransformer2DModel, TINY_WORDS | {"sample_size": 8}, (8, 12), 2),
    "pixart1024": Model(PixArtTransformer2DModel, TINY_WORDS | {"sample_size": 128}, (4, 8), 2),
    "dit": Model(DiTTransformer2DModel, TINY_LABEL | {"sample_size": 4}, (8, 8), 2),
}
FULL = {
    "pixart": Model(
        PixArtTransformer2DModel, {"sample_size": 64, "caption_channels": 4096}, (64, 64), 1
    ),
    "dit": Model(DiTTransformer2DModel, {"sample_size": 32, "out_channels": 8}, (32, 32), 1),
}


def build(model: Model, seed: int, *, tiny: bool) -> nn.Module:
    """The network in float32; DiT's copies of an embedder are alike, as in the official file."""
    torch.manual_seed(seed)
    network = model.kind(**model.options).eval()
    randomise(network, GAINS if tiny else ())
    if not model.listens:
        first = network.transformer_blocks[0].norm1.emb
        for block in network.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(first.state_dict())
    return network


def save(network: nn.Module, model: Model, root: Path) -> None:
    """A folder with nothing but the transformer."""
    network.save_pretrained(root / "transformer")
    index = {"_class_name": "PixArtAlphaPipeline" if model.listens else "DiTPipeline"}
    index |= {"transformer": ["diffusers", model.kind.__name__]}
    (root / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


@torch.no_grad()
def record(network: Any, model: Model, seed: int) -> Record:
    """What goes in and out of every block, under the names of `transformer_blocks`."""
    draw = torch.Generator().manual_seed(seed)
    b, (h, w) = model.batch, model.latent
    latents = torch.randn(b, network.config.in_channels, h, w, generator=draw)
    timesteps = torch.randint(1000, (b,), generator=draw)
    seen: Seen = {}
    hooks = [
        part.register_forward_hook(_hook(seen, name), with_kwargs=True)
        for name, part in _parts(network, model)
    ]
    if model.listens:
        words = torch.randn(b, TOKENS, network.config.caption_channels, generator=draw)
        sizes = {"resolution": torch.tensor([[8.0 * h, 8.0 * w]] * b)}
        sizes |= {"aspect_ratio": torch.tensor([[h / w]] * b)}
        told = (words, timesteps, sizes)
        whole = network(latents, *told).sample
    else:
        labels = torch.tensor([network.config.num_embeds_ada_norm, 3][:b])  # the first is "any"
        whole = network(latents, timesteps, labels).sample
    for hook in hooks:
        hook.remove()
    found = _words(seen, timesteps) if model.listens else _label(seen, timesteps, labels)
    channels = network.config.in_channels
    given = (latents, timesteps, words if model.listens else labels[:, None])
    found["transformer"] = _call(given, whole[:, :channels])
    if model.listens:
        mask = (torch.arange(TOKENS) < TOLD).repeat(b, 1).float()
        masked = network(latents, *told, encoder_attention_mask=mask).sample[:, :channels]
        found["transformer, padding masked"] = _call((*given[:2], words[:, :TOLD]), masked)
    return found | _faint(network, model, found)


def _hook(seen: Seen, name: str) -> Callable[..., None]:
    def hook(_: nn.Module, args: Any, given: Any, out: Any) -> None:
        seen[name] = args, given, out

    return hook


def _parts(network: Any, model: Model) -> Iterator[tuple[str, nn.Module]]:
    yield "pos_embed", network.pos_embed
    yield "norm_out", network.norm_out
    for i, block in enumerate(network.transformer_blocks):
        yield f"transformer_blocks.{i}", block
    if model.listens:
        yield "adaln_single", network.adaln_single
        yield "timestep_embedder", network.adaln_single.emb.timestep_embedder
        yield "caption_projection", network.caption_projection
        yield "proj_out", network.proj_out
    else:
        yield "emb", network.transformer_blocks[0].norm1.emb
        yield "timestep_embedder", network.transformer_blocks[0].norm1.emb.timestep_embedder
        yield "proj_out_2", network.proj_out_2


def _words(seen: Seen, timesteps: torch.Tensor) -> Record:
    """PixArt's blocks from what its modules saw."""
    six, time = seen["adaln_single"][2]
    found = {
        "pos_embed": _call(seen["pos_embed"][0], seen["pos_embed"][2]),
        "adaln_single.emb.timestep_embedder": _call((timesteps,), seen["timestep_embedder"][2]),
        "adaln_single": _call((time[:, None],), six.reshape(len(six), 6, -1)),
        "caption_projection": _call(seen["caption_projection"][0], seen["caption_projection"][2]),
    }
    for name, (args, given, out) in seen.items():
        if name.startswith("transformer_blocks"):
            told = given["timestep"], given["encoder_hidden_states"]
            found[name] = _call((args[0], *told), out)
    found["proj_out"] = _call((seen["norm_out"][0][0], time[:, None]), seen["proj_out"][2])
    return found


def _label(seen: Seen, timesteps: torch.Tensor, labels: torch.Tensor) -> Record:
    """DiT's blocks from what its modules saw."""
    time = seen["emb"][2]
    found = {
        "pos_embed": _call(seen["pos_embed"][0], seen["pos_embed"][2]),
        "norm1.emb.timestep_embedder": _call((timesteps,), seen["timestep_embedder"][2]),
    }
    for name, (args, _, out) in seen.items():
        if name.startswith("transformer_blocks"):
            found[name] = _call((args[0], time), out)
    found["proj_out_2"] = _call((seen["norm_out"][0][0], time[:, None]), seen["proj_out_2"][2])
    return found


def _faint(network: Any, model: Model, found: Record) -> Record:
    """The first block once more, on nearly nothing."""
    name = "transformer_blocks.0"
    x, time, *context = (torch.from_numpy(x) for x in found[name].inputs)
    x, block = FAINT * x, network.transformer_blocks[0]
    if model.listens:
        out = block(x, encoder_hidden_states=context[0], timestep=time)
    else:
        timesteps, labels = (torch.from_numpy(i) for i in found["transformer"].inputs[1:])
        out = block(x, timestep=timesteps, class_labels=labels[:, 0])
    return {name + transformer_blocks.FAINT: _call((x, time, *context), out)}


def _call(inputs: Iterable[torch.Tensor], output: torch.Tensor) -> Call:
    numbers = (x.numpy() if x.is_floating_point() else x.int().numpy() for x in inputs)
    return Call(tuple(numbers), output.numpy())


def sections(seed: int, *, tiny: bool) -> Iterator[tuple[str, Iterable[Row]]]:
    """Each network block by block, and whether saving changes a tensor."""
    for family, model in (TINY if tiny else FULL).items():
        with kept(build, save, record, model, seed, tiny=tiny) as (place, found):
            yield f"{family}, {'tiny' if tiny else 'full size'}", _rows(place, found)


def _rows(root: Path, found: Record) -> Iterator[Row]:
    network = folder.load_network(root, "denoiser")
    yield from transformer_blocks.rows(network, found)
    with tempfile.TemporaryDirectory() as place:
        one = dit.ARCHITECTURE
        path = Path(place) / one.folder / f"{one.stem}.safetensors"
        files.save_params(path, split(network)[1], one.names)
        yield changed("transformer", one, root, Path(place))
