"""The U-Net of Stable Diffusion, as `diffusers` stores it: stages 3A, 3B and 4."""

from __future__ import annotations

from diffusion.config import ModelConfig, UNetConfig
from diffusion.stages.unet import UNet
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import ANYWHERE, RESIDUAL, TRANSFORMER, NameMap, under
from diffusion.weights.options import Json, check, check_blocks, number, numbers

NAMES: NameMap = {
    "time_embedding.linear1": "time_embedding.linear_1",
    "time_embedding.linear2": "time_embedding.linear_2",
    "down.conv_in": "conv_in",
    **under("down.blocks.*.residuals.*", "down_blocks.*.resnets.*", RESIDUAL),
    **under("down.blocks.*.transformers.*", "down_blocks.*.attentions.*", TRANSFORMER),
    "down.blocks.*.downsample.conv": "down_blocks.*.downsamplers.0.conv",
    **under("bottleneck.residual1", "mid_block.resnets.0", RESIDUAL),
    **under("bottleneck.transformer", "mid_block.attentions.0", TRANSFORMER),
    **under("bottleneck.residual2", "mid_block.resnets.1", RESIDUAL),
    **under("up.blocks.*.residuals.*", "up_blocks.*.resnets.*", RESIDUAL),
    **under("up.blocks.*.transformers.*", "up_blocks.*.attentions.*", TRANSFORMER),
    "up.blocks.*.upsample.conv": "up_blocks.*.upsamplers.0.conv",
    "up.norm_out": "conv_norm_out",
    "up.conv_out": "conv_out",
}
SAME: Json = {
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
NO_MATTER = ANYWHERE | {
    "addition_embed_type_num_heads",  # of an embedding that is off
    "dropout",  # while training
    "upcast_attention",  # our softmax is always float32
}
READ = {
    "attention_head_dim", "block_out_channels", "cross_attention_dim", "down_block_types",
    "in_channels", "layers_per_block", "norm_num_groups", "out_channels", "up_block_types",
    "use_linear_projection",
}  # fmt: skip


def blocks(attention: tuple[bool, ...]) -> Json:
    """The options that say at which levels the U-Net listens to the words."""
    listens = {True: "CrossAttn", False: ""}
    return {
        "down_block_types": [f"{listens[on]}DownBlock2D" for on in attention],
        "up_block_types": [f"{listens[on]}UpBlock2D" for on in reversed(attention)],
    }


def read(data: Json) -> UNetConfig:
    check(data, SAME, NO_MATTER | READ)
    widths = numbers(data, "block_out_channels", (320, 640, 1280, 1280))
    down = data.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    if not isinstance(down, list):
        raise ValueError(f"down_block_types {down!r} is no list")
    attention = tuple(kind == "CrossAttnDownBlock2D" for kind in down)
    check_blocks(data, blocks(attention))
    heads = data.get("attention_head_dim", 8)
    if isinstance(heads, int):
        data = data | {"attention_head_dim": [heads] * len(widths)}
    return UNetConfig(
        latent_channels=number(data, "out_channels", 4, 1, 64),
        in_channels=number(data, "in_channels", 4, 1, 256),
        block_out_channels=widths,
        layers_per_block=number(data, "layers_per_block", 2, 1, 16),
        attention=attention,
        heads=numbers(data, "attention_head_dim", ()),
        context_width=number(data, "cross_attention_dim", 768, 1, 2**16),
        norm_groups=number(data, "norm_num_groups", 32, 1, 2**16),
        linear_projection=bool(data.get("use_linear_projection", False)),
    )


def write(config: UNetConfig, model: ModelConfig) -> Json:
    return {
        "_class_name": ARCHITECTURE.kind,
        **SAME,
        "attention_head_dim": list(config.heads),  # the number of heads, in spite of its name
        "block_out_channels": list(config.block_out_channels),
        "cross_attention_dim": config.context_width,
        **blocks(config.attention),
        "in_channels": config.in_channels,
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_groups,
        "out_channels": config.latent_channels,
        "sample_size": model.latent_size,
        "upcast_attention": True,
        "use_linear_projection": config.linear_projection,
    }


ARCHITECTURE = Architecture(
    slot="denoiser",
    config=UNetConfig,
    create=lambda config, rngs: UNet(config, rngs=rngs),
    folder="unet",
    library="diffusers",
    kind="UNet2DConditionModel",
    stem="diffusion_pytorch_model",
    names=NAMES,
    read=read,
    write=write,
)
