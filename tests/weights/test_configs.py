"""Official configuration files are understood; what we do not paint with is named."""

import copy
import dataclasses

import pytest

from diffusion.config import RectifiedFlowConfig, SamplingConfig, VariancePreservingConfig
from diffusion.presets import garden, sd_v1, sd_v2, sd_v2_base
from diffusion.weights import configs
from diffusion.weights.architectures import architecture

PATHS = {
    "model_index": configs.INDEX, "text": "text_encoder/config.json", "unet": "unet/config.json",
    "vae": "vae/config.json", "schedule": configs.SCHEDULER,
}  # fmt: skip
CROSS_DOWN, CROSS_UP = ["CrossAttnDownBlock2D"] * 3, ["CrossAttnUpBlock2D"] * 3
INDEX = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.2.2"}
UNET_1 = {  # the options of 2022, when SD 1.4 came out
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False,
    "cross_attention_dim": 768, "down_block_types": [*CROSS_DOWN, "DownBlock2D"],
    "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4,
    "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
    "out_channels": 4, "sample_size": 64, "up_block_types": ["UpBlock2D", *CROSS_UP],
}  # fmt: skip
UNET_2 = UNET_1 | {
    "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 96,
    "use_linear_projection": True, "upcast_attention": True, "num_class_embeds": None,
    "dual_cross_attention": False, "only_cross_attention": [False] * 4, "dropout": 0.0,
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4,
    "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
TEXT_1 = {
    "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 49408,
    "hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072,
    "num_attention_heads": 12, "num_hidden_layers": 12, "max_position_embeddings": 77,
    "layer_norm_eps": 1e-05, "pad_token_id": 1, "return_dict": True, "projection_dim": 768,
}  # fmt: skip
TEXT_2 = TEXT_1 | {
    "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096,
    "num_attention_heads": 16, "num_hidden_layers": 23,
}  # fmt: skip
SCHEDULE_1 = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip
FLOW = {  # of Stable Diffusion 3.5
    "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0,
    "base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15,
    "invert_sigmas": False, "shift_terminal": None, "use_dynamic_shifting": False,
    "use_karras_sigmas": False,
}  # fmt: skip
SCHEDULE_2 = SCHEDULE_1 | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}


SAYS = {  # where the message names something else than the option
    "attention_head_dim": "heads|attention_head_dim",
    "cross_attention_dim": "context_width",
    "_class_name": r"FlowMatchHeunDiscreteScheduler|\['a'\]",
    "_diffusion": "guidance|name|sampler|steps|spacing|_diffusion",
}


def files(**changes):
    """The files of SD 1.4, some of them with other entries."""
    contents = {"model_index": INDEX, "text": TEXT_1, "unet": UNET_1, "vae": VAE}
    contents |= {"schedule": SCHEDULE_1}
    return {PATHS[name]: entry | changes.get(name, {}) for name, entry in contents.items()}


def test_stable_diffusion_1():
    assert configs.read(files(), "sd-v1") == sd_v1()


def test_stable_diffusion_2():
    changed = {"text": TEXT_2, "unet": UNET_2, "schedule": SCHEDULE_2}
    assert configs.read(files(**changed), "sd-v2") == sd_v2()
    base = changed | {"unet": UNET_2 | {"sample_size": 64}, "schedule": SCHEDULE_1}
    assert configs.read(files(**base), "sd-v2-base") == sd_v2_base()


def test_how_a_model_paints_comes_back():
    trailing = configs.read(files(schedule={"timestep_spacing": "trailing"}), "sd-v1")
    assert trailing == dataclasses.replace(sd_v1(), sampling=SamplingConfig(spacing="trailing"))
    few = dataclasses.replace(garden(), sampling=SamplingConfig("euler", 4, "trailing"))
    assert configs.read(configs.write(few), "garden") == few


