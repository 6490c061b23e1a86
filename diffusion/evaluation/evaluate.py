"""Paint what captions say, let the judge look, and count: `diffusion evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion.datasets.captions import LANGUAGES
from diffusion.datasets.garden import Scene, sample_scenes
from diffusion.evaluation.answers import (
    Group,
    Pictures,
    answered,
    drawn,
    joined,
    painted,
    reconstructed,
)
from diffusion.evaluation.details import highest_octave, reconstruction, small_things
from diffusion.evaluation.judge import TrainedJudge, Verdict
from diffusion.evaluation.measures import frechet, spread
from diffusion.evaluation.questions import (
    Question,
    held_out_pairs,
    others,
    questions,
    stream,
)
from diffusion.evaluation.scores import (
    binding,
    choices,
    confusion,
    counting,
    marks,
    novelty,
    own_accuracy,
    reading,
    seen_scenes,
)
from diffusion.pipeline import Artist

Report = dict[str, Any]
CLOSEST = 8  # pictures that are shown beside their neighbours in the training


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


class Paintings(NamedTuple):
    """What the model paints."""

    languages: dict[str, Group]  # by their names
    main: Group  # all languages
    held_out: Group  # captions of combinations that the training never showed, in all languages
    twins: Group  # nearly the same captions, of combinations that it did


class Fresh(NamedTuple):
    """Scenes of nobody's caption, as the renderer draws them, and what the judge sees."""

    scenes: Scene
    pictures: np.ndarray
    verdict: Verdict


class Drawings(NamedTuple):
    """What the renderer draws: pictures that are right, beside which the model's are seen."""

    main: Group  # for the captions of the paintings
    decoded: Group  # the same, encoded and decoded
    shown: Verdict  # of as many, which show in all attributes what the judge saw in the paintings
    held_out: Group
    twins: Group
    fresh: Fresh
    others: Fresh  # as many others
    unseen: Fresh  # of held-out combinations
    shuffled: list[Question]  # the captions in another order: whose marks are those of chance


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

    Returns the report; the pictures of captions in all languages; and the eight of them that come
    closest to one of the training, each with that one, if it is known.
    """
    paintings = _paint(artist, judge, settings, kept)
    drawings = _draw(artist, judge, settings, paintings)
    report = {
        "settings": asdict(settings),
        **_right_answers(paintings, drawings),
        **_among_pictures(paintings, drawings),
        "small things after the VAE": small_things(
            stream(settings.seed, 40), artist.config.image_size, partial(reconstructed, artist)
        ),
        "text": reading(artist, judge, settings.rounds, settings.seed),
    }
    if not trainings:
        return report, paintings.main, None
    found, closest = _beside_the_training(paintings, drawings, settings.training, trainings)
    return report | found, paintings.main, closest


def _paint(
    artist: Artist, judge: TrainedJudge, settings: EvaluationConfig, kept: Path | None
) -> Paintings:
    """Questions of every language, and the model's answers."""

    def answers(asked: list[Question]) -> Group:
        return answered(asked, judge, lambda asked: painted(artist, asked, settings.pictures, kept))

    plain, held_out, twins = {}, [], []
    for code, language in LANGUAGES.items():
        plain[language.name] = answers(questions(settings.captions, code, settings.seed))
        held, their_twins = held_out_pairs(settings.combinations, code, settings.seed)
        held_out.append(answers(held))
        twins.append(answers(their_twins))
    return Paintings(plain, joined([*plain.values()]), joined(held_out), joined(twins))


def _draw(
    artist: Artist, judge: TrainedJudge, settings: EvaluationConfig, paintings: Paintings
) -> Drawings:
    """The renderer's answers to the same questions, and scenes that nobody asked for."""
    size, count = artist.config.image_size, settings.pictures
    rng = stream(settings.seed, 20)

    def fitting(asked: list[Question]) -> Scene:
        scenes = [others(question, count, rng) for question in asked]
        return Scene(*(np.concatenate(fields) for fields in zip(*scenes, strict=True)))

    def answers(asked: list[Question], scenes: Scene) -> Group:
        pictures = drawn(scenes, size)
        shape = (len(asked), count, *pictures.shape[1:])
        return answered(asked, judge, lambda _: pictures.reshape(shape))

    def fresh(total: int, held_out: bool = False) -> Fresh:
        scenes = sample_scenes(rng, total, held_out=held_out)
        pictures = drawn(scenes, size)
        return Fresh(scenes, pictures, judge(pictures))

    # In this order, so that the random numbers are those of evaluations before.
    asked = paintings.main.asked
    scenes = fitting(asked)
    main = answers(asked, scenes)
    decoded = reconstructed(artist, main.in_a_row).reshape(main.pictures.shape)
    shuffled = [asked[i] for i in rng.permutation(len(asked))]
    total = len(asked) * count
    first, second = fresh(total), fresh(total)
    held_out, twins = (
        answers(group.asked, fitting(group.asked))
        for group in (paintings.held_out, paintings.twins)
    )
    unseen = fresh(len(held_out.asked) * count, held_out=True)
    after = answered(asked, judge, lambda _: decoded)
    seen = paintings.main.verdict.values
    alike = scenes._replace(**{name: found.astype(np.int32) for name, found in seen.items()})
    shown = judge(drawn(alike, size))
    return Drawings(main, after, shown, held_out, twins, first, second, unseen, shuffled)


