"""The JSON files of a model folder, and the one configuration that they amount to.

Each architecture reads and writes its own; here are the index, which says which they are, and the
scheduler's file. Its options are mostly about how to sample, which is our own matter; only its
noise schedule is looked at.
"""

import re
from collections.abc import Mapping
from typing import Any

from diffusion.config import (
    BETA_RULES,
    LARGEST_GUIDANCE,
    ModelConfig,
    ProcessConfig,
    RectifiedFlowConfig,
    SamplingConfig,
    VariancePreservingConfig,
)
from diffusion.config_codes import HOTTEST, MASK_RULES, MaskingConfig
from diffusion.process import masked
from diffusion.process.samplers import LCM_GRID, SAMPLERS
from diffusion.process.schedule import OFFSET, SPACINGS
from diffusion.weights.architectures import ARCHITECTURES, SLOTS, Architecture, architecture
from diffusion.weights.options import (
    Json,
    check,
    choice,
    flag,
    fraction,
    naming,
    number,
    off,
    version,
)

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
CONSISTENCY_GUIDANCE = 8.5  # what the reference's pipelines of that kind take
OURS = "_diffusion"  # in model_index.json: what the official layout has no place for
SHARED = "shared"
NOT_READ = ("text_encoder_2", "image_encoder")

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
MASKS = "AmusedScheduler"
MASKS_SAMPLING: Json = {"sampler": "maskgit", "steps": 12}  # what the reference's pipeline takes,
MASKS_GUIDANCE = 10.0  # too
FLOW = "FlowMatchEulerDiscreteScheduler"
FLOW_KNOWN = {  # all but two belong to a shift by the size of a picture, which must be off
    "num_train_timesteps", "shift", "base_shift", "max_shift", "base_image_seq_len",
    "max_image_seq_len", "time_shift_type",
}  # fmt: skip
LARGEST_SHIFT = 1000.0
SCHEDULERS = (  # all of them sample from the same diffusion; which one paints is the user's choice
    "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
    "DEISMultistepScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
)  # fmt: skip
# What the reference takes where a file says nothing of the betas.
BETAS: Json = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
SMALLER: Json = BETAS | {"beta_start": 0.00085, "beta_end": 0.012}
OTHER_BETAS: dict[str, Json] = {
    "HeunDiscreteScheduler": SMALLER,
    "KDPM2DiscreteScheduler": SMALLER,
    "KDPM2AncestralDiscreteScheduler": SMALLER,
    "LCMScheduler": SMALLER | {"beta_schedule": "scaled_linear"},
}
SCHEDULE_SAME: Json = {
    "rescale_betas_zero_snr": False,
    "thresholding": False,
    "use_beta_sigmas": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": False,
    "use_lu_lambdas": False,
}
KARRAS = "use_karras_sigmas"
NO_KARRAS = {"PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LCMScheduler"}  # they ignore it
SMALLEST = 64  # positions of a latent that the reference takes in files before 0.9
CONSISTENCY_SAME: Json = {
    "clip_sample": False,
    "original_inference_steps": LCM_GRID,
    "timestep_scaling": 10.0,
}
# Of two more, the reference's pipeline minds no file: `steps_offset` is 1, nothing is clipped.


def architectures(index: Json) -> dict[str, Architecture]:
    """Which architecture fills each slot, by the folders that the index names."""
    found = {}
    for slot in SLOTS:
        known = [one for one in ARCHITECTURES.values() if one.slot == slot]
        named = [one for one in known if not off(index.get(one.folder))]
        fitting = [one for one in named if index.get("_class_name") in one.pipelines]
        found[slot] = (fitting or named or known)[0]
    return found


def paths(index: Json) -> list[str]:
    """The files, besides the index, that `read` needs."""
    return [*(one.config_file for one in architectures(index).values()), SCHEDULER]


