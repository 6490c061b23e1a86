"""The variational autoencoder of Stable Diffusion, as `diffusers` stores it: stage 5."""

from __future__ import annotations

from diffusion.config import ModelConfig, VAEConfig
from diffusion.stages.vae import VAE
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import ANYWHERE, ATTENTION, RESIDUAL, NameMap, under
from diffusion.weights.options import Json, check, check_blocks, fraction, number, numbers

MIDDLE = {
    **under("residual1", "resnets.0", RESIDUAL),
    "attention.norm": "attentions.0.group_norm",
    **under("attention.attention", "attentions.0", ATTENTION),
    **under("residual2", "resnets.1", RESIDUAL),
}
NAMES: NameMap = {
    "encoder.conv_in": "encoder.conv_in",
    **under("encoder.levels.*.residuals.*", "encoder.down_blocks.*.resnets.*", RESIDUAL),
    "encoder.levels.*.change.conv": "encoder.down_blocks.*.downsamplers.0.conv",
    **under("encoder.middle", "encoder.mid_block", MIDDLE),
    "encoder.norm_out": "encoder.conv_norm_out",
    "encoder.conv_out": "encoder.conv_out",
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
    "decoder.conv_in": "decoder.conv_in",
    **under("decoder.middle", "decoder.mid_block", MIDDLE),
    **under("decoder.levels.*.residuals.*", "decoder.up_blocks.*.resnets.*", RESIDUAL),
    "decoder.levels.*.change.conv": "decoder.up_blocks.*.upsamplers.0.conv",
    "decoder.norm_out": "decoder.conv_norm_out",
    "decoder.conv_out": "decoder.conv_out",
}
SAME: Json = {
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
NO_MATTER = ANYWHERE | {"force_upcast"}
READ = {
    "block_out_channels", "down_block_types", "in_channels", "latent_channels", "layers_per_block",
    "norm_num_groups", "out_channels", "scaling_factor", "up_block_types",
}  # fmt: skip


def blocks(levels: int) -> Json:
    return {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def read(data: Json) -> VAEConfig:
    check(data, SAME, NO_MATTER | READ)
    widths = numbers(data, "block_out_channels", (128, 256, 512, 512))
    check_blocks(data, blocks(len(widths)))
    scale = fraction(data, "scaling_factor", 0.18215, 1e6)
    channels = number(data, "in_channels", 3, 3, 3)
    return VAEConfig(
        image_channels=number(data, "out_channels", channels, channels, channels),
        latent_channels=number(data, "latent_channels", 4, 1, 64),
        block_out_channels=widths,
        layers_per_block=number(data, "layers_per_block", 2, 1, 16),
        norm_groups=number(data, "norm_num_groups", 32, 1, 2**16),
        scaling_factor=scale,
    )


def write(config: VAEConfig, model: ModelConfig) -> Json:
    return {
        "_class_name": ARCHITECTURE.kind,
        **SAME,
        "block_out_channels": list(config.block_out_channels),
        **blocks(len(config.block_out_channels)),
        "in_channels": config.image_channels,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_groups,
        "out_channels": config.image_channels,
        "sample_size": model.image_size,
        "scaling_factor": config.scaling_factor,
    }


ARCHITECTURE = Architecture(
    slot="autoencoder",
    config=VAEConfig,
    create=lambda config, rngs: VAE(config, rngs=rngs),
    folder="vae",
    library="diffusers",
    kind="AutoencoderKL",
    stem="diffusion_pytorch_model",
    names=NAMES,
    read=read,
    write=write,
)
