"""The front door: `diffusion paint`, `film`, `train` and `evaluate`.

The arguments of `paint` are the fields of `diffusion.settings.PictureSettings`, those of `film` the
fields of `diffusion.film_settings.FilmFileSettings`.
"""

import argparse
import contextlib
import dataclasses
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import diffusion
from diffusion import film_files, picture_files, picture_reading
from diffusion.cli_settings import add_settings, asked
from diffusion.film_painting import film_file, fitted
from diffusion.film_settings import FilmFileSettings
from diffusion.filming import FilmArtist
from diffusion.painting import paint_files
from diffusion.runtime import devices, hosts
from diffusion.runtime.compilation_cache import keep_compilations
from diffusion.runtime.lasting_stream import Lasting
from diffusion.settings import PictureSettings
from diffusion.weights import folder

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

--model takes the garden, which ships, a folder of `diffusion train`, or Stable Diffusion 1 or 2:
a folder in the layout of Hugging Face (model_index.json, unet/, vae/, text_encoder/, tokenizer/,
scheduler/; safetensors), a single .safetensors file, or a repository that is in the local cache.

The garden model knows houses and what stands around them: colours of house, roof, door and flowers;
gabled, flat or domed roofs; up to three oaks, pines, poplars or apple trees; day, sunset and night,
sun or moon left, right or in the middle; the seasons; clouds, rain and snow; oil painting and
pencil sketch. What you do not name is free: ask for another --seed and see.
"""

FILM_HELP = """\
Paint a film of a sentence.

  diffusion film "a red house with two trees, the sun sets"
  diffusion film "a house in the snow" --frames 32 --fps 12 --output snow.webp
  diffusion film "a house, day" --to "a house at night" --output evening.mp4
  diffusion film "the clouds drift to the left" --from picture.png
  diffusion film "a white house" --loop --strip --output strip.png
  diffusion film "a red house" --walk --to "a blue house in winter"
  diffusion film "a castle by a lake" --model stable-diffusion-v1-5 --motion animatediff-v1-5-2
  diffusion film --again film.gif

Motion modules let frames look at each other: the model's own (motion_adapter/ in its folder), or
--motion, such as AnimateDiff's adapters for SD 1.5 in the layout of Hugging Face. A model that has
none, or --walk, gives a walk: what lies between two pictures, of two sentences (--to) or seeds
(--to-seed). Nothing moves in it; one picture becomes another.

