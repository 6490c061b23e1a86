"""The U-Net of Stable Diffusion, as `diffusers` stores it: stages 3A, 3B and 4."""

from diffusion.config import ModelConfig, UNetConfig
from diffusion.stages.unet import UNet
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import RESIDUAL, TRANSFORMER, NameMap, Spelling, under
from diffusion.weights.options import Json, check, number, numbers, off, to_fields, to_options

NAMES: NameMap = {
    "time_embedding.linear1": "time_embedding.linear_1",
    "time_embedding.linear2": "time_embedding.linear_2",
    "time_embedding.guidance": "time_embedding.cond_proj",
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
# As the first code of Stable Diffusion calls them: blocks in one row down and one row up.
ORIGINAL_RESIDUAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "shortcut": "skip_connection",
}  # fmt: skip
ORIGINAL: NameMap = {
    "time_embedding.linear1": "time_embed.0",
    "time_embedding.linear2": "time_embed.2",
    "time_embedding.guidance": "time_embed.cond_proj",
    "down.conv_in": "input_blocks.0.0",
    **under("bottleneck.residual1", "middle_block.0", ORIGINAL_RESIDUAL),
    **under("bottleneck.transformer", "middle_block.1", TRANSFORMER),
    **under("bottleneck.residual2", "middle_block.2", ORIGINAL_RESIDUAL),
    "up.norm_out": "out.0",
    "up.conv_out": "out.2",
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
NO_MATTER = {
    "addition_embed_type_num_heads",  # of an embedding that is off
    "dropout",  # while training
    "upcast_attention",  # our softmax is always float32
}
OTHERS = {  # of the reference's class; they must be off
    "addition_embed_type", "addition_time_embed_dim", "class_embed_type",
    "class_embeddings_concat", "cross_attention_norm", "dual_cross_attention", "encoder_hid_dim",
    "encoder_hid_dim_type", "mid_block_only_cross_attention", "num_attention_heads",
    "num_class_embeds", "only_cross_attention", "projection_class_embeddings_input_dim",
    "resnet_skip_time_act", "reverse_transformer_layers_per_block", "time_embedding_act_fn",
    "time_embedding_dim", "timestep_post_act",
}  # fmt: skip
FIELDS = {
    "attention_head_dim": ("heads", numbers, ()),  # the number of heads, in spite of its name
    "block_out_channels": ("block_out_channels", numbers, (320, 640, 1280, 1280)),
    "cross_attention_dim": ("context_width", number, 768, 1, 2**16),
    "in_channels": ("in_channels", number, 4, 1, 256),
    "layers_per_block": ("layers_per_block", number, 2, 1, 16),
    "norm_num_groups": ("norm_groups", number, 32, 1, 2**16),
    "out_channels": ("latent_channels", number, 4, 1, 64),
}


GUIDANCE = "time_cond_proj_dim"
PIPELINES = (
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy", "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
)  # fmt: skip


def blocks(attention: tuple[bool, ...]) -> Json:
    """The options that say at which levels the U-Net listens to the words."""
    listens = {True: "CrossAttn", False: ""}
    return {
        "down_block_types": [f"{listens[on]}DownBlock2D" for on in attention],
        "up_block_types": [f"{listens[on]}UpBlock2D" for on in reversed(attention)],
    }


def originals(config: UNetConfig) -> tuple[Spelling]:
    """`ORIGINAL`, and the blocks of every level by their place in the two rows."""
    names = dict(ORIGINAL)
    row = config.layers_per_block + 1
    for level in range(len(config.attention)):
        for layer in range(row):
            down, up = (
                f"input_blocks.{1 + row * level + layer}",
                f"output_blocks.{row * level + layer}",
            )
            for place, there in (("down", down), ("up", up)):
                blocks = f"{place}.blocks.{level}"
                names |= under(f"{blocks}.residuals.{layer}", f"{there}.0", ORIGINAL_RESIDUAL)
                names |= under(f"{blocks}.transformers.{layer}", f"{there}.1", TRANSFORMER)
        names[f"down.blocks.{level}.downsample.conv"] = f"{down}.0.op"
        after = 2 if config.attention[::-1][level] else 1  # residual, perhaps transformer, upsample
        names[f"up.blocks.{level}.upsample.conv"] = f"{up}.{after}.conv"
    return (Spelling(names, "model.diffusion_model.", beside="a U-Net of its kind"),)


def read(data: Json) -> UNetConfig:
    down = data.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    if not isinstance(down, list):
        raise ValueError(f"down_block_types {down!r} is no list")
    attention = tuple(kind == "CrossAttnDownBlock2D" for kind in down)
    known = {*NO_MATTER, *FIELDS, "use_linear_projection", GUIDANCE}
    check(data, SAME | blocks(attention), known, OTHERS)
    heads = data.get("attention_head_dim", 8)
    if isinstance(heads, int):
        data = data | {"attention_head_dim": [heads] * len(attention)}
    linear = bool(data.get("use_linear_projection", False))
    told = None if off(data.get(GUIDANCE)) else number(data, GUIDANCE, 256, 4, 2**16)
    return UNetConfig(
        **to_fields(data, FIELDS),
        attention=attention,
        guidance_width=told,
        linear_projection=linear,
    )


def write(config: UNetConfig, model: ModelConfig) -> Json:
    return {
        "_class_name": ARCHITECTURE.kind,
        **SAME,
        **to_options(config, FIELDS),
        **blocks(config.attention),
        "sample_size": model.latent_size,
        GUIDANCE: config.guidance_width,
        "upcast_attention": True,
        "use_linear_projection": config.linear_projection,
    }


def pipeline(model: ModelConfig) -> str:
    told = model.denoiser.guidance_width is not None
    return PIPELINES[2 if model.inpaints else 4 if told else 0]


ARCHITECTURE = Architecture(
    slot="denoiser",
    config=UNetConfig,
    create=UNet,
    folder="unet",
    kind="UNet2DConditionModel",
    names=NAMES,
    read=read,
    write=write,
    pipelines=PIPELINES,
    pipeline=pipeline,
    originals=originals,
)
