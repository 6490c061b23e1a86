import dataclasses
import json

import jax
import numpy as np
import pytest

from diffusion.config import (
    ModelConfig,
    UNetConfig,
    VariancePreservingConfig,
    from_dict,
    garden,
    names,
    override,
    sd_v1,
    sd_v2,
    sd_v2_base,
)
from diffusion.weights.folder import structure_of


@pytest.mark.parametrize(
    ("preset", "part", "tensors", "parameters"),
    [
        (sd_v1, "text_encoder", 196, 123_060_480),
        (sd_v1, "unet", 686, 859_520_964),
        (sd_v1, "vae", 248, 83_653_863),
        (sd_v2_base, "text_encoder", 372, 340_387_840),
        (sd_v2_base, "unet", 686, 865_910_724),
    ],
)
def test_as_many_parameters_as_the_official_files(preset, part, tensors, parameters):
    """The linear projections of SD 2.x and the 1x1 convolutions of SD 1.x hold the same numbers."""
    _, params = structure_of(preset(), part)
    leaves = jax.tree.leaves(params)
    assert len(leaves) == tensors
    assert sum(np.prod(leaf.shape, dtype=np.int64) for leaf in leaves) == parameters


def test_sd_v2_is_the_base_model_at_768_with_velocity():
    base, model = sd_v2_base(), sd_v2()
    assert (model.text_encoder, model.denoiser, model.autoencoder) == (
        base.text_encoder,
        base.unet,
        base.vae,
    )
    assert base.vae == sd_v1().autoencoder
    assert (base.image_size, model.image_size) == (512, 768)
    assert (base.schedule.prediction, model.process.prediction) == ("epsilon", "v")
    assert (sd_v1().latent_size, model.latent_size) == (64, 96)


def test_sizes_that_follow_from_others():
    assert garden().latent_size == 16
    assert garden().autoencoder.downscale == 4
    assert sd_v1().autoencoder.downscale == 8
    assert sd_v1().denoiser.time_width == 1280


@pytest.mark.parametrize("preset", [garden, sd_v1, sd_v2_base, sd_v2])
def test_json_and_back(preset):
    plain = json.loads(json.dumps(dataclasses.asdict(preset())))
    assert from_dict(ModelConfig, plain) == preset()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"unet": {"colour": 3}}, "colour"),
        ({"unet": {"norm_groups": "many"}}, "norm_groups"),
        ({"unet": {"heads": [8, 8, 8, "eight"]}}, "heads"),
        ({"unet": {"heads": 8}}, "heads"),
        ({"guidance": None}, "guidance"),
        ({"schedule": [1]}, "schedule"),
    ],
)
def test_from_dict_names_the_wrong_entry(entries, message):
    with pytest.raises(ValueError, match=message):
        from_dict(ModelConfig, entries)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"unet": {"attention": [True]}}, r"unet\.attention"),
        ({"unet": {"heads": [8, 8]}}, r"unet\.heads"),
        ({"unet": {"context_width": 5}}, r"context_width.*text_encoder\.width"),
        ({"vae": {"latent_channels": 8}}, "latent_channels"),
        ({"image_size": 500}, "image_size"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        from_dict(ModelConfig, entries)


def test_override_replaces_what_is_named_and_nothing_else():
    settings = ["unet.norm_groups=16", "unet.heads=(2,4,8,16)", "guidance=5", "name=my model"]
    settings.append("schedule.prediction=v")
    config = override(sd_v1(), settings)
    unet = dataclasses.replace(UNetConfig(), norm_groups=16, heads=(2, 4, 8, 16))
    schedule = VariancePreservingConfig(prediction="v")
    assert config == ModelConfig(name="my model", guidance=5.0, unet=unet, schedule=schedule)
    assert type(config.guidance) is float
    assert override(config, []) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("unet.norm_groups", r"'unet\.norm_groups'.*NAME=VALUE"),
        ("unet.colour=3", r"'unet\.colour=3'.*unet\.norm_groups"),
        ("garden.unet=3", r"garden\.unet"),
        ("name.first=3", r"name\.first"),
        ("=3", "=3"),
        ("unet.norm_groups=many", "norm_groups"),
        ("unet.norm_groups=1.5", "norm_groups"),
        ("unet.heads=5", "heads"),
        ("unet.heads=(1,2,3,4.5)", "heads"),
        ("unet=3", "unet"),
        ("unet.block_out_channels=()", r"unet\.block_out_channels is \(\)"),
        ("vae.block_out_channels=()", r"vae\.block_out_channels is \(\)"),
        ("schedule={'beta_end': 0.02}", r"schedule=.*NAME=VALUE"),
        ("unet.block_out_channels=(33,66,99,132)", "begins with 33; give an even number"),
        ("guidance=much", "guidance"),
        ("image_size=500", "image_size"),
    ],
)
def test_override_refuses(setting, message):
    with pytest.raises(ValueError, match=message):
        override(sd_v1(), [setting])


def test_names_lists_every_entry_with_dots():
    listed = names(sd_v1()).split(", ")
    assert {"name", "unet.heads", "vae.scaling_factor", "schedule.beta_end"} <= {*listed}
    assert len(listed) == len({*listed}) == 3 + 8 + 9 + 6 + 4