def test_a_latent_consistency_model():
    changes = {
        "model_index": {"_class_name": "LatentConsistencyModelPipeline"},
        "unet": {"time_cond_proj_dim": 256},
        "schedule": {
            "_class_name": "LCMScheduler", "set_alpha_to_one": True, "steps_offset": 0,
            "original_inference_steps": 50, "timestep_scaling": 10.0,
        },
    }  # fmt: skip
    found = configs.read(files(**changes), "lcm")
    assert found.denoiser.guidance_width == 256
    assert (found.sampling.sampler, found.sampling.steps, found.guidance) == ("lcm", 4, 8.5)
    written = configs.write(found)
    assert written[configs.INDEX]["_class_name"] == "LatentConsistencyModelPipeline"
    assert written[configs.INDEX]["scheduler"] == ["diffusers", "LCMScheduler"]
    assert written[configs.SCHEDULER]["original_inference_steps"] == 50
    assert configs.read(written, "lcm") == found
    for option, value in (
        ("clip_sample", True), ("original_inference_steps", 100), ("timestep_scaling", 1.0),
    ):  # fmt: skip
        odd = changes | {"schedule": changes["schedule"] | {option: value}}
        with pytest.raises(ValueError, match=f"scheduler_config.json: {option} {value}"):
            configs.read(files(**odd), "lcm")


def test_options_that_are_absent_have_the_reference_s_defaults():
    bare = {path: {} for path in PATHS.values()}
    bare["text_encoder/config.json"] = TEXT_1
    bare["scheduler/scheduler_config.json"] = SCHEDULE_1
    bare["vae/config.json"] = VAE
    assert configs.read(bare, "sd-v1") == sd_v1()


def test_an_absent_option_of_a_scheduler_means_what_the_reference_takes():
    contents = files(schedule={"_class_name": "DDIMScheduler"})
    assert configs.read(contents, "sd-v1") == sd_v1()
    del contents[configs.SCHEDULER]["set_alpha_to_one"]
    clean = dataclasses.replace(sd_v1(), process=VariancePreservingConfig(clean_end=True))
    assert configs.read(contents, "sd-v1") == clean
    assert configs.read(configs.write(clean), "another") == clean


@pytest.mark.parametrize(
    ("kind", "start", "end", "rule"),
    [
        ("PNDMScheduler", 0.0001, 0.02, "linear"),
        ("DPMSolverMultistepScheduler", 0.0001, 0.02, "linear"),
        ("HeunDiscreteScheduler", 0.00085, 0.012, "linear"),
        ("LCMScheduler", 0.00085, 0.012, "scaled_linear"),
    ],
)
def test_absent_betas_are_those_of_the_reference_s_class(kind, start, end, rule):
    contents = files()
    contents[configs.SCHEDULER] = {"_class_name": kind}
    found = configs.read(contents, "odd").process
    assert (found.beta_start, found.beta_end, found.beta_rule) == (start, end, rule)


@pytest.mark.parametrize(
    "betas",
    [
        {"beta_start": 0.0001, "beta_end": 0.02, "beta_rule": "linear", "clean_end": True},  # DiT
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_rule": "linear"},  # AnimateDiff
        {"beta_start": 0.0015, "beta_end": 0.0195},  # latent diffusion, celebahq
    ],
)
def test_the_betas_of_other_models_come_back(betas):
    config = dataclasses.replace(sd_v1(), process=VariancePreservingConfig(**betas))
    written = configs.write(config)
    assert written[configs.SCHEDULER]["beta_start"] == betas["beta_start"]
    assert configs.read(written, "another") == config


def test_a_rectified_flow():
    contents = files() | {configs.SCHEDULER: FLOW}
    found = configs.read(contents, "flow")
    assert found.process == RectifiedFlowConfig(shift=3.0)
    assert found.sampling == SamplingConfig("euler")
    written = configs.write(found)
    assert written[configs.INDEX]["scheduler"] == ["diffusers", FLOW["_class_name"]]
    assert written[configs.SCHEDULER] == {name: FLOW[name] for name in list(FLOW)[:3]}
    few = dataclasses.replace(found, sampling=SamplingConfig("ddpm", 4, "trailing"))
    for config in (found, few):  # its file has no place for the spacing
        assert configs.read(configs.write(config), "another") == config
    bare = files() | {configs.SCHEDULER: {"_class_name": FLOW["_class_name"]}}
    assert configs.read(bare, "flow").process == RectifiedFlowConfig()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dynamic_shifting", True),
        ("use_karras_sigmas", True),
        ("use_exponential_sigmas", True),
        ("use_beta_sigmas", True),
        ("invert_sigmas", True),
        ("stochastic_sampling", True),
        ("shift_terminal", 0.1),
        ("an_option_of_next_year", 1),
        ("shift", 0),
        ("shift", "3"),
        ("num_train_timesteps", 0.5),
    ],
)
def test_what_a_flow_s_file_may_not_say_is_named(option, value):
    contents = files() | {configs.SCHEDULER: FLOW | {option: value}}
    with pytest.raises(ValueError, match=f"scheduler_config.json: {option}"):
        configs.read(contents, "odd")


