"""Diffusion transformers, as `diffusers` stores them: PixArt (the garden's, too) and DiT."""

from diffusion.config import DiTConfig, ModelConfig
from diffusion.stages.dit import DiT
from diffusion.weights.architectures.base import Architecture
from diffusion.weights.names import ATTENTION, NameMap, under
from diffusion.weights.options import Json, check, choice, number, off, to_fields, to_options

MLP = {"linear1": "linear_1", "linear2": "linear_2"}
TIME = "adaln_single.emb"  # PixArt has one; DiT has a copy in every block
COPIED = "transformer_blocks.*.norm1.emb"
NAMES: NameMap = {
    "patches": "pos_embed.proj",
    **under("words.time", f"{TIME}.timestep_embedder", MLP),
    **under("words.resolution", f"{TIME}.resolution_embedder", MLP),
    **under("words.aspect", f"{TIME}.aspect_ratio_embedder", MLP),
    "words.modulation.linear": "adaln_single.linear",
    **under("words.caption", "caption_projection", MLP),
    **under("label.time", f"{COPIED}.timestep_embedder", MLP),
    "label.table": f"{COPIED}.class_embedder.embedding_table",
    "blocks.*.modulation.table": "transformer_blocks.*.scale_shift_table",
    "blocks.*.modulation.linear": "transformer_blocks.*.norm1.linear",
    **under("blocks.*.self_attention", "transformer_blocks.*.attn1", ATTENTION),
    **under("blocks.*.cross_attention", "transformer_blocks.*.attn2", ATTENTION),
    "blocks.*.feed_forward.linear1": "transformer_blocks.*.ff.net.0.proj",
    "blocks.*.feed_forward.linear2": "transformer_blocks.*.ff.net.2",
    "exit.modulation.table": "scale_shift_table",
    "exit.linear": "proj_out",
    "exit.linear1": "proj_out_1",
    "exit.linear2": "proj_out_2",
}
WORDS, LABEL = "ada_norm_single", "ada_norm_zero"  # norm_type
KINDS = {"PixArtTransformer2DModel": WORDS, "DiTTransformer2DModel": LABEL}
LEGACY = "Transformer2DModel"  # the class of both in the official files
EPS = {WORDS: 1e-6, LABEL: 1e-5}  # norm_eps
SAME: Json = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "norm_elementwise_affine": False,
}
NO_MATTER = {
    "dropout",  # while training
    "norm_num_groups",  # of a norm that is not there
    "upcast_attention",  # our softmax is always float32
}
FIELDS = {
    "attention_head_dim": ("head_width", number, 72, 1, 2**10),
    "in_channels": ("latent_channels", number, 4, 1, 64),
    "num_attention_heads": ("heads", number, 16, 1, 2**10),
    "num_layers": ("layers", number, 28, 1, 256),
    "patch_size": ("patch", number, 2, 1, 64),
}
SIZED = 128  # the sample_size from which on the reference's PixArt is told the size of the picture
PIXELS = 8  # a latent position, in all of these models
PIPELINES = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
READ_HERE = {
    "norm_type", "norm_eps", "out_channels", "num_embeds_ada_norm", "caption_channels",
    "cross_attention_dim", "interpolation_scale", "use_additional_conditions",
}  # fmt: skip


def read(data: Json) -> DiTConfig:
    kind = choice(data, "_class_name", next(iter(KINDS)), [*KINDS, LEGACY])
    norm = choice(data, "norm_type", KINDS.get(kind, "layer_norm"), EPS)
    check(data, SAME | {"norm_eps": EPS[norm]}, {*NO_MATTER, *FIELDS, *READ_HERE})
    fields = to_fields(data, FIELDS)
    z = fields["latent_channels"]
    # Where nobody says, PixArt's class has the variance, and DiT's has none.
    out = data.get("out_channels", 8 if norm == WORDS else z) or z
    if out not in (z, 2 * z):
        raise ValueError(
            f"out_channels is {out!r}; {z} or {2 * z} is needed, as in_channels is {z}"
        )
    fields["learned_variance"] = out != z
    if norm == LABEL:
        return DiTConfig(
            **fields,
            sample_size=number(data, "sample_size", 0, 1, 1024),
            classes=number(data, "num_embeds_ada_norm", 1000, 1, 2**20),
            context_width=1,
        )
    return DiTConfig(**fields, **_words(data, fields["heads"] * fields["head_width"]))


def _words(data: Json, width: int) -> Json:
    """What only PixArt's transformer has."""
    if off(data.get("caption_channels")):
        raise ValueError("caption_channels is absent; words are not projected: not supported")
    across = data.get("cross_attention_dim", 1152)
    if across != width:
        raise ValueError(f"cross_attention_dim is {across!r}; {width} is needed, as heads are wide")
    size = number(data, "sample_size", 0, 1, 1024)
    told = data.get("use_additional_conditions")
    scale = max(size // 64, 1)
    if not off(data.get("interpolation_scale")):
        scale = number(data, "interpolation_scale", 1, 1, 64)
    return {
        "context_width": number(data, "caption_channels", 4096, 1, 2**16),
        "sample_size": size,
        "position_scale": scale,
        "told_scale": PIXELS if (size == SIZED if told is None else told) else None,
    }


def write(config: DiTConfig, model: ModelConfig) -> Json:
    if config.sample_size != model.latent_size:
        raise ValueError(
            f"denoiser.sample_size is {config.sample_size}; {model.latent_size} is needed, the "
            f"side of the latents of {model.image_size}x{model.image_size} pixels"
        )
    norm = WORDS if config.classes is None else LABEL
    written = {
        "_class_name": kind(config),
        **SAME,
        **to_options(config, FIELDS),
        "norm_eps": EPS[norm],
        "norm_type": norm,
        "num_embeds_ada_norm": config.classes or 1000,
        "out_channels": config.latent_channels * (2 if config.learned_variance else 1),
        "sample_size": config.sample_size,
    }
    if norm == LABEL:
        return written
    return written | {
        "caption_channels": config.context_width,
        "cross_attention_dim": config.width,
        "interpolation_scale": config.position_scale,
        "use_additional_conditions": config.told_scale is not None,
    }


def kind(config: DiTConfig) -> str:
    return list(KINDS)[0 if config.classes is None else 1]


ARCHITECTURE = Architecture(
    slot="denoiser",
    config=DiTConfig,
    create=DiT,
    folder="transformer",
    kind=next(iter(KINDS)),
    names=NAMES,
    read=read,
    write=write,
    part="dit",
    pipelines=PIPELINES,
    pipeline=lambda model: PIPELINES[0],
)
