"""The whole art school in order: tokenizer, text encoder, VAE, U-Net, into one model folder.

And its judge, who belongs to no model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from diffusion.config import ModelConfig, garden, override
from diffusion.evaluation.judge import save
from diffusion.layers.machine import described
from diffusion.replacing import replacing
from diffusion.training import judge, text_encoder, unet, vae
from diffusion.training.loop import TrainConfig, Watch, train
from diffusion.training.tokenizer import train_tokenizer
from diffusion.weights import folder
from diffusion.weights.configs import INDEX
from diffusion.weights.files import Params, read_json

PARTS = ("tokenizer", "text", "vae", "unet")
STARTED = ("vae", "unet")  # whose files hold all that was trained, so that training can go on
CARD = "training.json"
DTYPE = "float16"  # of the files: half the size, and no picture that could be told apart


@dataclass(frozen=True)
class Order:
    """What was asked for; see `train_part`."""

    output: Path
    settings: Sequence[str]
    watch: Watch | None
    start: Path | None = None


def train_part(
    part: str,
    output: Path,
    settings: Sequence[str] = (),
    watch: Watch | None = None,
    start: Path | None = None,
) -> None:
    """Train one part, or all of them in order, into the model folder `output`.

    A part that was interrupted goes on; one that is finished is only written again. Checkpoints,
    logs and sample sheets go to `output`/training/`part`.

    Args:
        part: one of `PARTS`, or "all" of them, or "judge".
        settings: `name=value` for an entry of `TrainConfig` (`steps=100`) or, with the prefix
            `model.`, of `ModelConfig` (`model.unet.norm_groups=8`; only in a new folder).
        watch: called with each sample sheet; see `train`.
        start: a model whose weights of "vae" or "unet" training begins with, in place of random
            ones. A new `output` begins as its copy.

    Raises ValueError that names a wrong part or setting, or the part that has to be trained first.
    """
    if start is not None and part not in STARTED:
        raise ValueError(f"{part} starts from nothing only; {' and '.join(STARTED)} from a model")
    if part not in (*PARTS, "all", "judge"):
        raise ValueError(f"unknown part {part!r}; choose one of {', '.join(PARTS)}, all, judge")
    if part == "judge":
        params = _run(judge.JudgeTask(), judge.preset(), Order(output, settings, watch))
        save(output, params, DTYPE)
        return
    model_settings = [text.removeprefix("model.") for text in settings if text.startswith("model.")]
    train_settings = [text for text in settings if not text.startswith("model.")]
    if start is not None:
        _copy(start, output)
    config = _model_config(output, model_settings)
    for name in PARTS if part == "all" else (part,):
        TRAINERS[name](Order(output, train_settings, watch, start), config)
        config = folder.load_config(output)


def _copy(start: Path, output: Path) -> None:
    """A new folder begins with what a model is made of."""
    folder.load_config(start)  # says what is the matter with it
    if output.exists():
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as draft:
        draft.mkdir()
        for name in (INDEX, CARD):
            if (start / name).exists():
                shutil.copy(start / name, draft)
        for name in (*folder.PARTS, "tokenizer", "scheduler"):
            shutil.copytree(start / name, draft / name)


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


def _train_tokenizer(order: Order, config: ModelConfig) -> None:
    seed = override(TrainConfig(1, 1, 1.0), order.settings).seed
    tokenizer = train_tokenizer(config.text_encoder, seed)
    if tokenizer.vocab_size != config.text_encoder.vocab_size:
        raise ValueError(
            f"the captions hold no more than {tokenizer.vocab_size} tokens: "
            f"--set model.text_encoder.vocab_size={tokenizer.vocab_size} in a new --output"
        )
    tokenizer.save(order.output / "tokenizer")
    summary = {"seed": seed, "vocab_size": tokenizer.vocab_size}
    _record(order.output, "tokenizer", summary)


def _train_text(order: Order, config: ModelConfig) -> None:
    output = order.output
    _require(output, "text", tokenizer=output / "tokenizer" / "vocab.json")
    task = text_encoder.TextTask(config, folder.load_tokenizer(output))
    params = _run(task, text_encoder.preset(), order)
    folder.save_part(output, config, "text_encoder", text_encoder.text_encoder_of(params), DTYPE)


def _train_vae(order: Order, config: ModelConfig) -> None:
    output = order.output
    params = _run(vae.VAETask(config), vae.preset(), order)
    folder.save_part(output, config, "vae", params, DTYPE)
    scale = vae.measure_scale(config, folder.load_part(output, config, "vae")[1])
    scaled = dataclasses.replace(config.vae, scaling_factor=round(scale, 5))
    folder.save_config(output, dataclasses.replace(config, vae=scaled))


def _train_unet(order: Order, config: ModelConfig) -> None:
    output = order.output
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
    params = _run(task, unet.preset(), order)
    folder.save_part(output, config, "unet", params, DTYPE)


TRAINERS: dict[str, Callable[[Order, ModelConfig], None]] = {
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


def _run(task: Any, preset: TrainConfig, order: Order) -> Any:
    config = override(preset, order.settings)
    place = order.output / "training" / task.name
    also: dict[str, Any] = {}
    if hasattr(task, "model"):
        also["model"] = dataclasses.asdict(task.model)
        also["model"]["vae"].pop("scaling_factor")  # a result of training, not a setting
    given = None
    if order.start is not None:
        given = folder.load_part(order.start, task.model, task.name)[1]
        also["start"] = _fingerprint(given)
    params = train(task, config, place, also, order.watch, given)
    rows = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    summary = dataclasses.asdict(config) | {"minutes": round(rows[-1]["seconds"] / 60, 1)}
    last = rows[-10:]
    for name in rows[-1].keys() - {"step", "seconds"}:
        summary[f"final_{name}"] = round(sum(row[name] for row in last) / len(last), 5)
    before = _card(order.start).get(task.name) if order.start is not None else None
    _record(order.output, task.name, summary | ({"start": before} if before else {}))
    return params


def _fingerprint(params: Params) -> str:
    """Tells these weights from any others."""
    found = hashlib.sha256()
    for value in jax.tree.leaves(params):
        found.update(value.tobytes())
    return found.hexdigest()


def _card(root: Path) -> dict[str, Any]:
    path = root / CARD
    return read_json(path) if path.exists() else {}


def _record(output: Path, part: str, summary: dict[str, Any]) -> None:
    """Add how a part was trained to training.json, the machine's half of the model's card."""
    card = _card(output)
    if summary.items() <= card.get(part, {}).items():
        return  # finished before, perhaps elsewhere and long ago
    card[part] = summary | {
        "command": f"diffusion train {part}",
        "finished": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": described(),
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "numpy")},
    }
    folder.write_json(output / CARD, card)
