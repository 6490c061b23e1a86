"""The front door: `diffusion paint`, `diffusion train` and `diffusion evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import platformdirs
from jaxtyping import UInt8
from tqdm import tqdm

import diffusion
from diffusion import picture_files
from diffusion.images import sheet
from diffusion.picture_files import Settings
from diffusion.pipeline import Artist, Glance
from diffusion.process import samplers
from diffusion.weights import folder

STRIP_COLUMNS = 8  # how many of the steps a strip shows
AHEAD = 0.5  # seconds of work that are asked for before any of it is waited for
GAP = 2  # pixels between the pictures of a sheet
SMALL = 128  # pixels along the side of a picture that can do with a magnifying glass
PAINT_ARGUMENTS = (
    "prompt", "negative", "seed", "count", "steps", "guidance", "sampler", "eta", "height", "width",
    "strength",
)  # fmt: skip

PAINT_HELP = """\
Paint pictures of a sentence, in English or Turkish.

  diffusion paint "a red house with two old trees and yellow flowers"
  diffusion paint "gece, ay solda, kırmızı çatılı beyaz ev" --count 9 --seed 7
  diffusion paint "a house in the snow" --negative "trees" --guidance 4
  diffusion paint "three pines at sunset" --strip --output film.png
  diffusion paint "a white house" --output houses
  diffusion paint "a white house at night" --from houses/0000.png --strength 0.8 --output night.png
  diffusion paint "a blue door" --from houses/0000.png --mask white_where_to_paint.png
  diffusion paint "a castle by a lake" --model stable-diffusion-v1-5 --width 768 --height 512
  diffusion paint --again picture.png

--model takes the garden, which ships, a folder of `diffusion train`, or a folder with the official
weights of Stable Diffusion 1.x or 2.x in the layout of Hugging Face (model_index.json, unet/, vae/,
text_encoder/, tokenizer/, scheduler/; safetensors).

The garden model knows houses and what stands around them: colours of house, roof, door and flowers;
gabled, flat or domed roofs; up to three oaks, pines, poplars or apple trees; day, sunset and night,
sun or moon left, right or in the middle; the seasons; clouds, rain and snow; oil painting and
pencil sketch. What you do not name is free: ask for another --seed and see.
"""

TRAIN_HELP = """\
Train a model from nothing, part by part, into a model folder. Stop it at any moment: the same
command goes on where it was.

  diffusion train all --output runs/garden
  diffusion train vae --output runs/garden --set steps=500 batch_size=16
  diffusion train all --output runs/wide --set model.unet.block_out_channels="(64,128,192)"
  diffusion train unet --start garden --output runs/longer --set learning_rate=0.0005
  diffusion paint "a red house" --model runs/garden

Checkpoints, log.jsonl, loss.png and sample sheets of each part are in OUTPUT/training/PART.

The judge of `diffusion evaluate` ships, too; `diffusion train judge` trains another.
"""

EVALUATE_HELP = """\
Does a model of the garden paint what captions say? A judge, which was trained on drawn pictures
alone, looks at its pictures of captions whose scenes no training has drawn.

  diffusion evaluate
  diffusion evaluate --model runs/garden --output runs/garden/evaluation --captions 200

