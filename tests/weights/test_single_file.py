"""A model in one file with the original names; which name is which, the reference has recorded."""

import dataclasses
import json
import shutil
import struct
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import diffusion
from diffusion.config import sd_v1, sd_v2, sd_v2_base
from diffusion.text.characters import BOS, EOS
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights import folder, places, single_file
from diffusion.weights.architectures import SLOTS, architecture, structure
from diffusion.weights.names import theirs, to_file

GOLDEN = folder.shipped("golden")
FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
OPEN_CLIP = "cond_stage_model.model."


def names(family):
    return json.loads((GOLDEN / "single_file" / f"{family}.json").read_text())


def original(family):
    """The tensors of the reference's tiny model, under their original names."""
    tensors = {}
    for part, file in FILES.items():
        known = names(family)[part]
        for key, value in load_file(GOLDEN / family / "model" / file).items():
            module, _, leaf = key.rpartition(".")
            there = known.get(module) or known.get(f"text_model.{module}")
            there = there or known.get(module.removeprefix("text_model."))
            if there is None:
                continue  # parts of what OpenCLIP stores as one
            if ".attn_1." in there and value.ndim == 2:
                value = value[..., None, None]
            plain = leaf == "weight" and there.endswith("positional_embedding")
            tensors[there if plain else f"{there}.{leaf}"] = np.ascontiguousarray(value)
    if family == "sd2":
        tensors |= fused()
    return tensors


def fused():
    """Query, key and value in one, and what the official files have besides."""
    state = load_file(GOLDEN / "sd2/model" / FILES["text_encoder"])
    state = {key.removeprefix("text_model."): value for key, value in state.items()}
    found = {}
    for layer in range(3):
        for leaf in ("weight", "bias"):
            parts = [state[f"encoder.layers.{layer}.self_attn.{x}_proj.{leaf}"] for x in "qkv"]
            place = f"{OPEN_CLIP}transformer.resblocks.{layer}.attn.in_proj_{leaf}"
            found[place] = np.concatenate(parts)
    last = f"{OPEN_CLIP}transformer.resblocks.3."  # one more layer than Stable Diffusion uses
    return found | {
        f"{last}attn.in_proj_weight": np.ones((72, 24), np.float16),
        f"{last}ln_1.weight": np.ones(24, np.float16),
        f"{OPEN_CLIP}text_projection": np.ones((24, 24), np.float16),
        f"{OPEN_CLIP}logit_scale": np.ones((), np.float16),
    }


