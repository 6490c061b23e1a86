"""Mistakes at the command line: `python -m tests.mistakes --mistakes 400 --seed 1`.

Each case is a command with one to three mistakes: a value that makes no sense, a file that is none,
an option that does not exist. It may be carried out (not every odd value is wrong) or refused; what
is refused ends with its exit code and a word, soon, in little memory, and leaves nothing behind.
Case i of a seed is always the same: `--only 123`. Painting is real, with a tiny model; trainings
and evaluations stop where they would begin.
"""

import argparse
import contextlib
import functools
import io
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from tqdm import tqdm

from diffusion import cli, picture_files
from diffusion.settings import PictureSettings
from diffusion.weights import folder

CODES = (1, 2)  # of what is refused; see `diffusion.cli.main`
SECONDS = 10.0  # until a mistake is refused
PATIENCE = 120  # seconds; a hang
MEMORY = 2**30  # bytes beyond those of the model
ODD = (
    "", " ", "abc", "-1", "0", "1", "3", "1.5", "-0.0", "nan", "inf", "-inf", "1e400", "1e-400",
    "9" * 30, "0x10", "1,5", "1_000", "٣", "None", "True", "[1]", "é" * 300, "a" * 300, "\x1b[31m",
    "a\nb", "..", "~", "C:\\a", "=", "=1", "a=", "a=b=c", ":", "x:9", "--", "-", "%s", "{}",
    "<cat>", "euler a", "DPM++ 2M Karras", "trailing", "float8", "4294967296", "1e6", "72",
)  # fmt: skip
FILES = (
    "picture.png", "missing.png", "empty.png", "text.png", "cut.png", "grey.jpg", "folder",
    "missing/a.png", "text.png/a.png", "/dev/null", "notes.txt", "pickle.ckpt", "a.safetensors",
    "folder.png", "film.gif",
)  # fmt: skip
SETTINGS = (
    "steps", "batch_size", "learning_rate", "warmup", "seed", "ema", "optimizer", "dtype",
    "accumulate", "shards", "workers", "checkpoint_every", "stepps", "model.image_size",
    "model.denoiser.block_out_channels", "model.denoiser.heads", "model.denoiser.layers_per_block",
    "model.text_encoder.vocab_size", "model.text_encoder.layers", "model.autoencoder.norm_groups",
    "model.autoencoder.latent_channels", "model.guidance", "model.sampling.sampler", "model.x",
    "model.process.beta_end", "model.process.train_steps", "model",
)  # fmt: skip
COMMANDS = ("paint",) * 4 + ("film",) * 3 + ("train",) * 3 + ("evaluate",)
PARTS = (
    "tokenizer", "text", "vae", "dvae", "unet", "dit", "masked", "all", "motion", "distill",
    "decoder", "travel", "judge", "autoencoder", "face", "",
)  # fmt: skip


class Begun(Exception):
    """A training or an evaluation would begin now."""


@functools.cache
def options_of(command: str) -> list[argparse.Action]:
    """All options that a command knows, but --help."""
    commands = next(a for a in cli.build_parser()._actions if a.choices)
    assert isinstance(commands.choices, dict)
    parser = commands.choices[command]
    return [a for a in parser._actions if a.option_strings and a.dest != "help"]


def case(number: int, seed: int, model: Path) -> list[str]:
    """The arguments of a case."""
    draw = random.Random(f"{seed} {number}")
    command = draw.choice(COMMANDS)
    said = {
        "paint": ["a red house", "--model", str(model), "--steps", "2", "--count", "1"],
        "film": ["a red house", "--model", str(model), "--steps", "1", "--frames", "8"],
        "train": [draw.choice(PARTS), "--output", "run"],
        "evaluate": ["--model", "garden64"],
    }[command]
    options = options_of(command)
    for _ in range(draw.choice((1, 1, 2, 3))):
        kind = draw.random()
        if kind < 0.04:
            said.append(draw.choice(("--colour", "-x", "--stepps=3", "--", "--count", "two words")))
        elif kind < 0.08:
            said.remove(draw.choice([word for word in said if not word.startswith("--")]))
        elif kind < 0.12:
            said.append(draw.choice(options).option_strings[0])  # often without its value
        elif command == "train" and kind < 0.8:
            value = draw.choice((*ODD, "()", "(8,)", "(8, 'x')", "[]", "adamw", "(1e9,)"))
            said += ["--set", f"{draw.choice(SETTINGS)}={value}"]
        else:
            said += odd(draw.choice(options), draw)
    return [command, *said]


