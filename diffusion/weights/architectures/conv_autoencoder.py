"""The Keras sample's autoencoder. No official files exist: the names are ours."""

from diffusion.config import ConvAutoencoderConfig, ModelConfig
from diffusion.stages.conv_autoencoder import ConvAutoencoder
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import NameMap
from diffusion.weights.options import Json, check, fraction, number, numbers, to_fields, to_options

NAMES: NameMap = {
    "shrinks.*.conv": "encoder.*.conv",
    "grows.*.conv": "decoder.*.conv",
    "conv_out": "decoder.conv_out",
}
FIELDS = {
    "block_out_channels": ("block_out_channels", numbers, (32,)),
    "in_channels": ("image_channels", number, 3, 3, 3),
    "scaling_factor": ("scaling_factor", fraction, 1.0, 10**6),
}


def read(data: Json) -> ConvAutoencoderConfig:
    check(data, {}, FIELDS)
    return ConvAutoencoderConfig(**to_fields(data, FIELDS))


def write(config: ConvAutoencoderConfig, model: ModelConfig) -> Json:
    return {
        "_class_name": ARCHITECTURE.kind,
        **to_options(config, FIELDS),
        "sample_size": model.image_size,
    }


ARCHITECTURE = Architecture(
    slot="autoencoder",
    config=ConvAutoencoderConfig,
    create=ConvAutoencoder,
    folder="autoencoder",
    kind="ConvAutoencoder",
    names=NAMES,
    read=read,
    write=write,
    library="diffusion",
)
