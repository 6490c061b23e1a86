"""Discrete autoencoders in folders: official ones are understood, what does not fit is named."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import diffusion
from diffusion.config import ConvAutoencoderConfig, DVAEConfig
from diffusion.images import from_uint8
from diffusion.presets import garden_dvae
from diffusion.weights import configs
from diffusion.weights.architectures import architecture, dvae

CELEBAHQ = {  # the options of 2022
    "_class_name": "VQModel", "act_fn": "silu", "block_out_channels": [128, 256, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 3, "in_channels": 3, "latent_channels": 3,
    "layers_per_block": 2, "norm_num_groups": 32, "num_vq_embeddings": 8192, "out_channels": 3,
    "sample_size": 256, "up_block_types": ["UpDecoderBlock2D"] * 3,
}  # fmt: skip
AMUSED = CELEBAHQ | {
    "block_out_channels": [128, 256, 256, 512, 768], "latent_channels": 64, "vq_embed_dim": None,
    "down_block_types": ["DownEncoderBlock2D"] * 5, "up_block_types": ["UpDecoderBlock2D"] * 5,
    "mid_block_add_attention": False, "lookup_from_codebook": True, "norm_type": "group",
    "force_upcast": True, "scaling_factor": 0.18215,
}  # fmt: skip


def test_official_ones():
    assert dvae.read(CELEBAHQ) == DVAEConfig()
    assert dvae.read(AMUSED) == DVAEConfig(
        latent_channels=64, block_out_channels=(128, 256, 256, 512, 768), middle_attention=False,
        from_zero=True, scaling_factor=0.18215,
    )  # fmt: skip
    assert dvae.read(CELEBAHQ | {"vq_embed_dim": 8}).inner_channels == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("norm_type", "spatial"),
        ("act_fn", "relu"),
        ("down_block_types", ["AttnDownEncoderBlock2D"] * 3),
        ("num_vq_embeddings", "many"),
        ("num_vq_embeddings", 0),
        ("vq_embed_dim", 0),
        ("latent_channels", None),
        ("mid_block_add_attention", "yes"),
        ("scaling_factor", -1),
        ("in_channels", 1),
        ("an_option_of_next_year", 1),
    ],
)
def test_what_is_not_supported_is_named(option, value):
    with pytest.raises(ValueError, match=option):
        dvae.read(CELEBAHQ | {option: value})


@pytest.mark.parametrize(
    "config",
    [
        DVAEConfig(latent_channels=4),
        DVAEConfig(latent_channels=4, inner_channels=7, codes=5, middle_attention=False),
        ConvAutoencoderConfig(block_out_channels=(8, 4)),
    ],
)
def test_what_is_written_is_read(config):
    one = architecture(config)
    assert one.read(json.loads(json.dumps(one.write(config, garden_dvae())))) == config


def test_a_whole_model_with_codes_is_written_and_read():
    written = configs.write(garden_dvae())
    assert written[configs.INDEX]["vqvae"] == ["diffusers", "VQModel"]
    assert "vae" not in written[configs.INDEX]
    configs.check_index(written[configs.INDEX])
    assert configs.read(written, "another") == garden_dvae()


@pytest.fixture(scope="module")
def discrete(tiny, write_model, tmp_path_factory):
    """The tiny model with a dVAE."""
    autoencoder = DVAEConfig(
        latent_channels=4, codes=8, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2
    )
    config = dataclasses.replace(tiny, autoencoder=autoencoder)
    return write_model(tmp_path_factory.mktemp("discrete") / "tiny", config)


def test_it_paints_and_is_saved(discrete, tmp_path):
    artist = diffusion.load(discrete)
    pictures = artist.paint("a red house", seed=3, count=2, steps=2)
    assert pictures.shape == (2, 16, 16, 3)
    codes = artist.autoencoder.codes(from_uint8(pictures))
    again = artist.autoencoder.from_codes(np.asarray(codes, np.int32))
    np.testing.assert_allclose(again, artist.autoencoder.decode(artist.encode(pictures)), atol=1e-4)
    artist.save(tmp_path / "copy")
    copy = diffusion.load(tmp_path / "copy")
    assert copy.config == artist.config
    jax.tree.map(np.testing.assert_array_equal, copy.autoencoder.params, artist.autoencoder.params)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_vq_embeddings", 16, r"quantize\.embedding\.weight of \(8, 4\) instead of \(16, 4\)"),
        ("vq_embed_dim", 3, r"denoiser\.latent_channels is 4, autoencoder\.latent_channels is 3"),
        ("latent_channels", 5, r"wrong shape: .*instead of"),
        ("mid_block_add_attention", False, r"left over: .*mid_block\.attentions"),
    ],
)
def test_weights_that_do_not_fit_are_named(discrete, tmp_path, option, value, message):
    broken = shutil.copytree(discrete, tmp_path / "broken")
    path = broken / "vqvae/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {option: value}))
    with pytest.raises(ValueError, match=message):
        diffusion.load(broken)


def test_the_weights_of_a_vae_are_no_dvae_s(discrete, tiny_folder, tmp_path):
    broken = shutil.copytree(discrete, tmp_path / "broken")
    name = "diffusion_pytorch_model.safetensors"
    shutil.copy(tiny_folder / "vae" / name, broken / "vqvae" / name)
    with pytest.raises(ValueError, match=r"1 missing: quantize\.embedding\.weight"):
        diffusion.load(broken)