def read(files: Mapping[str, Json], name: str) -> ModelConfig:
    """The configuration of a model, called `name` where it has no name of its own.

    `files` has the content of `INDEX` and `paths`, by path. Raises ValueError that names the file,
    and the option that is not supported or makes no sense.
    """
    slots = architectures(files[INDEX])
    parts: dict[str, Any] = {}
    for slot, one in slots.items():
        with naming(one.config_file):
            parts[slot] = one.read(files[one.config_file])
    denoiser = slots["denoiser"].config_file
    with naming(denoiser):
        size = number(files[denoiser], "sample_size", SMALLEST, 1, 1024)
        if (0,) < version(files[denoiser]) < (0, 9):  # such files said 32 and meant 64
            size = max(size, SMALLEST)
    with naming(SCHEDULER):
        parts["process"] = _read_process(files[SCHEDULER])
    parts |= {"name": name, "image_size": size * parts["autoencoder"].downscale}
    own = _ours(files[INDEX].get(OURS, {}))
    chosen = ("sampler", "steps", "spacing")
    sampling: Json = {option: own.pop(option) for option in chosen if option in own}
    if files[SCHEDULER].get("timestep_spacing") == "trailing":
        sampling["spacing"] = "trailing"
    with naming(SCHEDULER):
        if _karras(files[SCHEDULER]):
            sampling["spacing"] = "karras"
    if files[SCHEDULER].get("_class_name") == FLOW:
        sampling = {"sampler": "euler"} | sampling
    if files[SCHEDULER].get("_class_name") == MASKS:
        sampling = MASKS_SAMPLING | sampling
        parts["guidance"] = MASKS_GUIDANCE
    if parts["denoiser"].guidance_width is not None:
        sampling = {"sampler": "lcm", "steps": 4} | sampling
        parts["guidance"] = CONSISTENCY_GUIDANCE
    return ModelConfig(**(parts | own), sampling=SamplingConfig(**sampling))


def _karras(data: Json) -> bool:
    """Are the steps spaced as Karras et al. 2022 have it?"""
    kind = data.get("_class_name", SCHEDULERS[0])
    return kind not in (*NO_KARRAS, FLOW) and flag(data, KARRAS, False)


def check_index(index: Json) -> None:
    """Raises ValueError where the model is of a kind that this project does not paint with."""
    kind = index.get("_class_name")
    denoisers = [one for one in ARCHITECTURES.values() if one.slot == "denoiser"]
    fitting = {one.folder for one in denoisers if kind in one.pipelines}
    if not fitting:
        raise ValueError(
            f"{INDEX}: {kind} is not supported; known: "
            + ", ".join(dict.fromkeys(one.pipelines[0] for one in denoisers))
        )
    others = {one.folder for one in denoisers} - fitting
    for name in (*NOT_READ, *sorted(others)):
        if not off(index.get(name)):
            raise ValueError(f"{INDEX}: a model with {name} is not supported")


def shared(index: Json) -> dict[str, str]:
    """The parts that lie in another model that ships: folder -> its name."""
    ours = index.get(OURS)
    found = ours.get(SHARED, {}) if isinstance(ours, dict) else {}
    names = [*found, *found.values()] if isinstance(found, dict) else [None]
    if not all(isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) for name in names):
        raise ValueError(
            f"{INDEX}: {SHARED} is {found!r}; it may hold folders, and the model that has each"
        )
    return found


def _ours(data: Any) -> Json:
    """What the official layout has no place for, and this project's folders say."""
    known = ("name", "guidance", "sampler", "steps", "spacing", SHARED)
    if not isinstance(data, dict) or not data.keys() <= set(known):
        raise ValueError(f"{INDEX}: {OURS} is {data!r}; it may hold {', '.join(known)}")
    data = {key: value for key, value in data.items() if key != SHARED}
    guidance = data.get("guidance", 0.0)
    if not (isinstance(guidance, int | float) and abs(guidance) <= LARGEST_GUIDANCE):
        raise ValueError(f"{INDEX}: guidance is {guidance!r}; a number up to 100 is needed")
    if not isinstance(data.get("name", ""), str):
        raise ValueError(f"{INDEX}: name is {data['name']!r}; a text is needed")
    with naming(INDEX):
        choice(data, "sampler", "ddim", (*SAMPLERS, *masked.SAMPLERS))
        choice(data, "spacing", "leading", SPACINGS)
        number(data, "steps", 1, 1, 2**20)
    return {key: float(value) if key == "guidance" else value for key, value in data.items()}


def _read_process(data: Json) -> ProcessConfig:
    kind = choice(data, "_class_name", SCHEDULERS[0], (*SCHEDULERS, FLOW, MASKS))
    if kind == MASKS:
        return _read_masks(data)
    return _read_flow(data) if kind == FLOW else _read_diffusion(data, kind)