@pytest.fixture(autouse=True)
def tiny_families(monkeypatch, tmp_path):
    """The tiny models of the reference in place of the official ones; an empty cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    families = {}
    for width, family in ((16, "sd1"), (24, "sd2")):
        config = folder.load_config(GOLDEN / family / "model")
        usual = list(single_file.FAMILIES.values())[family == "sd2"]
        families[width] = dataclasses.replace(usual, config=config, base=config)
    monkeypatch.setattr(single_file, "FAMILIES", families)


def params(opened):
    return {slot: opened.weights[slot].read() for slot in SLOTS}


def tokenizer(family):
    return GOLDEN / family / "model/tokenizer"


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_every_tensor_is_that_of_the_folder(tmp_path, family):
    path = tmp_path / "mine.safetensors"
    save_file(original(family), path)
    found = single_file.open_model(path, tokenizer(family))
    expected = folder.open_model(GOLDEN / family / "model")
    assert found.config == dataclasses.replace(expected.config, name="mine")
    assert found.note == ""
    jax.tree.map(np.testing.assert_array_equal, params(found), params(expected))
    for slot in SLOTS:  # the same names for LoRA files
        assert found.weights[slot].shapes == expected.weights[slot].shapes
    prompts = ["a red house!", "<|startoftext|>A house"]
    np.testing.assert_array_equal(found.tokenizer(prompts), expected.tokenizer(prompts))


def test_what_training_left_is_told_and_not_read(tmp_path):
    path = tmp_path / "mine.safetensors"
    averaged = {"model_ema.diffusion_modelout0weight": np.zeros(4), "model_ema.decay": np.zeros(1)}
    training = averaged | {"betas": np.zeros(9), "optimizer_states.0": np.arange(3)}
    save_file(original("sd1") | training, path)
    found = single_file.open_model(path, tokenizer("sd1"))
    assert found.note == (f"{path}: not used: model_ema (2), betas (1), optimizer_states (1)")
    with pytest.warns(UserWarning, match="not used: model_ema"):
        diffusion.load(path, tokenizer=tokenizer("sd1"))


def older(tensors):
    return {key.replace("transformer.text_model.", "transformer."): v for key, v in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        older,
        lambda tensors: tensors | {
            "cond_stage_model.transformer.text_model.embeddings.position_ids": np.arange(77)[None]
        },
        lambda tensors: {k: v.astype(np.float32) for k, v in tensors.items()},
        lambda tensors: {k: v[..., 0] if "attn_1." in k and v.ndim == 4 else v
                         for k, v in tensors.items()},
        lambda tensors: {
            k.replace("first_stage_model.", "vae."): v for k, v in tensors.items()
        },
    ],
    ids=["without text_model", "position_ids", "float32", "Conv1d", "vae."],
)  # fmt: skip
def test_other_spellings(tmp_path, change):
    path = tmp_path / "mine.ckpt"  # what it holds counts, not its name
    save_file({k: np.ascontiguousarray(v) for k, v in change(original("sd1")).items()}, path)
    found = single_file.open_model(path, tokenizer("sd1"))
    expected = folder.open_model(GOLDEN / "sd1/model")
    jax.tree.map(np.testing.assert_array_equal, params(found), params(expected))


def test_half_precision_of_the_other_kind(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({k: v.astype(ml_dtypes.bfloat16) for k, v in original("sd1").items()}, path)
    weights = single_file.open_model(path, tokenizer("sd1")).weights["denoiser"]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(weights.read("bfloat16"))} == {"bfloat16"}


def test_an_inpainting_model_is_known_by_its_first_layer(tmp_path):
    path, tensors = tmp_path / "mine.safetensors", original("sd1")
    wide = np.ones((4, 9, 3, 3), np.float16)
    save_file(tensors | {single_file.FIRST: wide}, path)
    found = single_file.open_model(path, tokenizer("sd1"))
    assert found.config.inpaints
    save_file(tensors | {single_file.FIRST: wide[:, :8].copy()}, path)
    with pytest.raises(ValueError, match="in_channels must be 4, or 9 for inpainting"):
        single_file.open_model(path, tokenizer("sd1"))


def test_it_paints_and_is_saved_as_a_folder(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(original("sd1"), path)
    artist = diffusion.load(path, tokenizer=tokenizer("sd1"))
    artist.save(tmp_path / "saved")
    saved = folder.open_model(tmp_path / "saved")
    assert saved.config == artist.config
    jax.tree.map(np.testing.assert_array_equal, saved.weights["denoiser"].read(),
                 artist.denoiser.params)  # fmt: skip
    with pytest.raises(ValueError, match=r"a folder is needed here; .*\.save\(FOLDER\)"):
        folder.load_config(path)


def shapes(context, channels=4):
    return {
        single_file.FIRST: (320, channels, 3, 3),
        single_file.LISTENS: (320, context),
    }


@pytest.mark.parametrize(
    ("context", "channels", "beside", "expected"),
    [
        (768, 4, None, sd_v1()),
        (1024, 4, None, sd_v2()),
        (1024, 4, 'params:\n  parameterization: "v"\n', sd_v2()),
        (1024, 4, "params:\n  channels: 4\n", sd_v2_base()),
        (1024, 9, None, sd_v2_base()),
        (768, 9, None, sd_v1()),
    ],
)
def test_the_kind_is_recognised(tmp_path, monkeypatch, context, channels, beside, expected):
    monkeypatch.undo()  # the official families
    path = tmp_path / "mine.safetensors"
    save_file({"one": np.zeros(1)}, path)
    if beside:
        path.with_suffix(".yaml").write_text(beside)
    _, found = single_file.recognise(path, shapes(context, channels))
    denoiser = dataclasses.replace(expected.denoiser, in_channels=channels)
    assert found == dataclasses.replace(expected, name="mine", denoiser=denoiser)


@pytest.mark.parametrize(
    ("metadata", "tensors", "base"),
    [
        ({"modelspec.prediction_type": "epsilon"}, {}, True),
        ({"modelspec.prediction_type": "v"}, {}, False),
        ({}, {"global_step": np.array([875000])}, True),
        ({}, {"global_step": np.array([140000])}, False),
        ({}, {"v_pred": np.zeros(0)}, False),
    ],
)
def test_what_a_file_of_sd_2_says_of_its_prediction(tmp_path, monkeypatch, metadata, tensors, base):
    monkeypatch.undo()
    path = tmp_path / "mine.safetensors"
    save_file({"one": np.zeros(1)} | tensors, path, metadata)
    told = {key: value.shape for key, value in tensors.items()}
    _, found = single_file.recognise(path, shapes(1024) | told)
    expected = sd_v2_base() if base else sd_v2()
    assert (found.process, found.image_size) == (expected.process, expected.image_size)


def test_a_width_of_words_that_is_not_known(tmp_path):
    with pytest.raises(ValueError, match="words of 2048 numbers are not supported"):
        single_file.recognise(tmp_path / "mine.safetensors", shapes(2048))


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("conditioner.embedders.0.transformer.text_model.x", "SDXL"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "SD 3"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
        ("control_model.time_embed.0.weight", "a ControlNet"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA; .*--lora"),
        ("unet.down_blocks.0.attentions.0.to_q.lora_A.weight", "a LoRA; .*--lora"),
        ("emb_params", "an embedding; .*--embedding"),
        ("<cat-toy>", "an embedding; .*--embedding"),
        ("first_stage_model.decoder.up.0.block.0.conv1.weight", "a VAE; .*--vae"),
        ("decoder.up_blocks.0.resnets.0.conv1.weight", "a VAE; .*--vae"),
        ("down_blocks.0.resnets.0.conv1.weight", "one part of a model; give the whole folder"),
        ("something.else", "no model that is known"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path, key, says):
    path = tmp_path / "mine.safetensors"
    save_file({key: np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(ValueError, match=f"mine.safetensors is .*{says}"):
        diffusion.load(path)


def test_sdxl_is_not_taken_for_another(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(original("sd1") | {"conditioner.embedders.1.model.ln_final.bias": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="is a model of SDXL, which is not supported"):
        single_file.open_model(path, tokenizer("sd1"))


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("first_stage_model.", r"holds no vae \(first_stage_model.* or vae.*\); give one with"),
        ("cond_stage_model.", "holds no text_encoder .*; use a whole model"),
    ],
)
def test_a_part_that_is_not_there(tmp_path, prefix, says):
    path, tensors = tmp_path / "mine.safetensors", original("sd1")
    save_file({k: v for k, v in tensors.items() if not k.startswith(prefix)}, path)
    with pytest.raises(ValueError, match=says):
        single_file.open_model(path, tokenizer("sd1"))


def test_a_tensor_too_few_or_too_many_is_named(tmp_path):
    path, tensors = tmp_path / "mine.safetensors", original("sd1")
    gone = tensors.pop("model.diffusion_model.out.2.bias")
    more = {"model.diffusion_model.label_emb.0.0.weight": gone}
    save_file(tensors | more, path)
    says = r"does not fit a U-Net of its kind \(1 missing: conv_out.bias; 1 left over: label_emb"
    with pytest.raises(ValueError, match=says):
        single_file.open_model(path, tokenizer("sd1"))


def test_where_the_tokenizer_comes_from(tmp_path, monkeypatch):
    path = tmp_path / "models/mine.safetensors"
    path.parent.mkdir()
    save_file(original("sd1"), path)
    with pytest.raises(FileNotFoundError, match=r"--tokenizer, or get it: `hf download openai/cl"):
        single_file.open_model(path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no vocab.json"):
        single_file.open_model(path, tmp_path)
    snapshot = tmp_path / "cache/models--openai--clip-vit-large-patch14/snapshots/1"
    shutil.copytree(tokenizer("sd1"), snapshot)
    assert single_file.open_model(path).tokenizer.pad_token == EOS
    shutil.rmtree(snapshot)
    shutil.copytree(tokenizer("sd1"), path.parent / "tokenizer")
    assert single_file.open_model(path).tokenizer.pad_token == EOS
    # The vocabulary is the same in both families; SD 2 pads with "!".
    vocabulary = Tokenizer.load(tokenizer("sd1"))
    found = single_file.find_tokenizer(path, None, single_file.FAMILIES[24])
    assert (found.vocab, found.pad_token) == (vocabulary.vocab, "!")
    assert found.any_case == {BOS, EOS}


def test_a_vocabulary_of_another_size(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(original("sd1"), path)
    Tokenizer.train(["a b"], 514).save(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match=r"tokenizer has 514 tokens .* says 1024"):
        diffusion.load(path, tokenizer=tmp_path / "tokenizer")


def test_the_official_sizes_fit(tmp_path, monkeypatch):
    """Files of the official sizes with nothing in them: names and shapes of SD 1.5 and 2.1."""
    monkeypatch.undo()
    for config, counts in ((sd_v1(), (196, 686, 248)), (sd_v2(), (372, 686, 248))):
        path = hollow(tmp_path / "hollow.safetensors", config)
        found = single_file.open_model(path, folder.find("garden") / "tokenizer")
        assert tuple(len(found.weights[slot].tensors) for slot in SLOTS) == counts


def hollow(path, config):
    """A sparse file: the header of a whole model in half precision, and a hole in place of it."""
    header, end = {}, 0
    for slot in SLOTS:
        network = getattr(config, slot)
        one = architecture(network)
        spelling = one.originals(network)[-1 if config.name == "sd-v2" and slot == SLOTS[0] else 0]
        for path_, leaf in flatten_dict(structure(network)[1]).items():
            name = ".".join(map(str, path_))
            shape = to_file(np.broadcast_to(np.float16(0), leaf.shape), name).shape
            there = spelling.prefix + theirs(name, spelling.names)
            for whole, (query, *others) in spelling.fused.items():
                if there.endswith(query):
                    there, shape = there.removesuffix(query) + whole, (3 * shape[0], *shape[1:])
                elif there.endswith(tuple(others)):
                    there = ""
            if not there:
                continue
            size = int(np.prod(shape)) * 2
            header[there] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def test_the_cache_is_where_the_tools_of_hugging_face_have_it(monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert places.cache() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("HF_HOME", "/data/hf")
    assert places.cache() == Path("/data/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "~/hub")
    assert places.cache() == Path("~/hub").expanduser()
