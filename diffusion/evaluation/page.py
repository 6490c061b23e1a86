"""An evaluation as files: one JSON, and one page with tables and figures."""

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from diffusion.atomic_write import atomic_write
from diffusion.datasets.captions import LANGUAGES
from diffusion.datasets.garden import ATTRIBUTES, GROWS
from diffusion.evaluation import films
from diffusion.evaluation.answers import Group, Pictures
from diffusion.evaluation.evaluate import Report
from diffusion.evaluation.measures import RARE, Share
from diffusion.evaluation.questions import Question, right
from diffusion.evaluation.tables import table
from diffusion.images import sheet

SHOWN = 64  # captions of the contact sheet
FAILURES = 12
DPI = 100  # of a figure with text
ABSENT = "not there"  # seen of the kind of tree where there is none
LINES = ("mean", "all at once", *ATTRIBUTES)
SPOKEN = (("#1f5fa8", "o"), ("#b3261e", "s"), ("#3f7d3a", "^"))  # how languages are drawn, in turns
Sheet = UInt8[np.ndarray, "H W 3"]


def write(folder: Path, report: Report, main: Group, closest: Pictures | None) -> None:
    """evaluation.json, figures and evaluation.md; each appears whole or not at all.

    Args:
        main: what was painted in all languages.
        closest: pictures, each with its neighbour in the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("evaluation.json", json.dumps(plain(report), indent=1, ensure_ascii=False)),
        ("evaluation.md", page(report, main)),
    ):
        with atomic_write(folder / name) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    figures: dict[str, Figure | Sheet] = {
        "attributes": attributes(report),
        "contact": contact(main),
        "failures": failures(main),
        "confusion": confusion(report["confusion"]),
    }
    if closest is not None:
        figures["neighbours"] = neighbours(closest)
    for name, figure in figures.items():
        with atomic_write(folder / f"{name}.png") as draft:
            save(figure, draft)


def save(figure: Figure | Sheet, path: Path) -> None:
    """Write a PNG of 256 colours, a quarter of the bytes; a sheet of pictures keeps its pixels.

    Most colours of a sheet are sky: maximum coverage keeps a red roof among them red.
    """
    if isinstance(figure, Figure):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=DPI)
        image = Image.open(drawn).convert("RGB")
    else:
        image = Image.fromarray(figure)
    small = image.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    small.save(path, format="PNG", optimize=True)


def plain(value: Any) -> Any:
    """The report as JSON knows it; not-a-number, of what nobody asked for, becomes null."""
    if isinstance(value, Share):
        return {name: plain(entry) for name, entry in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 5) if np.isfinite(value) else None
    return value


def said(value: Share) -> str:
    """97.1 (96.5 to 97.6), in per cent."""
    if not value.total:
        return "-"
    return f"{100 * value.share:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def page(report: Report, main: Group) -> str:
    """The report in Markdown: what was asked, then a section a subject, then pictures."""
    settings = report["settings"]
    parts = [
        f"# Evaluation of {report['model']}",
        report["made"],
        f"{settings['captions']:,} captions in each language (seed {settings['seed']}), of scenes "
        f"that no training has drawn, {settings['pictures']} pictures each, painted with the "
        "defaults of `diffusion paint`. A judge, trained on drawn pictures alone, says what each "
        "picture shows; an attribute counts where the caption names it. Per cent, with 95 % "
        f"confidence intervals: where fewer than {RARE} are wrong, that of as many pictures as "
        "there are captions, which is rather too wide.",
        *_marks(report),
        *_judge(report),
        *_binding_and_counting(report),
        *_among_pictures(report),
        *_other_parts(report),
        *_films(report),
        *_pictures(main),
    ]
    return "\n\n".join(map(_wrapped, parts))


def _wrapped(part: str) -> str:
    """Prose in lines; headings, tables, figures and lists as they are."""
    if part[0] in "#|!" or (part[0].isdigit() and "\n" in part):
        return part
    return _filled(part)


def _filled(text: str, indent: str = "") -> str:
    """Lines of 110, all but the first indented."""
    return textwrap.fill(
        text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _by_line(groups: Mapping[str, Mapping[str, Share]]) -> str:
    """A table of marks: a row an attribute, a column a group of pictures."""
    rows = [[name, *(said(group[name]) for group in groups.values())] for name in LINES]
    return table(["", *groups], rows)


def _marks(report: Report) -> list[str]:
    return [
        "## What the captions name, and what the pictures show",
        _by_line(report["marks"]),
        f"Held-out combinations ({report['settings']['combinations']} captions in each language) "
        "never occurred in training. Their twins are of the same scenes with one attribute "
        "changed, so that they did, and say it in nearly the same words.",
        "![Attribute by attribute](attributes.png)",
    ]


def _judge(report: Report) -> list[str]:
    held_out = report["judge on held-out combinations"]
    return [
        "## Is the judge to be trusted?",
        _by_line(report["calibration"]),
        "*Renders* are drawn pictures for the same captions; after the VAE, they say what encoding "
        "and decoding alone cost (a model may be a little better: its latents need not be an "
        "encoder's). With captions of other pictures, marks must fall to chance, and do not depend "
        "on how good the pictures are. The judge, unlike the model, has learnt from held-out "
        "combinations, too: it has to know what it judges.",
        table(
            ["the judge on", "fresh renders", "those of held-out combinations"],
            [[name, said(value), said(held_out[name])] for name, value in report["judge"].items()],
        ),
    ]


def _binding_and_counting(report: Report) -> list[str]:
    renders = report["binding of renders after the VAE"]
    return [
        "## Binding and counting",
        table(
            ["house and roof of two colours", "pictures", "renders after the VAE"],
            [[name, said(value), said(renders[name])] for name, value in report["binding"].items()],
        ),
        table(
            ["trees named", "right"],
            [[name, said(value)] for name, value in report["counting"].items()],
        ),
    ]


def _among_pictures(report: Report) -> list[str]:
    spread = report["spread"]
    return [
        "## Pictures among pictures",
        table(
            ["", "squared Fréchet distance to fresh renders", "spread of one caption's pictures"],
            [
                [name, f"{distance:.2f}", f"{spread[name]:.2f}" if name in spread else ""]
                for name, distance in report["frechet"].items()
            ],
        ),
        "Both in the judge's features; *renders* are of the same captions. The Fréchet distance is "
        "squared, as FID is, and larger the fewer pictures there are: *other fresh renders* say by "
        "how much, so compare it only with that of as many. *Renders of what the pictures show* "
        "have all values that the judge saw in the pictures: what they are farther away than "
        "*renders* comes from what was chosen to be painted, the rest from how. The spread is the "
        "mean distance between two pictures of one caption: below that of renders, they are too "
        "much alike.",
        "How often pictures choose otherwise than drawings what captions leave open, in per cent:",
        table(
            ["left open", "chosen otherwise", "by chance", "differs most"],
            [[name, *_chosen(row)] for name, row in report["choices"].items()],
        ),
        *(_novelty(report) if "novelty" in report else []),
    ]


def _chosen(row: Mapping[str, Any]) -> list[str]:
    numbers = (f"{100 * row[name]:.1f}" for name in ("apart", "by chance", "share", "drawn"))
    apart, chance, share, drawn = numbers
    return [apart, chance, f"{row['value']} {share}, drawn {drawn}"]


def _novelty(report: Report) -> list[str]:
    seen, columns = report["training pictures"], ("nearest", "1 %", "median")
    return [
        f"Distance to the nearest of {seen['looked at']:,} pictures, of {seen['of']:,} that "
        "the training saw (root mean square of 16x16 thumbnails in [-1, 1]):",
        table(
            ["", *columns],
            [
                [name, *(f"{row[column]:.3f}" for column in columns)]
                for name, row in report["novelty"].items()
            ],
        ),
        "The eight that are closest, and below each its neighbour in the training:",
        "![The closest of all pictures, and below each its neighbour](neighbours.png)",
    ]


def _other_parts(report: Report) -> list[str]:
    vae, found, octave = report["vae"], report["text"], report["highest octave"]
    small = report["small things after the VAE"]
    return [
        "## The other parts",
        f"VAE: PSNR {vae['psnr']:.1f} dB, SSIM {vae['ssim']:.3f}; of the pixels of small things "
        "alone: "
        + ", ".join(f"{name} {ratio:.1f} dB" for name, ratio in small.items())
        + f". The highest octave has {100 * octave['renders after the VAE']:.0f} % of the energy "
        f"that it has in drawings; in the model's pictures {100 * octave['pictures']:.0f} %.",
        f"Text encoder: a linear map of "
        f"its last state tells {100 * found['mentions']:.1f} % of what captions name; another "
        f"finds the picture of {100 * found['found']:.0f} % of captions among 128 (an ideal "
        "reader, who knows all that is said and guesses among the pictures that fit, "
        f"{100 * found['ideal reader']:.0f} %; chance {100 * found['chance']:.1f} %).",
    ]


def _films(report: Report) -> list[str]:
    if "films" not in report:
        return []
    return [
        "## Films",
        "Sixteen frames of captions that say what happens, or that nothing does; pairs of captions "
        "of which one goes over into the other (*words change*); drawn clips after the VAE, and "
        "the same films with captions of others. Shares in per cent; flicker is the mean change "
        "from frame to frame below the horizon while clouds drift, of 1.",
        *films.page(report["films"]).split("\n\n"),
    ]


def _pictures(main: Group) -> list[str]:
    questions, failed = shown(main.asked)[0], failing(main)
    return [
        "## Pictures",
        f"The first picture of the first {len(questions)} captions, row by row; nothing chosen.",
        "![Contact sheet](contact.png)",
        "\n".join(_filled(f"{i + 1}. {one.text}", "   ") for i, one in enumerate(questions)),
        "## Failures",
        f"The first picture of {len(failed):,} captions shows something else than was named; "
        f"{min(FAILURES, len(failed))} of them, evenly over all, with what the judge sees instead:",
        "![Failures](failures.png)",
        "What was named (rows) and what the judge sees (columns) in all pictures, in per cent of "
        "the row; less than half a per cent is left out.",
        "![What was named, and what was seen](confusion.png)",
    ]


def shown(asked: Sequence[Question]) -> tuple[list[Question], list[int]]:
    """The first captions of each language, in turns."""
    spoken: dict[str, list[int]] = {}
    for i, question in enumerate(asked):
        spoken.setdefault(question.language, []).append(i)
    chosen = [i for turn in zip(*spoken.values(), strict=False) for i in turn][:SHOWN]
    return [asked[i] for i in chosen], chosen


def contact(group: Group) -> Sheet:
    """The first picture of each of `SHOWN` captions."""
    _, chosen = shown(group.asked)
    return sheet(group.pictures[chosen, 0], columns=8, gap=2)


def attributes(report: Report) -> Figure:
    """Marks by attribute with their intervals, beside those of drawings, and chance."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axis = figure.subplots()
    calibration = report["calibration"]
    spoken = [one.name for one in LANGUAGES.values()]
    looks = dict(zip(spoken, cycle(SPOKEN), strict=False))
    rows = {
        **{name: (report["marks"][name], *look) for name, look in looks.items()},
        "drawn, after the VAE": (calibration["renders after the VAE"], "#6b6b6b", "_"),
        "chance": (calibration["renders, captions shuffled (chance)"], "#b8b8b8", "_"),
    }
    places = np.arange(len(LINES))
    for i, (name, (marks, colour, marker)) in enumerate(rows.items()):
        values = np.array([marks[line][:3] for line in LINES]) * 100
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        asked = name in spoken
        shift = (i - (len(spoken) - 1) / 2) * 0.22 if asked else 0.0
        axis.errorbar(
            places + shift, values[:, 0], errors if asked else None,
            fmt=marker, color=colour, label=name, markersize=5 if asked else 16, capsize=2,
        )  # fmt: skip
    axis.set_xticks(places, [line.replace("_", " ") for line in LINES], rotation=35, ha="right")
    axis.set(ylabel="right, %", ylim=(0, 102))
    axis.grid(axis="y", alpha=0.3)
    figure.legend(ncols=4, loc="outside upper center", fontsize=9)
    return figure