Writes evaluation.json, and evaluation.md with its figures. 8,000 pictures, and 4,000 more of
held-out combinations and their twins, take an hour or two on two cores; stopped, it goes on where
it was. A tenth of the captions has intervals three times as wide.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit code: 0 done, 1 not done, 2 a mistake in the call, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a prompt may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    options = parser.parse_args(arguments)
    keep_compilations()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(f"note: {message}")
            options.run(options)
    except (ValueError, OSError, FloatingPointError) as error:
        say(f"diffusion: {error}")
        return 1
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        say(f"diffusion: out of memory or device failure; {options.smaller} ({error})")
        return 1
    except KeyboardInterrupt:
        say("diffusion: stopped")
        return 130
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def keep_compilations() -> None:
    """Let JAX keep compiled programs between runs, so that the second start is fast."""
    cache = platformdirs.user_cache_path("diffusion") / "jax"
    if not cache.exists():
        say(f"first run: JAX compiles the stages for this machine, once; kept in {cache}")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffusion", description="Stable Diffusion from scratch, told as an art class."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    paint = commands.add_parser(
        "paint",
        help="paint pictures of a sentence",
        description=PAINT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = {field.name: field.default for field in dataclasses.fields(Settings)}
    add = paint.add_argument
    add("prompt", nargs="?", help='what to paint; "" lets the model choose')
    # Left out is None, so that `--again` can tell it from a default that was given.
    add("--model", help=f"a model that ships, or a folder ({default['model']})")
    add("--negative", metavar="TEXT", help="what to stay away from")
    add(
        "--seed",
        type=int,
        metavar="N",
        help=f"another seed, other pictures ({default['seed']})",
    )
    add("--count", type=int, metavar="N", help="how many pictures (4; 1 where they are large)")
    add("--steps", type=int, metavar="N", help=f"glances at the canvas ({default['steps']})")
    add(
        "--guidance",
        type=float,
        metavar="S",
        help="how strictly to follow the words: 1 loosely, 3 to 5 well, more exaggerates "
        "(the model's own)",
    )
    add(
        "--sampler",
        metavar="NAME",
        help=f"one of {', '.join(samplers.SAMPLERS)} ({default['sampler']})",
    )
    add("--eta", type=float, help="fresh noise in ddim: 0 none, 1 as in ddpm")
    add("--height", type=int, metavar="PIXELS", help="(the model's own, or that of --from)")
    add("--width", type=int, metavar="PIXELS", help="(the model's own, or that of --from)")
    add(
        "--from",
        dest="source",
        metavar="PICTURE",
        help="begin with a picture instead of noise; it is scaled and cut to the size",
    )
    add(
        "--strength",
        type=float,
        metavar="S",
        help="how much of --from is painted anew: 0.3 a little, 1 all (0.8; with --mask 1)",
    )
    add(
        "--mask",
        metavar="PICTURE",
        help="white where --from is painted anew; the rest stays as it is",
    )
    add(
        "--lora",
        dest="loras",
        action="append",
        default=[],
        metavar="FILE[=S]",
        help="merge a LoRA file (safetensors) into the weights, with strength S (1)",
    )
    add(
        "--dtype",
        metavar="NAME",
        help="precision of the weights: float32, bfloat16 or float16 (what suits the device)",
    )
    add("--zoom", type=int, metavar="N", help="enlarge each pixel N times (4; 1 if large)")
    add(
        "--strip",
        action="store_true",
        help=f"show {STRIP_COLUMNS} moments of each painting: above, the canvas as it is; below, "
        "the picture that the network sees in it",
    )
    add(
        "--output",
        type=Path,
        default=Path("picture.png"),
        metavar="PATH",
        help="a .png file for one sheet of all, or a folder for single files (%(default)s)",
    )
    add(
        "--again",
        type=Path,
        metavar="PNG",
        help="paint a picture of `diffusion paint` again, with the settings found in it",
    )
    paint.set_defaults(
        run=run_paint,
        smaller="choose a lower --count, --width, --height or --zoom; on an accelerator also "
        "--dtype bfloat16",
    )

    train = commands.add_parser(
        "train",
        help="train a model from nothing",
        description=TRAIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "part", help="tokenizer, text, vae, unet, or all of them in this order; judge"
    )
    train.add_argument(
        "--output",
        type=Path,
        default=Path("runs/garden"),
        metavar="FOLDER",
        help="the model folder (%(default)s)",
    )
    train.add_argument(
        "--start",
        metavar="MODEL",
        help="begin the vae or unet with the weights of this model, and a new OUTPUT as its copy",
    )
    train.add_argument(
        "--set",
        nargs="+",
        default=[],
        action="extend",
        metavar="NAME=VALUE",
        help="change the training (steps=100) or the model (model.unet.heads=...)",
    )
    train.set_defaults(run=run_train, smaller="choose a lower --set batch_size=...")
    add_evaluate(commands)
    return parser


def add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="judge the pictures of a model of the garden",
        description=EVALUATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = evaluate.add_argument
    add("--model", default="garden", help="a model that ships, or a folder (%(default)s)")
    add(
        "--output", type=Path, default=Path("runs/evaluation"), metavar="FOLDER", help="%(default)s"
    )
    add(
        "--judge",
        type=Path,
        metavar="FOLDER",
        help="of `diffusion train judge` (the one that ships)",
    )
    add("--captions", type=int, default=1000, metavar="N", help="in each language (%(default)s)")
    add("--pictures", type=int, default=4, metavar="N", help="of each caption (%(default)s)")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the captions: others for each (%(default)s). Whoever changed a training after a "
        "look at what failed asks new ones",
    )
    evaluate.set_defaults(run=run_evaluate, smaller="choose a lower --captions or --pictures")


