"""Paint what captions say, let the judge look, and count: `diffusion evaluate`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

from diffusion.atomic_write import atomic_write
from diffusion.datasets.captions import captions, said_by
from diffusion.datasets.curriculum import practice
from diffusion.datasets.garden import ATTRIBUTES, GROWS, Scene, is_there, render, sample_scenes
from diffusion.evaluation.judge import TrainedJudge, Verdict
from diffusion.evaluation.measures import Share, frechet, nearest, share, spread
from diffusion.evaluation.questions import (
    LANGUAGES,
    Marks,
    Question,
    held_out_pairs,
    implied,
    others,
    questions,
    right,
    stream,
)
from diffusion.images import to_uint8
from diffusion.pipeline import Artist
from diffusion.runtime.parameters import fingerprint

Pictures = UInt8[np.ndarray, "captions pictures h w 3"]
Values = dict[str, Int[np.ndarray, "captions pictures"]]
Report = dict[str, Any]

RENDERED = 64  # scenes at a time
KEPT = 50  # captions whose pictures are kept at a time
SMALL = 16  # pixels along the side of the pictures whose nearest neighbours are looked for
BLOCK = 128  # captions and pictures of one round of retrieval
RIDGE = 1e-2  # of the linear map from sentences to features, as a share of the mean variance


@dataclass(frozen=True)
class EvaluationConfig:
    captions: int = 1000  # of each language
    combinations: int = 250  # held-out captions of each language, and as many twins
    pictures: int = 4  # of each caption
    training: int = 20_000  # pictures of the training among which neighbours are looked for
    rounds: int = (
        24  # of 128 captions and pictures, to fit the map of retrieval; a third to test it
    )
    seed: int = 0


class Group(NamedTuple):
    """Questions, and the pictures that answer them."""

    asked: list[Question]
    pictures: Pictures
    verdict: Verdict  # of all pictures in a row

    @property
    def values(self) -> Values:
        shape = self.pictures.shape[:2]
        return {name: found.reshape(shape) for name, found in self.verdict.values.items()}

    @property
    def features(self) -> np.ndarray:
        return self.verdict.features.reshape(*self.pictures.shape[:2], -1)


def drawn(scenes: Scene, size: int) -> UInt8[np.ndarray, "n h w 3"]:
    """The renderer's pictures of many scenes."""
    total = len(scenes.house)
    found = []
    for i in tqdm(range(0, total, RENDERED), desc="drawing", unit="batch", leave=False):
        some = Scene(*(field[np.arange(i, i + RENDERED) % total] for field in scenes))
        found.append(to_uint8(render(some, size)))
    return np.concatenate(found)[:total]