def wrong(group: Group) -> dict[str, np.ndarray]:
    """Of each attribute: which pictures show something else than was named."""
    matches, named = right(group.asked, group.values)
    return {name: named[name] & ~matches[name] for name in ATTRIBUTES}


def failing(group: Group) -> np.ndarray:
    """The captions whose first picture has something wrong."""
    return np.flatnonzero(np.any(list(wrong(group).values()), axis=0)[:, 0])


def failures(group: Group) -> Figure:
    """Pictures with something wrong: the caption, and in red what the judge sees instead."""
    mistakes, order = wrong(group), failing(group)
    chosen = order[np.linspace(0, len(order) - 1, min(FAILURES, len(order))).astype(int)]
    figure = Figure(figsize=(11, 2.75 * max(1, -(-len(chosen) // 4))), layout="constrained")
    axes = figure.subplots(max(1, -(-len(chosen) // 4)), 4, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, i in zip(axes, chosen, strict=False):
        axis.imshow(group.pictures[i, 0], interpolation="nearest")
        axis.set_title("\n".join(textwrap.wrap(group.asked[i].text, 38)), fontsize=8)
        values = {name: group.values[name][i, 0] for name in ATTRIBUTES}
        seen = [
            f"{name.replace('_', ' ')}: {seen_of(name, values)}"
            for name in ATTRIBUTES
            if mistakes[name][i, 0]
        ]
        axis.text(
            0.5, -0.03, "\n".join(seen), transform=axis.transAxes, ha="center", va="top",
            color="#b3261e", fontsize=8,
        )  # fmt: skip
    return figure


def seen_of(name: str, values: Mapping[str, int]) -> str:
    """What the judge saw of one attribute; it has an opinion of flowers that are not there, too."""
    absent = name in GROWS and values[GROWS[name]] == 0
    return ABSENT if absent else ATTRIBUTES[name][values[name]]


def confusion(tables: Mapping[str, list[list[int]]]) -> Figure:
    """For each attribute, what was named (rows) and what was seen (columns), as shares of rows."""
    figure = Figure(figsize=(13, 10.5), layout="constrained")
    axes = figure.subplots(3, 5).ravel()
    for axis in axes[len(tables) :]:
        axis.axis("off")
    for axis, (name, counts) in zip(axes, tables.items(), strict=False):
        _confusion(axis, name, np.array(counts, float))
    return figure


def _confusion(axis: Axes, name: str, counts: np.ndarray) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    words = ATTRIBUTES[name]
    places = range(len(words))
    seen = [*words, ABSENT][: counts.shape[1]]
    axis.set_xticks(range(len(seen)), seen, rotation=60, ha="right", fontsize=7)
    axis.set_yticks(places, words, fontsize=7)
    axis.set_title(name.replace("_", " "), fontsize=9)
    for row in places:
        for column in range(len(seen)):
            if shares[row, column] >= 0.005:
                axis.text(
                    column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center",
                    fontsize=6, color="white" if shares[row, column] > 0.5 else "black",
                )  # fmt: skip


def neighbours(closest: Pictures) -> Sheet:
    """Above, the pictures that come closest to one of the training; below, that one."""
    return sheet(np.concatenate(closest.swapaxes(0, 1)), columns=len(closest), gap=2)