def _read_masks(data: Json) -> MaskingConfig:
    check(data, {}, {"mask_token_id", "masking_schedule", "temperature"})
    return MaskingConfig(
        mask=number(data, "mask_token_id", 0, 1, 2**20),
        rule=choice(data, "masking_schedule", "cosine", MASK_RULES),
        temperature=fraction(data, "temperature", 2.0, HOTTEST),
    )


def _read_flow(data: Json) -> RectifiedFlowConfig:
    check(data, {}, FLOW_KNOWN)
    return RectifiedFlowConfig(
        train_steps=number(data, "num_train_timesteps", 1000, 1, 2**20),
        shift=fraction(data, "shift", 1.0, LARGEST_SHIFT),
    )


def _read_diffusion(data: Json, kind: str) -> VariancePreservingConfig:
    # What the reference takes where an option is absent.
    data = OTHER_BETAS.get(kind, BETAS) | data
    same = SCHEDULE_SAME
    if kind == "LCMScheduler":
        same = SCHEDULE_SAME | CONSISTENCY_SAME
        data = CONSISTENCY_SAME | data
    looked_at = {*same, "trained_betas"}
    check({option: value for option, value in data.items() if option in looked_at}, same)
    end = fraction(data, "beta_end", 0.02, 1)
    return VariancePreservingConfig(
        train_steps=number(data, "num_train_timesteps", 1000, 1, 2**20),
        beta_start=fraction(data, "beta_start", 0.0001, end),
        beta_end=end,
        beta_rule=choice(data, "beta_schedule", "linear", BETA_RULES),
        clean_end=flag(data, "set_alpha_to_one", kind in ("DDIMScheduler", "LCMScheduler")),
        prediction=PREDICTIONS[choice(data, "prediction_type", "epsilon", PREDICTIONS)],
    )


def write(config: ModelConfig) -> dict[str, Json]:
    """The JSON files of a model by path, the index last; `read` and the reference read them."""
    consistent = config.denoiser.guidance_width is not None
    scheduler = _write_process(config.process, config.sampling.spacing, consistent)
    index: Json = {
        "_class_name": architecture(config.denoiser).pipeline(config),
        "_diffusers_version": "0.42.1",
        OURS: {
            "name": config.name,
            "guidance": config.guidance,
            "sampler": config.sampling.sampler,
            "steps": config.sampling.steps,
        },
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    if "timestep_spacing" not in scheduler:
        index[OURS]["spacing"] = config.sampling.spacing
    written = {SCHEDULER: scheduler}
    for network in (getattr(config, slot) for slot in SLOTS):
        one = architecture(network)
        options = written[one.config_file] = one.write(network, config)
        named = options.get("architectures", [one.kind])[0]
        index[one.folder] = [one.library, options.get("_class_name", named)]
    return written | {INDEX: index}


def _write_process(config: Any, spacing: str, consistent: bool) -> Json:
    if isinstance(config, MaskingConfig):
        ours = {"temperature": config.temperature}  # an argument of the reference's pipeline
        return {
            "_class_name": MASKS,
            "mask_token_id": config.mask,
            "masking_schedule": config.rule,
            **(ours if config.temperature != MaskingConfig.temperature else {}),
        }
    if isinstance(config, RectifiedFlowConfig):
        return {
            "_class_name": FLOW,
            "num_train_timesteps": config.train_steps,
            "shift": config.shift,
        }
    kind = {"_class_name": "LCMScheduler", **CONSISTENCY_SAME}
    karras: Json = {}
    if spacing == "karras":
        karras = {
            "_class_name": "DPMSolverMultistepScheduler",
            "timestep_spacing": "linspace",
            KARRAS: True,
        }
    return {
        **(kind if consistent else {"_class_name": "DDIMScheduler"}),
        **SCHEDULE_SAME,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_rule,
        "beta_start": config.beta_start,
        "num_train_timesteps": config.train_steps,
        "set_alpha_to_one": config.clean_end,
        "prediction_type": {v: k for k, v in PREDICTIONS.items()}[config.prediction],
        "steps_offset": OFFSET,
        "clip_sample": False,
        "timestep_spacing": spacing,
    } | karras
