"""Film files play as long as they should, and remember how they were painted."""

import subprocess

import numpy as np
import pytest
from PIL import Image, ImageSequence

import diffusion
from diffusion import cli, film_files
from diffusion.film_files import durations, read_settings, save
from diffusion.film_settings import FilmFileSettings

SETTINGS = FilmFileSettings("kırmızı ev, gün batar", frames=8, fps=8, zoom=2, steps=2, seed=7)
ANIMATED = (".gif", ".webp", ".png")


def moving(count=8, side=16):
    """A square that goes to the right, in grey."""
    frames = np.full((count, side, side, 3), 60, np.uint8)
    for i in range(count):
        frames[i, 4:8, i : i + 4] = (200, 40, 40)
    return frames


def seen(path):
    """What a file shows: its frames, and for how many milliseconds."""
    with Image.open(path) as image:
        shown = [
            (np.asarray(frame.convert("RGB")), frame.info.get("duration", 0))
            for frame in ImageSequence.Iterator(image)
        ]
    return np.stack([frame for frame, _ in shown]), sum(time for _, time in shown)


@pytest.mark.parametrize("suffix", ANIMATED)
def test_frames_come_back_enlarged_in_their_time(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    save(path, moving(), SETTINGS)
    frames, time = seen(path)
    large = moving().repeat(2, axis=1).repeat(2, axis=2)
    assert frames.shape == large.shape
    difference = np.abs(frames.astype(int) - large)
    assert difference.max() <= (8 if suffix == ".gif" else 0)
    assert time == pytest.approx(1000, abs=1)
    assert read_settings(path) == SETTINGS


@pytest.mark.parametrize("suffix", ANIMATED)
def test_a_pause_is_as_long_as_its_frames(tmp_path, suffix):
    frames = moving()
    frames[2:6] = frames[2]
    save(tmp_path / f"film{suffix}", frames, SETTINGS)
    shown, time = seen(tmp_path / f"film{suffix}")
    assert len(shown) <= 8
    assert time == pytest.approx(1000, abs=1)


@pytest.mark.parametrize("suffix", ANIMATED)
def test_a_film_in_which_nothing_moves_survives(tmp_path, suffix):
    save(tmp_path / f"film{suffix}", np.repeat(moving()[:1], 8, axis=0), SETTINGS)
    shown, _ = seen(tmp_path / f"film{suffix}")
    assert len(shown) >= 1
    assert read_settings(tmp_path / f"film{suffix}") == SETTINGS


def test_what_stands_still_does_not_flicker_in_a_gif(tmp_path):
    frames = moving()
    frames += np.random.default_rng(0).integers(0, 40, frames[:1].shape, np.uint8)
    save(tmp_path / "film.gif", frames, SETTINGS)
    shown, _ = seen(tmp_path / "film.gif")
    still = shown[:, 20:]
    np.testing.assert_array_equal(still, np.repeat(still[:1], 8, axis=0))


@pytest.mark.parametrize(("fps", "suffix"), [(8, ".gif"), (12, ".gif"), (7, ".webp"), (50, ".gif")])
def test_durations_add_up(fps, suffix):
    found = durations(24, fps, suffix)
    assert abs(sum(found) - 24_000 / fps) <= 5
    assert max(found) - min(found) <= film_files.UNITS.get(suffix, 1)
    assert min(found) > 0


def test_a_video_plays_and_remembers(tmp_path):
    encoder = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    save(tmp_path / "film.mp4", moving(side=32), SETTINGS)
    order = [encoder, "-i", tmp_path / "film.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    played = subprocess.run(order, capture_output=True, check=True)
    frames = np.frombuffer(played.stdout, np.uint8).reshape(-1, 64, 64, 3)
    assert b"8 fps" in played.stderr
    assert len(frames) == 8
    assert np.abs(frames[0].astype(int) - moving(side=32)[0].repeat(2, 0).repeat(2, 1)).mean() < 8
    assert read_settings(tmp_path / "film.mp4") == SETTINGS


def test_without_an_encoder_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install imageio-ffmpeg; or name a .gif"):
        film_files.check_suffix(tmp_path / "film.mp4", strip=False)


@pytest.mark.parametrize(
    ("name", "strip", "says"),
    [
        ("film.avi", False, "name a file that ends with .gif, .webp, .png, .mp4"),
        ("film", False, "name a file that ends with"),
        ("film.gif", True, "a strip is a still picture; name a .png"),
    ],
)
def test_names_that_cannot_be_written_are_refused(tmp_path, name, strip, says):
    with pytest.raises(ValueError, match=says):
        film_files.check_suffix(tmp_path / name, strip)
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        film_files.check_suffix(tmp_path / "folder.gif", strip=False)


def test_files_that_do_not_say_are_named(tmp_path):
    path = tmp_path / "other.png"
    Image.fromarray(moving()[0]).save(path)
    with pytest.raises(ValueError, match="does not say how it was painted"):
        read_settings(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as a film"):
        read_settings(path)
    path = tmp_path / "film.gif"
    image = Image.fromarray(moving()[0])
    image.save(path, comment=(film_files.KEY + '{"frames": 99}').encode())
    with pytest.raises(ValueError, match="holds settings that make no sense"):
        read_settings(path)


def run(*arguments):
    return cli.main(["film", *map(str, arguments)])


FAST = ("--frames", 8, "--steps", 2)


def test_the_command_line_films_again_what_it_filmed(shallow_folder, tmp_path, capsys):
    path = tmp_path / "film.gif"
    given = ("--model", shallow_folder, *FAST, "--fps", 10, "--to", "two trees", "--seed", 3)
    assert run("a house", *given, "--output", path) == 0
    said = capsys.readouterr().err
    assert "has no motion modules: a walk between two pictures" in said
    assert f"wrote {path}" in said
    settings = read_settings(path)
    assert settings.walk
    assert (settings.to, settings.fps, settings.seed, settings.zoom) == ("two trees", 10, 3, 4)
    assert run("--again", path, "--output", tmp_path / "again.gif") == 0
    assert (tmp_path / "again.gif").read_bytes() == path.read_bytes()
    strip = tmp_path / "strip.png"
    assert run("a house", *given, "--strip", "--output", strip) == 0
    with Image.open(strip) as image:
        assert image.size == (4 * (8 * 18 + 2), 4 * 20)
        assert getattr(image, "n_frames", 1) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give a prompt"),
        (("a house", "--output", "film.avi"), "name a file that ends with"),
        (("a house", "--frames", "4"), "frames is 4; give 8 to 64"),
        (("a house", "--motion", "nowhere"), "motion adapter 'nowhere' is no folder"),
        (("--again", "nowhere.gif"), "cannot be read as a film"),
        (("--again", "nowhere.gif", "--fps", "9"), "leave out --fps"),
    ],
)
def test_mistakes_on_the_command_line_are_named(
    shallow_folder, arguments, says, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    model = () if "--again" in arguments or not arguments else ("--model", shallow_folder)
    assert run(*arguments, *model) == 1
    assert says in capsys.readouterr().err


def test_a_film_s_model_has_all_that_was_given_for_it(monkeypatch, tmp_path):
    given = {}

    def load(model, **more):
        given.update(more, model=model)
        raise ValueError("enough")

    monkeypatch.setattr(diffusion, "load", load)
    command = ["film", "a house", "--model", "sd", "--vae", "v", "--tokenizer", "t"]
    command += ["--motion", "m", "--embedding", "cat.safetensors=<cat>", "--clip-skip", "2"]
    command += ["--output", str(tmp_path / "film.gif")]
    assert cli.main(command) == 1
    assert given == {
        "model": "sd", "dtype": None, "loras": {}, "vae": "v", "tokenizer": "t", "motion": "m",
        "clip_skip": 2,
        "embeddings": {"cat.safetensors": "<cat>"},
    }  # fmt: skip
