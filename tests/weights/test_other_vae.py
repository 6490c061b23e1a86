"""A VAE of its own in the place of a model's."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import diffusion
from diffusion.config import VAEConfig
from diffusion.weights import folder
from diffusion.weights.architectures import structure, vae
from diffusion.weights.names import theirs
from diffusion.weights.other_vae import open_vae


@pytest.fixture
def other(tiny_folder, tmp_path, tiny):
    """The tiny model with other numbers in its VAE."""
    place = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    file = place / "vae/diffusion_pytorch_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    return place


def original(file, config, prefix=""):
    """The same tensors under their original names."""
    _, like = structure(config)
    spelling = vae.originals(config)[-1]
    from flax.traverse_util import flatten_dict

    names = [".".join(map(str, path)) for path in flatten_dict(like)]
    tensors = load_file(file)
    return {prefix + theirs(n, spelling.names): tensors[theirs(n, vae.NAMES)] for n in names}


def test_folders_and_files_of_either_kind(tiny_folder, other, tmp_path, tiny):
    config = folder.load_config(tiny_folder)
    expected = folder.open_part(other, config, "autoencoder").read()
    file = other / "vae/diffusion_pytorch_model.safetensors"
    alone = tmp_path / "alone.safetensors"
    shutil.copy(file, alone)
    beside = {"loss.logvar": np.zeros(()), "model_ema.decay": np.ones(1)}
    for name, prefix, more in (
        ("a", "", beside),
        ("b", "first_stage_model.", {}),
        ("c", "vae.", {}),
    ):
        save_file(original(file, tiny.autoencoder, prefix) | more, tmp_path / f"{name}.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("a", "b", "c")]
    for place in (other, other / "vae", file, alone, *files):
        found, weights = open_vae(place, config)
        assert found == config
        jax.tree.map(np.testing.assert_array_equal, weights.read(), expected)
    _, weights = open_vae(files[0], config)
    assert weights.unused == ("loss.logvar", "model_ema.decay")


def test_another_kind_of_vae_changes_the_configuration(tiny_folder, other):
    config = folder.load_config(tiny_folder)
    scaled = dataclasses.replace(config.autoencoder, scaling_factor=0.5)
    folder.save_config(other, dataclasses.replace(config, autoencoder=scaled))
    found, _ = open_vae(other / "vae", config)
    assert found == dataclasses.replace(config, autoencoder=scaled)


def test_it_paints_with_it(tiny_folder, other):
    artist = diffusion.load(tiny_folder, vae=other / "vae")
    expected = diffusion.load(other)
    for one in ("autoencoder", "denoiser"):
        jax.tree.map(
            np.testing.assert_array_equal,
            getattr(artist, one).params,
            getattr(expected, one).params,
        )


def test_what_does_not_fit_is_said(tiny_folder, other, tmp_path):
    config = folder.load_config(tiny_folder)
    with pytest.raises(FileNotFoundError, match=r"VAE .*gone is neither a file nor a folder"):
        open_vae(tmp_path / "gone", config)
    wide = dataclasses.replace(config.autoencoder, latent_channels=8)
    full = dataclasses.replace(config, autoencoder=VAEConfig())
    folder.write_json(other / "vae/config.json", vae.write(wide, full))
    with pytest.raises(ValueError, match=r"does not fit the model \(denoiser.latent_channels"):
        open_vae(other / "vae", config)
    folder.write_json(other / "vae/config.json", {"_class_name": "AutoencoderTiny"})
    with pytest.raises(ValueError, match=r"config.json: AutoencoderTiny is not supported"):
        open_vae(other / "vae", config)
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match="is a pickle"):
        open_vae(tmp_path / "x.ckpt", config)


def test_clip_skip_and_a_whole_clip_are_noted(tiny_folder, tmp_path):
    place = Path(shutil.copytree(tiny_folder, tmp_path / "skip"))
    config = folder.load_config(place)
    file = place / "text_encoder/model.safetensors"
    whole = {"text_projection.weight": np.ones((8, 8), np.float32), "logit_scale": np.ones(1)}
    save_file(load_file(file) | whole, file)
    text = dataclasses.replace(config.text_encoder, layers=1)
    folder.save_config(place, dataclasses.replace(config, text_encoder=text))
    opened = folder.open_model(place)
    assert f"{place}: not used: 18 tensors (" in opened.note
    assert "text_projection.weight" in opened.weights["text_encoder"].unused
    with pytest.warns(UserWarning, match="not used: 18 tensors"):
        shorter = diffusion.load(place).text_encoder
    assert len(shorter.params["layers"]) == 1