What a sentence says to happen, a model's prompt travel finds (prompt_travel/ in its folder).
Without it, or to say it yourself, tell the last frame with --to.
"""

TRAIN_HELP = """\
Train a model from nothing, part by part, into a model folder. Stop it at any moment: the same
command goes on where it was.

  diffusion train all --output runs/garden
  diffusion train vae --output runs/garden --set steps=500 batch_size=16
  diffusion train all --output runs/wide --set model.denoiser.block_out_channels="(64,128,192)"
  diffusion train unet --start garden --output runs/longer --set learning_rate=0.0005
  diffusion train dit --start garden --output runs/dit
  diffusion train dvae --start garden64 --output runs/dvae
  diffusion train masked --start runs/dvae --output runs/masked
  diffusion train decoder --start garden --output runs/sharper
  diffusion train distill --start garden --output runs/fast
  diffusion train travel --start garden --output runs/travel
  diffusion train motion --start runs/travel --output runs/film
  diffusion train autoencoder --output runs/sample
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
held-out combinations and their twins, take about half an hour on two cores; stopped, it goes on
where it was. A tenth of the captions has intervals three times as wide.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit code: 0 done, 1 not done, 2 a mistake in the call, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a prompt may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    parser, said = build_parser(), sys.argv[1:] if arguments is None else arguments
    for word in said:
        if word.startswith("--") and word.endswith("=--"):  # which argparse takes for an empty list
            parser.error(f"argument {word.removesuffix('=--')}: expected one argument")
    options = parser.parse_args(said)
    with contextlib.redirect_stderr(Lasting(sys.stderr)):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
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
    print(shown(text), file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """A text whose control characters are escaped: a stranger's file may have told it."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffusion", description="Stable Diffusion from scratch, told as an art class."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    add_paint(command("paint", "paint pictures of a sentence", PAINT_HELP))
    add_film(command("film", "paint a film of a sentence", FILM_HELP))
    add_train(command("train", "train a model from nothing", TRAIN_HELP))
    add_evaluate(command("evaluate", "judge the pictures of a model of the garden", EVALUATE_HELP))
    return parser


def add_paint(paint: argparse.ArgumentParser) -> None:
    add_settings(paint, PictureSettings)
    paint.add_argument(
        "--output",
        type=Path,
        default=Path("picture.png"),
        metavar="PATH",
        help="a .png file for one sheet of all, or a folder for single files (%(default)s)",
    )
    paint.add_argument(
        "--again",
        type=Path,
        metavar="PNG",
        help="paint a picture of `diffusion paint` again, with the settings found in it; of a web "
        "interface's, as far as they can be followed: other options go before them",
    )
    paint.set_defaults(
        run=run_paint,
        smaller="choose a lower --count, --width, --height or --zoom; on an accelerator also "
        "--dtype bfloat16",
    )


def add_film(film: argparse.ArgumentParser) -> None:
    add_settings(film, FilmFileSettings, without=("count", "mask"))
    film.add_argument(
        "--output",
        type=Path,
        default=Path("film.gif"),
        metavar="FILE",
        help="a .gif, .webp, .png or .mp4 file; .mp4: pip install imageio-ffmpeg (%(default)s)",
    )
    film.add_argument(
        "--again",
        type=Path,
        metavar="FILM",
        help="paint a film of `diffusion film` again, with the settings found in it",
    )
    film.set_defaults(run=run_film, smaller="choose fewer --frames, or a lower --width or --height")


def add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "part",
        help="tokenizer, text, vae or dvae, unet, dit or masked, or all of a model in this order; "
        "decoder: that of an autoencoder alone; distill: half as many steps; travel, motion: "
        "films; judge; autoencoder",
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
        help="begin a part with the weights of this model, and a new OUTPUT as its copy; with "
        "another kind of network: a copy of the rest; decoder, distill: what they go on from; "
        "motion, travel: also what of theirs is there",
    )
    train.add_argument(
        "--set",
        nargs="+",
        default=[],
        action="extend",
        metavar="NAME=VALUE",
        help="change the training (steps=100) or the model (model.denoiser.heads=...)",
    )
    train.add_argument(
        "--hosts",
        metavar="HOST:PORT,COUNT,INDEX",
        help="several machines train as one: the same command on each, with another INDEX from 0, "
        "a shared --output and --set shards=COUNT; auto: the cluster says which",
    )
    train.set_defaults(run=run_train, smaller="choose a lower --set batch_size=...")


def add_evaluate(evaluate: argparse.ArgumentParser) -> None:
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
    devices.check()
    from diffusion.evaluation.run import run  # painting does not wait for Matplotlib and SciPy

    given = (options.captions, options.pictures, options.seed)
    run(options.model, options.output, options.judge, *given)
    say(f"wrote {options.output / 'evaluation.md'}")


def run_train(options: argparse.Namespace) -> None:
    if options.hosts is not None:
        hosts.join(options.hosts)
    devices.check()
    if options.part == "judge":
        from diffusion.evaluation.judge_training import train_judge

        if options.start is not None:
            raise ValueError("judge starts from nothing only; leave out --start")
        train_judge(options.output, options.set)
    else:
        from diffusion.training.recipe import train_part  # painting does not wait for Optax, Orbax

        start = None if options.start is None else folder.find(options.start)
        train_part(options.part, options.output, options.set, start=start)
    say(f"wrote {options.output}")


def run_paint(options: argparse.Namespace) -> None:
    devices.check()
    if (options.prompt is None) == (options.again is None):
        raise ValueError('give a prompt, such as "a red house", or --again PICTURE')
    single = options.output.suffix.lower() != ".png"
    if single and options.output.suffix and not options.output.is_dir():
        raise ValueError(f"output {options.output} is neither a .png file nor a folder")
    if not single and options.output.is_dir():
        raise ValueError(f"output {options.output} is a folder; name a .png file that is none")
    began = time.perf_counter()
    said = asked(options, PictureSettings, picture_reading.read_settings)
    artist = loaded(said)
    settings = said.fitted(artist.config, artist.denoiser.dtype)
    if options.again is None:
        settings = dataclasses.replace(settings, digest=picture_files.digest(settings))
    if more := artist.denoiser.prepared_bytes:
        say(f"note: {more / 2**30:.1f} GiB keep kernels transformed: less time a glance")
    paint_files(artist, settings, options.output, single)
    say(f"wrote {options.output} in {time.perf_counter() - began:.1f} s")


def run_film(options: argparse.Namespace) -> None:
    devices.check()
    if (options.prompt is None) == (options.again is None):
        raise ValueError('give a prompt, such as "a red house, the sun sets", or --again FILM')
    began = time.perf_counter()
    said = asked(options, FilmFileSettings, film_files.read_settings)
    film_files.check_suffix(options.output, said.strip)
    artist = loaded(said, motion=said.motion)
    settings = fitted(artist, said)
    if settings.walk and not said.walk:
        say(f"note: {artist.config.name} has no motion modules: a walk between two pictures")
    if options.again is None:
        settings = dataclasses.replace(settings, digest=picture_files.digest(settings))
    film_file(artist, settings, options.output)
    say(f"wrote {options.output} in {time.perf_counter() - began:.1f} s")


def loaded(settings: PictureSettings, **more: Any) -> FilmArtist:
    """The model of settings, with all that they name for it."""
    names = ("dtype", "loras", "vae", "tokenizer", "embeddings", "clip_skip")
    return diffusion.load(
        settings.model, **{name: getattr(settings, name) for name in names}, **more
    )
