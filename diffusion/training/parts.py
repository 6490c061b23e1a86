"""How each part of a model is trained, and what is then written."""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusion.config import ConvAutoencoderConfig, ModelConfig, SamplingConfig, UNetConfig
from diffusion.config_text import override
from diffusion.datasets.curriculum import MOTION_SHARE, PRACTISED
from diffusion.motion_config import MotionConfig, PromptTravelConfig, motion_for
from diffusion.runtime import hosts
from diffusion.runtime.parameters import Params, fingerprint
from diffusion.text.tokenizer import Tokenizer
from diffusion.training import (
    autoencoder,
    conv_autoencoder,
    decoder,
    denoiser,
    distillation,
    motion,
    prompt_travel,
    text_encoder,
)
from diffusion.training.beginning import LATER, Beginning, beginning
from diffusion.training.card import Order, record
from diffusion.training.loop import train
from diffusion.training.tokenizer import train_tokenizer
from diffusion.training.train_config import TrainConfig
from diffusion.weights import adapter, folder
from diffusion.weights import prompt_travel as travel
from diffusion.weights.architectures import ARCHITECTURES, architecture
from diffusion.weights.architectures.motion import check_fits
from diffusion.weights.files import save_params

# Autoencoders and denoisers are called by their architectures.
SAMPLE = architecture(ConvAutoencoderConfig()).part  # the Keras sample's: in no model
DENOISERS = tuple(one.part for one in ARCHITECTURES.values() if one.slot == "denoiser")
AUTOENCODERS = tuple(
    one.part for one in ARCHITECTURES.values() if one.slot == "autoencoder" and one.part != SAMPLE
)
SLOTS_OF = {
    "text": "text_encoder", **dict.fromkeys(AUTOENCODERS, "autoencoder"),
    **dict.fromkeys(DENOISERS, "denoiser"), "distill": "denoiser", "motion": "denoiser",
    "travel": "text_encoder", "decoder": "autoencoder",
}  # fmt: skip
PRACTICE = {"practised": PRACTISED, "motion_share": MOTION_SHARE}
DTYPE = "float16"  # of the files: half the size, and no picture that could be told apart
Save = Callable[[], None]  # writes what was trained


def before(config: ModelConfig) -> tuple[str, ...]:
    """What a denoiser learns with."""
    return ("tokenizer", "text", architecture(config.autoencoder).part)


def check_trainable(config: ModelConfig) -> None:
    if config.inpaints:
        raise ValueError(
            f"model.denoiser.in_channels is {config.denoiser.in_channels}; a denoiser that "
            f"inpaints is not trained here: take one with {config.denoiser.latent_channels}"
        )


def _train_tokenizer(order: Order, config: ModelConfig) -> Save:
    seed = override(TrainConfig(1, 1, 1.0), order.settings).seed
    tokenizer = train_tokenizer(config.text_encoder, seed)
    if tokenizer.vocab_size != config.text_encoder.vocab_size:
        raise ValueError(
            f"the captions hold no more than {tokenizer.vocab_size} tokens: "
            f"--set model.text_encoder.vocab_size={tokenizer.vocab_size} in a new --output"
        )
    place = order.output / "tokenizer"
    learnt = folder.part_file(order.output, config, "text_encoder").exists() and place.exists()
    if learnt and _spelling(folder.load_tokenizer(order.output)) != _spelling(tokenizer):
        raise ValueError(
            f"the text encoder of {order.output} has learnt another tokenizer's tokens; name "
            "another --output"
        )

    def save() -> None:
        tokenizer.save(place)
        record(order, "tokenizer", {"seed": seed, "vocab_size": tokenizer.vocab_size})

    return save


