"""`python -m parity`: ours against the PyTorch reference, everything that both can do.

Tiny networks, samplers, tokenizer, LoRA and finished pictures, in three minutes; with `--full` the
architectures of SD 1.5, SD 2.1, PixArt, DiT and AnimateDiff in their true size (twenty minutes, 10
GiB of memory, 6 GiB of disk). Prints a table a section, then the worst row; the exit code is 1
where a bound is breached.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

from flax import nnx

from diffusion.inspection import blocks
from diffusion.inspection.rows import Row, table
from diffusion.runtime.compilation_cache import keep_compilations
from diffusion.weights import folder
from parity import (
    embeddings,
    flow,
    full_size,
    keras,
    lora,
    masked,
    motion,
    odd,
    pipeline,
    reference,
    samplers,
    single_file,
    tokenizer,
    transformers,
    vq,
)

Section = tuple[str, Iterable[Row]]
PACKAGES = ("jax", "flax", "torch", "diffusers", "transformers", "keras")


def networks(models: dict[str, reference.Model], seed: int, *, tiny: bool) -> Iterator[Section]:
    """Text encoder, U-Net and VAE of each model; one network at a time is in memory twice."""
    for family, model in models.items():
        with tempfile.TemporaryDirectory() as place:
            theirs = reference.build(model, seed, tiny=tiny)
            theirs.save_pretrained(place)
            config = folder.load_config(Path(place))
            for part, architecture in blocks.PARTS.items():
                inputs = reference.inputs(model, part, seed)
                record = reference.record(getattr(theirs, part), part, inputs)
                setattr(theirs, part, None)
                gc.collect()
                network = nnx.merge(*folder.load_part(Path(place), config, architecture.slot))
                title = f"{family}, {'tiny' if tiny else 'full size'}: {part}"
                yield title, blocks.rows(network, part, record)
                del record, network
            if not tiny:
                yield f"{family}, full size: painting and saving", full_size.rows(Path(place))


def sections(full: bool, seed: int) -> Iterator[Section]:
    if full:
        yield from networks(reference.FULL, seed, tiny=False)
        yield from transformers.sections(seed, tiny=False)
        yield from motion.sections(seed, tiny=False)
        yield "single files, full size", single_file.rows(seed, tiny=False)
        return
    yield from networks(reference.TINY, seed, tiny=True)
    yield from transformers.sections(seed, tiny=True)
    yield from motion.sections(seed, tiny=True)
    yield "discrete autoencoders, tiny", vq.rows(seed)
    yield "the painter of codes, tiny", masked.rows(seed)
    yield "the Keras sample", keras.rows(seed)
    yield "odd maps", odd.rows(seed)
    yield "samplers", samplers.rows(seed)
    yield "rectified flow", flow.rows(seed)
    yield "tokenizer", tokenizer.rows(seed)
    yield "LoRA", lora.rows(seed)
    yield "textual inversion", embeddings.rows(seed)
    yield "single files with the original names", single_file.rows(seed)
    yield from pipeline.sections(seed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parity", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the official networks in full size")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs (%(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    arguments = parser.parse_args()
    keep_compilations()  # some of these networks are built more than once

    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    head = f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores; {packages}"
    print(head)
    pages, found = [head], []
    for title, comparisons in sections(arguments.full, arguments.seed):
        began = time.perf_counter()
        rows = []
        for row in comparisons:
            rows.append(row)
            print(f"\r{title}: {len(rows)}", end="", file=sys.stderr, flush=True)
        print(f" in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        print(f"\n{title}\n{table(rows)}", flush=True)
        pages.append(f"## {title}\n\n```\n{table(rows)}\n```")
        found += rows
    worst = max(found, key=lambda row: (not row.ok, row.relative / (row.bound or 1.0)))
    breaches = sum(not row.ok for row in found)
    summary = (
        f"{len(found)} comparisons, {breaches} breaches; the nearest to its bound is "
        f"{worst.block}: {worst.relative:.1e} of {worst.bound:.0e}"
    )
    print(f"\n{summary}")
    if arguments.markdown:
        pages.insert(1, summary)
        arguments.markdown.write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    return min(breaches, 1)


if __name__ == "__main__":
    sys.exit(main())
