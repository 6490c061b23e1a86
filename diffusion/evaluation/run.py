"""One evaluation from a model folder to a page: what `diffusion evaluate` does."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from diffusion.evaluation import films, judge
from diffusion.evaluation.answers import forget
from diffusion.evaluation.evaluate import EvaluationConfig, evaluate
from diffusion.evaluation.page import LINES, said, write
from diffusion.evaluation.scores import SMALL
from diffusion.loading import load
from diffusion.picture_files import check_writable
from diffusion.runtime.devices import described
from diffusion.weights import folder
from diffusion.weights.architectures import architecture

LARGEST = 256  # pixels along the side of a picture
FILMED = 20  # captions of which one is asked of films, which take as long as a dozen pictures


def run(
    model: str,
    output: Path,
    judge_folder: Path | None,
    captions: int,
    pictures: int,
    seed: int,
) -> None:
    """Evaluate `model` and write the page into `output`.

    Stopped, the same call goes on with what it has painted.

    Raises ValueError for a model whose pictures the judge cannot know, or for numbers out of range.
    """
    if captions < 2:
        raise ValueError(f"captions is {captions}; ask for 2 or more in each language")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more")
    if pictures < 2:
        raise ValueError(f"pictures is {pictures}; ask for 2 or more of each caption")
    artist = load(model)
    if artist.config.image_size > LARGEST:
        raise ValueError(
            f"model {model!r} paints {artist.config.image_size} pixels a side; the judge knows "
            f"the garden alone, in pictures of up to {LARGEST}"
        )
    if artist.config.image_size % SMALL:
        raise ValueError(
            f"model {model!r} paints {artist.config.image_size} pixels a side; pictures are "
            f"compared as thumbnails of {SMALL}, so give one that paints a multiple of that"
        )
    trained = judge.load(judge_folder)
    check_writable(output)
    settings = EvaluationConfig(
        captions=captions, combinations=max(2, captions // 4), pictures=pictures, seed=seed
    )
    root = folder.find(model)
    seen = [
        {name: training[name] for name in ("steps", "batch_size", "seed")}
        # Older trainings took what was drawn.
        | {
            "candidates": training.get("candidates", 1),
            "practised": training.get("practised", {}),
            "motion_share": training.get("motion_share", 0.0),
        }
        for training in folder.trainings(root, "distill")
        or folder.trainings(root, architecture(artist.config.denoiser).part)
    ]
    kept = output / "unfinished"  # what is painted, until the page is written
    report, main, neighbours = evaluate(artist, trained, settings, seen, kept)
    if artist.motion is not None:
        few = max(2, captions // FILMED)
        report["films"] = films.evaluate(artist, trained, few, seed, kept / "films")
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy"))
    made = f"{datetime.now(UTC):%Y-%m-%d}, {described()}, {versions}"
    write(output, {"model": artist.config.name, "made": made} | report, main, neighbours)
    forget(kept)
    for name in LINES:
        print(f"{name:13} {said(report['marks']['all'][name])} %")
