"""Discrete autoencoders, as `diffusers` stores them (VQModel), and ours: stage 5."""

from diffusion.config import DVAEConfig, ModelConfig
from diffusion.stages.dvae import DVAE
from diffusion.weights.architectures import vae
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import NameMap
from diffusion.weights.options import (
    Json,
    check,
    flag,
    fraction,
    number,
    numbers,
    to_fields,
    to_options,
)

NAMES: NameMap = {**vae.NAMES, "codebook.vectors": "quantize.embedding"}
SAME: Json = {"act_fn": "silu", "norm_type": "group"}
FIELDS = {
    "block_out_channels": ("block_out_channels", numbers, (64,)),
    "in_channels": ("image_channels", number, 3, 3, 3),
    "layers_per_block": ("layers_per_block", number, 1, 1, 16),
    "norm_num_groups": ("norm_groups", number, 32, 1, 2**16),
    "num_vq_embeddings": ("codes", number, 256, 1, 2**20),
    "out_channels": ("image_channels", number, 3, 3, 3),
    # Where a file says nothing, the reference takes 0.18215. Such files are of 2022, of models
    # that were trained on latents as they are: `CompVis/ldm-celebahq-256`.
    "scaling_factor": ("scaling_factor", fraction, 1.0, 10**6),
}
INNER, CHANNELS, ATTENTION = "latent_channels", "vq_embed_dim", "mid_block_add_attention"
# Our decoder takes latents and codes alike. Of a model where only codes are meant, aMUSEd, the
# pixel values are in [0, 1]: its pipeline says so, and no file does.
CODES_ALONE = "lookup_from_codebook"


def read(data: Json) -> DVAEConfig:
    config = to_fields(data, FIELDS)
    inner = number(data, INNER, 3, 1, 1024)
    channels = inner if data.get(CHANNELS) is None else number(data, CHANNELS, inner, 1, 1024)
    known = {*FIELDS, "force_upcast", CODES_ALONE, INNER, CHANNELS, ATTENTION}
    check(data, SAME | vae.blocks(len(config["block_out_channels"])), known)
    return DVAEConfig(
        **config,
        latent_channels=channels,
        inner_channels=None if inner == channels else inner,
        middle_attention=flag(data, ATTENTION, True),
        from_zero=flag(data, CODES_ALONE, False),
    )


def write(config: DVAEConfig, model: ModelConfig) -> Json:
    return {
        "_class_name": ARCHITECTURE.kind,
        **SAME,
        **to_options(config, FIELDS),
        **vae.blocks(len(config.block_out_channels)),
        INNER: config.inner_channels or config.latent_channels,
        CHANNELS: config.latent_channels,
        ATTENTION: config.middle_attention,
        CODES_ALONE: config.from_zero,
        "sample_size": model.image_size,
    }


ARCHITECTURE = Architecture(
    slot="autoencoder",
    config=DVAEConfig,
    create=DVAE,
    folder="vqvae",
    kind="VQModel",
    names=NAMES,
    read=read,
    write=write,
    part="dvae",
)
