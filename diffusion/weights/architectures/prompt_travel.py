"""Prompt travel: what a sentence says of both ends of a film. No official files exist."""

from diffusion.config import ModelConfig, TextEncoderConfig
from diffusion.motion_config import PromptTravelConfig
from diffusion.stages.prompt_travel import PromptTravel
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import NameMap, under
from diffusion.weights.options import Json, check, number, to_fields, to_options

LAYER = {
    name: name
    for name in (
        "norm1", "attention.query", "attention.key", "attention.value", "attention.out",
        "norm2", "linear1", "linear2",
    )
}  # fmt: skip
NAMES: NameMap = {
    "position_embedding": "position_embedding.weight",
    **under("layers.*", "layers.*", LAYER),
    **{name: name for name in ("final_norm", "written", "views")},
}
FIELDS = {
    "vocab_size": ("vocab_size", number, 1024, 1, 2**24),
    "width": ("width", number, 128, 1, 2**16),
    "length": ("length", number, 77, 3, 2**16),
    "layers": ("layers", number, 3, 1, 256),
    "heads": ("heads", number, 4, 1, 2**16),
    "reach": ("reach", number, 12, 1, 2**16),
}


def read(data: Json) -> PromptTravelConfig:
    check(data, {}, FIELDS)
    return PromptTravelConfig(**to_fields(data, FIELDS))


def write(config: PromptTravelConfig, model: ModelConfig | None = None) -> Json:
    return {"_class_name": ARCHITECTURE.kind, **to_options(config, FIELDS)}


def check_fits(travel: PromptTravelConfig, text: TextEncoderConfig) -> None:
    """Raises ValueError that names what it and a text encoder do not have in common."""
    for name in ("vocab_size", "width", "length"):
        ours, its = getattr(travel, name), getattr(text, name)
        if ours != its:
            raise ValueError(
                f"prompt travel is for a text encoder whose {name} is {ours}; it is {its} here"
            )


ARCHITECTURE = Architecture(
    slot="travel",
    config=PromptTravelConfig,
    create=PromptTravel,
    folder="prompt_travel",
    kind="PromptTravel",
    names=NAMES,
    read=read,
    write=write,
    library="diffusion",
    part="travel",
)
