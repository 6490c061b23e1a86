"""A model folder: there and back, and every way in which one can be broken."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import diffusion
from diffusion.weights import folder
from diffusion.weights.architectures import SLOTS
from diffusion.weights.names import today

CONFIGS = (
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
    "unet/config.json", "vae/config.json",
)  # fmt: skip
WEIGHTS = (
    "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)  # fmt: skip
VOCABULARY = ("tokenizer/vocab.json", "tokenizer/merges.txt")


@pytest.fixture
def broken(tiny_folder, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "broken"))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_configuration_survives(tmp_path, tiny):
    config = dataclasses.replace(tiny, name="küçük", guidance=2.25)
    place = tmp_path / "new" / "model"
    folder.save_config(place, config)
    assert folder.load_config(place) == config
    written = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    assert tuple(written) == CONFIGS


def test_a_model_without_a_name_is_called_like_its_folder(broken):
    edit(broken / "model_index.json", _diffusion={})
    config = folder.load_config(broken)
    assert (config.name, config.guidance) == ("broken", 7.5)


@pytest.mark.parametrize("path", [*CONFIGS, *WEIGHTS, *VOCABULARY])
def test_a_file_that_is_missing_is_named(broken, path):
    (broken / path).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{Path(path).name}.* is missing|no file .*{path}"
    ):
        diffusion.load(broken)


@pytest.mark.parametrize("path", [*CONFIGS, *WEIGHTS, *VOCABULARY])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\xff\xfe" + content,
        lambda content: b"[]",
        lambda content: content.replace(b"a", b"\x00"),
    ],
    ids=["half", "empty", "bytes", "list", "zeros"],
)
def test_a_file_that_is_damaged_is_named(broken, path, damage):
    (broken / path).write_bytes(damage((broken / path).read_bytes()))
    with pytest.raises(ValueError, match=Path(path).name):
        diffusion.load(broken)


@pytest.mark.parametrize("path", [*CONFIGS, *WEIGHTS, *VOCABULARY])
def test_links_that_lead_out_are_refused(broken, path, tmp_path):
    (broken / path).rename(tmp_path / "elsewhere")
    (broken / path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{path} is a link that leads out of"):
        diffusion.load(broken)


def test_a_link_that_leads_to_itself(broken):
    path = broken / "unet" / "config.json"
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(FileNotFoundError, match=r"unet/config\.json is missing or no file"):
        diffusion.load(broken)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("unet/config.json", {"norm_num_groups": 3}),
        ("text_encoder/config.json", {"num_attention_heads": 3}),
        ("unet/config.json", {"sample_size": [8, 12]}),
    ],
)
def test_a_network_that_cannot_be_built_is_named_by_its_file(broken, path, change):
    edit(broken / path, **change)
    with pytest.raises(ValueError, match=path):
        diffusion.load(broken)


@pytest.mark.parametrize("path", [*CONFIGS, *WEIGHTS])
def test_a_folder_in_the_place_of_a_file(broken, path):
    (broken / path).unlink()
    (broken / path).mkdir()
    with pytest.raises(FileNotFoundError, match=Path(path).name):
        diffusion.load(broken)


@pytest.mark.parametrize("path", WEIGHTS)
def test_tensors_that_do_not_fit_are_named(broken, path):
    tensors = load_file(broken / path)
    name = sorted(tensors)[3]
    lacking = {key: value for key, value in tensors.items() if key != name}
    spoilt = np.where(np.arange(tensors[name].size) == 1, np.nan, tensors[name].ravel())
    told = today(name)  # what is in no file is named as those of today spell it
    for changed, message in (
        (lacking, f"1 missing: {told}"),
        (tensors | {"extra.weight": tensors[name]}, r"1 left over: extra\.weight"),
        (tensors | {name: tensors[name][..., :-1].copy()}, f"1 wrong shape: {told}"),
        (tensors | {name: tensors[name].astype(np.int32)}, f"1 no fractions: {told} of I32"),
        (
            tensors | {name: spoilt.astype(np.float32).reshape(tensors[name].shape)},
            f"{name} holds values that are not finite",
        ),
    ):
        save_file(changed, broken / path)
        with pytest.raises(ValueError, match=message):
            diffusion.load(broken)


@pytest.mark.parametrize("path", WEIGHTS)
def test_pickles_are_refused(broken, path):
    (broken / path).unlink()
    (broken / path).with_suffix(".bin").write_bytes(b"PK\x03\x04 a zip of PyTorch")
    with pytest.raises(ValueError, match=r"\.bin is a pickle, which can run any program"):
        diffusion.load(broken)


def test_tokenizer_and_text_encoder_of_two_models(broken):
    edit(broken / "tokenizer" / "tokenizer_config.json", model_max_length=77)
    with pytest.raises(ValueError, match=r"rows of 77, .*config\.json says \d+ and 16"):
        diffusion.load(broken)


def test_what_a_single_file_is_its_content_says(tmp_path):
    for name in ("v1-5.safetensors", "v1-5.ckpt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=rf"{name} is damaged"):
            diffusion.load(tmp_path / name)
        for content, says in (
            (b"PK\x03\x04archive/data.pkl", "is a pickle, .*weights_only=True.*NEW.safetensors"),
            (b"\x80\x02}q\x00X", "is a pickle, which can run any program"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{name} {says}|{name} is a pointer.*{says}"):
                diffusion.load(tmp_path / name)
    with pytest.raises(
        FileNotFoundError, match=r"model_index\.json is missing; .* single file in it: v1-5.safet"
    ):
        diffusion.load(tmp_path)


def test_other_folders_are_not_read(broken):
    (broken / "safety_checker").mkdir()
    (broken / "safety_checker" / "pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    assert diffusion.load(broken).config.name == "tiny"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    folder.write_json(tmp_path / "notes.json", {"ağaç": 1})

    def refuse(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="no space"):
        folder.write_json(tmp_path / "notes.json", {"ağaç": 2})
    assert json.loads((tmp_path / "notes.json").read_text(encoding="utf-8")) == {"ağaç": 1}
    assert os.listdir(tmp_path) == ["notes.json"]


def test_find_takes_a_folder_or_lists_the_names(tmp_path, monkeypatch):
    assert folder.find(tmp_path) == tmp_path
    assert folder.find(str(tmp_path)) == tmp_path
    package = tmp_path / "diffusion"
    monkeypatch.setattr(folder, "SHELVES", (package / "data", tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"'monet' is neither.*\(none is installed\)"):
        folder.find("monet")
    for shelf in (package / "data", tmp_path / "data"):  # of a wheel, and of a clone
        for name in ("garden", f"{shelf.parent.name}-only"):
            (shelf / name).mkdir(parents=True)
            (shelf / name / "model_index.json").write_text("{}")
    assert folder.find("garden") == package / "data" / "garden"
    assert folder.find(f"{tmp_path.name}-only") == tmp_path / "data" / f"{tmp_path.name}-only"
    names = ", ".join(sorted({"garden", "diffusion-only", f"{tmp_path.name}-only"}))
    with pytest.raises(FileNotFoundError, match=rf"'monet' is neither.*\({names}\)"):
        folder.find("monet")


def test_what_ships_beside_the_models_is_found_on_either_shelf(tmp_path, monkeypatch):
    shelves = tmp_path / "wheel", tmp_path / "clone"
    monkeypatch.setattr(folder, "SHELVES", shelves)
    assert folder.shipped("judge") == shelves[0] / "judge"  # where it should be
    (shelves[1] / "judge").mkdir(parents=True)
    assert folder.shipped("judge") == shelves[1] / "judge"


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("linear", [True, False])
def test_a_part_survives(tiny_folder, tmp_path, slot, linear):
    config = folder.load_config(tiny_folder)
    config = dataclasses.replace(
        config, denoiser=dataclasses.replace(config.denoiser, linear_projection=linear)
    )
    structure, params = folder.load_part(tiny_folder, config, slot)
    folder.save_part(tmp_path, config, slot, params)
    again_structure, again = folder.load_part(tmp_path, config, slot)
    assert again_structure == structure
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert len(jax.tree.leaves(params)) > 30
    stored = load_file(folder.part_file(tmp_path, config, slot))
    # The names of the official files, not those that some versions of a library shorten.
    assert all(name.startswith("text_model.") == (slot == "text_encoder") for name in stored)
    name = "mid_block.attentions.0.proj_in.weight"
    assert name not in stored or stored[name].ndim == (2 if linear else 4)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (3.5, "training.json: unet has 3.5 where a training belongs"),
        ({"steps": 2, "batch_size": 2, "seed": 0, "start": 1}, "unet has 1 where a training"),
        ({"steps": 2, "batch_size": 2}, "seed of unet is None, no number"),
        ({"steps": True, "batch_size": 2, "seed": 0}, "steps of unet is True, no number"),
    ],
)
def test_a_card_that_makes_no_sense_is_named(entry, says, tmp_path):
    (tmp_path / "training.json").write_text(json.dumps({"unet": entry}))
    with pytest.raises(ValueError, match=says):
        folder.trainings(tmp_path, "unet")
    assert folder.trainings(tmp_path, "vae") == []