def odd(option: argparse.Action, draw: random.Random) -> list[str]:
    """An option with a value that may make no sense."""
    name = option.option_strings[0]
    if option.nargs == 0:
        return [name]
    file = option.type is Path or name in ("--from", "--mask", "--lora", "--embedding", "--vae")
    value = draw.choice((*FILES, *ODD[:12]) if file and draw.random() < 0.9 else (*ODD, *FILES[:3]))
    return [f"{name}={value}"] if draw.random() < 0.5 else [name, value]


def prepare(place: Path) -> None:
    """Good and bad files."""
    place.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    settings = PictureSettings("a red house", steps=2, count=1, zoom=1)
    picture_files.save(place / "picture.png", pixels, settings)
    (place / "cut.png").write_bytes((place / "picture.png").read_bytes()[:700])
    Image.fromarray(pixels[..., 0]).save(place / "grey.jpg")
    Image.fromarray(pixels).save(place / "film.gif")
    (place / "empty.png").touch()
    for name in ("text.png", "notes.txt"):
        (place / name).write_text("a letter\n")
    (place / "pickle.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (place / "a.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    for name in ("folder", "folder.png"):
        (place / name).mkdir()


def content(place: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else b""
        for path in sorted(place.rglob("*"))
    }


def refused(arguments: list[str], place: Path) -> tuple[bool, str]:
    """Was a command refused, and what went wrong with it, if anything."""
    before, peak, began = content(place), _peak(), time.monotonic()
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            signal.alarm(PATIENCE)
            code = cli.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    except Begun:
        code = 0
    except BaseException as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if code == 0:
        return False, ""
    seconds, text = time.monotonic() - began, told.getvalue()
    wrong = {
        f"exit code {code}": code not in CODES,
        f"took {seconds:.1f} s": seconds > SECONDS,
        f"took {(_peak() - peak) / 2**20:.0f} MiB": _peak() - peak > MEMORY,
        "said nothing": not text.strip(),
        f"said {text!r}": "Traceback" in text or "\x1b" in text,
        "left something behind": content(place) != before,
    }
    return True, "; ".join(says for says, is_so in wrong.items() if is_so)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _begins(*_: Any, **__: Any) -> None:
    raise Begun


@contextlib.contextmanager
def stopped_where_it_begins() -> Iterator[None]:
    """Long work ends where it would begin, with `Begun`."""
    from diffusion.evaluation import judge_training
    from diffusion.evaluation import run as evaluation
    from diffusion.training import recipe

    def late(*_: Any) -> None:
        raise TimeoutError("hangs")

    signal.signal(signal.SIGALRM, late)
    trainers = dict.fromkeys(recipe.TRAINERS, _begins)
    with (
        mock.patch.object(recipe, "TRAINERS", trainers),
        mock.patch.object(judge_training, "run_task", _begins),
        mock.patch.object(evaluation, "evaluate", _begins),
    ):
        yield


def run(mistakes: int, seed: int, only: int | None = None) -> list[str]:
    """What went wrong, until so many commands were refused."""
    model = folder.shipped("golden") / "sd1/model"
    found, count, number = [], 0, 0 if only is None else only
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name, stopped_where_it_begins():
        place = Path(name) / "desk"
        bar = tqdm(total=mistakes, unit="mistake", mininterval=10, disable=only is not None)
        try:
            while count < mistakes:
                shutil.rmtree(place, ignore_errors=True)
                prepare(place)
                os.chdir(place)
                arguments = case(number, seed, model)
                no, wrong = refused(arguments, place)
                if wrong:
                    found.append(f"case {number}, {shlex.join(arguments)}: {wrong}")
                count, number = count + no, number + 1
                bar.update(no)
                if only is not None:
                    break
        finally:
            os.chdir(before)
            bar.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mistakes", description=__doc__)
    parser.add_argument("--mistakes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone")
    given = parser.parse_args()
    found = run(given.mistakes, given.seed, given.only)
    print("\n".join(found) or "nothing went wrong")
    return min(1, len(found))


if __name__ == "__main__":
    sys.exit(main())
