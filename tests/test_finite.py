"""No stage passes on what is not finite: no black picture is saved as if it were right."""

import numpy as np
import pytest

import diffusion
from diffusion import cli
from diffusion.loading import load
from diffusion.pipeline import OverflowWarning
from diffusion.runtime.programs import Network

SETTINGS = {"prompt": "a red house", "steps": 2, "seed": 1}


def with_kernel(network: Network, *path: str, factor: float) -> Network:
    """The network with one kernel made larger."""
    params = network.params

    def changed(entry, path):
        if not path:
            return entry * factor
        return entry | {path[0]: changed(entry[path[0]], path[1:])}

    return Network(network.structure, lambda: changed(params, path))


@pytest.fixture
def half(tiny_folder):
    return load(tiny_folder, dtype="float16")


def test_a_vae_that_overflows_in_half_precision_decodes_in_float32(half):
    usual = half.paint(**SETTINGS)
    half.autoencoder = with_kernel(half.autoencoder, "post_quant_conv", "kernel", factor=6e4)
    with pytest.warns(OverflowWarning, match="overflowed in float16; decoded in float32"):
        pictures = half.paint(**SETTINGS)
    assert pictures.std() > 1.0
    assert np.corrcoef(pictures.ravel(), usual.ravel())[0, 1] > 0.5  # norms take the factor out


@pytest.mark.parametrize(
    ("slot", "path", "said"),
    [
        ("text_encoder", ("final_norm", "scale"), "the text encoder's context is not finite"),
        ("denoiser", ("up", "conv_out", "kernel"), "the painted latent is not finite"),
        ("autoencoder", ("decoder", "conv_out", "kernel"), "the decoded picture is not finite"),
    ],
)
def test_what_is_not_finite_is_named(tiny_folder, slot, path, said):
    artist = load(tiny_folder)
    setattr(artist, slot, with_kernel(getattr(artist, slot), *path, factor=np.nan))
    artist._advance.network = artist.denoiser
    with pytest.raises(FloatingPointError, match=f"{said} in float32; try --dtype bfloat16"):
        artist.paint(**SETTINGS)


def test_the_command_writes_no_such_picture(tiny_folder, tmp_path, monkeypatch, capsys):
    artist = load(tiny_folder)
    artist.autoencoder = with_kernel(
        artist.autoencoder, "decoder", "conv_out", "bias", factor=np.inf
    )
    monkeypatch.setattr(diffusion, "load", lambda *_, **__: artist)
    picture = tmp_path / "picture.png"
    command = ["paint", "a red house", "--model", str(tiny_folder), "--steps", "2"]
    assert cli.main([*command, "--output", str(picture)]) == 1
    assert "the decoded picture is not finite" in capsys.readouterr().err
    assert not picture.exists()