def _train_text(order: Order, config: ModelConfig) -> Save:
    _require(order, config, "tokenizer")
    tokenizer = folder.load_tokenizer(order.output)
    begin, known = beginning(order, "text_encoder", config), None
    if begin is not None:
        if _spelling(folder.load_tokenizer(begin.root)) != _spelling(tokenizer):
            raise ValueError(
                f"the text encoder of {begin.root} has learnt another tokenizer's tokens; name a "
                "new --output"
            )
        begin, known = dataclasses.replace(begin, inside="text"), begin.params
    task = text_encoder.TextTask(config, tokenizer, known=known)
    heard = {"tokenizer": _spelling(tokenizer)}
    pupil = run_task(task, text_encoder.preset(), order, heard, begin)
    kept = text_encoder.text_encoder_of(pupil)
    return lambda: folder.save_part(order.output, config, "text_encoder", kept, DTYPE)


def _train_autoencoder(order: Order, config: ModelConfig) -> Save:
    begin = beginning(order, "autoencoder", config)
    smaller = (begin.config, begin.params) if begin is not None and begin.grows else None
    task = autoencoder.AutoencoderTask(config, smaller)
    begin = begin and dataclasses.replace(begin, ready=task.begun)
    params = run_task(task, autoencoder.preset(), order, begin=begin)
    stays = smaller is not None  # near latents that are known already
    return lambda: _save_autoencoder(order.output, config, params, stays)


def _save_autoencoder(output: Path, config: ModelConfig, params: Params, stays: bool) -> None:
    """With its latents' scale, and with a word to a denoiser that has learnt other latents."""
    file = folder.part_file(output, config, "autoencoder")
    before = file.read_bytes() if file.exists() else b""
    folder.save_part(output, config, "autoencoder", params, DTYPE)
    if stays:
        return
    if hasattr(config.autoencoder, "scaling_factor"):
        stored = folder.load_part(output, config, "autoencoder")[1]
        scale = round(autoencoder.measure_scale(config, stored), 5)
        network: Any = config.autoencoder
        scaled = dataclasses.replace(network, scaling_factor=scale)
        folder.save_config(output, dataclasses.replace(config, autoencoder=scaled))
    denoiser_file = folder.part_file(output, config, "denoiser")
    if denoiser_file.exists() and file.read_bytes() != before:
        warnings.warn(
            f"the {denoiser_file.parent.name} of {output} learnt to paint for another "
            f"{file.parent.name}; let it go on with this one: diffusion train "
            f"{architecture(config.denoiser).part} --start {output} --output NEW",
            stacklevel=1,
        )


def _train_decoder(order: Order, config: ModelConfig) -> Save:
    begin = beginning(order, "autoencoder", config)
    assert begin is not None  # `train_part` asked for it
    task = decoder.DecoderTask(config, known=begin.params)
    heard = {"autoencoder": fingerprint(task.frozen["kept"])}
    begin = dataclasses.replace(begin, params=task.init(0))
    whole = task.frozen["kept"] | run_task(task, decoder.preset(), order, heard, begin)
    return lambda: folder.save_part(order.output, config, "autoencoder", whole, DTYPE)


def _frozen(root: Path, config: ModelConfig) -> dict[str, Any]:
    """What a denoiser learns with, and leaves as it is."""
    slots = ("text_encoder", "autoencoder")
    return {slot: folder.load_part(root, config, slot)[1] for slot in slots}


def _train_denoiser(order: Order, config: ModelConfig) -> Save:
    output = order.output
    check_trainable(config)
    _require(order, config, *before(config))
    tokenizer = folder.load_tokenizer(output)
    frozen = _frozen(output, config)
    candidates = override(denoiser.preset(), order.settings).candidates
    task = denoiser.DenoiserTask(config, tokenizer, **frozen, candidates=candidates)
    heard = {"tokenizer": _spelling(tokenizer)}
    heard |= {slot: fingerprint(params) for slot, params in frozen.items()}
    begin = beginning(order, "denoiser", config)
    data = PRACTICE | {"blind_share": denoiser.BLIND_SHARE}
    params = run_task(task, denoiser.preset(), order, heard, begin, **data)
    return lambda: folder.save_part(output, config, "denoiser", params, DTYPE)


