"""The JSON files of a model folder, and the one configuration that they amount to.

Official configurations have dozens of options, most of them switched off. Each table below says
which options of U-Net and VAE we know: `SAME` must have the one value that our networks are built
for (an option that is absent has it), `NO_MATTER` changes no picture. What is in no table must be
off (null or false); else a model would be loaded as something that it is not. A scheduler's options
are mostly about how it samples, which is our own matter; only its noise schedule is looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffusion.config import (
    LARGEST_GUIDANCE,
    ModelConfig,
    ScheduleConfig,
    TextEncoderConfig,
    UNetConfig,
    VAEConfig,
    from_dict,
)
from diffusion.process.schedule import OFFSET
from diffusion.stages.text_encoder import ACTIVATIONS

Json = dict[str, Any]

INDEX = "model_index.json"
FILES = {  # one a part, by its path in the model folder
    "text_encoder": "text_encoder/config.json",
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "schedule": "scheduler/scheduler_config.json",
}
PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
)
OURS = "_diffusion"  # in model_index.json: what the official layout has no place for

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
SCHEDULERS = (  # all of them sample from the same diffusion; which one paints is the user's choice
    "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
    "DEISMultistepScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
)  # fmt: skip

ANYWHERE = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size"}

UNET_SAME: Json = {
    "act_fn": "silu",
    "attention_type": "default",
    "center_input_sample": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "resnet_out_scale_factor": 1.0,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
    "transformer_layers_per_block": 1,
}
UNET_NO_MATTER = ANYWHERE | {
    "addition_embed_type_num_heads",  # of an embedding that is off
    "dropout",  # while training
    "upcast_attention",  # our softmax is always float32
}
UNET_READ = {
    "attention_head_dim", "block_out_channels", "cross_attention_dim", "down_block_types",
    "in_channels", "layers_per_block", "norm_num_groups", "out_channels", "up_block_types",
    "use_linear_projection",
}  # fmt: skip

VAE_SAME: Json = {
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
VAE_NO_MATTER = ANYWHERE | {"force_upcast"}
VAE_READ = {
    "block_out_channels", "down_block_types", "in_channels", "latent_channels", "layers_per_block",
    "norm_num_groups", "out_channels", "scaling_factor", "up_block_types",
}  # fmt: skip

SCHEDULE_SAME: Json = {
    "beta_schedule": "scaled_linear",
    "rescale_betas_zero_snr": False,
    "set_alpha_to_one": False,
    "thresholding": False,
}
SCHEDULE_ABSENT: Mapping[str, Json] = {  # what the reference takes where an option is absent
    "DDIMScheduler": {"set_alpha_to_one": True},
}
# Of two more, the reference's pipeline minds no file: `steps_offset` is 1, nothing is clipped.


def read(files: Mapping[str, Json], name: str) -> ModelConfig:
    """The configuration of a model.

    Args:
        files: the content of `INDEX` and `FILES`, by path.
        name: what to call a model that does not say.

    Raises ValueError that names the file and the option that is not supported or makes no sense.
    """
    parts: dict[str, Any] = {}
    for part, path in FILES.items():
        with naming(path):
            parts[part] = READERS[part](files[path])
    with naming(FILES["unet"]):
        size = _number(files[FILES["unet"]], "sample_size", 64, 1, 1024)
    plain: Json = {part: dataclasses.asdict(config) for part, config in parts.items()}
    plain |= {"name": name, "image_size": size * parts["vae"].downscale}
    return from_dict(ModelConfig, plain | _ours(files[INDEX].get(OURS, {})))


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """What is wrong in here is the fault of this file, and says so."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def check_index(index: Json) -> None:
    """Raises ValueError where the model is of a kind that this project does not paint with."""
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(
            f"{INDEX}: {kind} is not supported; Stable Diffusion 1.x and 2.x are ({PIPELINES[0]})"
        )
    for name in ("text_encoder_2", "image_encoder", "transformer"):
        if _off(index.get(name)):
            continue
        raise ValueError(f"{INDEX}: a model with {name} is not supported")


def _ours(data: Any) -> Json:
    """The two things that the official layout has no place for."""
    if not isinstance(data, dict) or not data.keys() <= {"name", "guidance"}:
        raise ValueError(f"{INDEX}: {OURS} is {data!r}; it may hold a name and a guidance")
    guidance = data.get("guidance", 0.0)
    if not (isinstance(guidance, int | float) and abs(guidance) <= LARGEST_GUIDANCE):
        raise ValueError(f"{INDEX}: guidance is {guidance!r}; a number up to 100 is needed")
    return {key: float(value) if key == "guidance" else value for key, value in data.items()}


