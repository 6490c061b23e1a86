"""The text chunk of web interfaces: written beside ours, and read."""

import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffusion import web_parameters
from diffusion.picture_files import save
from diffusion.picture_reading import read_parameters
from diffusion.process.samplers import SAMPLERS
from diffusion.process.schedule import SPACINGS
from diffusion.settings import PictureSettings
from diffusion.web_parameters import read, sampler_of, write

THEIRS = """\
a castle (by:1.2) a lake <lora:style:0.8>
oil on canvas
Negative prompt: fog,
[blurry]
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 123, Size: 512x768, Model hash: 6c, \
Model: v1-5-pruned-emaonly, Clip skip: 2, Hires upscale: 2, Lora hashes: "style: 12, other: 34", \
VAE: "a, b.safetensors", Version: v1.6.0"""


def test_what_a_web_interface_wrote():
    found = read(THEIRS)
    assert found.model == "v1-5-pruned-emaonly"
    assert found.settings == {
        "prompt": "a castle (by:1.2) a lake \noil on canvas",
        "negative": "fog,\n[blurry]",
        "emphasis": True, "count": 1, "steps": 20, "sampler": "dpm++2m", "spacing": "karras",
        "guidance": 7.5, "seed": 123, "width": 512, "height": 768, "clip_skip": 2,
    }  # fmt: skip
    assert found.left_out == (
        "Hires upscale: 2",
        "VAE: a, b.safetensors",
        "<lora:style:0.8> adds no file here; name it: --lora style.safetensors=0.8",
    )
    PictureSettings(**found.settings)


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        ("a house", "a house", ""),
        ("", "", ""),
        ("a house\nSteps: 20, Sampler: Euler", "a house\nSteps: 20, Sampler: Euler", ""),
        ("a house\nNegative prompt: night", "a house", "night"),
        ("Negative prompt: night\nSteps: 1, Seed: 2, Size: 8x8", "", "night"),
        ("Steps: 1, Seed: 2, Size: 8x8", "", ""),
    ],
)
def test_where_the_prompt_ends(text, prompt, negative):
    found = read(text)
    assert (found.settings["prompt"], found.settings["negative"]) == (prompt, negative)


@pytest.mark.parametrize(
    ("entry", "fields"),
    [
        ("Sampler: Euler a", {"sampler": "euler_a", "spacing": "linspace"}),
        ("Sampler: Euler, Schedule type: SGM Uniform", {"sampler": "euler", "spacing": "trailing"}),
        ("Sampler: Heun, Schedule type: Automatic", {"sampler": "heun", "spacing": "linspace"}),
        ("Sampler: DDIM", {"sampler": "ddim", "spacing": "leading"}),
        ("Sampler: DPM++ 2M, Schedule type: Karras", {"sampler": "dpm++2m", "spacing": "karras"}),
    ],
)
def test_samplers_and_their_spacing(entry, fields):
    found = read(f"a\nSteps: 9, Seed: 1, CFG scale: 3, {entry}")
    assert fields.items() <= found.settings.items()
    assert found.left_out == ()


@pytest.mark.parametrize(
    "entry",
    ["Steps: many", "Steps: -3", "Seed: 4294967296", "Seed: -1", "Size: 8", "Size: axb",
     "CFG scale: strong", "Clip skip: 2.5", "Steps: " + "9" * 30, "Sampler: LMS",
     "Sampler: DPM++ SDE Karras", "Denoising strength: 0.7", "Schedule type: Beta"],
)  # fmt: skip
def test_what_cannot_be_followed_is_left_out_by_its_name(entry):
    found = read(f"a\nUser: x, Version: 1, Model: y, {entry}")
    assert found.left_out == (entry,)
    assert set(found.settings) == {"prompt", "negative", "emphasis", "count"}
    assert found.model == "y"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Euler a", ("euler_a", None)),
        ("euler_ancestral", ("euler_a", None)),
        ("k_euler_a", ("euler_a", None)),
        ("DPM++ 2M Karras", ("dpm++2m", "karras")),
        ("dpmpp_2m", ("dpm++2m", None)),
        ("DDIM", ("ddim", None)),
        ("LCM", ("lcm", None)),
        ("Euler Karras", ("euler", "karras")),
        ("LMS", ("LMS", None)),
        ("LMS Karras", ("LMS Karras", None)),
        ("maskgit", ("maskgit", None)),
        ("", ("", None)),
    ],
)
def test_names_of_samplers(name, ours):
    assert sampler_of(name) == ours


