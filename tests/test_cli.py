"""The front door: what it paints, and how it says no."""

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import load_file, save_file

import diffusion
from diffusion import cli, cli_settings, painting
from diffusion.config_text import override
from diffusion.film_settings import FilmFileSettings
from diffusion.picture_files import KEY, save
from diffusion.picture_reading import read_settings
from diffusion.pipeline import Artist
from diffusion.presets import garden
from diffusion.runtime import compilation_cache, progress
from diffusion.settings import PictureSettings
from diffusion.weights.architectures import SLOTS
from diffusion.weights.folder import part_file

REPOSITORY = Path(cli.__file__).parents[1]
Paint = Callable[..., int]

SOURCE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)

pytestmark = pytest.mark.filterwarnings("default::diffusion.text.tokenizer.PromptCutWarning")


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path, artist: Artist) -> Callable[..., Artist]:
    """`diffusion.load`, but what has been loaded with the same settings is not loaded again."""
    load = diffusion.load
    artists = {(None, ()): artist, ("float32", ()): artist}

    def loaded(
        model: str, *, dtype: str | None, loras: dict[str, float], **others: object
    ) -> Artist:
        if model != str(tiny_folder) or any(others.values()):
            return load(model, dtype=dtype, loras=loras, **others)
        key = dtype, tuple(loras.items())
        if key not in artists:
            artists[key] = load(model, dtype=dtype, loras=loras)
        return artists[key]

    return loaded


