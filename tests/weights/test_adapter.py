"""Motion adapters in the layout of diffusers: read, checked, written."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion.config import DiTConfig, UNetConfig
from diffusion.motion_config import MotionConfig, motion_for
from diffusion.presets import garden, sd_v1
from diffusion.weights import adapter
from diffusion.weights.architectures import motion, structure
from tests.conftest import random_params

OFFICIAL = {  # the options of v1-5-2
    "_class_name": "MotionAdapter", "_diffusers_version": "0.24.0.dev0",
    "block_out_channels": [320, 640, 1280, 1280], "motion_activation_fn": "geglu",
    "motion_attention_bias": False, "motion_cross_attention_dim": None,
    "motion_layers_per_block": 2, "motion_max_seq_length": 32,
    "motion_mid_block_layers_per_block": 1, "motion_norm_num_groups": 32,
    "motion_num_attention_heads": 8, "use_motion_mid_block": True,
}  # fmt: skip
TINY = MotionConfig((4, 8), 1, (1, 2), 2, length=6, beta_rule=None)
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def place(tmp_path):
    """A tiny adapter, and its parameters."""
    params = random_params(structure(TINY)[1], 0)
    adapter.save_adapter(tmp_path / "adapter", TINY, params)
    return tmp_path / "adapter", params


def load(root):
    config = adapter.load_config(root)
    return adapter.read_adapter(adapter.open_adapter(root, config), config)


def test_official_adapters():
    assert motion.read(OFFICIAL) == MotionConfig()
    older = OFFICIAL | {"motion_max_seq_length": 24, "use_motion_mid_block": False}
    assert motion.read(older) == MotionConfig(length=24, middle=False)
    newer = OFFICIAL | {"conv_in_channels": None, "motion_transformer_layers_per_block": 1}
    assert motion.read(newer) == MotionConfig()


@pytest.mark.parametrize(("middle", "count"), [(True, 453_209_280), (False, 417_137_600)])
def test_official_adapters_have_their_number_of_parameters(middle, count):
    leaves = jax.tree.leaves(structure(MotionConfig(middle=middle))[1])
    assert sum(leaf.size for leaf in leaves) == count
    assert len(leaves) + (21 if middle else 20) == (567 if middle else 540)


def test_the_garden_s_own_is_small():
    leaves = jax.tree.leaves(structure(motion_for(garden().denoiser))[1])
    assert sum(leaf.size for leaf in leaves) == 1_796_512


@pytest.mark.parametrize(
    "config",
    [TINY, MotionConfig(middle=False, length=24), dataclasses.replace(TINY, common_noise=0.5)],
)
def test_what_is_written_is_read(config):
    assert motion.read(motion.write(config)) == config


def test_all_parameters_come_back_and_tables_are_in_the_file(place):
    root, params = place
    jax.tree.map(np.testing.assert_array_equal, load(root), params)
    held = load_file(root / FILE)
    tables = {name: value for name, value in held.items() if name.endswith("pos_embed.pe")}
    assert len(tables) == 7
    name = "up_blocks.0.motion_modules.1.transformer_blocks.0.pos_embed.pe"
    assert tables[name].shape == (1, 6, 8)
    assert held["mid_block.motion_modules.0.proj_in.weight"].shape == (8, 8)
    assert held[name.replace("pos_embed.pe", "ff.net.0.proj.weight")].shape == (64, 8)


def test_an_adapter_is_found_beside_a_model(place, tmp_path):
    root, _ = place
    root.rename(tmp_path / "motion_adapter")
    assert adapter.load_config(tmp_path) == TINY
    with pytest.raises(FileNotFoundError, match=r"motion adapter '.*nothing' is no folder with"):
        adapter.find(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"conv_in_channels": 9}, "conv_in_channels 9 is not supported"),
        ({"motion_transformer_layers_per_block": 2}, "transformer_layers_per_block 2 is not sup"),
        ({"motion_attention_bias": True}, "motion_attention_bias True"),
        ({"motion_activation_fn": "gelu"}, "motion_activation_fn 'gelu'"),
        ({"motion_num_attention_heads": [8]}, "heads needs one entry a level"),
        ({"motion_max_seq_length": 0}, "motion_max_seq_length is 0"),
        ({"use_motion_mid_block": 1}, "use_motion_mid_block is 1; true or false"),
        ({"_diffusion": {"betas": "cosine"}}, "betas 'cosine' is not supported"),
        ({"_diffusion": 3}, "_diffusion is 3; it may hold betas and common_noise"),
        ({"_diffusion": {"betas": None, "common_noise": 1.5}}, "common_noise is 1.5; a number bet"),
    ],
)
def test_what_is_not_supported_is_named(place, options, says):
    root, _ = place
    (root / "config.json").write_text(json.dumps(OFFICIAL | options))
    with pytest.raises(ValueError, match=rf"config.json: .*{says}"):
        adapter.load_config(root)


def test_tables_that_are_others_or_missing_are_named(place):
    root, _ = place
    held = load_file(root / FILE)
    name = "down_blocks.1.motion_modules.0.transformer_blocks.0.pos_embed.pe"
    rounded = {k: v.astype(np.float16) for k, v in held.items()}
    save_file(rounded, root / FILE)
    load(root)
    turned = held | {name: np.ascontiguousarray(held[name][..., ::-1])}
    save_file(turned, root / FILE)
    with pytest.raises(ValueError, match=r"pos_embed.pe is not the table of sines and cosines"):
        load(root)
    save_file(held | {name: held[name][:, :5].copy()}, root / FILE)
    with pytest.raises(ValueError, match=r"1 wrong shape: .*pos_embed.pe of \(1, 5, 8\)"):
        load(root)
    del held[name]
    save_file(held, root / FILE)
    with pytest.raises(ValueError, match=r"1 missing: down_blocks\.1.*pos_embed\.pe"):
        load(root)


def test_what_does_not_fit_a_denoiser_is_named():
    unet = sd_v1().denoiser
    motion.check_fits(MotionConfig(), unet)
    with pytest.raises(ValueError, match="the denoiser is a DiTConfig"):
        motion.check_fits(MotionConfig(), DiTConfig())
    with pytest.raises(ValueError, match=r"block_out_channels is \(320, .*; it is \(32, 64, 128\)"):
        motion.check_fits(MotionConfig(), garden().denoiser)
    with pytest.raises(ValueError, match="layers_per_block is 2; it is 3 here"):
        motion.check_fits(MotionConfig(), dataclasses.replace(unet, layers_per_block=3))


def test_official_adapters_paint_with_their_own_noise():
    model = sd_v1()
    film = MotionConfig().sampled(model)
    assert film.process.beta_rule == "linear"
    assert (film.sampling.sampler, film.sampling.spacing) == ("ddim", "linspace")
    assert motion_for(UNetConfig()).sampled(model) is model
