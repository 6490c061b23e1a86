import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from diffusion.weights import folder


def test_a_configuration_survives(tmp_path, tiny):
    config = dataclasses.replace(tiny, name="küçük", guidance=2.25)
    folder.save_config(tmp_path / "new" / "model", config)
    assert folder.load_config(tmp_path / "new" / "model") == config
    assert os.listdir(tmp_path / "new" / "model") == ["config.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["unet"].update(colour=3), "colour"),
        (lambda data: data["vae"].update(norm_groups="8"), r"vae\.norm_groups"),
        (lambda data: data["unet"].update(heads=[2, 3]), r"unet\.heads"),
        (lambda data: data.update(unet=[1, 2]), "unet"),
        (lambda data: data.update(image_size=17), "image_size"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(tmp_path, tiny, change, message):
    folder.save_config(tmp_path, tiny)
    data = json.loads((tmp_path / "config.json").read_text())
    change(data)
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
        folder.load_config(tmp_path)


def test_entries_left_out_have_the_values_of_stable_diffusion(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert folder.load_config(tmp_path).name == "sd-v1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[]", "holds no JSON object"),
    ],
)
def test_a_damaged_configuration(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"config\.json {message}"):
        folder.load_config(tmp_path)


def test_a_missing_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        folder.load_config(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    folder.write_json(tmp_path / "notes.json", {"ağaç": 1})

    def refuse(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="no space"):
        folder.write_json(tmp_path / "notes.json", {"ağaç": 2})
    assert folder.read_json(tmp_path / "notes.json") == {"ağaç": 1}
    assert os.listdir(tmp_path) == ["notes.json"]


def test_find_takes_a_folder_or_lists_the_names(tmp_path, monkeypatch):
    assert folder.find(tmp_path) == tmp_path
    assert folder.find(str(tmp_path)) == tmp_path
    package = tmp_path / "diffusion"
    monkeypatch.setattr(folder, "__file__", str(package / "weights" / "folder.py"))
    with pytest.raises(FileNotFoundError, match=r"'monet' is neither.*\(none is installed\)"):
        folder.find("monet")
    for shelf in (package / "data", tmp_path / "data"):  # of a wheel, and of a clone
        for name in ("garden", f"{shelf.parent.name}-only"):
            (shelf / name).mkdir(parents=True)
            (shelf / name / "config.json").write_text("{}")
    assert folder.find("garden") == package / "data" / "garden"
    assert folder.find(f"{tmp_path.name}-only") == tmp_path / "data" / f"{tmp_path.name}-only"
    names = ", ".join(sorted({"garden", "diffusion-only", f"{tmp_path.name}-only"}))
    with pytest.raises(FileNotFoundError, match=rf"'monet' is neither.*\({names}\)"):
        folder.find("monet")


@pytest.mark.parametrize("part", folder.PARTS)
def test_a_part_survives(tiny_folder, tmp_path, part):
    config = folder.load_config(tiny_folder)
    structure, params = folder.load_part(tiny_folder, config, part)
    folder.save_part(tmp_path, part, params, "float32")
    again_structure, again = folder.load_part(tmp_path, config, part)
    assert again_structure == structure
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert len(jax.tree.leaves(params)) > 30


def test_a_part_of_another_size_is_refused(tiny_folder):
    config = folder.load_config(tiny_folder)
    wider = dataclasses.replace(config.vae, block_out_channels=(4, 16))
    with pytest.raises(ValueError, match=r"vae\.safetensors does not fit.*has shape"):
        folder.load_part(tiny_folder, dataclasses.replace(config, vae=wider), "vae")
