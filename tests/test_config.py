import dataclasses
import json

import jax
import numpy as np
import pytest

from diffusion.config import (
    AutoencoderConfig,
    DenoiserConfig,
    ModelConfig,
    ProcessConfig,
    RectifiedFlowConfig,
    UNetConfig,
    VariancePreservingConfig,
)
from diffusion.config_text import from_dict, names, override
from diffusion.presets import garden, garden64, sd_v1, sd_v2, sd_v2_base
from diffusion.weights.architectures import structure


@pytest.mark.parametrize(
    ("preset", "slot", "tensors", "parameters"),
    [
        (sd_v1, "text_encoder", 196, 123_060_480),
        (sd_v1, "denoiser", 686, 859_520_964),
        (sd_v1, "autoencoder", 248, 83_653_863),
        (sd_v2_base, "text_encoder", 372, 340_387_840),
        (sd_v2_base, "denoiser", 686, 865_910_724),
    ],
)
def test_as_many_parameters_as_the_official_files(preset, slot, tensors, parameters):
    """The linear projections of SD 2.x and the 1x1 convolutions of SD 1.x hold the same numbers."""
    _, params = structure(getattr(preset(), slot))
    leaves = jax.tree.leaves(params)
    assert len(leaves) == tensors
    assert sum(np.prod(leaf.shape, dtype=np.int64) for leaf in leaves) == parameters


def test_sd_v2_is_the_base_model_at_768_with_velocity():
    base, model = sd_v2_base(), sd_v2()
    assert (model.text_encoder, model.denoiser, model.autoencoder) == (
        base.text_encoder,
        base.denoiser,
        base.autoencoder,
    )
    assert base.autoencoder == sd_v1().autoencoder
    assert (base.image_size, model.image_size) == (512, 768)
    assert (base.process.prediction, model.process.prediction) == ("epsilon", "v")
    assert (sd_v1().latent_size, model.latent_size) == (64, 96)


def test_sizes_that_follow_from_others():
    assert garden64().latent_size == garden().latent_size == 16
    assert (garden64().autoencoder.downscale, garden().autoencoder.downscale) == (4, 8)
    assert sd_v1().autoencoder.downscale == 8
    assert sd_v1().denoiser.time_width == 1280


@pytest.mark.parametrize("preset", [garden, garden64, sd_v1, sd_v2_base, sd_v2])
@pytest.mark.parametrize("slot", ["text_encoder", "denoiser", "autoencoder", "process"])
def test_json_and_back(preset, slot):
    config = getattr(preset(), slot)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    assert from_dict(type(config), plain) == config


@pytest.mark.parametrize("preset", [garden, sd_v1])
def test_what_fills_a_slot_keeps_its_contract(preset):
    assert isinstance(preset().denoiser, DenoiserConfig)
    assert isinstance(preset().autoencoder, AutoencoderConfig)
    assert isinstance(preset().process, ProcessConfig)
    assert isinstance(RectifiedFlowConfig(), ProcessConfig)
    assert not isinstance(preset().process, DenoiserConfig)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"colour": 3}, "colour"),
        ({"norm_groups": "many"}, "norm_groups"),
        ({"heads": [8, 8, 8, "eight"]}, "heads"),
        ({"heads": 8}, "heads"),
        ({"context_width": None}, "context_width"),
        ({"attention": [[True]]}, "attention"),
    ],
)
def test_from_dict_names_the_wrong_entry(entries, message):
    with pytest.raises(ValueError, match=f"UNetConfig: .*{message}"):
        from_dict(UNetConfig, entries)


@dataclasses.dataclass(frozen=True)
class Needy:
    colour: str


def test_from_dict_names_the_missing_entry():
    with pytest.raises(ValueError, match=r"Needy: .*colour"):
        from_dict(Needy, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["denoiser.attention=(True,)"], r"denoiser\.attention needs one entry a level: 4"),
        (["denoiser.heads=(8,8)"], r"denoiser\.heads needs one entry a level: 4"),
        (["denoiser.context_width=5"], r"context_width.*text_encoder\.width"),
        (["autoencoder.latent_channels=8"], "latent_channels"),
        (["denoiser.in_channels=8"], r"denoiser\.in_channels must be 4, or 9 for inpainting"),
        (["image_size=500"], "image_size"),
        (["process.prediction=x0"], r"process\.prediction is 'x0'; choose one of epsilon, v"),
        (
            ["process.beta_rule=cosine"],
            r"beta_rule is 'cosine'; choose one of scaled_linear, linear",
        ),
        (["text_encoder.layers=1000000"], r"layers is 1000000; give 128 at most"),
        (["autoencoder.layers_per_block=1000000000"], r"layers_per_block is .*; give 128 at most"),
        (["text_encoder.width=99999999"], r"width is 99999999; give 1048576 at most"),
        (["process.train_steps=0"], r"process\.train_steps is 0; give whole numbers from 1 on"),
        (["text_encoder.layers=0"], r"text_encoder\.layers is 0"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        override(sd_v1(), settings)


@pytest.mark.parametrize("shift", ["0", "-1.0", "1e999"])
def test_a_shift_that_makes_no_sense_is_refused(shift):
    flow = dataclasses.replace(sd_v1(), process=RectifiedFlowConfig())
    assert override(flow, ["process.shift=3"]).process == RectifiedFlowConfig(shift=3.0)
    with pytest.raises(ValueError, match=r"process\.shift is .*; give a number above 0"):
        override(flow, [f"process.shift={shift}"])


def test_override_replaces_what_is_named_and_nothing_else():
    settings = ["denoiser.norm_groups=16", "denoiser.heads=(2,4,8,16)", "guidance=5"]
    config = override(sd_v1(), [*settings, "name=my model", "process.prediction=v"])
    denoiser = UNetConfig(norm_groups=16, heads=(2, 4, 8, 16))
    process = VariancePreservingConfig(prediction="v")
    expected = ModelConfig(name="my model", guidance=5.0, denoiser=denoiser, process=process)
    assert config == expected
    assert type(config.guidance) is float
    assert override(config, []) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("denoiser.norm_groups", r"'denoiser\.norm_groups'.*NAME=VALUE"),
        ("denoiser.colour=3", r"'denoiser\.colour=3'.*denoiser\.norm_groups"),
        ("garden.denoiser=3", r"garden\.denoiser"),
        ("name.first=3", r"name\.first"),
        ("=3", "=3"),
        ("denoiser.norm_groups=many", "norm_groups"),
        ("denoiser.norm_groups=1.5", "norm_groups"),
        ("denoiser.heads=5", "heads"),
        ("denoiser.heads=(1,2,3,4.5)", "heads"),
        ("denoiser=3", "denoiser"),
        ("denoiser.block_out_channels=()", r"denoiser\.block_out_channels is \(\)"),
        ("autoencoder.block_out_channels=()", r"autoencoder\.block_out_channels is \(\)"),
        ("process={'beta_end': 0.02}", r"process=.*NAME=VALUE"),
        ("denoiser.block_out_channels=(33,66,99,132)", "begins with 33; give an even number"),
        ("guidance=much", "guidance"),
        ("image_size=500", "image_size"),
    ],
)
def test_override_refuses(setting, message):
    with pytest.raises(ValueError, match=message):
        override(sd_v1(), [setting])


def test_names_lists_every_entry_with_dots():
    listed = names(sd_v1()).split(", ")
    assert {"name", "denoiser.heads", "autoencoder.scaling_factor", "process.beta_end"} <= {*listed}
    assert len(listed) == len({*listed}) == 3 + 9 + 10 + 6 + 6 + 3