def _train_distill(order: Order, config: ModelConfig) -> Save:
    assert order.start is not None  # `train_part` asked for it
    config = folder.load_config(order.start)  # whose guidance is built in
    frozen = _frozen(order.start, config)
    begin = beginning(order, "denoiser", config)
    assert begin is not None
    tokenizer = folder.load_tokenizer(order.output)
    candidates = override(distillation.preset(), order.settings).candidates
    task = distillation.DistillTask(
        config, tokenizer, **frozen, candidates=candidates, teacher=begin.params
    )
    heard: dict[str, Any] = {slot: fingerprint(params) for slot, params in frozen.items()}
    heard |= {"guidance": config.guidance, "steps": task.steps}
    params = run_task(task, distillation.preset(), order, heard, begin, **PRACTICE)
    sampling = SamplingConfig(distillation.SAMPLER, task.steps, distillation.SPACING)
    taught = dataclasses.replace(config, sampling=sampling, guidance=1.0)

    def save() -> None:
        folder.save_part(order.output, config, "denoiser", params, DTYPE)
        folder.save_config(order.output, taught)

    return save


def _train_motion(order: Order, config: ModelConfig) -> Save:
    _require(order, config, *before(config), architecture(config.denoiser).part)
    modules = _modules(order, config)
    frozen = _frozen(order.output, config)
    frozen |= {"denoiser": folder.load_part(order.output, config, "denoiser")[1]}
    tokenizer = folder.load_tokenizer(order.output)
    told = _travel(order.output, config)
    task = motion.MotionTask(config, tokenizer, **frozen, motion=modules, travel=told)
    heard: dict[str, Any] = {slot: fingerprint(params) for slot, params in task.frozen.items()}
    begin = None
    if order.start is not None and (order.start / adapter.FOLDER).exists():
        known = adapter.load_config(order.start)
        given = adapter.read_adapter(adapter.open_adapter(order.start, known), known)
        begin = Beginning(order.start, known, given, modules)
    data = {
        "clips": motion.CLIPS,
        "still_share": motion.STILL_SHARE,
        "blind_share": motion.BLIND_SHARE,
        "own_weight": motion.OWN_WEIGHT,
    }
    params = run_task(task, motion.preset(), order, heard, begin, **data)
    place = order.output / adapter.FOLDER
    return lambda: adapter.save_adapter(place, modules, params, DTYPE)


def _travel(root: Path, config: ModelConfig) -> tuple[PromptTravelConfig, Params] | None:
    """What finds the ends of films in the sentences of a model, if it has it."""
    if not travel.exists(root):
        return None
    sizes = travel.load_config(root)
    return sizes, travel.open_travel(root, sizes, config.text_encoder).read()


def _train_travel(order: Order, config: ModelConfig) -> Save:
    _require(order, config, "tokenizer", "text")
    text = folder.load_part(order.output, config, "text_encoder")[1]
    tokenizer = folder.load_tokenizer(order.output)
    sizes = config.text_encoder
    new, begin = PromptTravelConfig(sizes.vocab_size, sizes.width, sizes.length), None
    if order.start is not None and (known := _travel(order.start, config)):
        new, given = known
        begin = Beginning(order.start, new, given, new)
    task = prompt_travel.TravelTask(new, config.text_encoder, tokenizer, text)
    heard = {"tokenizer": _spelling(tokenizer), "text_encoder": fingerprint(text)}
    data = {"still_share": prompt_travel.STILL_SHARE, "view_weight": prompt_travel.VIEW_WEIGHT}
    params = run_task(task, prompt_travel.preset(), order, heard, begin, **data)
    return lambda: travel.save_travel(order.output, new, params, DTYPE)


def _modules(order: Order, config: ModelConfig) -> MotionConfig:
    """The sizes of the motion modules: those that are there, or those of the denoiser."""
    for root in filter(None, (order.output, order.start)):
        if (root / adapter.FOLDER).exists():
            found = adapter.load_config(root)
            check_fits(found, config.denoiser)
            return found
    if not isinstance(config.denoiser, UNetConfig):
        raise ValueError(
            f"motion modules stand in a U-Net; the denoiser of {order.output} is a "
            f"{architecture(config.denoiser).part}"
        )
    return motion_for(config.denoiser)