@pytest.mark.parametrize("kind", ["PNDMScheduler", "DDIMScheduler", "DDPMScheduler"])
def test_what_the_pipeline_of_the_reference_sets_itself_may_be_absent_or_otherwise(kind):
    contents = files(schedule={"_class_name": kind, "clip_sample": True, "steps_offset": 0})
    assert configs.read(contents, "sd-v1") == sd_v1()
    for option in ("clip_sample", "steps_offset"):
        del contents[configs.SCHEDULER][option]
    assert configs.read(contents, "sd-v1") == sd_v1()


def test_the_files_that_are_read():
    assert {configs.INDEX, *configs.paths(INDEX)} == set(PATHS.values())


def test_inpainting_models_have_nine_channels():
    config = configs.read(files(unet={"in_channels": 9}), "inpainting")
    assert config.inpaints
    assert configs.write(config)[configs.INDEX]["_class_name"] == "StableDiffusionInpaintPipeline"


@pytest.mark.parametrize("config", [garden(), sd_v1(), sd_v2_base(), sd_v2()], ids=lambda c: c.name)
def test_what_is_written_is_read(config):
    written = configs.write(config)
    assert set(written) == set(PATHS.values())
    configs.check_index(written[configs.INDEX])
    assert configs.read(written, "another") == config


@pytest.mark.parametrize(
    ("part", "option", "value"),
    [
        ("unet", "norm_eps", 1e-6),
        ("unet", "act_fn", "gelu"),
        ("unet", "flip_sin_to_cos", False),
        ("unet", "freq_shift", 1),
        ("unet", "downsample_padding", 0),
        ("unet", "transformer_layers_per_block", [1, 2, 10]),
        ("unet", "addition_embed_type", "text_time"),
        ("unet", "class_embed_type", "timestep"),
        ("unet", "num_class_embeds", 1000),
        ("unet", "dual_cross_attention", True),
        ("unet", "only_cross_attention", [False, True, False, False]),
        ("unet", "num_attention_heads", 8),
        ("vae", "latents_mean", [0.1] * 4),
        ("schedule", "use_exponential_sigmas", True),
        ("schedule", "use_beta_sigmas", True),
        ("schedule", "use_lu_lambdas", True),
        ("unet", "in_channels", 8),
        ("unet", "in_channels", "4"),
        ("unet", "layers_per_block", 10**9),
        ("unet", "layers_per_block", [2, 2, 2, 2]),
        ("unet", "block_out_channels", [320] * 1000),
        ("unet", "block_out_channels", "320"),
        ("unet", "block_out_channels", [320, 640.5]),
        ("unet", "attention_head_dim", True),
        ("unet", "attention_head_dim", [5, 10]),
        ("unet", "down_block_types", ["AttnDownBlock2D", *CROSS_DOWN]),
        ("unet", "down_block_types", 3),
        ("unet", "up_block_types", [*CROSS_UP, "UpBlock2D"]),
        ("unet", "cross_attention_dim", 2048),
        ("unet", "sample_size", 1.5),
        ("vae", "down_block_types", ["AttnDownEncoderBlock2D"] * 4),
        ("vae", "latent_channels", 16),
        ("vae", "shift_factor", 0.1159),
        ("vae", "use_quant_conv", False),
        ("vae", "scaling_factor", "0.18"),
        ("vae", "scaling_factor", 0),
        ("vae", "in_channels", 1),
        ("text", "model_type", "t5"),
        ("text", "hidden_act", "relu"),
        ("text", "num_hidden_layers", 10**9),
        ("text", "layer_norm_eps", None),
        ("schedule", "_class_name", "FlowMatchHeunDiscreteScheduler"),
        ("schedule", "_class_name", ["a"]),
        ("schedule", "beta_schedule", "squaredcos_cap_v2"),
        ("schedule", "beta_start", "0.1"),
        ("schedule", "prediction_type", "sample"),
        ("schedule", "rescale_betas_zero_snr", True),
        ("schedule", "trained_betas", [0.1, 0.2]),
        ("schedule", "set_alpha_to_one", None),
        ("schedule", "num_train_timesteps", -1),
        ("model_index", "_diffusion", {"guidance": "loud"}),
        ("model_index", "_diffusion", {"guidance": float("nan")}),
        ("model_index", "_diffusion", {"name": 3}),
        ("model_index", "_diffusion", {"schedule": {"beta_start": 0.1}}),
        ("model_index", "_diffusion", []),
        ("model_index", "_diffusion", {"sampler": "best"}),
        ("model_index", "_diffusion", {"steps": 0}),
        ("model_index", "_diffusion", {"spacing": "even"}),
        ("unet", "time_cond_proj_dim", "wide"),
    ],
)
def test_what_is_not_supported_is_named(part, option, value):
    with pytest.raises(ValueError, match=SAYS.get(option, option)):
        configs.read(files(**{part: {option: value}}), "odd")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, "StableDiffusionXLPipeline"),
        ({"_class_name": "StableDiffusion3Pipeline"}, "StableDiffusion3Pipeline"),
        ({"_class_name": None}, "None"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "text_encoder_2"),
        ({"transformer": ["diffusers", "SD3Transformer2DModel"]}, "transformer"),
    ],
)
def test_other_pipelines_are_named(change, name):
    with pytest.raises(ValueError, match=name):
        configs.check_index(INDEX | change)
    configs.check_index(copy.deepcopy(INDEX) | {"image_encoder": [None, None]})