def test_every_sampler_and_spacing_of_ours_has_a_name():
    assert web_parameters.SAMPLERS.keys() == SAMPLERS.keys()
    assert web_parameters.SPACINGS.keys() == set(SPACINGS)
    for name in SAMPLERS:
        assert sampler_of(name) == (name, None)


OURS = PictureSettings(
    "a (red) house", negative="[night]", seed=7, count=1, steps=20, guidance=2.5, sampler="euler_a",
    spacing="trailing", model="/home/me/models/v1-5.safetensors", clip_skip=2, zoom=1,
)  # fmt: skip


def test_what_we_write():
    assert write(OURS, 64, 96) == (
        "a \\(red\\) house\nNegative prompt: \\[night\\]\n"
        "Steps: 20, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 2.5, Seed: 7, "
        "Size: 96x64, Model: v1-5, Clip skip: 2, Version: diffusion"
    )
    more = PictureSettings(
        "a (red) house", emphasis=True, source="b.png", loras={"c/style.safetensors": 0.5},
        vae="d/a,b",
    )  # fmt: skip
    assert write(more, 8, 8) == (
        "a (red) house <lora:style:0.5>\n"
        'Seed: 0, Size: 8x8, Model: garden, VAE: "a,b", Denoising strength: 0.8, Version: diffusion'
    )


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_we_write_can_be_read(sampler, spacing):
    found = read(write(replace(OURS, sampler=sampler, spacing=spacing), 64, 96))
    assert found.left_out == ()
    assert found.model == "v1-5"
    assert found.settings == {
        "prompt": r"a \(red\) house", "negative": r"\[night\]", "emphasis": True, "count": 1,
        "seed": 7, "steps": 20, "guidance": 2.5, "sampler": sampler, "spacing": spacing,
        "width": 96, "height": 64, "clip_skip": 2,
    }  # fmt: skip


def test_a_picture_has_both_chunks_and_ours_counts(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    save(tmp_path / "one.png", image, PictureSettings("a house \udcff \x00 ağaç", zoom=2))
    with Image.open(tmp_path / "one.png") as file:
        assert file.text["parameters"].startswith("a house ?   ağaç\nSeed: 0, Size: 6x4, ")
    assert read_parameters(tmp_path / "one.png") is None
    save(tmp_path / "sheet.png", image, PictureSettings("a house"), (16, 8))
    with Image.open(tmp_path / "sheet.png") as file:
        assert "Size: 8x16, " in file.text["parameters"]
    Image.new("RGB", (2, 2)).save(tmp_path / "none.png")
    assert read_parameters(tmp_path / "none.png") is None


@pytest.mark.parametrize(
    "text",
    ["a" * 200_000, "a:" * 100_000, 'a:"' + "\\" * 100_000, "a: " + " " * 100_000, "," * 100_000,
     "a: " + "[" * 100_000, 'a:"' * 50_001, "\n" * 100_000, "a:" + "[" * 5000 + ",b:1,c:2"],
)  # fmt: skip
def test_no_text_takes_long(text):
    began = time.process_time()
    read(text)
    assert time.process_time() - began < 5


def test_the_module_s_own_example():
    text = "\n".join(line[4:] for line in web_parameters.__doc__.splitlines()[2:5])
    found = read(text)
    assert found.settings["negative"] == "fog"
    assert (found.settings["height"], found.model, found.left_out) == (768, "v1-5", ())
