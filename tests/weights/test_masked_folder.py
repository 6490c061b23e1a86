"""Painters of codes in folders: official ones are understood, what does not fit is named."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors import safe_open

import diffusion
from diffusion.config import (
    DVAEConfig,
    SamplingConfig,
    TextEncoderConfig,
    VAEConfig,
)
from diffusion.config_codes import MaskedTransformerConfig, MaskingConfig
from diffusion.inspection.trace import trace
from diffusion.presets import garden, garden_dvae, garden_masked
from diffusion.settings import Settings
from diffusion.weights import configs
from diffusion.weights.architectures import architecture, dvae, masked, text_encoder

PROMPT = "a red house"
OFFICIAL = {  # the options of amused-256
    "_class_name": "UVit2DModel", "attention_dropout": 0.0, "block_num_heads": 12,
    "block_out_channels": 768, "codebook_size": 8192, "cond_embed_dim": 768, "downsample": False,
    "encoder_hidden_size": 768, "hidden_dropout": 0.0, "hidden_size": 1024, "in_channels": 768,
    "intermediate_size": 2816, "layer_norm_eps": 1e-06, "ln_elementwise_affine": True,
    "micro_cond_embed_dim": 1280, "micro_cond_encode_dim": 256, "num_attention_heads": 16,
    "num_hidden_layers": 22, "num_res_blocks": 3, "sample_size": 16, "upsample": False,
    "use_bias": False, "vocab_size": 8256,
}  # fmt: skip
CLIP = {
    "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "quick_gelu",
    "hidden_size": 768, "intermediate_size": 3072, "model_type": "clip_text_model",
    "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768,
}  # fmt: skip
VQ = {
    "_class_name": "VQModel", "block_out_channels": [128, 256, 256, 512, 768],
    "down_block_types": ["DownEncoderBlock2D"] * 5, "latent_channels": 64, "layers_per_block": 2,
    "lookup_from_codebook": True, "mid_block_add_attention": False, "num_vq_embeddings": 8192,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
}  # fmt: skip
INDEX = {"_class_name": "AmusedPipeline"} | {
    name: ["library", "class"] for name in ("vqvae", "transformer", "text_encoder")
}
FILES = {
    "model_index.json": INDEX,
    "transformer/config.json": OFFICIAL,
    "text_encoder/config.json": CLIP,
    "vqvae/config.json": VQ,
    "scheduler/scheduler_config.json": {
        "_class_name": "AmusedScheduler", "mask_token_id": 8255, "masking_schedule": "cosine",
    },
}  # fmt: skip


def test_the_official_one():
    configs.check_index(INDEX)
    model = configs.read(FILES, "amused-256")
    assert model.denoiser == MaskedTransformerConfig()
    assert model.process == MaskingConfig()
    assert model.text_encoder == TextEncoderConfig(summary=True)
    assert model.autoencoder.from_zero
    assert (model.image_size, model.unit, model.guidance) == (256, 16, 10.0)
    assert model.sampling == SamplingConfig("maskgit", 12)
    larger = OFFICIAL | {"downsample": True, "upsample": True, "sample_size": 32}
    model = configs.read(FILES | {"transformer/config.json": larger}, "amused-512")
    assert (model.denoiser.halves, model.image_size, model.unit) == (True, 512, 32)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "_class_name 'UNet2DConditionModel'"),
        ({"use_bias": True}, "use_bias True is not supported"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05 is not supported"),
        ({"in_channels": 512}, "in_channels is 512; 768 is needed"),
        ({"cond_embed_dim": 512}, "cond_embed_dim is 512; 768 is needed"),
        ({"micro_cond_embed_dim": 256}, "micro_cond_embed_dim is 256; 1280 is needed"),
        ({"downsample": True}, "upsample is False; True is needed"),
        ({"vocab_size": 8192}, "vocabulary is 8192; give more than the 8192 codes"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers is 'many'"),
        ({"an_option_of_next_year": 1}, "an_option_of_next_year 1 is not supported"),
    ],
)
def test_what_is_not_supported_is_named(changes, says):
    with pytest.raises(ValueError, match=says):
        masked.read(OFFICIAL | changes)


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("vqvae", {"num_vq_embeddings": 1024}, r"denoiser\.codes is 8192, autoencoder\.codes is 1"),
        ("scheduler", {"mask_token_id": 100}, r"process\.mask is 100; give a number from 8192"),
        ("scheduler", {"mask_token_id": 8256}, r"process\.mask is 8256; give a number from 8192"),
        ("scheduler", {"masking_schedule": "root"}, "masking_schedule 'root' is not supported"),
        ("scheduler", {"mask_token_id": None}, "mask_token_id is None"),
        ("scheduler", {"temperature": 0}, "temperature is 0; a number between 0 and 1000"),
        ("scheduler", {"_class_name": "DDIMScheduler", "mask_token_id": None}, "masked codes need"),
        ("text_encoder", {"projection_dim": 512}, "projection_dim is 512; 768 is needed"),
        ("text_encoder", {"hidden_size": 1024, "projection_dim": 1024}, "width is 768, text"),
    ],
)
def test_parts_that_do_not_fit_are_named(file, changes, says):
    [path] = [path for path in FILES if path.startswith(file)]
    broken = {k: v for k, v in (FILES[path] | changes).items()}
    if broken.get("_class_name") == "DDIMScheduler":
        broken = {"_class_name": "DDIMScheduler"}
    with pytest.raises(ValueError, match=says):
        configs.read(FILES | {path: broken}, "broken")


def test_other_slots_that_do_not_fit_are_named():
    model = garden_masked()
    with pytest.raises(ValueError, match="VAEConfig has none; use a discrete autoencoder"):
        dataclasses.replace(model, autoencoder=VAEConfig())
    with pytest.raises(ValueError, match="masked codes need a denoiser that fills them in"):
        dataclasses.replace(garden_dvae(), process=MaskingConfig())
    told = dataclasses.replace(garden().text_encoder, summary=True)
    with pytest.raises(ValueError, match=r"text_encoder\.summary is for a denoiser that fills in"):
        dataclasses.replace(garden(), text_encoder=told)
    with pytest.raises(ValueError, match="rule is 'root'; choose one of cosine, linear"):
        MaskingConfig(rule="root")


@pytest.mark.parametrize(
    "config",
    [
        garden_masked().denoiser,
        MaskedTransformerConfig(halves=True),
        TextEncoderConfig(summary=True),
        DVAEConfig(from_zero=True),
    ],
    ids=lambda config: type(config).__name__,
)
def test_what_is_written_is_read(config):
    one = architecture(config)
    assert one.read(json.loads(json.dumps(one.write(config, garden_masked())))) == config


def test_a_whole_model_is_written_and_read():
    written = configs.write(garden_masked())
    index = written[configs.INDEX]
    assert index["_class_name"] == "AmusedPipeline"
    assert index["transformer"] == ["diffusers", "UVit2DModel"]
    assert index["scheduler"] == ["diffusers", "AmusedScheduler"]
    configs.check_index(index)
    assert configs.read(written, "another") == garden_masked()
    summed = dataclasses.replace(garden_masked().text_encoder, summary=True)
    model = dataclasses.replace(garden_masked(), text_encoder=summed)
    written = configs.write(model)
    assert written[configs.INDEX]["text_encoder"][1] == "CLIPTextModelWithProjection"
    assert configs.read(written, "another") == model


@pytest.fixture(scope="module")
def painter(tiny, write_model, tmp_path_factory):
    """The tiny model with a dVAE and a painter of its codes; its text encoder sums up."""
    autoencoder = DVAEConfig(
        latent_channels=4, codes=8, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2
    )
    denoiser = MaskedTransformerConfig(
        codes=8, vocabulary=10, channels=8, blocks=1, block_heads=2, width=12, layers=1, heads=2,
        mlp_width=8, context_width=8, size_code=4,
    )  # fmt: skip
    config = dataclasses.replace(
        tiny,
        text_encoder=dataclasses.replace(tiny.text_encoder, summary=True),
        denoiser=denoiser,
        autoencoder=autoencoder,
        process=MaskingConfig(mask=9),
        sampling=SamplingConfig("maskgit", 3),
    )
    return write_model(tmp_path_factory.mktemp("painter") / "tiny", config)


def test_it_paints_and_is_saved(painter, tmp_path):
    artist = diffusion.load(painter)
    steps = list(artist.sample(PROMPT, seed=3, count=2))
    assert len(steps) == 3
    assert (np.asarray(steps[0].x_t) == 9).all()
    assert steps[-1].x_next.shape == (2, 8, 8, 1)
    assert (np.asarray(steps[-1].x_next) < 8).all()
    assert steps[0].prediction.shape == (2, 8, 8, 8)
    pictures = artist.paint(PROMPT, seed=3, count=2)
    np.testing.assert_array_equal(pictures, artist.decode(steps[-1].x_next))
    assert (pictures[0] != pictures[1]).any()
    assert artist.decode(steps[0].x_next).shape == pictures.shape  # masks can be shown, too
    artist.save(tmp_path / "copy")
    with safe_open(tmp_path / "copy/text_encoder/model.safetensors", "numpy") as file:
        names = set(file.keys())
    assert {"text_projection.weight", "text_model.final_layer_norm.weight"} <= names
    copy = diffusion.load(tmp_path / "copy")
    assert copy.config == artist.config
    for slot in ("text_encoder", "denoiser", "autoencoder"):
        both = (getattr(one, slot).params for one in (copy, artist))
        jax.tree.map(np.testing.assert_array_equal, *both)


def test_it_begins_with_a_picture_and_leaves_what_is_not_masked(painter):
    artist = diffusion.load(painter)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    codes = artist.encode(image[None])
    assert codes.dtype == np.int32
    again = list(artist.sample("", image=image, strength=0.5, steps=4))
    assert [step.index for step in again] == [2, 3]
    begun = np.asarray(again[0].x_t)
    np.testing.assert_array_equal(begun[begun != 9], np.asarray(codes)[begun != 9])
    assert 0 < (begun == 9).sum() < 64
    mask = np.zeros((16, 16), bool)
    mask[:, :8] = True
    steps = list(artist.sample(PROMPT, image=image, mask=mask))
    for step in steps:
        np.testing.assert_array_equal(step.x_t[:, :, 4:], codes[:, :, 4:])
    left = [int((np.asarray(step.x_next) == 9).sum()) for step in steps]
    _, rows = artist.resolve(Settings(PROMPT), image, mask)
    np.testing.assert_array_equal(left, np.floor(32 * rows.masked))  # of the half
    painted = artist.paint(PROMPT, image=image, mask=mask)[0]
    np.testing.assert_array_equal(painted[~mask], image[~mask])


def test_it_is_traced(painter):
    artist = diffusion.load(painter)
    run = trace(artist, PROMPT, steps=2, guidance=4.0)
    inside = run.activations(1)
    guided = inside.unconditional + 4.0 * (inside.conditional - inside.unconditional)
    np.testing.assert_allclose(guided, inside.step.prediction, rtol=1e-4, atol=1e-4)
    assert inside.tensors["exit"].shape == (2, 8, 8, 8)
    assert inside.attention["blocks.0.cross_attention"].shape == (2, 2, 64, 16)
    assert run.context.shape == (2, 17, 8)
    assert run.pictures.shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("file", "option", "value", "message"),
    [
        ("vqvae", "num_vq_embeddings", 16, r"denoiser\.codes is 8, autoencoder\.codes is 16"),
        ("vqvae", "latent_channels", 5, r"wrong shape: .*instead of"),
        ("transformer", "vocab_size", 11, r"embed\.embeddings\.weight of \(10, 8\) instead of"),
        ("transformer", "num_hidden_layers", 2, r"missing: transformer_layers\.1"),
    ],
)
def test_weights_that_do_not_fit_are_named(painter, tmp_path, file, option, value, message):
    broken = shutil.copytree(painter, tmp_path / "broken")
    path = broken / file / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {option: value}))
    with pytest.raises(ValueError, match=message) as said:
        diffusion.load(broken)
    assert "\n" not in str(said.value)


def test_a_transformer_of_another_kind_is_named(painter, tmp_path):
    broken = shutil.copytree(painter, tmp_path / "broken")
    path = broken / "model_index.json"
    index = json.loads(path.read_text()) | {"_class_name": "PixArtAlphaPipeline"}
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"transformer/config\.json: _class_name 'UVit2DModel'"):
        diffusion.load(broken)


def test_it_has_no_other_sampler(painter):
    artist = diffusion.load(painter)
    with pytest.raises(ValueError, match="unknown sampler 'ddim'; choose one of maskgit"):
        artist.paint(PROMPT, sampler="ddim")


def test_codes_alone_means_pixels_from_zero():
    assert dvae.read(VQ).from_zero
    assert not dvae.read(VQ | {"lookup_from_codebook": False}).from_zero
    with pytest.raises(ValueError, match="lookup_from_codebook is 'yes'"):
        dvae.read(VQ | {"lookup_from_codebook": "yes"})


def test_a_projection_is_a_row_more():
    assert text_encoder.read(CLIP) == TextEncoderConfig(summary=True)
    plain = CLIP | {"architectures": ["CLIPTextModel"]}
    assert text_encoder.read(plain) == TextEncoderConfig()
