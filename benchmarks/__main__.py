"""`python -m benchmarks`: how fast is this project, and how fast is PyTorch, here?

All contenders of a work are called in turn on the same cores, each side in a process of its own,
after their outputs were compared. Names of groups as arguments measure these alone. Prints a table
as its rows arrive; the exit code is 1 where a group failed, or where two contenders do not agree
(torch.compile that does not has a note instead).

`--gpu` measures on an NVIDIA GPU; without it, JAX and PyTorch are kept to the CPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks.timing import Options, Row, measure

# Name of the group and of its function, the file where it is, and what is measured.
GROUPS = {
    "peak": ("roofline", "products of large matrices, the yardstick of all shares"),
    "unet": ("networks", "one pass of the U-Net of SD 1.5 and 2.1"),
    "vae": ("networks", "decoder and encoder of SD's VAE at 512x512"),
    "text": ("networks", "text encoder of SD 1.5 and 2.1"),
    "attention": ("networks", "4,096 tokens, by itself"),
    "garden": ("garden", "the shipped model paints latents, 25 steps with guidance"),
    "training": ("training", "a training step of the garden's U-Net and VAE"),
    "start": ("garden", "what a user waits for, and what of it is not arithmetic"),
    "memory": ("memory", "stages of SD 1.5 at 512x512, float32 and bfloat16, and loading"),
}
HALF = ("peak", "unet", "vae", "text", "attention")  # the groups that --half has
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "diffusers", "transformers")

NOTES = """\
{precision}; medians of calls in turns, and the fastest to the slowest of them. *ratio* is our
median over that of the fastest peer (without peers, of the first line): below 1 we are faster.
*compiling* is the first call less a usual one, without any cache; *grown* is the memory of the
machine that it took beyond what was there before. *peak* is the share of the fastest matrix product
here; the operations are those of products and convolutions in their plain form, two for each
multiplication. Other forms of a convolution multiply less than is counted, so the share can exceed
100 %. Let nothing else run: threads that wait for each other, PyTorch's above all, suffer more than
others from a busy core."""

HEADS = ("work", "contender", "median", "range", "ratio", "compiling", "grown", "peak", "note")
WIDTHS = (60, 32, 7, 18, 5, 9, 9, 4, 4)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="NAME", help="measure these groups alone")
    parser.add_argument("--list", action="store_true", help="list the groups")
    parser.add_argument("--only", default="", metavar="TEXT", help="works whose names hold TEXT")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds (%(default)s)")
    parser.add_argument("--gpu", action="store_true", help="on an NVIDIA GPU, not on the CPU")
    parser.add_argument("--half", action="store_true", help=f"bfloat16, in {', '.join(HALF)}")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    given = parser.parse_args()
    if given.list:
        print("\n".join(f"{name:10} {about}" for name, (_, about) in GROUPS.items()))
        return 0
    known = HALF if given.half else tuple(GROUPS)
    if unknown := set(given.groups) - set(known):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if given.repeats < 1:
        parser.error("--repeats must be 1 or more")
    options = Options(given.repeats, not given.no_compile, given.only, given.half, given.gpu)
    with tempfile.TemporaryDirectory() as cache:
        prepare(options, cache)
        return report(given.groups or known, options)


def prepare(options: Options, cache: str) -> None:
    """Where the processes of the contenders work. This one only counts operations."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    os.environ |= {
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "TRANSFORMERS_VERBOSITY": "error",
        "JAX_PLATFORMS": "cuda" if options.gpu else "cpu",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch needs memory, too
    }


def rows(group: str, options: Options) -> Iterator[Row]:
    for work in getattr(import_module(f"benchmarks.{GROUPS[group][0]}"), group)(options):
        yield from measure(work, options)


def report(groups: tuple[str, ...], options: Options) -> int:
    """Measure and print; the matrix products always come first."""
    exact = "float32, products in TensorFloat-32 (start: bfloat16)"
    precision = "bfloat16" if options.half else exact if options.gpu else "float32"
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    load = f"load before {os.getloadavg()[0]:.1f}"
    print(f"{date.today()}, {machine(options.gpu)}, {os.cpu_count()} cores, {load}; {versions}\n")
    print(NOTES.format(precision=precision))
    peak, failed, last = 0.0, 0, None
    for group in ["peak", *(group for group in groups if group != "peak")]:
        print(f"\n## {group}: {GROUPS[group][1]}\n")
        print(line(HEADS))
        print(line(tuple("-" * width for width in WIDTHS)), flush=True)
        try:
            for row in rows(group, replace(options, only="") if group == "peak" else options):
                if group == "peak":
                    peak = max(peak, row.work.flops / min(row.seconds))
                print(line(cells(row, peak, named=row.work is not last)), flush=True)
                last = row.work
        except Exception as error:
            traceback.print_exc()
            print(f"\n{group} failed: {error}", flush=True)
            failed = 1
    return failed


def machine(gpu: bool) -> str:
    """What the processor or the GPU calls itself."""
    if gpu:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.check_output(command, text=True).splitlines()[0]
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def line(texts: tuple[str, ...]) -> str:
    """A line of a Markdown table that is straight in a terminal too."""
    padded = (text.ljust(width) for text, width in zip(texts, WIDTHS, strict=True))
    return f"| {' | '.join(padded)} |"


def cells(row: Row, peak: float, named: bool) -> tuple[str, ...]:
    """The texts of a line; what is not known is empty."""
    name, flops = row.work.name, row.work.flops
    name += f" ({flops / 1e9:,.3g} Gflop)" if flops else ""
    known = ("",) * 6
    if row.seconds:
        known = (
            duration(row.median),
            f"{duration(min(row.seconds))} to {duration(max(row.seconds))}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.compiling is None else duration(row.compiling),
            f"{row.grown / 2**20:,.0f} MiB",
            f"{flops / row.median / peak:.0%}" if flops else "",
        )
    return (name if named else "", row.contender, *known, row.note)


def duration(seconds: float) -> str:
    """In the unit that fits: 1.23 s, 45.6 ms, 7.8 µs."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


if __name__ == "__main__":
    sys.exit(main())