def _train_sample(order: Order, config: ModelConfig) -> Save:
    network = ConvAutoencoderConfig()
    task = conv_autoencoder.ConvAutoencoderTask(network, conv_autoencoder.SIZE)
    params = run_task(task, conv_autoencoder.preset(), order, size=task.size)
    one = architecture(network)
    file = order.output / one.folder / f"{one.stem}.safetensors"

    def save() -> None:
        save_params(file, params, one.names, dtype=DTYPE)
        folder.write_json(order.output / one.config_file, one.write(network, config))

    return save


TRAINERS: dict[str, Callable[[Order, ModelConfig], Save]] = {
    "tokenizer": _train_tokenizer,
    "text": _train_text,
    **dict.fromkeys(AUTOENCODERS, _train_autoencoder),
    **dict.fromkeys(DENOISERS, _train_denoiser),
    "decoder": _train_decoder,
    "distill": _train_distill,
    "motion": _train_motion,
    "travel": _train_travel,
    SAMPLE: _train_sample,
}


def _require(order: Order, config: ModelConfig, *parts: str) -> None:
    """In whatever form they can be read: one file, shards, `tokenizer.json`."""
    for part in parts:
        files = "tokenizer/*.json"
        if part in SLOTS_OF:
            files = f"{architecture(getattr(config, SLOTS_OF[part])).folder}/*.safetensors*"
        if not any(order.output.glob(files)):
            raise ValueError(
                f"{order.part} needs the {part} of {order.output}: run `diffusion train {part} "
                f"--output {order.output}` first, or `diffusion train all`"
            )


def run_task(
    task: Any,
    preset: TrainConfig,
    order: Order,
    heard: Any = None,
    begin: Beginning | None = None,
    **data: Any,
) -> Any:
    """Train one part and record it.

    Args:
        heard: fingerprints of the parts that it learns with.
        begin: the weights to begin with.
        data: what decides, beside seed and batch size, which examples it sees.
    """
    config = override(preset, order.settings)
    place = order.output / "training" / task.name
    decides: dict[str, Any] = ({"learns_with": heard} if heard else {}) | data
    if hasattr(task, "model"):
        decides["model"] = _frame(task.model)
    given, origin = None, {}
    if begin is not None:
        card = folder.load_card(begin.root)
        before = card.get(begin.part or task.name, {})
        if not any(text.partition("=")[0].strip() == "seed" for text in order.settings):
            # The same seed would show it once more what it has seen.
            config = dataclasses.replace(config, seed=before.get("seed", -1) + 1)
        decides["start"] = fingerprint(begin.params)
        origin = {"start": {"model": begin.root.name, "weights": decides["start"]} | before}
        given = begin.given(task.init, config.seed)
    params = train(task, config, place, decides, order.watch, given)
    if not hosts.writes():
        return params
    rows = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    summary = dataclasses.asdict(config) | {"minutes": round(rows[-1]["seconds"] / 60, 1)}
    for name in rows[-1].keys() - {"step", "seconds"}:
        values = [row[name] for row in rows[-10:]]
        summary[f"final_{name}"] = round(sum(values) / len(values), 5)
    whole = task.name in (*AUTOENCODERS, *DENOISERS)
    replaced = LATER[SLOTS_OF[task.name]] if whole else None
    record(order, task.name, summary | data | origin, replaced)
    return params


def _frame(config: ModelConfig) -> dict[str, Any]:
    """A configuration without what training finds out, and without how to paint."""
    settings = dataclasses.asdict(config)
    settings["autoencoder"].pop("scaling_factor", None)
    return {k: v for k, v in settings.items() if k not in ("guidance", "sampling")}


def _spelling(tokenizer: Tokenizer) -> str:
    """Tells this vocabulary, and what it makes of words, from any others."""
    told = json.dumps([tokenizer.vocab, tokenizer.merges, tokenizer.fold_dotted_i])
    return hashlib.sha256(told.encode()).hexdigest()
