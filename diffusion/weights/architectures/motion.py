"""Motion adapters, as `diffusers` stores them: AnimateDiff's, and our own."""

from typing import Any

from diffusion.config import BETA_RULES, ModelConfig, UNetConfig
from diffusion.motion_config import MotionConfig
from diffusion.stages.motion import MotionAdapter
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import ATTENTION, NameMap, under
from diffusion.weights.options import (
    Json,
    check,
    choice,
    flag,
    fraction,
    number,
    numbers,
    off,
    to_fields,
    to_options,
)

BLOCK = {
    **{name: name for name in ("norm1", "norm2", "norm3")},
    **under("attention1", "attn1", ATTENTION),
    **under("attention2", "attn2", ATTENTION),
    "feed_forward.linear1": "ff.net.0.proj",
    "feed_forward.linear2": "ff.net.2",
    "place": "pos_embed.pe",  # only in files: see `diffusion.weights.adapter`
}
MODULE = {
    "norm": "norm",
    "project_in": "proj_in",
    **under("block", "transformer_blocks.0", BLOCK),
    "project_out": "proj_out",
}
NAMES: NameMap = {
    **under("down.*.*", "down_blocks.*.motion_modules.*", MODULE),
    **under("middle", "mid_block.motion_modules.0", MODULE),
    **under("up.*.*", "up_blocks.*.motion_modules.*", MODULE),
}

SAME: Json = {
    "motion_activation_fn": "geglu",
    "motion_mid_block_layers_per_block": 1,
    "motion_transformer_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1,
}
FIELDS = {
    "block_out_channels": ("block_out_channels", numbers, (320, 640, 1280, 1280)),
    "motion_layers_per_block": ("layers_per_block", number, 2, 1, 16),
    "motion_max_seq_length": ("length", number, 32, 1, 1024),
    "motion_norm_num_groups": ("norm_groups", number, 32, 1, 2**16),
}
HEADS, MIDDLE = "motion_num_attention_heads", "use_motion_mid_block"
COMMON = "common_noise"
OURS = "_diffusion"  # what the official layout has no place for; diffusers leaves it alone


def read(data: Json) -> MotionConfig:
    check(data, SAME, {*FIELDS, HEADS, MIDDLE, OURS})
    fields = to_fields(data, FIELDS)
    heads = data.get(HEADS, 8)
    if not isinstance(heads, list):
        heads = [heads] * len(fields["block_out_channels"])
    own = data.get(OURS, {"betas": "linear"})
    if not isinstance(own, dict) or not {"betas"} <= own.keys() <= {"betas", COMMON}:
        raise ValueError(f"{OURS} is {own!r}; it may hold betas and {COMMON}")
    rule = own["betas"] if off(own["betas"]) else choice(own, "betas", "linear", BETA_RULES)
    return MotionConfig(
        **fields,
        heads=numbers({HEADS: heads}, HEADS, ()),
        middle=flag(data, MIDDLE, True),
        beta_rule=rule,
        common_noise=fraction(own, COMMON, 0.5, 1.0) if own.get(COMMON) else 0.0,
    )


def write(config: MotionConfig, model: ModelConfig | None = None) -> Json:
    return {
        "_class_name": ARCHITECTURE.kind,
        **{option: SAME[option] for option in SAME if option != "motion_activation_fn"},
        **to_options(config, FIELDS),
        HEADS: list(config.heads),
        MIDDLE: config.middle,
        OURS: {"betas": config.beta_rule, COMMON: config.common_noise},
    }


def check_fits(motion: MotionConfig, denoiser: Any) -> None:
    """Raises ValueError that names what a motion adapter and a denoiser do not have in common."""
    if not isinstance(denoiser, UNetConfig):
        raise ValueError(
            f"motion modules stand in a U-Net; the denoiser is a {type(denoiser).__name__}"
        )
    for name in ("block_out_channels", "layers_per_block", "norm_groups"):
        ours, its = getattr(motion, name), getattr(denoiser, name)
        if ours != its:
            raise ValueError(
                f"the motion adapter is for a U-Net whose {name} is {ours}; it is {its} here"
            )


ARCHITECTURE = Architecture(
    slot="motion",
    config=MotionConfig,
    create=MotionAdapter,
    folder="motion_adapter",
    kind="MotionAdapter",
    names=NAMES,
    read=read,
    write=write,
    part="motion",
)