def reconstructed(
    artist: Artist, pictures: UInt8[np.ndarray, "n h w 3"]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Pictures that were encoded and decoded: what the VAE alone costs."""
    found = []
    total = len(pictures)
    for i in tqdm(range(0, total, RENDERED), desc="VAE", unit="batch", leave=False):
        some = pictures[np.arange(i, i + RENDERED) % total]
        latents = artist.encode(some)
        found.append(artist.decode(latents))
    return np.concatenate(found)[:total]


def painted(
    artist: Artist, asked: Sequence[Question], count: int, kept: Path | None = None
) -> Pictures:
    """`count` pictures of each caption, painted as `diffusion paint` does; question i is seed i.

    Args:
        kept: a folder that keeps them, and gives back those that this artist has painted of these
            captions before; so whoever is stopped goes on where that was.
    """
    parts = (artist.text_encoder, artist.denoiser, artist.autoencoder)
    painter = [fingerprint([part.params for part in parts]), repr(artist.config), count]
    found = []
    with tqdm(total=len(asked), desc="painting", unit="caption", leave=False) as progress:
        for start in range(0, len(asked), KEPT):
            texts = [question.text for question in asked[start : start + KEPT]]
            told = json.dumps([*painter, start, texts])
            file = kept and kept / f"{hashlib.sha256(told.encode()).hexdigest()}.npy"
            if file and file.exists():
                found.append(np.load(file, allow_pickle=False))
                progress.update(len(texts))
                continue
            some = []
            for seed, text in enumerate(texts, start):
                some.append(artist.paint(text, seed=seed, count=count))
                progress.update()
            found.append(np.stack(some))
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(file) as draft:
                    np.save(draft, found[-1])
    return np.concatenate(found)


def forget(kept: Path) -> None:
    """Remove what `painted` has kept; a folder that holds anything else stays."""
    for file in kept.glob("*.npy"):
        file.unlink()
    if not any(kept.iterdir()):
        kept.rmdir()


def answered(
    asked: list[Question], judge: TrainedJudge, paint: Callable[[list[Question]], Pictures]
) -> Group:
    pictures = paint(asked)
    return Group(asked, pictures, judge(pictures.reshape(-1, *pictures.shape[2:])))


# --- Marks ---------------------------------------------------------------------------------------


def marks(asked: Sequence[Question], values: Values) -> Report:
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


# --- Pictures among pictures ----------------------------------------------------------------------


def freedom(asked: Sequence[Question], values: Values, reference: Values) -> dict[str, float]:
    """What is not said is free: how varied it is, beside pictures drawn for the same captions.

    The entropy of an attribute's values over the pictures whose caption leaves it open, as a share
    of the entropy that the renderer's answers to the same captions have. It is that of all captions
    together; how much the pictures of one differ is its `spread`.
    """

    def entropy(values: np.ndarray, kinds: int) -> float:
        p = np.bincount(values, minlength=kinds) / len(values)
        return float(-np.sum(p[p > 0] * np.log(p[p > 0])))

    found = {}
    for name, words in ATTRIBUTES.items():
        silent = np.array([name not in question.named for question in asked])
        if name in GROWS or not silent.any():
            continue  # of these, what stands in a picture without any is anybody's guess
        ours, theirs = (entropy(v[name][silent].ravel(), len(words)) for v in (values, reference))
        if theirs:  # in very few pictures even the renderer's may all be alike
            found[name] = ours / theirs
    return found


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


def reconstruction(
    pictures: UInt8[np.ndarray, "n h w 3"], decoded: UInt8[np.ndarray, "n h w 3"]
) -> dict[str, float]:
    """What the VAE keeps: peak signal-to-noise ratio (dB) and structural similarity (Wang 2004)."""
    pairs = list(zip(pictures, decoded, strict=True))
    with np.errstate(divide="ignore"):  # infinite, where nothing is lost
        ratios = [peak_signal_noise_ratio(a, b) for a, b in pairs]
    return {
        "psnr": float(np.mean(ratios)),
        "ssim": float(
            np.mean(
                [
                    structural_similarity(
                        a,
                        b,
                        channel_axis=2,
                        gaussian_weights=True,
                        sigma=1.5,
                        use_sample_covariance=False,
                    )
                    for a, b in pairs
                ]
            )
        ),
    }


def reading(artist: Artist, judge: TrainedJudge, settings: EvaluationConfig) -> dict[str, float]:
    """Does the text encoder keep what was said, where a linear map can find it?

    Two linear maps of the end-of-text state are fitted by ridge regression and tested on other
    captions. One tells what is said of each attribute; "mentions" is the share of those named that
    it tells right. The other guesses the judge's features of the picture, and looks for it among
    128; an ideal reader, who knows all that is said and guesses among the pictures that it fits,
    is the best that can be had.
    """
    size = artist.config.image_size
    rng = stream(settings.seed, 10)
    rounds = settings.rounds
    states, features, said, ideal = [], [], [], []
    for _ in range(rounds + max(1, rounds // 3)):
        scenes = sample_scenes(rng, BLOCK)
        spoken = captions(scenes, rng)
        tokens = artist.tokenizer([caption.text for caption in spoken])
        context = np.asarray(artist.text_encoder(jnp.asarray(tokens)))
        ends = np.argmax(tokens == artist.tokenizer.eos, axis=1)
        states.append(context[np.arange(BLOCK), ends])
        features.append(judge(drawn(scenes, size)).features)
        said.append(said_by(spoken, scenes))
        fits = np.stack([implied(scenes, caption.named) for caption in spoken])
        for i, caption in enumerate(spoken):
            for name in caption.named:
                value = getattr(scenes, name)
                fits[i] &= value == value[i]
        ideal.append(np.mean(1.0 / fits.sum(axis=1)))
    looked = np.concatenate(states[rounds:])
    guesses = ridge(states[:rounds], features[:rounds], looked)
    truths = np.concatenate(features[rounds:]) - np.mean(np.concatenate(features[:rounds]), axis=0)
    guesses, truths = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (guesses, truths))
    found = [
        np.argmax(guess @ truth.T, axis=1) == np.arange(BLOCK)
        for guess, truth in zip(
            guesses.reshape(-1, BLOCK, guesses.shape[1]),
            truths.reshape(-1, BLOCK, truths.shape[1]),
            strict=True,
        )
    ]
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


# --- The whole of it ------------------------------------------------------------------------------


def evaluate(
    artist: Artist,
    judge: TrainedJudge,
    settings: EvaluationConfig,
    trainings: Sequence[Mapping[str, Any]] = (),
    kept: Path | None = None,
) -> tuple[Report, Group, Pictures | None]:
    """Everything that is measured, what was painted for it, and what of that is closest to known.

    Args:
        trainings: `steps`, `batch_size` and `seed` of the U-Net's, and the arguments of its
            `practice`; where there are none, its pictures are not known, and there is no novelty.
        kept: see `painted`.

    Returns the report; the pictures of captions in both languages; and the eight of them that come
    closest to one of the training, each with that one, if it is known.
    """
    size = artist.config.image_size
    rng = stream(settings.seed, 20)

    def paint(asked: list[Question]) -> Pictures:
        return painted(artist, asked, settings.pictures, kept)

    def draw(asked: list[Question]) -> Pictures:
        scenes = [others(question, settings.pictures, rng) for question in asked]
        flat = Scene(*(np.concatenate(fields) for fields in zip(*scenes, strict=True)))
        return drawn(flat, size).reshape(len(asked), settings.pictures, size, size, 3)

    groups: dict[str, Group] = {}
    for language in LANGUAGES:
        asked = questions(settings.captions, language, settings.seed)
        groups[language] = answered(asked, judge, paint)
        held, twins = held_out_pairs(settings.combinations, language, settings.seed)
        groups[f"{language}, held out"] = answered(held, judge, paint)
        groups[f"{language}, twins"] = answered(twins, judge, paint)
    main = joined([groups[language] for language in LANGUAGES])
    renders = answered(main.asked, judge, draw)
    flat = renders.pictures.reshape(-1, size, size, 3)
    after = answered(
        main.asked, judge, lambda _: reconstructed(artist, flat).reshape(renders.pictures.shape)
    )
    shuffled = [main.asked[i] for i in rng.permutation(len(main.asked))]
    fresh = sample_scenes(rng, len(flat))
    fresh_pictures = drawn(fresh, size)
    fresh_verdict = judge(fresh_pictures)
    more_verdict = judge(drawn(sample_scenes(rng, len(flat)), size))

    held_out = joined([groups[f"{language}, held out"] for language in LANGUAGES])
    twins_ = joined([groups[f"{language}, twins"] for language in LANGUAGES])
    held_out_renders, twin_renders = (answered(g.asked, judge, draw) for g in (held_out, twins_))
    unseen = sample_scenes(rng, len(held_out.asked) * settings.pictures, held_out=True)
    report: Report = {
        "settings": asdict(settings),
        "marks": {
            "all": marks(main.asked, main.values),
            "English": marks(groups["en"].asked, groups["en"].values),
            "Turkish": marks(groups["tr"].asked, groups["tr"].values),
            "held-out combinations": marks(held_out.asked, held_out.values),
            "their twins": marks(twins_.asked, twins_.values),
        },
        "calibration": {
            "renders": marks(renders.asked, renders.values),
            "renders after the VAE": marks(after.asked, after.values),
            "renders, held-out combinations": marks(held_out.asked, held_out_renders.values),
            "renders, their twins": marks(twins_.asked, twin_renders.values),
            "pictures, captions shuffled": marks(shuffled, main.values),
            "renders, captions shuffled (chance)": marks(shuffled, renders.values),
        },
        "judge": own_accuracy(fresh, fresh_verdict),
        "judge on held-out combinations": own_accuracy(unseen, judge(drawn(unseen, size))),
        "binding": binding(main.asked, main.values),
        "binding of renders after the VAE": binding(after.asked, after.values),
        "counting": counting(main.asked, main.values),
        "confusion": confusion(main.asked, main.values),
        "frechet": {
            "pictures": frechet(main.verdict.features, fresh_verdict.features),
            "renders after the VAE": frechet(after.verdict.features, fresh_verdict.features),
            "renders": frechet(renders.verdict.features, fresh_verdict.features),
            "other fresh renders": frechet(more_verdict.features, fresh_verdict.features),
        },
        "spread": {
            "pictures": spread(main.features),
            "renders after the VAE": spread(after.features),
            "renders": spread(renders.features),
        },
        "freedom": freedom(main.asked, main.values, renders.values),
        "vae": reconstruction(flat, after.pictures.reshape(flat.shape)),
        "text": reading(artist, judge, settings),
    }
    neighbours = None
    if trainings:
        seen, total = seen_scenes(settings.training, trainings)
        known = drawn(seen, size)
        report["training pictures"] = {"looked at": len(known), "of": total}
        report["novelty"], distances, which = novelty(
            known,
            {
                "pictures": main.pictures.reshape(flat.shape),
                "renders after the VAE": after.pictures.reshape(flat.shape),
                "fresh renders": fresh_pictures,
            },
        )
        closest = np.argsort(distances)[:8]
        neighbours = np.stack(
            [main.pictures.reshape(flat.shape)[closest], known[which[closest]]], 1
        )
    return report, main, neighbours


def joined(groups: Sequence[Group]) -> Group:
    values, features = zip(*(group.verdict for group in groups), strict=True)
    return Group(
        [question for group in groups for question in group.asked],
        np.concatenate([group.pictures for group in groups]),
        Verdict(
            {name: np.concatenate([v[name] for v in values]) for name in ATTRIBUTES},
            np.concatenate(features),
        ),
    )


def own_accuracy(scenes: Scene, verdict: Verdict) -> dict[str, Share]:
    """How often the judge is right about fresh renders."""
    return {
        name: share(
            (verdict.values[name] == getattr(scenes, name))[:, None],
            np.asarray(is_there(scenes, name))[:, None],
        )
        for name in ATTRIBUTES
    }
