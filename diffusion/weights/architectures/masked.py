"""Transformers that fill in masked codes, as `diffusers` stores them (UVit2DModel), and ours."""

from diffusion.config import ModelConfig
from diffusion.config_codes import SIZES, MaskedTransformerConfig
from diffusion.stages.masked import MaskedTransformer
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import ATTENTION, NameMap, under
from diffusion.weights.options import Json, check, choice, flag, number, to_fields, to_options

TOLD_NORM = {"norm": "norm", "linear": "linear"}
MAP = {
    "depthwise": "depthwise",
    "norm": "norm",
    "linear1": "channelwise_linear_1",
    "response.gamma": "channelwise_norm.gamma",
    "response.beta": "channelwise_norm.beta",
    "linear2": "channelwise_linear_2",
    "told": "cond_embeds_mapper",
}
LISTENING = {
    "words": "kv_mapper",
    "norm1": "norm1",
    **under("attention1", "attn1", ATTENTION),
    "norm2": "norm2",
    **under("attention2", "attn2", ATTENTION),
}
MAPS = {
    **under("maps.*", "res_blocks.*", MAP),
    **under("attentions.*", "attention_blocks.*", LISTENING),
}
TOKEN = {
    **under("norm1", "norm1", TOLD_NORM),
    **under("self_attention", "attn1", ATTENTION),
    **under("norm2", "norm2", TOLD_NORM),
    **under("cross_attention", "attn2", ATTENTION),
    **under("norm3", "norm3", TOLD_NORM),
    "feed_forward.linear1": "ff.net.0.proj",
    "feed_forward.linear2": "ff.net.2",
}
NAMES: NameMap = {
    "words": "encoder_proj",
    "words_norm": "encoder_proj_layer_norm",
    "condition.linear1": "cond_embed.linear_1",
    "condition.linear2": "cond_embed.linear_2",
    "codes.vectors": "embed.embeddings",
    "codes.norm": "embed.layer_norm",
    "codes.mix": "embed.conv",
    "halve": "down_block.downsample.conv",
    "halve.norm": "down_block.downsample.norm",
    **under("down", "down_block", MAPS),
    "norm_in": "project_to_hidden_norm",
    "project_in": "project_to_hidden",
    **under("blocks.*", "transformer_layers.*", TOKEN),
    "norm_out": "project_from_hidden_norm",
    "project_out": "project_from_hidden",
    **under("up", "up_block", MAPS),
    "double": "up_block.upsample.conv",
    "double.norm": "up_block.upsample.norm",
    "exit.mix": "mlm_layer.conv1",
    "exit.norm": "mlm_layer.layer_norm",
    "exit.logits": "mlm_layer.conv2",
}
KIND = "UVit2DModel"
SAME: Json = {"layer_norm_eps": 1e-6, "ln_elementwise_affine": True, "use_bias": False}
FIELDS = {
    "block_num_heads": ("block_heads", number, 12, 1, 2**10),
    "block_out_channels": ("channels", number, 768, 1, 2**16),
    "codebook_size": ("codes", number, 8192, 1, 2**20),
    "encoder_hidden_size": ("context_width", number, 768, 1, 2**16),
    "hidden_size": ("width", number, 1024, 1, 2**16),
    "intermediate_size": ("mlp_width", number, 2816, 1, 2**18),
    "micro_cond_encode_dim": ("size_code", number, 256, 2, 2**16),
    "num_attention_heads": ("heads", number, 16, 1, 2**10),
    "num_hidden_layers": ("layers", number, 22, 1, 256),
    "num_res_blocks": ("blocks", number, 3, 1, 64),
    "vocab_size": ("vocabulary", number, 8256, 1, 2**20),
}
DROPOUT = ("attention_dropout", "hidden_dropout")  # while training
PIPELINES = ("AmusedPipeline", "AmusedImg2ImgPipeline", "AmusedInpaintPipeline")


def read(data: Json) -> MaskedTransformerConfig:
    choice(data, "_class_name", KIND, [KIND])
    halves = flag(data, "downsample", False)
    fields = to_fields(data, FIELDS)
    follow = _follow(MaskedTransformerConfig(**fields, halves=halves))
    for option, needed in follow.items():
        if (value := data.get(option, DEFAULTS[option])) != needed:
            raise ValueError(f"{option} is {value!r}; {needed} is needed, as the rest is built")
    check(data, SAME, {*FIELDS, *DROPOUT, *follow})
    return MaskedTransformerConfig(**fields, halves=halves)


def _follow(config: MaskedTransformerConfig) -> Json:
    """The options that follow from others here."""
    return {
        "cond_embed_dim": config.context_width,
        "downsample": config.halves,
        "in_channels": config.channels,
        "micro_cond_embed_dim": SIZES * config.size_code,
        "upsample": config.halves,
    }


DEFAULTS = _follow(MaskedTransformerConfig())


def write(config: MaskedTransformerConfig, model: ModelConfig) -> Json:
    return {
        "_class_name": KIND,
        **SAME,
        **to_options(config, FIELDS),
        **_follow(config),
        "sample_size": model.latent_size,
    }


ARCHITECTURE = Architecture(
    slot="denoiser",
    config=MaskedTransformerConfig,
    create=MaskedTransformer,
    folder="transformer",
    kind=KIND,
    names=NAMES,
    read=read,
    write=write,
    part="masked",
    pipelines=PIPELINES,
    pipeline=lambda model: PIPELINES[0],
)