def run_evaluate(options: argparse.Namespace) -> None:
    from diffusion.evaluation.run import run  # painting does not wait for Matplotlib and SciPy

    given = (options.captions, options.pictures, options.seed)
    run(options.model, options.output, options.judge, *given)
    say(f"wrote {options.output / 'evaluation.md'}")


def run_train(options: argparse.Namespace) -> None:
    from diffusion.training.recipe import train_part  # painting does not wait for Optax and Orbax

    start = None if options.start is None else folder.find(options.start)
    train_part(options.part, options.output, options.set, start=start)
    say(f"wrote {options.output}")


def run_paint(options: argparse.Namespace) -> None:
    if (options.prompt is None) == (options.again is None):
        raise ValueError('give a prompt, such as "a red house", or --again PICTURE')
    single = options.output.suffix.lower() != ".png"
    if single and options.output.suffix and not options.output.is_dir():
        raise ValueError(f"output {options.output} is neither a .png file nor a folder")
    if not single and options.output.is_dir():
        raise ValueError(f"output {options.output} is a folder; name a .png file that is none")

    began = time.perf_counter()
    if options.again is not None:
        unset = vars(build_parser().parse_args(["paint"]))
        for field in dataclasses.fields(Settings):
            if getattr(options, field.name, None) != unset.get(field.name):
                name = {"source": "from", "loras": "lora"}.get(field.name, field.name)
                raise ValueError(f"--again takes the picture's own settings; leave out --{name}")
        settings = picture_files.read_settings(options.again)
        if picture_files.digest(settings) != settings.digest:
            raise ValueError(
                f"{options.again} was painted from files that have changed since: "
                + ", ".join(filter(None, (settings.source, settings.mask, *settings.loras)))
            )
        artist = diffusion.load(settings.model, dtype=settings.dtype, loras=settings.loras)
    else:
        loras: dict[str, float] = {}
        for path, strength in map(lora, options.loras):
            if os.path.realpath(path) in map(os.path.realpath, loras):
                raise ValueError(f"--lora {path} is given twice; give it once, with one strength")
            loras[path] = strength
        model = Settings.model if options.model is None else options.model
        artist = diffusion.load(model, dtype=options.dtype, loras=loras)
        settings = choose(options, artist, loras)
    arguments = asked(artist, settings)
    artist.plan(**arguments)  # refuses more pictures than there is room for, before they are named
    indices = range(settings.count) if single and settings.index is None else [settings.index]
    names = [f"{index or 0:04d}.png" if single else "" for index in indices]
    paths = [options.output / name for name in names]
    replaced = {os.path.realpath(path) for path in paths}
    for needed in filter(None, (settings.source, settings.mask)):
        if os.path.realpath(needed) in replaced:
            raise ValueError(
                f"{needed} would be replaced, and the new picture begins with it; name another "
                "--output"
            )
    picture_files.check_writable(options.output if single else options.output.parent)
    images = paint(artist, settings, arguments)
    for path, index in zip(paths, indices, strict=True):
        one = dataclasses.replace(settings, index=index)
        picture_files.save(path, arrange(images, one), one)
    say(f"wrote {options.output} in {time.perf_counter() - began:.1f} s")


def lora(text: str) -> tuple[str, float]:
    """`style.safetensors=0.7` -> the file and its strength, 1 where it is not said."""
    path, _, strength = text.rpartition("=")
    try:
        return (path, float(strength)) if path else (text, 1.0)
    except ValueError:
        return text, 1.0


def choose(options: argparse.Namespace, artist: Artist, loras: dict[str, float]) -> Settings:
    """What was asked for, and what fits the model where nothing was said."""
    small = artist.config.image_size <= SMALL
    fitting = {
        "count": 4 if small else 1,
        "zoom": 4 if small else 1,
        "guidance": artist.config.guidance,
        "dtype": artist.unet.dtype,
    }
    fields = [field.name for field in dataclasses.fields(Settings) if hasattr(options, field.name)]
    said = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    settings = Settings(**(fitting | said | {"loras": loras}))
    return dataclasses.replace(settings, digest=picture_files.digest(settings))


