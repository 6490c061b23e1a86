"""The reference's motion U-Net and its film pipeline, with random weights; see `reference`.

A record holds every motion module and the whole network: inputs are frames folded into the batch,
as in our own. What reads a record needs no PyTorch: `motion_blocks`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from safetensors.torch import save_file

import diffusion
from diffusion.film_settings import FilmSettings
from diffusion.inspection.blocks import Record, nhwc, save_record
from diffusion.inspection.rows import Row, compare
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.weights import adapter
from parity import motion_blocks, reference
from parity.motion_blocks import FILM, FRAMES
from parity.reference import GAINS, call, kept, randomise

BOUND = 5e-5  # of a film: every step hands its rounding on to the next


@dataclass(frozen=True)
class Model:
    image: reference.Model
    adapter: dict[str, Any]
    latent: tuple[int, int]
    films: int  # side by side


def _tiny(**options: Any) -> Model:
    sizes = {"block_out_channels": (4, 8, 12, 12), "motion_norm_num_groups": 2}
    sizes |= {"motion_num_attention_heads": 2, "motion_max_seq_length": 8}
    return Model(reference.TINY["sd1"], sizes | options, (16, 8), 2)


TINY = {
    "with a middle": _tiny(use_motion_mid_block=True),
    "without": _tiny(use_motion_mid_block=False),
}
FULL = {  # in its size, on a film that is small
    "v1-5-2": Model(reference.FULL["sd1"], {"use_motion_mid_block": True}, (32, 32), 1),
}


def build(model: Model, seed: int, *, tiny: bool) -> UNetMotionModel:
    """The whole network in float32, without a second copy of it on the way."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**model.image.unet)
        motion = MotionAdapter(**model.adapter)
        config = UNetMotionModel.from_unet2d(unet, motion, load_weights=False).config
    network = UNetMotionModel.from_config(config).eval()
    randomise(network, GAINS if tiny else ())
    return network


def save(network: UNetMotionModel, model: Model, root: Path) -> None:
    """Its two halves as folders of the reference: unet/ and motion_adapter/."""
    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel(**model.image.unet),
            "motion_adapter": MotionAdapter(**model.adapter),
        }
    weights = network.state_dict()
    for name, part in parts.items():
        part.save_config(root / name)
        own = {key: weights[key].contiguous() for key in part.state_dict()}
        save_file(own, root / name / "diffusion_pytorch_model.safetensors")
    assert sum(len(part.state_dict()) for part in parts.values()) == len(weights)
    index = {"_class_name": "StableDiffusionPipeline"}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"]}
    (root / "model_index.json").write_text(json.dumps(index) + "\n")


@torch.no_grad()
def record(network: UNetMotionModel, model: Model, seed: int) -> Record:
    """What goes in and out of every motion module, and of the whole."""
    draw = torch.Generator().manual_seed(seed)
    b, (h, w) = model.films, model.latent
    films = torch.randn(b, 4, FRAMES, h, w, generator=draw)
    timesteps = torch.randint(1000, (b,), generator=draw)
    context = torch.randn(b * FRAMES, 9, model.image.unet["cross_attention_dim"], generator=draw)
    found: Record = {}

    def hook(name: str) -> Any:
        def keep(_: Any, args: Any, given: Any, out: torch.Tensor) -> None:
            seen = args[0] if args else given["hidden_states"]
            found[name] = call((seen,), out)

        return keep

    hooks = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in network.named_modules()
        if isinstance(module, AnimateDiffTransformer3D)
    ]
    said = network(films, timesteps, encoder_hidden_states=context).sample
    for one in hooks:
        one.remove()
    told = (folded(films), timesteps.repeat_interleave(FRAMES), context)
    found[FILM] = call(told, folded(said))
    return found


def folded(films: torch.Tensor) -> torch.Tensor:
    """(b, c, f, h, w) -> (b f, c, h, w)."""
    return films.transpose(1, 2).flatten(0, 1).contiguous()


def sections(seed: int, *, tiny: bool) -> Iterator[tuple[str, Iterable[Row]]]:
    """Each network module by module, and whether saving changes a tensor."""
    for name, model in (TINY if tiny else FULL).items():
        with kept(build, save, record, model, seed, tiny=tiny) as (place, found):
            size = "tiny" if tiny else "full size"
            yield f"motion, {name}, {size}", motion_blocks.rows(place, found)
    if tiny:
        yield "films, tiny", _films(seed)


def _films(seed: int) -> Iterator[Row]:
    """The whole pipeline: a folder of the reference with us, and our adapter with the reference."""
    model = TINY["with a middle"]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        pipeline = reference.build(model.image, seed, tiny=True)
        pipeline.save_pretrained(root / "model")
        motion = MotionAdapter(**model.adapter).eval()
        randomise(motion, GAINS)
        motion.save_pretrained(root / "adapter")
        artist = diffusion.load(root / "model", motion=root / "adapter")
        ours = _ours(artist, seed)
        yield compare("DDIM, linear betas", ours, _theirs(artist, pipeline, motion, seed), BOUND)
        config = adapter.load_config(root / "adapter")
        assert artist.motion is not None
        adapter.save_adapter(root / "saved", config, artist.motion.adapter.params)
        again = MotionAdapter.from_pretrained(root / "saved")
        yield compare("saved by us", ours, _theirs(artist, pipeline, again, seed), BOUND)


def _ours(artist: Any, seed: int) -> np.ndarray:
    [steps] = artist.sample_film(settings(seed))
    *_, last = steps
    return np.asarray(last.x_next)


def settings(seed: int) -> FilmSettings:
    """Of the film that both sides paint."""
    return FilmSettings("a red house", negative="night", seed=seed, frames=8, steps=6, guidance=7.5)


@torch.no_grad()
def _theirs(artist: Any, pipeline: Any, motion: MotionAdapter, seed: int) -> np.ndarray:
    """The final latents of the reference from our noise, as frames in a batch, channels last."""
    asked, side = settings(seed), artist.config.latent_size
    keys = picture_keys(seed, np.arange(asked.frames, dtype=np.uint32))
    noise = np.asarray(initial_noise(keys, (side, side, 4))).transpose(3, 0, 1, 2)
    options = {"beta_schedule": "linear", "timestep_spacing": "linspace"}
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **options)
    parts = {name: getattr(pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    theirs = AnimateDiffPipeline(**parts, motion_adapter=motion, scheduler=scheduler)
    theirs.set_progress_bar_config(disable=True)
    painted = theirs(
        asked.prompt,
        negative_prompt=asked.negative,
        num_frames=asked.frames,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance,
        latents=torch.from_numpy(np.ascontiguousarray(noise))[None],
        output_type="latent",
    ).frames
    return nhwc(folded(painted).numpy())


def write_golden(place: Path) -> None:
    """The adapter that the tests use beside the tiny SD 1.x of the fixtures, and a record."""
    root = place / "motion"
    model, unet = TINY["with a middle"], place / "sd1/model/unet"
    torch.manual_seed(0)
    motion = MotionAdapter(**model.adapter).eval()
    randomise(motion, GAINS)
    motion.to(torch.float16).save_pretrained(root)
    loaded = MotionAdapter.from_pretrained(root, torch_dtype=torch.float32)
    exact = MotionAdapter(**model.adapter).state_dict()  # its tables are not rounded
    loaded.load_state_dict({k: v for k, v in exact.items() if k.endswith(".pe")}, strict=False)
    image = UNet2DConditionModel.from_pretrained(unet, torch_dtype=torch.float32)
    network = UNetMotionModel.from_unet2d(image, loaded).eval()
    save_record(root / "record.safetensors", record(network, model, 0))
