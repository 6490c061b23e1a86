"""CLIP's text tower, as `transformers` stores it: stage 1 of SD 1.x, SD 2.x and the garden."""

from __future__ import annotations

from diffusion.config import ModelConfig, TextEncoderConfig
from diffusion.stages.text_encoder import ACTIVATIONS, TextEncoder
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import NameMap
from diffusion.weights.options import Json, fraction, number

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
}


def read(data: Json) -> TextEncoderConfig:
    # `transformers` writes dozens of options about generating text; only these shape the network.
    kind = data.get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        raise ValueError(f"model_type {kind!r} is not supported")
    activation = data.get("hidden_act", "quick_gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"hidden_act {activation!r} is not supported")
    return TextEncoderConfig(
        vocab_size=number(data, "vocab_size", 49408, 1, 2**24),
        length=number(data, "max_position_embeddings", 77, 3, 2**16),
        width=number(data, "hidden_size", 512, 1, 2**16),
        layers=number(data, "num_hidden_layers", 12, 1, 256),
        heads=number(data, "num_attention_heads", 8, 1, 2**16),
        mlp_width=number(data, "intermediate_size", 2048, 1, 2**18),
        activation=activation,
        eps=fraction(data, "layer_norm_eps", 1e-5, 1),
    )


def write(config: TextEncoderConfig, model: ModelConfig) -> Json:
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": config.activation,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "layer_norm_eps": config.eps,
        "max_position_embeddings": config.length,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "vocab_size": config.vocab_size,
        "bos_token_id": config.vocab_size - 2,
        "eos_token_id": config.vocab_size - 1,
    }


ARCHITECTURE = Architecture(
    slot="text_encoder",
    config=TextEncoderConfig,
    create=lambda config, rngs: TextEncoder(config, rngs=rngs),
    folder="text_encoder",
    library="transformers",
    kind="CLIPTextModel",
    stem="model",
    names=NAMES,
    read=read,
    write=write,
    prefix="text_model.",
)
