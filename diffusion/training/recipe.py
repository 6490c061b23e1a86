"""The whole art school in order: tokenizer, text encoder, VAE, U-Net, into one model folder.

And its judge, who belongs to no model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusion.config import ModelConfig, garden, override
from diffusion.evaluation.judge import save
from diffusion.layers.machine import described
from diffusion.training import judge, text_encoder, unet, vae
from diffusion.training.loop import TrainConfig, Watch, train
from diffusion.training.tokenizer import train_tokenizer
from diffusion.weights import folder
from diffusion.weights.configs import INDEX
from diffusion.weights.files import read_json

PARTS = ("tokenizer", "text", "vae", "unet")
DTYPE = "float16"  # of the files: half the size, and no picture that could be told apart


def train_part(
    part: str, output: Path, settings: Sequence[str] = (), watch: Watch | None = None
) -> None:
    """Train one part, or all of them in order, into the model folder `output`.

    A part that was interrupted goes on; one that is finished is only written again. Checkpoints,
    logs and sample sheets go to `output`/training/`part`.

    Args:
        part: one of `PARTS`, or "all" of them, or "judge".
        settings: `name=value` for an entry of `TrainConfig` (`steps=100`) or, with the prefix
            `model.`, of `ModelConfig` (`model.unet.norm_groups=8`; only in a new folder).
        watch: called with each sample sheet; see `train`.

    Raises ValueError that names a wrong part or setting, or the part that has to be trained first.
    """
    if part not in (*PARTS, "all", "judge"):
        raise ValueError(f"unknown part {part!r}; choose one of {', '.join(PARTS)}, all, judge")
    if part == "judge":
        save(output, _run(judge.JudgeTask(), judge.preset(), settings, output, watch), DTYPE)
        return
    model_settings = [text.removeprefix("model.") for text in settings if text.startswith("model.")]
    train_settings = [text for text in settings if not text.startswith("model.")]
    config = _model_config(output, model_settings)
    for name in PARTS if part == "all" else (part,):
        TRAINERS[name](output, config, train_settings, watch)
        config = folder.load_config(output)


def _model_config(output: Path, settings: Sequence[str]) -> ModelConfig:
    """The configuration that the folder remembers, or a new one."""
    if (output / INDEX).exists():
        config = folder.load_config(output)
        if override(config, settings) != config:
            raise ValueError(
                f"{output} holds a model with another configuration; name another --output"
            )
        return config
    config = override(garden(), settings)
    folder.save_config(output, config)
    return config


def _train_tokenizer(
    output: Path, config: ModelConfig, settings: Sequence[str], watch: Watch | None
) -> None:
    seed = override(TrainConfig(1, 1, 1.0), settings).seed
    tokenizer = train_tokenizer(config.text_encoder, seed)
    if tokenizer.vocab_size != config.text_encoder.vocab_size:
        raise ValueError(
            f"the captions hold no more than {tokenizer.vocab_size} tokens: "
            f"--set model.text_encoder.vocab_size={tokenizer.vocab_size} in a new --output"
        )
    tokenizer.save(output / "tokenizer")
    _record(output, "tokenizer", {"seed": seed, "vocab_size": tokenizer.vocab_size})


def _train_text(
    output: Path, config: ModelConfig, settings: Sequence[str], watch: Watch | None
) -> None:
    _require(output, "text", tokenizer=output / "tokenizer" / "vocab.json")
    task = text_encoder.TextTask(config, folder.load_tokenizer(output))
    params = _run(task, text_encoder.preset(), settings, output, watch)
    folder.save_part(output, config, "text_encoder", text_encoder.text_encoder_of(params), DTYPE)


def _train_vae(
    output: Path, config: ModelConfig, settings: Sequence[str], watch: Watch | None
) -> None:
    params = _run(vae.VAETask(config), vae.preset(), settings, output, watch)
    folder.save_part(output, config, "vae", params, DTYPE)
    scale = vae.measure_scale(config, folder.load_part(output, config, "vae")[1])
    scaled = dataclasses.replace(config.vae, scaling_factor=round(scale, 5))
    folder.save_config(output, dataclasses.replace(config, vae=scaled))


def _train_unet(
    output: Path, config: ModelConfig, settings: Sequence[str], watch: Watch | None
) -> None:
    _require(
        output,
        "unet",
        tokenizer=output / "tokenizer" / "vocab.json",
        text=folder.part_file(output, "text_encoder"),
        vae=folder.part_file(output, "vae"),
    )
    task = unet.UNetTask(
        config,
        folder.load_tokenizer(output),
        folder.load_part(output, config, "text_encoder")[1],
        folder.load_part(output, config, "vae")[1],
    )
    params = _run(task, unet.preset(), settings, output, watch)
    folder.save_part(output, config, "unet", params, DTYPE)


TRAINERS: dict[str, Callable[[Path, ModelConfig, Sequence[str], Watch | None], None]] = {
    "tokenizer": _train_tokenizer,
    "text": _train_text,
    "vae": _train_vae,
    "unet": _train_unet,
}


def _require(output: Path, part: str, **needed: Path) -> None:
    for name, path in needed.items():
        if not path.exists():
            raise ValueError(
                f"{part} needs the {name} of {output}: run `diffusion train {name} --output "
                f"{output}` first, or `diffusion train all`"
            )


def _run(
    task: Any,
    preset: TrainConfig,
    settings: Sequence[str],
    output: Path,
    watch: Watch | None,
) -> Any:
    config = override(preset, settings)
    place = output / "training" / task.name
    also = {}
    if hasattr(task, "model"):
        also["model"] = dataclasses.asdict(task.model)
        also["model"]["vae"].pop("scaling_factor")  # a result of training, not a setting
    params = train(task, config, place, also, watch)
    rows = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    summary = dataclasses.asdict(config) | {"minutes": round(rows[-1]["seconds"] / 60, 1)}
    last = rows[-10:]
    for name in rows[-1].keys() - {"step", "seconds"}:
        summary[f"final_{name}"] = round(sum(row[name] for row in last) / len(last), 5)
    _record(output, task.name, summary)
    return params


def _record(output: Path, part: str, summary: dict[str, Any]) -> None:
    """Add how a part was trained to training.json, the machine's half of the model's card."""
    path = output / "training.json"
    card = read_json(path) if path.exists() else {}
    if summary.items() <= card.get(part, {}).items():
        return  # finished before, perhaps elsewhere and long ago
    card[part] = summary | {
        "command": f"diffusion train {part}",
        "finished": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": described(),
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "numpy")},
    }
    folder.write_json(path, card)