@pytest.fixture
def paint(
    tiny_folder: Path,
    loaded: Callable[..., Artist],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Paint:
    """`diffusion paint` with the tiny model, in an empty folder.

    Three pictures of the model's size, one of it, two of `SOURCE`'s: what else a test asks for
    is compiled for it alone.
    """
    monkeypatch.setattr(diffusion, "load", loaded)
    monkeypatch.chdir(tmp_path)

    def paint(*arguments: object, model: object = tiny_folder) -> int:
        common = ["--model", str(model), "--count", "3", "--steps", "2", "--zoom", "1"]
        return cli.main(["paint", *common, *map(str, arguments)])

    return paint


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said at a refusal: one line and no traceback."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.replace("\r", "\n").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("painting", "note: "))]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("diffusion: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return lines[0]


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_sheet_of_all_pictures(paint, artist, tiny_folder):
    assert paint("a red house", "--seed", 7) == 0
    assert files() == ["picture.png"]
    page = pixels("picture.png")
    size, gap = 16, painting.GAP
    assert page.shape == (2 * (size + gap) + gap, 2 * (size + gap) + gap, 3)
    expected = artist.paint("a red house", count=3, seed=7, steps=2)
    for i, picture in enumerate(expected):
        y, x = gap + i // 2 * (size + gap), gap + i % 2 * (size + gap)
        np.testing.assert_array_equal(page[y : y + size, x : x + size], picture)
    assert (page[size + 2 * gap :, size + 2 * gap :] == 255).all()  # no fourth picture
    assert read_settings(Path("picture.png")) == PictureSettings(
        "a red house", model=str(tiny_folder), seed=7, count=3, steps=2, zoom=1, guidance=3.0,
        dtype="float32", sampler="dpm++2m", spacing="leading",
    )  # fmt: skip


def test_a_single_picture_has_no_frame(paint, artist):
    assert paint("a red house", "--count", 1) == 0
    np.testing.assert_array_equal(
        pixels("picture.png"), artist.paint("a red house", steps=2, count=1)[0]
    )
    assert paint("a red house", "--count", 1, "--strip") == 0
    assert pixels("picture.png").shape[0] == 2 * (16 + painting.GAP) + painting.GAP


def test_a_folder_of_single_files(paint, artist):
    assert paint("a red house", "--output", "new/folder") == 0
    assert files() == [f"new/folder/000{i}.png" for i in range(3)]
    expected = artist.paint("a red house", count=3, steps=2)
    for i, name in enumerate(files()):
        np.testing.assert_array_equal(pixels(name), expected[i])
        assert read_settings(Path(name)).index == i


@pytest.mark.filterwarnings("default:.*stay beside the new ones")
def test_a_shorter_series_says_what_stays_in_its_folder(paint, capsys):
    assert paint("a red house", "--output", "folder") == 0
    assert paint("a red house", "--output", "folder") == 0
    assert "stay beside" not in capsys.readouterr().err
    assert paint("a red house", "--count", 1, "--output", "folder") == 0
    said = "note: folder holds 2 other pictures (0001.png to 0002.png), which stay beside the new"
    assert said in capsys.readouterr().err


def test_control_characters_of_strangers_do_not_reach_the_terminal(capsys):
    cli.say("tensor \x1b[31mred\x07\u202e of\na file: ağaç")
    assert capsys.readouterr().err == "tensor \\x1b[31mred\\x07\\u202e of\na file: ağaç\n"


def test_a_strip_ends_with_the_finished_picture(paint, artist):
    assert paint("a red house", "--strip", "--steps", 10, "--count", 1, "--output", "film") == 0
    film = pixels("film/0000.png")
    size, gap = 16, painting.GAP
    width = painting.STRIP_COLUMNS * (size + gap) + gap
    assert film.shape == (2 * (size + gap) + gap, width, 3)
    steps = list(artist.sample("a red house", steps=10))
    last = film[size + 2 * gap : -gap, -gap - size : -gap]
    np.testing.assert_array_equal(last, artist.decode(steps[-1].x0)[0])
    first = film[gap : gap + size, gap : gap + size]
    np.testing.assert_array_equal(first, artist.decode(steps[0].x_t)[0])


@pytest.mark.parametrize(
    "arguments",
    [
        ["a red house", "--seed", 5, "--guidance", "2.5", "--negative", "trees", "--zoom", 3],
        ["gece, kırmızı çatılı ev", "--strip", "--sampler", "ddim", "--eta", "0.5"],
        ["x\udcff 🏡", "--sampler", "euler_a"],
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_again_gives_the_same_file(paint, arguments, single):
    output = "first" if single else "first.png"
    assert paint(*arguments, "--output", output) == 0
    original = Path("first/0001.png" if single else "first.png")
    assert cli.main(["paint", "--again", str(original), "--output", "again.png"]) == 0
    assert Path("again.png").read_bytes() == original.read_bytes()


def test_again_of_a_single_picture_may_go_into_a_folder(paint):
    assert paint("a red house", "--output", "first") == 0
    assert cli.main(["paint", "--again", "first/0001.png", "--output", "second"]) == 0
    assert Path("second/0001.png").read_bytes() == Path("first/0001.png").read_bytes()
    assert not Path("second/0000.png").exists()


def test_again_of_a_sheet_gives_all_its_pictures_to_a_folder(paint):
    assert paint("a red house", "--output", "sheet.png") == 0
    assert paint("a red house", "--output", "first") == 0
    assert cli.main(["paint", "--again", "sheet.png", "--output", "second"]) == 0
    for name in ("0000.png", "0001.png", "0002.png"):
        assert Path("second", name).read_bytes() == Path("first", name).read_bytes()


@pytest.mark.parametrize(
    "given", [["--steps", "25"], ["--seed", "0"], ["--model", "garden"], ["--negative", ""]]
)
def test_again_refuses_what_is_given_even_if_it_is_the_default(paint, capsys, given):
    save(Path("picture.png"), SOURCE, PictureSettings("a red house"))
    assert cli.main(["paint", "--again", "picture.png", *given]) == 1
    assert f"leave out {given[0]}" in refusal(capsys)


@pytest.mark.parametrize(
    "prompt", ["", "🏡🌳", "a\x00house", "\ud800 house", "KIRMIZI ÇATILI İKİ EV ığüşöç"]
)
def test_any_prompt_is_painted(paint, prompt):
    assert paint(prompt) == 0
    assert read_settings(Path("picture.png")).prompt == prompt


def test_a_long_prompt_is_cut_with_a_short_note(paint, capsys):
    assert paint("a red house " + "x" * 100_000) == 0
    said = capsys.readouterr().err
    assert "note: the prompt has more than 14 tokens; cut: x" in said
    assert len(said) < 2000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sampler", "magic"], "magic"),
        (["--sampler", "LMS"], "unknown sampler 'LMS'; choose one of ddpm, ddim, euler"),
        (["--sampler", "DPM++ 2M Karras", "--spacing", "leading"], "leave out --spacing"),
        (["--emphasis", "--negative", "[a|b]"], "'[a|b]': words that change on the way"),
        (["--clip-skip", 3], "clip_skip is 3; give 1 to 2"),
        (["--steps", 0], "steps"),
        (["--steps", 10_000], "10000"),
        (["--guidance", "nan"], "guidance is nan"),
        (["--guidance", "inf"], "guidance is inf"),
        (["--eta", "2", "--sampler", "ddim"], "eta"),
        (["--eta", "1"], "eta"),
        (["--count", 0], "count is 0"),
        (["--count", -3], "count is -3"),
        (["--count", 10**12], "count 1000000000000"),
        (["--count", 10**12, "--output", "folder"], "count 1000000000000"),
        (["--seed", -1], "seed is -1"),
        (["--seed", 2**32], "seed is 4294967296"),
        (["--zoom", 0], "zoom is 0"),
        (["--zoom", 10**9], "zoom is 1000000000"),
        (["--model", "missing"], "'missing'"),
        (["--model", ""], "model"),
        (["--output", "old.jpg"], "old.jpg"),
        (["--output", "folder.png"], "folder.png"),
        (["--output", "file/picture.png"], "file"),
        (["--output", "file"], "file"),
        (["--output", "/proc/none/picture.png"], "/proc/none"),
        (["--output", "/proc/picture.png"], "/proc"),
        (["--again", "picture.png"], "--again"),
        (["--width", 21], "width is 21"),
        (["--height", 0], "height is 0"),
        (["--width", 10**9], "width is 1000000000"),
        (["--strength", "0.5"], "strength"),
        (["--mask", "file"], "--from"),
        (["--from", "absent.png"], "absent.png"),
        (["--from", "file"], "file cannot be read"),
        (["--from", "."], "."),
        (["--dtype", "int4"], "int4"),
        (["--lora", "absent.safetensors=0.5"], "absent.safetensors"),
        (["--lora", "a.bin=0.5", "--lora", "a.bin"], "--lora a.bin is given twice"),
        (["--lora", "a.bin=0.5", "--lora", "./a.bin"], "--lora ./a.bin is given twice"),
        (["--lora", "file"], "LoRA file is damaged"),
        (["--lora", "old.ckpt=nan"], "strength nan"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(paint, capsys, arguments, named):
    Path("folder.png").mkdir()
    Path("file").write_text("kept")
    Path("picture.png").write_text("old")
    assert paint("a red house", *arguments) == 1
    assert named in refusal(capsys)
    assert files() == ["file", "picture.png"]
    assert Path("picture.png").read_text() == "old"


@pytest.fixture
def source() -> str:
    """A picture in the working folder that fits the tiny model as it is."""
    Image.fromarray(SOURCE).save("source.png")
    return "source.png"


def test_a_picture_of_another_shape(paint, artist):
    size = ["--width", 24, "--height", 16]
    assert paint("a red house", *size, "--count", 2, "--output", "wide") == 0
    expected = artist.paint("a red house", steps=2, width=24, height=16, count=2)
    np.testing.assert_array_equal(pixels("wide/0000.png"), expected[0])


def test_a_picture_from_a_picture(paint, artist, source):
    arguments = ["--from", source, "--strength", "0.5", "--steps", 4, "--count", 2]
    assert paint("a red house", *arguments, "--output", "new") == 0
    expected = artist.paint("a red house", steps=4, image=SOURCE, strength=0.5, count=2)
    for i, name in enumerate(["new/0000.png", "new/0001.png"]):
        np.testing.assert_array_equal(pixels(name), expected[i])
    assert cli.main(["paint", "--again", "new/0001.png", "--output", "again.png"]) == 0
    assert Path("again.png").read_bytes() == Path("new/0001.png").read_bytes()


def test_a_source_is_fitted_to_the_size_that_is_asked_for(paint, source):
    arguments = ["--from", source, "--width", 16, "--height", 16, "--count", 1, "--strip"]
    assert paint("a red house", *arguments, "--output", "new") == 0
    high, wide = (rows * (16 + painting.GAP) + painting.GAP for rows in (2, 1))
    assert pixels("new/0000.png").shape == (high, wide, 3)  # one moment, and what is seen in it


def test_only_the_white_of_the_mask_is_painted(paint, source):
    mask = np.zeros((16, 24), np.uint8)
    mask[4:12, 4:20] = 255
    Image.fromarray(mask).save("mask.png")
    arguments = ["--from", source, "--mask", "mask.png", "--count", 2, "--output", "new"]
    assert paint("a red house", *arguments) == 0
    picture = pixels("new/0000.png")
    np.testing.assert_array_equal(picture[mask == 0], SOURCE[mask == 0])
    assert (picture[mask > 0] != SOURCE[mask > 0]).mean() > 0.5


@pytest.mark.parametrize("output", ["source.png", "./sub/../source.png"])
def test_the_picture_that_it_begins_with_is_not_replaced(paint, capsys, source, output):
    Path("sub").mkdir()
    before = Path(source).read_bytes()
    assert paint("a red house", "--from", source, "--output", output) == 1
    assert "source.png would be replaced" in refusal(capsys)
    assert paint("a red house", "--width", 24, "--height", 16, "--output", "new") == 0
    first = Path("new/0000.png").read_bytes()
    capsys.readouterr()
    assert paint("a red house", "--from", "new/0000.png", "--output", "new") == 1
    assert "0000.png would be replaced" in refusal(capsys)
    mask = ["--from", source, "--mask", "new/0000.png", "--output", "new"]
    assert paint("a red house", *mask) == 1
    assert "0000.png would be replaced" in refusal(capsys)
    assert Path(source).read_bytes() == before
    assert Path("new/0000.png").read_bytes() == first


@pytest.mark.parametrize("kind", [["--count", 3], ["--count", 1, "--strip"]])
def test_a_sheet_is_no_picture_to_begin_with(paint, capsys, kind):
    assert paint("a red house", *kind, "--output", "sheet.png") == 0
    capsys.readouterr()
    assert paint("a red house", "--from", "sheet.png", "--output", "new") == 1
    assert "diffusion: sheet.png shows several pictures side by side" in refusal(capsys)
    assert paint("a red house", "--count", 1, "--output", "one.png") == 0
    assert paint("a red house", "--from", "one.png", "--output", "new") == 0


def test_again_notices_that_the_source_has_changed(paint, capsys, source):
    assert paint("a red house", "--from", source, "--count", 2) == 0
    capsys.readouterr()
    Image.fromarray(SOURCE[::-1]).save(source)
    assert cli.main(["paint", "--again", "picture.png", "--output", "again.png"]) == 1
    assert "files that have changed since: source.png" in refusal(capsys)
    Path(source).unlink()
    assert cli.main(["paint", "--again", "picture.png", "--output", "again.png"]) == 1
    assert "source.png cannot be read" in refusal(capsys)
    assert not Path("again.png").exists()


def test_lora_and_precision_are_remembered(paint, tiny_folder):
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_{}.weight"
    factors = {name.format(letter): np.ones((16, 16), np.float32) for letter in "AB"}
    save_file(factors, "a=b.safetensors")
    arguments = ["--lora", "a=b.safetensors=0.5", "--dtype", "bfloat16", "--count", 1]
    assert paint("a red house", *arguments, "--output", "one.png") == 0
    settings = read_settings(Path("one.png"))
    assert (settings.loras, settings.dtype) == ({"a=b.safetensors": 0.5}, "bfloat16")
    assert cli.main(["paint", "--again", "one.png", "--output", "two.png"]) == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert cli_settings.lora("a=b.safetensors") == ("a=b.safetensors", 1.0)


def test_a_lora_may_be_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("style").mkdir()
    Path("style/pytorch_lora_weights.safetensors").touch()
    arguments = ["paint", "a", "--lora", "style=0.5"]
    options = cli.build_parser().parse_args(arguments)
    settings = cli_settings.settings_of(options, PictureSettings)
    assert settings.loras == {"style/pytorch_lora_weights.safetensors": 0.5}
    options = cli.build_parser().parse_args([*arguments, "--lora", next(iter(settings.loras))])
    with pytest.raises(ValueError, match="is given twice"):
        cli_settings.settings_of(options, PictureSettings)


@pytest.mark.parametrize(
    ("text", "file", "strength"),
    [("a.safetensors=0.7", "a.safetensors", 0.7), ("a=b.safetensors", "a=b.safetensors", 1.0),
     ("0.7", "0.7", 1.0), ("=0.7", "=0.7", 1.0)],
)  # fmt: skip
def test_a_lora_and_its_strength(text, file, strength):
    assert cli_settings.lora(text) == (file, strength)


def test_a_prompt_is_needed(paint, capsys):
    assert paint() == 1
    assert "prompt" in refusal(capsys)


def test_again_of_a_picture_of_version_0_1(paint, tiny_folder):
    """It had all these names, and no more."""
    assert paint("a red house", "--seed", 5) == 0
    old = {
        "prompt": "a red house", "model": str(tiny_folder), "negative": "", "seed": 5, "count": 3,
        "steps": 2, "guidance": 3.0, "sampler": "dpm++2m", "eta": 0.0, "height": None,
        "width": None, "source": None, "mask": None, "strength": None, "loras": {},
        "dtype": "float32", "digest": None, "zoom": 1, "strip": False, "index": None,
    }  # fmt: skip
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(old))
    Image.new("RGB", (2, 2)).save("old.png", pnginfo=info)
    assert cli.main(["paint", "--again", "old.png", "--output", "again.png"]) == 0
    assert Path("again.png").read_bytes() == Path("picture.png").read_bytes()


@pytest.mark.parametrize("name", ["absent.png", "foreign.png", "letter.txt"])
def test_again_of_what_is_no_picture_of_ours(paint, capsys, name):
    Image.new("RGB", (2, 2)).save("foreign.png")
    Path("letter.txt").write_text("hello")
    assert cli.main(["paint", "--again", name]) == 1
    assert name in refusal(capsys)
    assert files() == ["foreign.png", "letter.txt"]


def from_the_web(name: str, text: str) -> None:
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (2, 2)).save(name, pnginfo=info)


WEB = """a (red:1.2) house
Negative prompt: night
Steps: 2, Sampler: Euler a, CFG scale: 3.5, Seed: 5, Size: 24x16, Model: v1-5, Clip skip: 1, \
Denoising strength: 0.7"""


@pytest.mark.filterwarnings("default:.*is of another program")
def test_again_of_a_web_interface_s_picture(paint, artist, capsys, tiny_folder):
    from_the_web("web.png", WEB)
    again = ["paint", "--again", "web.png", "--output", "new.png"]
    assert cli.main(again) == 1
    assert "web.png was painted by another program, with the model 'v1-5'" in refusal(capsys)
    assert cli.main([*again, "--model", str(tiny_folder), "--zoom", "1", "--seed", "6"]) == 0
    said = capsys.readouterr().err
    assert said.count("note: ") == 1
    assert "note: web.png is of another program, whose seeds make other noise" in said
    assert "; not followed: Denoising strength: 0.7\n" in said
    settings = read_settings(Path("new.png"))
    assert settings == PictureSettings(
        "a (red:1.2) house", negative="night", emphasis=True, steps=2, sampler="euler_a", count=1,
        spacing="linspace", guidance=3.5, seed=6, width=24, height=16, clip_skip=1, zoom=1,
        model=str(tiny_folder), dtype="float32",
    )  # fmt: skip
    more = {"guidance": 3.5, "seed": 6, "width": 24, "height": 16, "negative": "night"}
    more |= {"steps": 2, "sampler": "euler_a", "spacing": "linspace", "emphasis": True}
    np.testing.assert_array_equal(pixels("new.png"), artist.paint("a (red:1.2) house", **more)[0])
    assert cli.main(["paint", "--again", "new.png", "--output", "newer.png"]) == 0
    assert Path("newer.png").read_bytes() == Path("new.png").read_bytes()


@pytest.mark.parametrize(
    ("model", "said"), [("Model: ../garden", "'../garden'"), ("Eta: 1", "that it does not name")]
)
def test_a_name_of_a_model_in_a_stranger_s_picture_is_no_path(paint, capsys, model, said):
    from_the_web("web.png", f"a house\nSteps: 2, Seed: 1, CFG scale: 3, {model}")
    assert cli.main(["paint", "--again", "web.png"]) == 1
    assert said in refusal(capsys)
    from_the_web("web.png", "a house\nSteps: 2, Seed: 1, CFG scale: 3, Model: garden")
    options = cli.build_parser().parse_args(["paint", "--again", "web.png"])
    with pytest.warns(UserWarning, match="another program"):
        assert cli_settings.asked(options, PictureSettings, read_settings).model == "garden"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sampler", "Euler a"], ("euler_a", None)),
        (["--sampler", "DPM++ 2M Karras"], ("dpm++2m", "karras")),
        (["--sampler", "DPM++ 2M Karras", "--spacing", "karras"], ("dpm++2m", "karras")),
        (["--sampler", "DDIM", "--spacing", "trailing"], ("ddim", "trailing")),
        (["--sampler", "LMS Karras"], ("LMS Karras", None)),
    ],
)
def test_samplers_by_the_names_of_web_interfaces(arguments, expected):
    options = cli.build_parser().parse_args(["paint", "a house", *arguments])
    settings = cli_settings.settings_of(options, PictureSettings)
    assert (settings.sampler, settings.spacing) == expected


