"""Models that ship need not hold the same weights twice."""

import json
import shutil

import numpy as np
import pytest

import diffusion
from diffusion.training.beginning import copy_of
from diffusion.weights import folder, sharing
from diffusion.weights.configs import INDEX

TINY = folder.shipped("golden") / "sd1/model"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two models that ship: the same text encoder and tokenizer, other numbers elsewhere."""
    data = tmp_path / "data"
    for name in ("first", "second"):
        shutil.copytree(TINY, data / name)
    artist = diffusion.load(TINY)
    for slot in ("denoiser", "autoencoder"):
        params = getattr(artist, slot).params
        changed = {key: value for key, value in params.items()}
        changed = _doubled(changed)
        folder.save_part(data / "second", artist.config, slot, changed, "float16")
    monkeypatch.setattr(folder, "SHELVES", (data,))
    return data


def _doubled(params):
    return {
        key: _doubled(value) if isinstance(value, dict) else np.asarray(value) * 2
        for key, value in params.items()
    }


def test_what_is_equal_lies_in_one_of_them(shelf):
    before = diffusion.load(shelf / "second").paint("a red house", steps=2)
    assert sharing.share(shelf / "second", "first") == ["text_encoder", "tokenizer"]
    assert not (shelf / "second/text_encoder").exists()
    assert (shelf / "second/unet").exists()
    np.testing.assert_array_equal(diffusion.load("second").paint("a red house", steps=2), before)
    assert sharing.share(shelf / "second", "first") == []
    np.testing.assert_array_equal(diffusion.load("second").paint("a red house", steps=2), before)

    copy = shelf.parent / "copy"
    copy_of(shelf / "second", copy, folder.load_config(shelf / "second"), "unet")
    assert (copy / "text_encoder/config.json").exists()
    assert "shared" not in json.loads((copy / INDEX).read_text())["_diffusion"]
    np.testing.assert_array_equal(diffusion.load(copy).paint("a red house", steps=2), before)


@pytest.mark.parametrize("name", ["../first", "/etc", "", 3, None])
def test_a_part_is_that_of_a_model_by_its_name_alone(shelf, name):
    index = json.loads((shelf / "second" / INDEX).read_text())
    index["_diffusion"] = {"shared": {"text_encoder": name}}
    (shelf / "second" / INDEX).write_text(json.dumps(index))
    shutil.rmtree(shelf / "second/text_encoder")
    with pytest.raises(ValueError, match=r"model_index.json: shared is .*the model that has each"):
        folder.load_config(shelf / "second")


def test_a_part_that_is_nowhere_is_named(shelf):
    sharing.share(shelf / "second", "first")
    shutil.rmtree(shelf / "first/text_encoder")
    with pytest.raises(FileNotFoundError, match=r"first/text_encoder/config.json is missing"):
        folder.load_config(shelf / "second")
    with pytest.raises(FileNotFoundError, match="third is no model that ships"):
        sharing.share(shelf / "second", "third")