def test_a_network_without_an_architecture_is_named():
    with pytest.raises(ValueError, match=r"str has no architecture; known: .*UNetConfig"):
        architecture("unet")


EMA = {"decay": 0.9999, "inv_gamma": 1.0, "power": 0.75, "optimization_step": 40000}


def test_options_of_a_training_are_ignored_with_one_note():
    said = r"decay, inv_gamma, power, optimization_step: ignored, as UNet2DConditionModel has no"
    with pytest.warns(UserWarning, match=said) as notes:
        assert configs.read(files(unet=EMA), "sd-v1") == sd_v1()
    assert len(notes) == 1
    later = EMA | {"_diffusers_version": "0.99.0"}  # there such an option may mean something
    with pytest.raises(ValueError, match=r"unet/config.json: decay 0.9999 is not supported"):
        configs.read(files(unet=later), "odd")


@pytest.mark.parametrize(
    ("version", "size", "pixels"),
    [
        ("0.8.1", 32, 512), ("0.8.0.dev0", 32, 512), ("0.2.2", 96, 768), ("0.9.0", 32, 256),
        ("0.10.2", 32, 256), (None, 32, 256),
    ],
)  # fmt: skip
def test_folders_before_diffusers_0_9_paint_512_pixels(version, size, pixels):
    changes = {"sample_size": size, "_diffusers_version": version}
    assert configs.read(files(unet=changes), "old").image_size == pixels


def test_steps_spaced_as_karras_has_them():
    asked = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    found = configs.read(files(schedule=asked), "sharp")
    assert found.sampling.spacing == "karras"
    written = configs.write(found)
    assert written[configs.SCHEDULER]["_class_name"] == "DPMSolverMultistepScheduler"
    assert written[configs.SCHEDULER]["use_karras_sigmas"] is True
    assert configs.read(written, "sharp") == found
    assert configs.read(files(schedule={"use_karras_sigmas": True}), "sd-v1") == sd_v1()  # PNDM
    with pytest.raises(ValueError, match=r"use_karras_sigmas is 1; true or false is needed"):
        configs.read(files(schedule=asked | {"use_karras_sigmas": 1}), "odd")
