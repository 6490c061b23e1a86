"""`python -m benchmarks`: how fast is this project, and how fast are its peers, here?

All contenders of a work are called in turn on the same cores, after their outputs were compared:
those of the garden and of its training each in a process of its own (`benchmarks.apart`), the
others, whose weights are large, in one. Names of groups as arguments measure these alone. Prints a
table as its rows arrive; the exit code is 1 where a group failed, or where two contenders do not
agree (a compiled peer that does not has a note instead).

`--gpu` measures on an NVIDIA GPU; without it, JAX and PyTorch are kept to the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from importlib import import_module
from pathlib import Path

from benchmarks.timing import Options, Row, cores, graphics, load, processor, versions

# Name of the group and of its function, the file where it is, and what is measured.
GROUPS = {
    "peak": ("roofline", "products of large matrices, the yardstick of all shares"),
    "unet": ("official", "one pass of the U-Net of SD 1.5 and 2.1"),
    "vae": ("official", "decoder and encoder of SD's VAE at 512x512"),
    "text": ("official", "text encoder of SD 1.5 and 2.1"),
    "attention": ("official", "4,096 tokens, by itself"),
    "garden": ("garden", "the shipped model paints latents, 25 steps with guidance"),
    "training": ("training", "a training step of the garden's U-Net and VAE"),
    "loop": ("loop", "what painting costs beside its arithmetic"),
    "start": ("process", "from the start of the process to the picture; memory"),
    "keras": ("keras", "the U-Net of SD 1.5 in KerasCV on JAX, where it is installed"),
}
HALF = ("peak", "unet", "vae", "text", "attention")  # the groups that --half has
SINGLE = {  # how exact it is without --half
    "cpu": "float32",
    "cuda": "float32, products in TensorFloat-32 (loop and start: bfloat16)",
}

NOTES = """\
{precision}; medians of calls in turns, and the fastest to the slowest of them. *ratio* is our
median over that of the fastest peer: below 1 we are faster. *compiling* is the first call less a
usual one, without any cache. *peak* is the share of the fastest matrix product here; the operations
are those of products and convolutions in their plain form, two for each multiplication. Other forms
of a convolution multiply less than is counted, so the share can exceed 100 %. Let nothing else run:
threads that wait for each other, PyTorch's above all, suffer more than others from a busy core."""

HEADS = ("work", "contender", "median", "range", "ratio", "compiling", "peak", "note")
WIDTHS = (66, 30, 7, 18, 5, 9, 4, 4)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="NAME", help="measure these groups alone")
    parser.add_argument("--list", action="store_true", help="list the groups")
    parser.add_argument("--only", default="", metavar="TEXT", help="works whose names hold TEXT")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds (%(default)s)")
    parser.add_argument("--gpu", action="store_true", help="on an NVIDIA GPU, not on the CPU")
    parser.add_argument(
        "--half", action="store_true", help="the networks of SD and attention in bfloat16"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - GROUPS.keys():
        parser.error(f"unknown {', '.join(sorted(unknown))}; groups are {', '.join(GROUPS)}")
    if arguments.repeats < 1:
        parser.error("--repeats must be 1 or more")
    if arguments.list:
        for name, (_, about) in GROUPS.items():
            print(f"{name:10} {about}")
        return 0
    groups = arguments.groups or list(HALF if arguments.half else GROUPS)
    if arguments.half and (others := set(groups) - set(HALF)):
        parser.error(f"--half has no {', '.join(sorted(others))}; it has {', '.join(HALF)}")
    options = Options(arguments.repeats, not arguments.no_compile, arguments.only, arguments.half)
    if arguments.child:
        run(arguments.groups[0], options)
        return 0
    return report(groups, options, arguments.markdown, "cuda" if arguments.gpu else "cpu")


def run(group: str, options: Options) -> None:
    """Measure a group in this process; the rows go out as lines of JSON."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    lines = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for row in getattr(import_module(f"benchmarks.{GROUPS[group][0]}"), group)(options):
            print(json.dumps(asdict(row)), file=lines, flush=True)


def rows(group: str, options: Options, platform: str) -> Iterator[Row]:
    """The rows of a group, from a fresh process with empty caches.

    Raises subprocess.CalledProcessError where the process fails.
    """
    command = [sys.executable, "-m", "benchmarks", group, "--child", "--only", options.only]
    command += ["--repeats", str(options.repeats)]
    command += [] if options.compile else ["--no-compile"]
    command += ["--half"] if options.half else []
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "TRANSFORMERS_VERBOSITY": "error",
            "JAX_PLATFORMS": platform,
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch needs memory, too
        }
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            for line in process.stdout or ():
                row = json.loads(line)
                yield Row(**row | {"seconds": tuple(row["seconds"])})
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def report(groups: list[str], options: Options, markdown: Path | None, platform: str) -> int:
    """Measure, print and write; the matrix products always come first."""
    page: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        page.append(line)

    where = graphics() if platform == "cuda" else processor()
    say(f"{date.today()}, {where}, {cores()} cores, load before {load()}; {versions()}\n")
    say(NOTES.format(precision="bfloat16" if options.half else SINGLE[platform]))
    peak, failed, last = 0.0, [], ""
    for group in ["peak", *(group for group in groups if group != "peak")]:
        say(f"\n## {group}: {GROUPS[group][1]}\n")
        say(line(HEADS))
        say(line(tuple("-" * width for width in WIDTHS)))
        chosen = replace(options, only="") if group == "peak" else options
        try:
            for row in rows(group, chosen, platform):
                if group == "peak":
                    peak = max(peak, row.flops / min(row.seconds))
                say(line(cells(row, peak, row.work != last)))
                last = row.work
        except subprocess.CalledProcessError as error:
            say(f"\n{group} failed with exit code {error.returncode}")
            failed.append(group)
    if markdown is not None:
        markdown.write_text("\n".join(page) + "\n", encoding="utf-8")
    return min(len(failed), 1)


def line(texts: tuple[str, ...]) -> str:
    """A line of a Markdown table that is straight in a terminal too."""
    padded = (text.ljust(width) for text, width in zip(texts, WIDTHS, strict=True))
    return f"| {' | '.join(padded)} |"


def cells(row: Row, peak: float, named: bool) -> tuple[str, ...]:
    """The texts of a line; what is not known is empty."""
    work = row.work
    if row.flops:
        work += f" ({row.flops / 1e9:,.3g} Gflop"
        work += f", {row.weights / 2**20:,.0f} MiB)" if row.weights else ")"
    if not row.seconds:
        return (work if named else "", row.contender, "", "", "", "", "", row.note)
    return (
        work if named else "",
        row.contender,
        duration(row.median),
        f"{duration(min(row.seconds))} to {duration(max(row.seconds))}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.compiling is None else duration(row.compiling),
        f"{row.flops / row.median / peak:.0%}" if row.flops else "",
        row.note,
    )


def duration(seconds: float) -> str:
    """In the unit that fits: 1.23 s, 45.6 ms, 7.8 µs."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


if __name__ == "__main__":
    sys.exit(main())