def asked(artist: Artist, settings: Settings) -> dict[str, Any]:
    """The settings, as `Artist.paint` takes them."""
    arguments = {name: getattr(settings, name) for name in PAINT_ARGUMENTS}
    arguments |= given(artist, settings)
    if settings.source is not None:
        arguments |= {"height": None, "width": None}  # they are the image's by now
    return arguments


def given(artist: Artist, settings: Settings) -> dict[str, np.ndarray]:
    """The picture to begin with and the mask, as `Artist.paint` takes them."""
    if settings.source is None:
        if settings.mask is not None:
            raise ValueError("--mask belongs to a picture; give one with --from")
        return {}
    side, unit = artist.config.image_size, artist.config.unit
    for name in ("height", "width"):  # before a picture of that size is made
        artist.size(**{name: getattr(settings, name)})
    image = picture_files.read_source(
        Path(settings.source), settings.height, settings.width, side, unit
    )
    if settings.mask is None:
        return {"image": image}
    return {"image": image, "mask": picture_files.read_mask(Path(settings.mask), *image.shape[:2])}


class Waiting:
    """Counts work that is done, and lets the device have the next before it is.

    Whoever waits for each step before the next is asked for leaves the device idle in between; who
    never waits has no progress to show, and cannot stop. So as many steps are on their way as fill
    `AHEAD` seconds, or one, if it takes longer.
    """

    def __init__(self, done: Callable[[], Any]):
        self.done = done
        self.on_the_way: deque[jax.Array] = deque()
        self.allowed = 0  # nobody knows yet how long one takes
        self.waited = time.perf_counter()

    def add(self, result: jax.Array) -> None:
        self.on_the_way.append(result)
        while len(self.on_the_way) > self.allowed:
            self._wait()
            now = time.perf_counter()
            self.allowed = max(1, int(AHEAD / max(now - self.waited, 0.01)))
            self.waited = now

    def finish(self) -> None:
        while self.on_the_way:
            self._wait()

    def _wait(self) -> None:
        jax.block_until_ready(self.on_the_way.popleft())
        self.done()


def paint(
    artist: Artist, settings: Settings, arguments: dict[str, Any]
) -> UInt8[np.ndarray, "n h w 3"]:
    """The pictures, or their strips, of a whole series; with a progress bar.

    Args:
        arguments: the settings once more, as `asked` gives them.
    """
    calls = len(artist.plan(**arguments).timestep)
    size = artist.size(arguments["height"], arguments["width"], arguments.get("image"))
    turns = math.ceil(settings.count / artist.side_by_side(settings.count, *size))
    if more := artist.unet.transformed_bytes:
        say(
            f"note: {more / 2**30:.1f} GiB keep the U-Net's kernels transformed: less time a glance"
        )
    shown = set(np.linspace(0, calls - 1, STRIP_COLUMNS).round().astype(int))
    moments: list[UInt8[np.ndarray, "2 b h w 3"]] = []
    asked_for = 0
    with tqdm(total=calls * turns, desc="painting", unit="glance", leave=False) as progress:
        waiting = Waiting(progress.update)

        def on_glance(glance: Glance) -> None:
            nonlocal asked_for
            artist.text_encoder.release()  # the story has been told
            if settings.strip and asked_for % calls in shown:
                moments.append(np.stack([artist.hang(glance.canvas), artist.hang(glance.x0)]))
            asked_for += 1
            waiting.add(glance.latents)
            if asked_for == calls * turns:
                waiting.finish()
                artist.unet.release()  # the pictures can have the memory

        images = artist.paint(on_glance=on_glance, **arguments)
    if not settings.strip:
        return images
    columns = len(shown)
    films = [np.stack(moments[i : i + columns]) for i in range(0, len(moments), columns)]
    by_picture = np.moveaxis(np.concatenate(films, axis=2), 2, 0)  # n, moment, 2, h, w, 3
    rows = by_picture.swapaxes(1, 2)[: settings.count]
    return np.stack([sheet(row.reshape(-1, *row.shape[2:]), columns, GAP) for row in rows])


def arrange(images: UInt8[np.ndarray, "n h w 3"], settings: Settings) -> UInt8[np.ndarray, "H W 3"]:
    """One picture of the series, or a sheet of them all; of a single one, itself."""
    if settings.index is not None or len(images) == 1:
        return images[settings.index or 0]
    columns = 1 if settings.strip else math.ceil(math.sqrt(len(images)))
    return sheet(images, columns, GAP)