def _right_answers(paintings: Paintings, drawings: Drawings) -> Report:
    """How much of what is named is there, and whether the judge that says so is to be trusted."""
    main, held_out, twins = paintings.main, paintings.held_out, paintings.twins
    renders, decoded, unseen = drawings.main, drawings.decoded, drawings.unseen
    return {
        "marks": {
            "all": marks(main.asked, main.values),
            **{
                name: marks(group.asked, group.values)
                for name, group in paintings.languages.items()
            },
            "held-out combinations": marks(held_out.asked, held_out.values),
            "their twins": marks(twins.asked, twins.values),
        },
        "calibration": {
            "renders": marks(renders.asked, renders.values),
            "renders after the VAE": marks(decoded.asked, decoded.values),
            "renders, held-out combinations": marks(held_out.asked, drawings.held_out.values),
            "renders, their twins": marks(twins.asked, drawings.twins.values),
            "pictures, captions shuffled": marks(drawings.shuffled, main.values),
            "renders, captions shuffled (chance)": marks(drawings.shuffled, renders.values),
        },
        "judge": own_accuracy(drawings.fresh.scenes, drawings.fresh.verdict),
        "judge on held-out combinations": own_accuracy(unseen.scenes, unseen.verdict),
        "binding": binding(main.asked, main.values),
        "binding of renders after the VAE": binding(decoded.asked, decoded.values),
        "counting": counting(main.asked, main.values),
        "confusion": confusion(main.asked, main.values),
    }


def _among_pictures(paintings: Paintings, drawings: Drawings) -> Report:
    """How near the pictures as a whole come to those of the renderer, and how varied they are."""
    groups = {
        "pictures": paintings.main,
        "renders after the VAE": drawings.decoded,
        "renders": drawings.main,
    }
    features = {name: group.verdict.features for name, group in groups.items()}
    features["renders of what the pictures show"] = drawings.shown.features
    features["other fresh renders"] = drawings.others.verdict.features
    return {
        "frechet": {
            name: frechet(found, drawings.fresh.verdict.features)
            for name, found in features.items()
        },
        "spread": {name: spread(group.features) for name, group in groups.items()},
        "choices": choices(paintings.main.asked, paintings.main.values, drawings.main.values),
        "vae": reconstruction(drawings.main.in_a_row, drawings.decoded.in_a_row),
        "highest octave": {
            name: float(
                highest_octave(pictures).mean() / highest_octave(drawings.fresh.pictures).mean()
            )
            for name, pictures in (
                ("pictures", paintings.main.in_a_row),
                ("renders after the VAE", drawings.decoded.in_a_row),
            )
        },
    }


def _beside_the_training(
    paintings: Paintings, drawings: Drawings, count: int, trainings: Sequence[Mapping[str, Any]]
) -> tuple[Report, Pictures]:
    """How far pictures are from those that the training saw, and the closest, each with its like.

    Args:
        count: of the training's pictures that are looked at.
    """
    pictures = paintings.main.in_a_row
    seen, total = seen_scenes(count, trainings)
    known = drawn(seen, pictures.shape[1])
    report, distances, which = novelty(
        known,
        {
            "pictures": pictures,
            "renders after the VAE": drawings.decoded.in_a_row,
            "fresh renders": drawings.fresh.pictures,
        },
    )
    closest = np.argsort(distances)[:CLOSEST]
    return (
        {"training pictures": {"looked at": len(known), "of": total}, "novelty": report},
        np.stack([pictures[closest], known[which[closest]]], axis=1),
    )
