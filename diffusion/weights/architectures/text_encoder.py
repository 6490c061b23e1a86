"""CLIP's text tower, as `transformers` stores it: stage 1 of SD 1.x, SD 2.x and the garden."""

import re
from dataclasses import replace

from diffusion.config import ModelConfig, TextEncoderConfig
from diffusion.stages.text_encoder import ACTIVATIONS, TextEncoder
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import OLD_SPELLINGS, NameMap, Spelling
from diffusion.weights.options import Json, choice, fraction, number, to_fields, to_options

PROJECTION = "text_projection"
KINDS = ("CLIPTextModel", "CLIPTextModelWithProjection")
NAMES: NameMap = {
    "token_embedding": "embeddings.token_embedding",
    "position_embedding": "embeddings.position_embedding.weight",
    "layers.*.norm1": "encoder.layers.*.layer_norm1",
    "layers.*.attention.query": "encoder.layers.*.self_attn.q_proj",
    "layers.*.attention.key": "encoder.layers.*.self_attn.k_proj",
    "layers.*.attention.value": "encoder.layers.*.self_attn.v_proj",
    "layers.*.attention.out": "encoder.layers.*.self_attn.out_proj",
    "layers.*.norm2": "encoder.layers.*.layer_norm2",
    "layers.*.linear1": "encoder.layers.*.mlp.fc1",
    "layers.*.linear2": "encoder.layers.*.mlp.fc2",
    "final_norm": "final_layer_norm",
    "projection": PROJECTION,
}
OPEN_CLIP: NameMap = {
    "token_embedding": "token_embedding",
    "position_embedding": "positional_embedding",
    "layers.*.norm1": "transformer.resblocks.*.ln_1",
    "layers.*.attention.query": "transformer.resblocks.*.attn.query",
    "layers.*.attention.key": "transformer.resblocks.*.attn.key",
    "layers.*.attention.value": "transformer.resblocks.*.attn.value",
    "layers.*.attention.out": "transformer.resblocks.*.attn.out_proj",
    "layers.*.norm2": "transformer.resblocks.*.ln_2",
    "layers.*.linear1": "transformer.resblocks.*.mlp.c_fc",
    "layers.*.linear2": "transformer.resblocks.*.mlp.c_proj",
    "final_norm": "ln_final",
}
FUSED = {
    f".in_proj_{leaf}": [f".{name}.{leaf}" for name in ("query", "key", "value")]
    for leaf in ("weight", "bias")
}
FITS = "a text encoder of its kind"
ORIGINALS = (  # of SD 1.x, and of SD 2.x
    Spelling(NAMES, "cond_stage_model.transformer.", OLD_SPELLINGS, beside=FITS),
    Spelling(OPEN_CLIP, "cond_stage_model.model.", fused=FUSED, beside=FITS),
)
# What a whole CLIP has: the picture tower, and how both are compared.
BESIDE = re.compile(r"text_projection|visual_projection|vision_model\.|logit_scale|attn_mask")
LAYER = re.compile(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.")


FIELDS = {
    "hidden_act": ("activation", choice, "quick_gelu", ACTIVATIONS),
    "hidden_size": ("width", number, 512, 1, 2**16),
    "intermediate_size": ("mlp_width", number, 2048, 1, 2**18),
    "layer_norm_eps": ("eps", fraction, 1e-5, 1),
    "max_position_embeddings": ("length", number, 77, 3, 2**16),
    "num_attention_heads": ("heads", number, 8, 1, 2**16),
    "num_hidden_layers": ("layers", number, 12, 1, 256),
    "vocab_size": ("vocab_size", number, 49408, 1, 2**24),
}


def read(data: Json) -> TextEncoderConfig:
    # `transformers` writes dozens of options about generating text; only these shape the network.
    choice(data, "model_type", "clip_text_model", ["clip_text_model"])
    config = TextEncoderConfig(**to_fields(data, FIELDS))
    if KINDS[1] not in (data.get("architectures") or ()):
        return config
    if (projected := data.get("projection_dim", 512)) != config.width:
        raise ValueError(f"projection_dim is {projected!r}; {config.width} is needed, hidden_size")
    return replace(config, summary=True)


def write(config: TextEncoderConfig, model: ModelConfig) -> Json:
    return {
        "architectures": [KINDS[config.summary]],
        "model_type": "clip_text_model",
        **to_options(config, FIELDS),
        **({"projection_dim": config.width} if config.summary else {}),
        "bos_token_id": config.vocab_size - 2,
        "eos_token_id": config.vocab_size - 1,
    }


def beside(config: TextEncoderConfig, name: str) -> bool:
    """What the rest of a CLIP needs, and layers after the last one that is used ("clip skip")."""
    layer = LAYER.match(name)
    return int(layer[1]) >= config.layers if layer else bool(BESIDE.match(name))


ARCHITECTURE = Architecture(
    slot="text_encoder",
    config=TextEncoderConfig,
    create=TextEncoder,
    folder="text_encoder",
    kind=KINDS[0],
    names=NAMES,
    read=read,
    write=write,
    library="transformers",
    part="text",
    stem="model",
    prefix="text_model.",
    outside=PROJECTION,
    originals=lambda config: ORIGINALS,
    beside=beside,
)