def _unet(data: Json) -> UNetConfig:
    _check(data, UNET_SAME, UNET_NO_MATTER | UNET_READ)
    widths = _numbers(data, "block_out_channels", (320, 640, 1280, 1280))
    down = data.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    if not isinstance(down, list):
        raise ValueError(f"down_block_types {down!r} is no list")
    attention = tuple(kind == "CrossAttnDownBlock2D" for kind in down)
    for option, kinds in _unet_blocks(attention).items():
        if data.get(option, kinds) != kinds:
            raise ValueError(f"{option} {data[option]} is not supported")
    heads = data.get("attention_head_dim", 8)
    if isinstance(heads, int):
        data = data | {"attention_head_dim": [heads] * len(widths)}
    return UNetConfig(
        latent_channels=_number(data, "out_channels", 4, 1, 64),
        in_channels=_number(data, "in_channels", 4, 1, 256),
        block_out_channels=widths,
        layers_per_block=_number(data, "layers_per_block", 2, 1, 16),
        attention=attention,
        heads=_numbers(data, "attention_head_dim", ()),
        context_width=_number(data, "cross_attention_dim", 768, 1, 2**16),
        norm_groups=_number(data, "norm_num_groups", 32, 1, 2**16),
        linear_projection=bool(data.get("use_linear_projection", False)),
    )


def _unet_blocks(attention: tuple[bool, ...]) -> dict[str, list[str]]:
    """The options that say at which levels the U-Net listens to the words."""
    listens = {True: "CrossAttn", False: ""}
    return {
        "down_block_types": [f"{listens[on]}DownBlock2D" for on in attention],
        "up_block_types": [f"{listens[on]}UpBlock2D" for on in reversed(attention)],
    }


