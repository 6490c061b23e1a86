"""What an evaluation counts in the pictures that answer its questions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from diffusion.datasets.captions import captions, said_by
from diffusion.datasets.curriculum import practice
from diffusion.datasets.garden import ATTRIBUTES, GROWS, Scene, is_there, sample_scenes
from diffusion.evaluation.answers import Values, drawn
from diffusion.evaluation.judge import TrainedJudge, Verdict
from diffusion.evaluation.measures import Share, nearest, share
from diffusion.evaluation.questions import Marks, Question, implied, right, stream
from diffusion.pipeline import Artist

SMALL = 16  # pixels along the side of the pictures whose nearest neighbours are looked for
BLOCK = 128  # captions and pictures of one round of retrieval
RIDGE = 1e-2  # of the linear map from sentences to features, as a share of the mean variance

# --- Marks ---------------------------------------------------------------------------------------


def marks(asked: Sequence[Question], values: Values) -> dict[str, Share]:
    """Of the attributes that captions name, how many are right: each, on average, and all at once.

    The average is over mentions, so it weighs what is said more often more.
    """
    matches, named = right(asked, values)
    together = {
        "mean": share(_stack(matches), _stack(named)),
        "all at once": share(
            np.all([matches[name] | ~named[name] for name in matches], axis=0),
            np.any(list(named.values()), axis=0),
        ),
    }
    return together | {name: share(matches[name], named[name]) for name in ATTRIBUTES}


def _stack(found: Marks) -> np.ndarray:
    return np.concatenate([found[name] for name in ATTRIBUTES], axis=1)


def binding(asked: Sequence[Question], values: Values) -> dict[str, Share]:
    """House and roof of two colours: does each go where it belongs?"""
    roofs = {word: i for i, word in enumerate(ATTRIBUTES["roof"])}
    houses = ATTRIBUTES["house"]
    rows, house, roof = [], [], []
    for i, question in enumerate(asked):
        if not {"house", "roof"} <= question.named.keys():
            continue
        wall, top = houses[question.named["house"]], ATTRIBUTES["roof"][question.named["roof"]]
        if wall != top and wall in roofs and top in houses:
            rows.append(i)
            house.append([houses.index(wall), houses.index(top)])
            roof.append([roofs[wall], roofs[top]])
    index = np.array(rows, int)
    wall, top = values["house"][index], values["roof"][index]
    walls, roofs_ = np.array(house).reshape(-1, 2, 1), np.array(roof).reshape(-1, 2, 1)
    everything = np.ones(wall.shape, bool)
    return {
        "both right": share((wall == walls[:, 0]) & (top == roofs_[:, 1]), everything),
        "exchanged": share((wall == walls[:, 1]) & (top == roofs_[:, 0]), everything),
        "both of the house's colour": share(
            (wall == walls[:, 0]) & (top == roofs_[:, 0]), everything
        ),
        "both of the roof's colour": share(
            (wall == walls[:, 1]) & (top == roofs_[:, 1]), everything
        ),
    }


def counting(asked: Sequence[Question], values: Values) -> dict[str, Share]:
    """The number of trees, where it is named: by number, and over all."""
    matches, named = right(asked, values)
    wanted = np.array([question.named.get("trees", -1) for question in asked])[:, None]
    found = {"all": share(matches["trees"], named["trees"])}
    for i, number in enumerate(ATTRIBUTES["trees"]):
        found[number] = share(matches["trees"], named["trees"] & (wanted == i))
    return found


def confusion(asked: Sequence[Question], values: Values) -> dict[str, list[list[int]]]:
    """Of each attribute: what was named (rows) and what the judge saw (columns).

    What grows has a last column more, of pictures in which it does not.
    """
    found = {}
    for name, words in ATTRIBUTES.items():
        wanted = np.array([question.named.get(name, -1) for question in asked])[:, None]
        wanted, seen = np.broadcast_to(wanted, values[name].shape), values[name]
        if name in GROWS:
            seen = np.where(values[GROWS[name]] > 0, seen, len(words))
        table = np.zeros((len(words), len(words) + (name in GROWS)), int)
        np.add.at(table, (wanted[wanted >= 0], seen[wanted >= 0]), 1)
        found[name] = table.tolist()
    return found


def own_accuracy(scenes: Scene, verdict: Verdict) -> dict[str, Share]:
    """How often the judge is right about fresh renders."""
    return {
        name: share(
            (verdict.values[name] == getattr(scenes, name))[:, None],
            np.asarray(is_there(scenes, name))[:, None],
        )
        for name in ATTRIBUTES
    }


# --- Pictures among pictures ---------------------------------------------------------------------


def choices(
    asked: Sequence[Question], values: Values, reference: Values
) -> dict[str, dict[str, float | str]]:
    """What is not said is free: is it chosen as often as in pictures drawn for the same captions?

    Of each attribute, over the pictures whose caption leaves it open (and in which it is to be
    seen): the share that would have to show another value (the total variation distance); what
    that would be by chance, were all pictures drawn and each on its own (the mean of a normal
    variable's absolute value); the value whose share differs most, that share, and the drawn one.
    """
    found: dict[str, dict[str, float | str]] = {}
    for name, words in ATTRIBUTES.items():
        silent = np.array([name not in question.named for question in asked])
        seen = [_seen(name, some, silent) for some in (values, reference)]
        if not all(map(len, seen)):
            continue
        ours, theirs = (np.bincount(some, minlength=len(words)) / len(some) for some in seen)
        scatter = np.sqrt(theirs * (1 - theirs) * sum(1 / len(some) for some in seen))
        most = int(np.argmax(np.abs(ours - theirs)))
        found[name] = {
            "apart": float(np.abs(ours - theirs).sum() / 2),
            "by chance": float(np.sqrt(2 / np.pi) * scatter.sum() / 2),
            "value": words[most],
            "share": float(ours[most]),
            "drawn": float(theirs[most]),
        }
    return found


def _seen(name: str, values: Values, captions: Bool[np.ndarray, " captions"]) -> np.ndarray:
    """The values of an attribute in the pictures of some captions; only where it is to be seen."""
    found = values[name][captions]
    return found[values[GROWS[name]][captions] > 0] if name in GROWS else found.ravel()


def thumbnails(pictures: UInt8[np.ndarray, "n h w 3"]) -> np.ndarray:
    """Pictures of `SMALL` pixels a side, each the mean of those it covers, as rows in [-1, 1]."""
    n, h, w, _ = pictures.shape
    blocks = pictures.reshape(n, SMALL, h // SMALL, SMALL, w // SMALL, 3)
    means = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    return means / np.float32(127.5) - np.float32(1)


def seen_scenes(count: int, trainings: Sequence[Mapping[str, Any]]) -> tuple[Scene, int]:
    """Of the scenes that trainings of the U-Net saw, `count` or some more; and how many there were.

    They are taken evenly from all steps. What two trainings saw, who had the same seed and drew the
    same way, counts once; if there are no more than `count`, all are taken.

    Args:
        trainings: `steps`, `batch_size`, `seed` and the other arguments of `practice`, of each.
    """
    batches: dict[tuple[str, int], dict[str, Any]] = {}
    for training in trainings:
        drawing = {name: value for name, value in training.items() if name != "steps"}
        key = json.dumps(drawing, sort_keys=True)
        batches |= {(key, step): drawing for step in range(training["steps"])}
    total = sum(drawing["batch_size"] for drawing in batches.values())
    wanted = min(len(batches), -(-count * len(batches) // total))
    every = list(batches.items())
    parts = []
    for i in np.linspace(0, len(every) - 1, wanted).round().astype(int):
        (_, step), drawing = every[i]
        data = {k: v for k, v in drawing.items() if k not in ("batch_size", "seed")}
        rng = np.random.default_rng([drawing["seed"], step])
        parts.append(practice(rng, drawing["batch_size"], **data)[0])
    return Scene(*(np.concatenate(fields) for fields in zip(*parts, strict=True))), total


def novelty(
    known: UInt8[np.ndarray, "m h w 3"], groups: dict[str, UInt8[np.ndarray, "n h w 3"]]
) -> tuple[dict[str, dict[str, float]], np.ndarray, np.ndarray]:
    """How far pictures are from the nearest of the training, as thumbnails.

    Returns the distances' quantiles of each group; and, of the first group, the distances and the
    neighbours.
    """
    others = thumbnails(known)
    report, first = {}, None
    for name, pictures in groups.items():
        distances, which = nearest(thumbnails(pictures), others)
        low, middle = np.quantile(distances, [0.01, 0.5])
        report[name] = {
            "nearest": float(distances.min()),
            "1 %": float(low),
            "median": float(middle),
        }
        first = (distances, which) if first is None else first
    assert first is not None
    return report, *first


# --- The other parts -----------------------------------------------------------------------------


def reading(artist: Artist, judge: TrainedJudge, rounds: int, seed: int = 0) -> dict[str, float]:
    """Does the text encoder keep what was said, where a linear map can find it?

    Two linear maps of the end-of-text state are fitted by ridge regression and tested on other
    captions. One tells what is said of each attribute; "mentions" is the share of those named that
    it tells right. The other guesses the judge's features of the picture, and looks for it among
    128; an ideal reader, who knows all that is said and guesses among the pictures that it fits,
    is the best that can be had.

    Args:
        rounds: of 128 captions and pictures, to fit the maps; a third as many more to test them.
    """
    rng = stream(seed, 10)
    heard = [_heard(artist, judge, rng) for _ in range(rounds + max(1, rounds // 3))]
    states, features, said, ideal = map(list, zip(*heard, strict=True))
    looked = np.concatenate(states[rounds:])
    guesses = ridge(states[:rounds], features[:rounds], looked)
    truths = np.concatenate(features[rounds:]) - np.mean(np.concatenate(features[:rounds]), axis=0)
    guesses, truths = (
        (x / np.linalg.norm(x, axis=1, keepdims=True)).reshape(-1, BLOCK, x.shape[1])
        for x in (guesses, truths)
    )
    found = np.argmax(guesses @ truths.swapaxes(1, 2), axis=2) == np.arange(BLOCK)
    right = []
    for column, words in enumerate(ATTRIBUTES.values()):
        answers = [np.eye(len(words) + 1)[table[:, column]] for table in said]
        centre = np.mean(np.concatenate(answers[:rounds]), axis=0)
        told = np.argmax(ridge(states[:rounds], answers[:rounds], looked) + centre, axis=1)
        truth = np.concatenate(said[rounds:])[:, column]
        right.append((told == truth)[truth < len(words)])
    return {
        "mentions": float(np.mean(np.concatenate(right))),
        "found": float(np.mean(found)),
        "ideal reader": float(np.mean(ideal[rounds:])),
        "chance": 1 / BLOCK,
    }


def _heard(
    artist: Artist, judge: TrainedJudge, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """One round of `reading`: the states at the end of `BLOCK` captions, the judge's features of
    their pictures, what is said, and the share of pictures that an ideal reader finds."""
    scenes = sample_scenes(rng, BLOCK)
    spoken = captions(scenes, rng)
    tokens = artist.tokenizer([caption.text for caption in spoken])
    context = np.asarray(artist.text_encoder(jnp.asarray(tokens)))
    ends = np.argmax(tokens == artist.tokenizer.eos, axis=1)
    fits = np.stack([implied(scenes, caption.named) for caption in spoken])
    for i, caption in enumerate(spoken):
        for name in caption.named:
            value = getattr(scenes, name)
            fits[i] &= value == value[i]
    return (
        context[np.arange(BLOCK), ends],
        judge(drawn(scenes, artist.config.image_size)).features,
        said_by(spoken, scenes),
        float(np.mean(1.0 / fits.sum(axis=1))),
    )


def ridge(
    inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], others: np.ndarray
) -> np.ndarray:
    """What a linear map, fitted to inputs and outputs, says of others, less the mean output."""
    x, y = (np.concatenate(parts).astype(np.float64) for parts in (inputs, outputs))
    mean = x.mean(axis=0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    linear = np.linalg.solve(covariance, (x - mean).T @ (y - y.mean(axis=0)) / len(x))
    return (others - mean) @ linear