def test_again_with_settings_that_make_no_sense(paint, capsys):
    info = PngInfo()
    info.add_itxt(KEY, '{"prompt": "a house", "count": 2, "index": 5}')
    Image.new("RGB", (2, 2)).save("odd.png", pnginfo=info)
    assert cli.main(["paint", "--again", "odd.png"]) == 1
    assert "odd.png" in refusal(capsys)
    assert files() == ["odd.png"]


@pytest.fixture
def broken(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model folder, to be broken."""
    return Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("broken") / "model"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def reshape(path: Path) -> None:
    weights = load_file(path)
    name = next(iter(sorted(weights)))
    save_file(weights | {name: np.zeros((1, 2, 3), np.float32)}, path)


@pytest.mark.parametrize("damage", [Path.unlink, truncate, reshape])
@pytest.mark.parametrize("slot", SLOTS)
def test_a_damaged_weights_file_is_named(paint, capsys, tiny, broken, damage, slot):
    path = part_file(broken, tiny, slot)
    damage(path)
    assert paint("a red house", model=broken) == 1
    assert str(path) in refusal(capsys)
    assert files() == []


@pytest.mark.parametrize("name", ["unet/config.json", "model_index.json", "tokenizer/vocab.json"])
@pytest.mark.parametrize("damage", [Path.unlink, truncate])
def test_a_damaged_text_file_of_a_model_is_named(paint, capsys, broken, damage, name):
    damage(broken / name)
    assert paint("a red house", model=broken) == 1
    assert str(broken) in refusal(capsys)
    assert files() == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "diffusion: stopped"),
        (MemoryError(), 1, "diffusion: out of memory"),
        (OSError("disk full"), 1, "diffusion: disk full"),
    ],
)
@pytest.mark.parametrize("place", ["painting", "saving"])
def test_a_stop_in_the_middle_leaves_no_half_file(paint, capsys, monkeypatch, error, code, said,
                                                  place):  # fmt: skip
    Path("picture.png").write_text("old")

    def stop(*_, **__):
        raise error

    def half(self, path, **_):
        Path(path).write_bytes(b"half")
        raise error

    if place == "painting":
        monkeypatch.setattr(progress.jax, "block_until_ready", stop)
    else:
        monkeypatch.setattr(Image.Image, "save", half)
    assert paint("a red house") == code
    assert refusal(capsys).startswith(said)
    assert files() == ["picture.png"]
    assert Path("picture.png").read_text() == "old"


def test_mistakes_in_training_are_named(capsys, tmp_path):
    for part, settings, named in (
        ("face", [], "face"),
        ("unet", [], "diffusion train tokenizer"),
        ("vae", ["speed=3"], "speed=3"),
        ("vae", ["model.denoiser.size=3"], "denoiser.size=3"),
        ("vae", ["steps=many"], "steps"),
    ):
        arguments = ["train", part, "--output", str(tmp_path / "run")]
        assert cli.main(arguments + (["--set", *settings] if settings else [])) == 1
        assert named in refusal(capsys)


@pytest.mark.parametrize(
    "arguments",
    [[], ["draw"], ["paint", "x", "--seed", "one"], ["paint", "x", "--colour"], ["train"]],
)
def test_argparse_refuses_with_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: diffusion" in capsys.readouterr().err


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = cli.build_parser()._actions
    return next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction))


@pytest.mark.parametrize("command", ["paint", "film", "train", "evaluate"])
def test_help_explains_each_option(command):
    text = commands()[command].format_help()
    for action in commands()[command]._actions:
        assert action.help
        assert all(option in text for option in action.option_strings)
    assert "diffusion " + command in text


EXAMPLES = [
    line.strip()
    for text in (cli.PAINT_HELP, cli.FILM_HELP, cli.TRAIN_HELP, cli.EVALUATE_HELP)
    for line in text.splitlines()
    if line.startswith("  diffusion")
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_help_can_be_typed(example):
    options = cli.build_parser().parse_args(shlex.split(example)[1:])
    kinds = {cli.run_paint: PictureSettings, cli.run_film: FilmFileSettings}
    if options.run in kinds and options.again is None:
        assert cli_settings.settings_of(options, kinds[options.run]).prompt == options.prompt
    for setting in getattr(options, "set", []):
        if setting.startswith("model."):
            override(garden(), [setting.removeprefix("model.")])


def options_of_paint() -> dict[str, argparse.Action]:
    return {action.dest: action for action in commands()["paint"]._actions}


def test_the_options_of_paint_are_the_fields_of_the_settings():
    options = options_of_paint()
    fields = {entry.name: entry for entry in dataclasses.fields(PictureSettings)}
    assert set(options) == set(fields) - {"first", "digest", "index"} | {"output", "again", "help"}
    renamed = {
        "source": "from", "loras": "lora", "embeddings": "embedding", "clip_skip": "clip-skip",
    }  # fmt: skip
    for name in set(options) & set(fields) - {"prompt"}:
        assert options[name].option_strings == [f"--{renamed.get(name, name)}"]
        assert options[name].help == fields[name].metadata["help"]
        assert options[name].metavar == fields[name].metadata["metavar"]
        assert options[name].default is None  # `--again` tells what is given from what is not
    types = {name: option.type for name, option in options.items() if option.type in (int, float)}
    assert types == dict.fromkeys(
        ("seed", "count", "steps", "height", "width", "zoom", "clip_skip"), int
    ) | dict.fromkeys(("guidance", "eta", "strength"), float)


def test_the_options_of_film_are_the_fields_of_its_settings():
    options = {action.dest: action for action in commands()["film"]._actions}
    fields = {entry.name for entry in dataclasses.fields(FilmFileSettings)}
    unsaid = {"first", "digest", "index", "count", "mask"}
    assert set(options) == fields - unsaid | {"output", "again", "help"}
    assert options["to_seed"].option_strings == ["--to-seed"]
    assert all(options[name].default is None for name in fields - unsaid)


def test_every_option_reaches_its_field():
    said = {
        "negative": "trees", "seed": 5, "count": 2, "steps": 7, "guidance": 2.5, "sampler": "ddim",
        "spacing": "trailing", "eta": 0.5, "height": 24, "width": 16, "strength": 0.25,
        "model": "runs/my model", "source": "a.png", "mask": "b.png", "dtype": "float16", "zoom": 3,
        "vae": "vae.safetensors", "tokenizer": "clip", "clip_skip": 2,
    }  # fmt: skip
    options = options_of_paint()
    arguments = [
        x for name, value in said.items() for x in (options[name].option_strings[0], value)
    ]
    arguments += ["--strip", "--emphasis", "--lora", "a.safetensors=0.5", "--lora", "b.safetensors"]
    arguments += ["--embedding", "cat.safetensors=<cat>", "--embedding", "hat.safetensors"]
    parsed = cli.build_parser().parse_args(["paint", "a house", *map(str, arguments)])
    loras = {"a.safetensors": 0.5, "b.safetensors": 1.0}
    embeddings = {"cat.safetensors": "<cat>", "hat.safetensors": ""}
    expected = PictureSettings(
        "a house", **said, strip=True, emphasis=True, loras=loras, embeddings=embeddings
    )
    assert cli_settings.settings_of(parsed, PictureSettings) == expected
    unsaid = {"first", "digest", "index"}
    defaults = dataclasses.asdict(PictureSettings("a house"))
    for name, value in dataclasses.asdict(expected).items():
        assert (value == defaults[name]) == (name in unsaid | {"prompt"}), name


def test_what_is_left_out_is_left_to_the_settings():
    parsed = cli.build_parser().parse_args(["paint", ""])
    assert cli_settings.settings_of(parsed, PictureSettings) == PictureSettings("")


def test_module_runs_as_a_program():
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    said = subprocess.run(
        [sys.executable, "-m", "diffusion", "--help"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "paint" in said.stdout
    assert "train" in said.stdout
    assert said.stderr == ""


def test_the_first_run_says_why_it_is_slow(paint, capsys, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(
            compilation_cache.platformdirs, "user_cache_path", lambda name: tmp_path / "empty"
        )
        assert paint("a red house") == 0
    compilation_cache.keep_compilations()  # where the other tests do
    said = capsys.readouterr().err
    assert said.count("first run") == 1
    assert str(tmp_path / "empty") in said


@pytest.mark.parametrize(("seconds", "ahead"), [(10.0, 1), (0.125, 4), (0.0, 50)])
def test_as_much_is_asked_for_as_fills_half_a_second(monkeypatch, seconds, ahead):
    now, counted = 0.0, 0

    class Latents:
        def block_until_ready(self) -> None:
            nonlocal now
            now += seconds

    def done() -> None:
        nonlocal counted
        counted += 1

    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    monkeypatch.setattr(progress.jax, "block_until_ready", Latents.block_until_ready)
    in_flight = progress.InFlight(done)
    in_flight.add(Latents())
    assert counted == 1  # nobody knew how long it would take
    for i in range(1, 100):
        in_flight.add(Latents())
        assert counted == 1 + max(0, i - ahead)
    in_flight.finish()
    assert counted == 100


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'x'"), AssertionError()]
)
def test_a_device_that_is_not_there_is_named(capsys, monkeypatch, error):
    def none():
        raise error

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert cli.main(["paint", "a red house"]) == 1
    assert "JAX finds no device of JAX_PLATFORMS=cuda (" in refusal(capsys)
