"""The variational autoencoder of Stable Diffusion, as `diffusers` stores it: stage 5."""

from diffusion.config import ModelConfig, VAEConfig
from diffusion.stages.vae import VAE
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import ATTENTION, RESIDUAL, NameMap, Spelling, under
from diffusion.weights.options import Json, check, fraction, number, numbers, to_fields, to_options

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
# As the first code of latent diffusion calls them; its decoder counts levels from the finest.
ORIGINAL_RESIDUAL = {
    **{name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "shortcut": "nin_shortcut",
}
ORIGINAL_MIDDLE = {
    **under("residual1", "block_1", ORIGINAL_RESIDUAL),
    "attention.norm": "attn_1.norm",
    **under(
        "attention.attention", "attn_1", {"query": "q", "key": "k", "value": "v", "out": "proj_out"}
    ),
    **under("residual2", "block_2", ORIGINAL_RESIDUAL),
}
ORIGINAL: NameMap = {
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
    **under("encoder.levels.*.residuals.*", "encoder.down.*.block.*", ORIGINAL_RESIDUAL),
    "encoder.levels.*.change.conv": "encoder.down.*.downsample.conv",
    **{
        f"{side}.{name}": f"{side}.{there}"
        for side in ("encoder", "decoder")
        for name, there in (
            ("conv_in", "conv_in"),
            *under("middle", "mid", ORIGINAL_MIDDLE).items(),
            ("norm_out", "norm_out"),
            ("conv_out", "conv_out"),
        )
    },
}
ORIGINAL_PREFIXES = ("first_stage_model.", "vae.", "")  # of a whole model's file; of a VAE's own
BESIDE = ("loss.", "model_ema.")  # of training
SAME: Json = {
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
OTHERS = {"latents_mean", "latents_std", "shift_factor"}  # of the reference's class
FIELDS = {
    "block_out_channels": ("block_out_channels", numbers, (128, 256, 512, 512)),
    "in_channels": ("image_channels", number, 3, 3, 3),
    "latent_channels": ("latent_channels", number, 4, 1, 64),
    "layers_per_block": ("layers_per_block", number, 2, 1, 16),
    "norm_num_groups": ("norm_groups", number, 32, 1, 2**16),
    "out_channels": ("image_channels", number, 3, 3, 3),
    "scaling_factor": ("scaling_factor", fraction, 0.18215, 10**6),
}


def blocks(levels: int) -> Json:
    return {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def originals(config: VAEConfig) -> tuple[Spelling, ...]:
    """`ORIGINAL`, and the levels of the decoder."""
    names, levels = dict(ORIGINAL), len(config.block_out_channels)
    for level in range(levels):
        ours, there = f"decoder.levels.{level}", f"decoder.up.{levels - 1 - level}"
        for layer in range(config.layers_per_block + 1):
            names |= under(f"{ours}.residuals.{layer}", f"{there}.block.{layer}", ORIGINAL_RESIDUAL)
        names[f"{ours}.change.conv"] = f"{there}.upsample.conv"
    return tuple(Spelling(names, prefix, beside="a VAE") for prefix in ORIGINAL_PREFIXES)


def read(data: Json) -> VAEConfig:
    config = VAEConfig(**to_fields(data, FIELDS))
    check(data, SAME | blocks(len(config.block_out_channels)), {*FIELDS, "force_upcast"}, OTHERS)
    return config


def write(config: VAEConfig, model: ModelConfig) -> Json:
    return {
        "_class_name": ARCHITECTURE.kind,
        **SAME,
        **to_options(config, FIELDS),
        **blocks(len(config.block_out_channels)),
        "sample_size": model.image_size,
    }


ARCHITECTURE = Architecture(
    slot="autoencoder",
    config=VAEConfig,
    create=VAE,
    folder="vae",
    kind="AutoencoderKL",
    names=NAMES,
    read=read,
    write=write,
    originals=originals,
    beside=lambda config, name: name.startswith(BESIDE),
)
