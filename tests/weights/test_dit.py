"""Official transformers are understood, and written back; what is not supported is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion.config import DiTConfig
from diffusion.presets import garden_dit, sd_v1
from diffusion.weights import configs, files, folder
from diffusion.weights.architectures import dit, structure
from diffusion.weights.names import copies
from tests.conftest import random_params

DIT = {  # the options of the official file
    "_class_name": "Transformer2DModel", "activation_fn": "gelu-approximate",
    "attention_bias": True, "attention_head_dim": 72, "cross_attention_dim": None,
    "double_self_attention": False, "dropout": 0.0, "in_channels": 4,
    "norm_elementwise_affine": False, "norm_num_groups": 32, "norm_type": "ada_norm_zero",
    "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28,
    "num_vector_embeds": None, "only_cross_attention": False, "out_channels": 8, "patch_size": 2,
    "sample_size": 32, "upcast_attention": False, "use_linear_projection": False,
}  # fmt: skip
PIXART = DIT | {
    "attention_type": "default", "caption_channels": 4096, "cross_attention_dim": 1152,
    "norm_eps": 1e-06, "norm_type": "ada_norm_single", "sample_size": 64,
}  # fmt: skip
TINY_WORDS = DiTConfig(layers=2, heads=2, head_width=4, context_width=8, sample_size=8)
TINY_LABEL = dataclasses.replace(TINY_WORDS, context_width=1, classes=3)


def test_official_transformers():
    words, label = DiTConfig(), DiTConfig(classes=1000, context_width=1, sample_size=32)
    assert dit.read(PIXART) == words
    assert dit.read(DIT) == label
    large = DiTConfig(sample_size=128, position_scale=2, told_scale=8)
    assert dit.read(PIXART | {"sample_size": 128}) == large
    sigma = {"sample_size": 128, "use_additional_conditions": False, "interpolation_scale": 2}
    assert dit.read(PIXART | sigma) == dataclasses.replace(large, told_scale=None)
    today = {"_class_name": "DiTTransformer2DModel", "norm_eps": 1e-05}
    assert dit.read(DIT | today) == label
    today = PIXART | {"_class_name": "PixArtTransformer2DModel"}
    del today["norm_type"]
    assert dit.read(today) == words


@pytest.mark.parametrize(
    "config",
    [DiTConfig(), DiTConfig(sample_size=128, position_scale=2, told_scale=8), TINY_LABEL],
)
def test_what_is_written_is_read(config):
    model = dataclasses.replace(sd_v1(), image_size=8 * config.sample_size)
    assert dit.read(dit.write(config, model)) == config


def test_a_garden_model_with_a_transformer_comes_back():
    written = configs.write(garden_dit())
    assert written[configs.INDEX]["_class_name"] == "PixArtAlphaPipeline"
    assert written[configs.INDEX]["transformer"] == ["diffusers", "PixArtTransformer2DModel"]
    assert "unet" not in written[configs.INDEX]
    configs.check_index(written[configs.INDEX])
    assert configs.read(written, "other") == garden_dit()
    with pytest.raises(ValueError, match="a model with unet is not supported"):
        configs.check_index(written[configs.INDEX] | {"unet": ["diffusers", "UNet"]})
    with pytest.raises(ValueError, match=r"sample_size is 16; 32 is needed.* 256x256 pixels"):
        configs.write(dataclasses.replace(garden_dit(), image_size=256))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (PIXART | {"_class_name": "UNet2DConditionModel"}, "_class_name 'UNet2DConditionModel' is"),
        (PIXART | {"norm_type": "layer_norm"}, "norm_type 'layer_norm' is not supported"),
        (PIXART | {"norm_eps": 1e-5}, "norm_eps 1e-05 is not supported; only 1e-06"),
        (DIT | {"norm_eps": 1e-6}, "norm_eps 1e-06 is not supported; only 1e-05"),
        (PIXART | {"activation_fn": "geglu"}, "activation_fn 'geglu'"),
        (PIXART | {"attention_type": "gated"}, "attention_type 'gated'"),
        (PIXART | {"only_cross_attention": True}, "only_cross_attention True"),
        (PIXART | {"out_channels": 5}, "out_channels is 5; 4 or 8 is needed"),
        (PIXART | {"caption_channels": None}, "caption_channels is absent"),
        (PIXART | {"cross_attention_dim": 1000}, "cross_attention_dim is 1000; 1152 is needed"),
        (PIXART | {"sample_size": None}, "sample_size is None"),
        (DIT | {"use_rope": True}, "use_rope True is not supported"),
    ],
)
def test_what_is_not_supported_is_named(data, says):
    with pytest.raises(ValueError, match=says):
        dit.read(data)


@pytest.mark.parametrize("kind", ["DiTPipeline", "StableDiffusion3Pipeline"])
def test_pipelines_that_hear_no_words_of_ours_are_refused(kind):
    with pytest.raises(ValueError, match=f"{kind} is not supported; known: StableDiff.*, PixArt"):
        configs.check_index({"_class_name": kind})


def write(root, config):
    """A folder with a transformer alone."""
    model = dataclasses.replace(sd_v1(), image_size=8 * config.sample_size)
    options = dit.write(config, model)
    folder.write_json(root / "transformer/config.json", options)
    index = {"transformer": ["diffusers", options["_class_name"]]}
    folder.write_json(root / "model_index.json", index)
    params = random_params(structure(config)[1], 0)
    path = root / "transformer/diffusion_pytorch_model.safetensors"
    files.save_params(path, params, dit.NAMES)
    return path, params


def test_a_star_that_is_left_stands_for_every_block():
    known = ["blocks.*.time", "blocks.0.out", "blocks.10.out", "blocks.2.out", "out"]
    assert copies("blocks.*.time", known) == [f"blocks.{n}.time" for n in (0, 2, 10)]
    assert copies("out", known) == ["out"]


def test_what_the_files_of_dit_hold_in_every_block_is_one_here(tmp_path):
    path, params = write(tmp_path, TINY_LABEL)
    held = load_file(path)
    embedder = "norm1.emb.class_embedder.embedding_table.weight"
    np.testing.assert_array_equal(
        held[f"transformer_blocks.0.{embedder}"], held[f"transformer_blocks.1.{embedder}"]
    )
    read = folder.load_network(tmp_path, "denoiser")
    np.testing.assert_array_equal(read.label.table.embedding, params["label"]["table"]["embedding"])
    held[f"transformer_blocks.1.{embedder}"] = held[f"transformer_blocks.1.{embedder}"] + 1
    save_file(held, path)
    with pytest.raises(ValueError, match=r"blocks\.0.*embedding.* and .*blocks\.1.* differ; only"):
        folder.load_network(tmp_path, "denoiser")
    del held[f"transformer_blocks.1.{embedder}"]
    save_file(held, path)
    with pytest.raises(ValueError, match=r"1 missing: transformer_blocks\.1\.norm1\.emb"):
        folder.load_network(tmp_path, "denoiser")


def test_all_parameters_come_back(tmp_path):
    _, params = write(tmp_path, TINY_WORDS)
    _, like = structure(TINY_WORDS)
    path = tmp_path / "transformer/diffusion_pytorch_model.safetensors"
    read = files.Weights.open([path], like, dit.NAMES).read()
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_the_weights_of_a_unet_in_the_folder_of_a_transformer_are_named(tmp_path, tiny_folder):
    path, _ = write(tmp_path, TINY_WORDS)
    unet = tiny_folder / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(unet.read_bytes())
    with pytest.raises(ValueError, match=r"beside it \(\d+ missing: .* left over: conv_in") as said:
        folder.load_network(tmp_path, "denoiser")
    assert "\n" not in str(said.value)
    options = json.loads((tiny_folder / "unet/config.json").read_text())
    folder.write_json(tmp_path / "transformer/config.json", options)
    with pytest.raises(ValueError, match=r"transformer/config.json: _class_name 'UNet2DCond"):
        folder.load_network(tmp_path, "denoiser")


def test_a_pickle_is_refused(tmp_path):
    path, _ = write(tmp_path, TINY_WORDS)
    path.unlink()
    path.with_suffix(".bin").write_bytes(b"\x80\x02pickle")
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.bin is a pickle"):
        folder.load_network(tmp_path, "denoiser")