def _vae_blocks(levels: int) -> dict[str, list[str]]:
    return {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def _vae(data: Json) -> VAEConfig:
    _check(data, VAE_SAME, VAE_NO_MATTER | VAE_READ)
    widths = _numbers(data, "block_out_channels", (128, 256, 512, 512))
    for option, kinds in _vae_blocks(len(widths)).items():
        if data.get(option, kinds) != kinds:
            raise ValueError(f"{option} {data[option]} is not supported")
    scale = data.get("scaling_factor", 0.18215)
    if not (isinstance(scale, int | float) and 0 < scale < 1e6):
        raise ValueError(f"scaling_factor {scale!r} makes no sense")
    channels = _number(data, "in_channels", 3, 3, 3)
    return VAEConfig(
        image_channels=_number(data, "out_channels", channels, channels, channels),
        latent_channels=_number(data, "latent_channels", 4, 1, 64),
        block_out_channels=widths,
        layers_per_block=_number(data, "layers_per_block", 2, 1, 16),
        norm_groups=_number(data, "norm_num_groups", 32, 1, 2**16),
        scaling_factor=float(scale),
    )


def _text_encoder(data: Json) -> TextEncoderConfig:
    # `transformers` writes dozens of options about generating text; only these shape the network.
    kind = data.get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        raise ValueError(f"model_type {kind!r} is not supported")
    activation = data.get("hidden_act", "quick_gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"hidden_act {activation!r} is not supported")
    eps = data.get("layer_norm_eps", 1e-5)
    if not (isinstance(eps, int | float) and 0 < eps < 1):
        raise ValueError(f"layer_norm_eps {eps!r} makes no sense")
    return TextEncoderConfig(
        vocab_size=_number(data, "vocab_size", 49408, 1, 2**24),
        length=_number(data, "max_position_embeddings", 77, 3, 2**16),
        width=_number(data, "hidden_size", 512, 1, 2**16),
        layers=_number(data, "num_hidden_layers", 12, 1, 256),
        heads=_number(data, "num_attention_heads", 8, 1, 2**16),
        mlp_width=_number(data, "intermediate_size", 2048, 1, 2**18),
        activation=activation,
        eps=float(eps),
    )


def _schedule(data: Json) -> ScheduleConfig:
    kind = data.get("_class_name", SCHEDULERS[0])
    if kind not in SCHEDULERS:
        raise ValueError(f"{kind} is not supported; known: {', '.join(SCHEDULERS)}")
    absent: Json = {"beta_schedule": "linear", **SCHEDULE_ABSENT.get(kind, {})}
    data = absent | data
    _check({name: data[name] for name in SCHEDULE_SAME.keys() & data.keys()}, SCHEDULE_SAME, set())
    if not _off(data.get("trained_betas")):
        raise ValueError("trained_betas is not supported")
    if data.get("timestep_spacing", "leading") == "trailing":
        raise ValueError("timestep_spacing 'trailing' is not supported")
    prediction = data.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction_type {prediction!r} is not supported")
    start, end = data.get("beta_start", 0.0001), data.get("beta_end", 0.02)
    if not all(isinstance(beta, float) for beta in (start, end)) or not 0 < start < end < 1:
        raise ValueError(f"beta_start {start!r} and beta_end {end!r} make no sense")
    return ScheduleConfig(
        train_steps=_number(data, "num_train_timesteps", 1000, 1, 2**20),
        beta_start=start,
        beta_end=end,
        prediction=PREDICTIONS[prediction],
    )


READERS = {"text_encoder": _text_encoder, "unet": _unet, "vae": _vae, "schedule": _schedule}


def write(config: ModelConfig) -> dict[str, Json]:
    """The JSON files of a model by path, so that `read` and the reference read them."""
    unet, vae, text, schedule = config.unet, config.vae, config.text_encoder, config.schedule
    prediction = {ours: theirs for theirs, ours in PREDICTIONS.items()}[schedule.prediction]
    index: Json = {
        "_class_name": PIPELINES[2 if config.inpaints else 0],
        "_diffusers_version": "0.42.1",
        OURS: {"name": config.name, "guidance": config.guidance},
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    return {
        INDEX: index,
        FILES["text_encoder"]: {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "hidden_act": text.activation,
            "hidden_size": text.width,
            "intermediate_size": text.mlp_width,
            "layer_norm_eps": text.eps,
            "max_position_embeddings": text.length,
            "num_attention_heads": text.heads,
            "num_hidden_layers": text.layers,
            "vocab_size": text.vocab_size,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
        },
        FILES["unet"]: {
            "_class_name": "UNet2DConditionModel",
            **UNET_SAME,
            "attention_head_dim": list(unet.heads),  # the number of heads, in spite of its name
            "block_out_channels": list(unet.block_out_channels),
            "cross_attention_dim": unet.context_width,
            **_unet_blocks(unet.attention),
            "in_channels": unet.in_channels,
            "layers_per_block": unet.layers_per_block,
            "norm_num_groups": unet.norm_groups,
            "out_channels": unet.latent_channels,
            "sample_size": config.latent_size,
            "upcast_attention": True,
            "use_linear_projection": unet.linear_projection,
        },
        FILES["vae"]: {
            "_class_name": "AutoencoderKL",
            **VAE_SAME,
            "block_out_channels": list(vae.block_out_channels),
            **_vae_blocks(len(vae.block_out_channels)),
            "in_channels": vae.image_channels,
            "latent_channels": vae.latent_channels,
            "layers_per_block": vae.layers_per_block,
            "norm_num_groups": vae.norm_groups,
            "out_channels": vae.image_channels,
            "sample_size": config.image_size,
            "scaling_factor": vae.scaling_factor,
        },
        FILES["schedule"]: {
            "_class_name": "DDIMScheduler",
            **SCHEDULE_SAME,
            "beta_end": schedule.beta_end,
            "beta_start": schedule.beta_start,
            "num_train_timesteps": schedule.train_steps,
            "prediction_type": prediction,
            "steps_offset": OFFSET,
            "clip_sample": False,
            "timestep_spacing": "leading",
        },
    }


def _check(data: Json, same: Json, known: set[str]) -> None:
    for option, value in data.items():
        if option in same and value != same[option]:
            raise ValueError(f"{option} {value!r} is not supported; only {same[option]!r} is")
        if option not in same and option not in known and not _off(value):
            raise ValueError(f"{option} {value!r} is not supported")


def _off(value: Any) -> bool:
    """Null, false, and lists of nothing else."""
    return value is None or value is False or (isinstance(value, list) and all(map(_off, value)))


def _number(data: Json, option: str, default: int, low: int, high: int) -> int:
    value = data.get(option, default)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{option} is {value!r}; a whole number from {low} to {high} is needed")
    return value


def _numbers(data: Json, option: str, default: tuple[int, ...]) -> tuple[int, ...]:
    values = data.get(option, default)
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= 8:
        raise ValueError(f"{option} is {values!r}; a list of 1 to 8 numbers is needed")
    return tuple(_number({option: value}, option, 0, 1, 2**16) for value in values)
