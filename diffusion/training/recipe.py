"""The art school in order, into one folder: tokenizer, text encoder, autoencoder, denoiser."""

from collections.abc import Sequence
from pathlib import Path

from diffusion.config import ModelConfig
from diffusion.config_text import override
from diffusion.presets import garden64, garden_dit, garden_dvae, garden_masked
from diffusion.process import mixing, process
from diffusion.runtime import hosts
from diffusion.training import denoiser, text_encoder
from diffusion.training.beginning import copy_of, heir
from diffusion.training.card import Order
from diffusion.training.distillation import fewer
from diffusion.training.log import Watch
from diffusion.training.parts import (
    AUTOENCODERS,
    DENOISERS,
    SLOTS_OF,
    TRAINERS,
    before,
    check_trainable,
)
from diffusion.weights import configs, folder
from diffusion.weights.architectures import SLOTS, architecture, structure
from diffusion.weights.configs import INDEX

# A new folder begins with the garden model that has the part.
MODELS = {
    architecture(model.denoiser).part: model
    for model in (garden64(), garden_dit(), garden_masked())
} | {architecture(model.autoencoder).part: model for model in (garden64(), garden_dvae())}
FOLLOW = ("decoder", "distill")  # parts that go on from a model, and keep its configuration
PARTS = ("tokenizer", "text", "vae", "unet")  # of the garden


def train_part(
    part: str,
    output: Path,
    settings: Sequence[str] = (),
    watch: Watch | None = None,
    start: Path | None = None,
    new: ModelConfig | None = None,
) -> None:
    """Train one part, or all of them in order, into the model folder `output`.

    A part that was interrupted goes on; one that is finished is only written again. Checkpoints,
    logs and sample sheets go to `output`/training/`part`.

    Args:
        part: "tokenizer", "text", one of `AUTOENCODERS` or `DENOISERS`, or "all" that the model
            has; "decoder": that of the autoencoder of `start`, whose latents stay; "distill": the
            denoiser of `start`, to paint in half its steps; "travel": what finds in a sentence how
            a film begins and ends, for the text encoder of `output`; "motion": modules that join
            the frames of films, for its denoiser; "autoencoder": the Keras sample's, which stands
            by itself.
        settings: `name=value` for an entry of `TrainConfig` (`steps=100`) or, with the prefix
            `model.`, of `ModelConfig` (`model.denoiser.norm_groups=8`; only in a new folder).
        watch: called with each sample sheet; see `train`.
        start: a model whose weights training begins with, in place of random ones. A new `output`
            begins as its copy. A U-Net or a VAE may be larger than there: it begins with what the
            smaller one knows (`diffusion.training.growth`), as a dVAE does with what a VAE knows.
            From a model with another kind of denoiser `output` copies the rest, and begins with a
            new denoiser.
        new: the model of a new `output`; None: that of the garden, with the denoiser that is named.

    Raises ValueError that names a wrong part or setting, or the part that has to be trained first.
    """
    if part not in (*TRAINERS, "all"):
        raise ValueError(f"unknown part {part!r}; choose one of {', '.join(TRAINERS)}, all, judge")
    if start is not None and part not in SLOTS_OF:
        others = ", ".join(SLOTS_OF)
        raise ValueError(f"{part} starts from nothing only; from a model: {others}")
    model_settings = [text.removeprefix("model.") for text in settings if text.startswith("model.")]
    train_settings = [text for text in settings if not text.startswith("model.")]
    # Says what is wrong before a folder is made.
    if part in FOLLOW:
        _check_follows(part, start, output, model_settings)
    preset = denoiser.preset() if part in (*DENOISERS, "distill") else text_encoder.preset()
    given = override(preset, train_settings)
    if part in ("text", "all") and given.batch_size // given.shards % 2:
        raise ValueError(
            f"batch_size is {given.batch_size}, in {given.shards} shards; the text encoder learns "
            "from pairs: give each shard an even number"
        )
    model = new or MODELS.get(part, garden64())
    if start is not None:
        model = heir(SLOTS_OF[part], start, output, new or MODELS.get(part), model_settings)
        if SLOTS_OF[part] == "denoiser":
            check_trainable(model)
    if hosts.writes():
        if start is not None:
            copy_of(start, output, model, part)
        _model_config(output, model_settings, model)
    hosts.wait("the folder is there")
    for name in _parts(part, output):
        order = Order(name, output, train_settings, watch, start)
        save = TRAINERS[name](order, folder.load_config(output))
        if hosts.writes():
            save()
        hosts.wait(f"{name} is saved")


def _check_follows(
    part: str, start: Path | None, output: Path, model_settings: Sequence[str]
) -> None:
    """Raises ValueError where a part of `FOLLOW` cannot go on from a model."""
    if start is None:
        raise ValueError(f"{part} needs a trained model; name one with --start, as --start garden")
    if model_settings:
        raise ValueError(
            f"{part} keeps the model's configuration; leave out model."
            f"{model_settings[0].partition('=')[0]}"
        )
    if (output / INDEX).exists() and not (output / "training" / part).exists():
        raise ValueError(f"{output} holds a model already; name a new --output for {part}")
    if part == "distill":  # says so where codes are masked, or where it is done already
        config = folder.load_config(start)
        mixing(process(config.process))
        fewer(config)


def _parts(part: str, output: Path) -> tuple[str, ...]:
    """The one part, or all that the model of a folder has, in order."""
    config = folder.load_config(output)
    for slot, known in (("autoencoder", AUTOENCODERS), ("denoiser", DENOISERS)):
        named = architecture(getattr(config, slot)).part
        if part in known and part != named:
            raise ValueError(
                f"the {slot} of {output} is a {named}: `diffusion train {named}`; or name another "
                "--output"
            )
    return (*before(config), named) if part == "all" else (part,)


def _model_config(output: Path, settings: Sequence[str], new: ModelConfig) -> ModelConfig:
    """The configuration that the folder remembers, or a new one."""
    if (output / INDEX).exists():
        config = folder.load_config(output)
        if override(config, settings) != config:
            raise ValueError(
                f"{output} holds a model with another configuration; name another --output"
            )
        return config
    config = override(new, settings)
    check_trainable(config)
    for slot in SLOTS:
        structure(getattr(config, slot))  # raises now, not after hours, if it cannot be built
    configs.read(configs.write(config), config.name)  # or if nobody could read it afterwards
    folder.save_config(output, config)
    return config
