"""Evaluations of models of which it is known how good they are."""

import dataclasses
import itertools
import json
import shutil
from functools import partial

import numpy as np
import pytest
from flax import nnx

from diffusion.cli import main
from diffusion.datasets.curriculum import CANDIDATES, MOTION_SHARE
from diffusion.datasets.garden import ATTRIBUTES, Scene, sample_scenes
from diffusion.evaluation import answers
from diffusion.evaluation import judge as judges
from diffusion.evaluation.answers import drawn, forget
from diffusion.evaluation.details import highest_octave, reconstruction, small_things
from diffusion.evaluation.evaluate import EvaluationConfig, evaluate
from diffusion.evaluation.judge import Judge, TrainedJudge, Verdict
from diffusion.evaluation.page import plain, said, seen_of, shown, write
from diffusion.evaluation.questions import others, questions
from diffusion.evaluation.scores import (
    binding,
    choices,
    confusion,
    counting,
    marks,
    novelty,
    own_accuracy,
    ridge,
    seen_scenes,
    thumbnails,
)
from diffusion.pipeline import Artist
from diffusion.runtime.parameters import split
from diffusion.training.denoiser import DenoiserTask

# The small tokenizer of the tests has no room for long captions.
pytestmark = pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")
SIZE = 16  # pixels along the side of drawn pictures: one program draws them all
FEW = EvaluationConfig(captions=3, combinations=2, pictures=2, training=40, rounds=3)


@pytest.fixture(scope="module")
def judge():
    """One that knows nothing, and is small; test_judge.py has the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "WIDTHS", (8, 8))
        patch.setattr(judges, "SIZE", 16)
        yield TrainedJudge(split(Judge(rngs=nnx.Rngs(0)))[1])


@pytest.fixture
def painted(monkeypatch):
    """The seeds of what is painted; in one step each."""
    paint, seeds = Artist.paint, []

    def noted(self, *prompt, **settings):
        seeds.append(settings["seed"])
        return paint(self, *prompt, steps=1, **settings)

    monkeypatch.setattr(Artist, "paint", noted)
    return seeds


@pytest.fixture(scope="module")
def asked():
    return questions(60, "en")


@pytest.fixture(scope="module")
def perfect(asked):
    """What a judge sees who is never wrong, on pictures that are always right."""
    rng = np.random.default_rng(0)
    scenes = [others(question, 4, rng) for question in asked]
    return {name: np.stack([getattr(scene, name) for scene in scenes]) for name in ATTRIBUTES}


def test_right_pictures_have_full_marks_and_strangers_have_those_of_chance(asked, perfect):
    full = marks(asked, perfect)
    assert all(full[name].share == 1 for name in ("mean", "all at once"))
    order = np.random.default_rng(0).permutation(len(asked))
    strangers = marks([asked[i] for i in order], perfect)
    assert strangers["house"].share < 0.4  # one of eight colours
    assert strangers["all at once"].share < 0.2


def test_the_mean_is_over_mentions(asked, perfect):
    wrong = dict(perfect, house=(perfect["house"] + 1) % 8)
    found = marks(asked, wrong)
    mentions = sum(len(question.named) for question in asked)
    houses = sum("house" in question.named for question in asked)
    assert found["house"].share == 0
    assert found["mean"].share == pytest.approx(1 - houses / mentions)
    assert found["mean"].total == 4 * mentions


def test_colours_that_change_places_are_not_bound():
    asked = [q for q in questions(400, "en") if {"house", "roof"} <= q.named.keys()]
    rng = np.random.default_rng(0)
    scenes = [others(question, 4, rng) for question in asked]
    values = {name: np.stack([getattr(s, name) for s in scenes]) for name in ATTRIBUTES}
    assert binding(asked, values)["both right"].share == 1
    common = {i: ATTRIBUTES["roof"].index(w) for i, w in enumerate(ATTRIBUTES["house"])
              if w in ATTRIBUTES["roof"]}  # fmt: skip
    back = {roof: house for house, roof in common.items()}
    house = np.vectorize(lambda roof: back.get(roof, 0))(values["roof"])
    roof = np.vectorize(lambda house: common.get(house, 0))(values["house"])
    exchanged = binding(asked, values | {"house": house, "roof": roof})
    assert exchanged["exchanged"].share == 1
    assert exchanged["both right"].share == 0


def test_counting_tells_the_numbers_apart(asked, perfect):
    one_more = counting(asked, dict(perfect, trees=np.minimum(perfect["trees"] + 1, 3)))
    assert counting(asked, perfect)["all"].share == 1
    assert one_more["three"].share == 1
    assert one_more["one"].share == 0


def test_who_always_paints_the_same_chooses_otherwise(asked, perfect):
    same = {name: np.full_like(values, 1) for name, values in perfect.items()}
    found = choices(asked, same, perfect)
    assert found.keys() == ATTRIBUTES.keys()
    for name, row in found.items():
        if len(ATTRIBUTES[name]) > 2:  # of two values both differ as much
            assert row["value"] == ATTRIBUTES[name][1]
            assert row["share"] == 1.0
        assert row["apart"] == pytest.approx(abs(row["share"] - row["drawn"]))
        assert row["apart"] > 3 * row["by chance"]


def test_the_same_choices_are_not_apart(asked, perfect):
    found = choices(asked, perfect, perfect)
    assert all(row["apart"] == 0.0 and row["share"] == row["drawn"] for row in found.values())


def test_by_chance_is_what_two_drawings_differ_by(asked):
    rng = np.random.default_rng(0)
    several = [
        {name: rng.choice(len(words), (len(asked), 4), p=_shares(len(words)))
         for name, words in ATTRIBUTES.items()}
        for _ in range(400)
    ]  # fmt: skip
    found = [choices(asked, one, other) for one, other in itertools.pairwise(several)]
    for name in ATTRIBUTES:
        apart, chance = (
            np.mean([row[name][key] for row in found]) for key in ("apart", "by chance")
        )
        assert apart == pytest.approx(chance, rel=0.15)


def _shares(count):
    return np.arange(1, count + 1) / sum(range(1, count + 1))


def test_flowers_that_are_not_there_have_no_colour(asked, perfect):
    none = dict(perfect, flower_amount=np.zeros_like(perfect["flower_amount"]))
    assert "flowers" not in choices(asked, none, perfect)
    assert "flower_amount" in choices(asked, none, perfect)


def test_ridge_finds_a_linear_map():
    rng = np.random.default_rng(0)
    matrix, batches = rng.standard_normal((5, 3)), rng.standard_normal((4, 200, 5))
    outputs = [x @ matrix + 7.0 for x in batches]
    guess = ridge(batches, outputs, batches[0] + 1.0)
    expected = (batches[0] + 1.0) @ matrix - np.mean(np.concatenate(batches) @ matrix, axis=0)
    assert np.abs(guess - expected).max() < 0.05 * np.abs(expected).max()  # a little is held back


def test_a_copy_is_not_new():
    scenes = sample_scenes(np.random.default_rng(0), 40)
    known = drawn(scenes, SIZE)
    fresh = drawn(sample_scenes(np.random.default_rng(1), 20), SIZE)
    report, distances, which = novelty(known, {"copies": known[7:9], "fresh": fresh})
    assert report["copies"]["median"] < 1e-3 < report["fresh"]["nearest"]
    assert which.tolist() == [7, 8]
    assert len(distances) == 2


def test_a_thumbnail_is_the_mean_of_the_pixels_it_covers():
    small = np.random.default_rng(0).integers(0, 250, (2, 16, 16, 3), np.uint8)
    large = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    large[:, ::2] += 4
    np.testing.assert_allclose(thumbnails(large), thumbnails(small) + 2 / 127.5, atol=1e-6)
    assert abs(thumbnails(small)[1, 3] - (small[1, 0, 1, 0] / 127.5 - 1)) < 1e-6


def test_the_scenes_of_a_training_are_those_that_it_drew(artist):
    task = DenoiserTask(
        artist.config, artist.tokenizer, artist.text_encoder.params, artist.autoencoder.params
    )
    run = {
        "steps": 9, "batch_size": 5, "candidates": CANDIDATES, "motion_share": MOTION_SHARE,
    }  # fmt: skip
    seen, total = seen_scenes(20, [run | {"seed": s} for s in (3, 4)])
    assert (len(seen.layout), total) == (20, 90)
    for i, key in ((0, [3, 0]), (15, [4, 8])):
        drew = task.batch(np.random.default_rng(key), 5).scenes
        assert np.array_equal(seen.layout[i : i + 5], drew.layout)


def test_what_two_trainings_saw_counts_once():
    run = {"steps": 4, "batch_size": 3, "seed": 0, "candidates": 1}
    seen, total = seen_scenes(1000, [run, run | {"steps": 6}, run | {"seed": 1}])
    assert len(seen.layout) == total == (6 + 4) * 3
    assert len(np.unique(seen.layout, axis=0)) == total


def test_a_flower_that_is_not_there_is_taken_for_no_colour():
    asked = [q for q in questions(200, "en") if "flowers" in q.named][:1]
    values = {name: np.zeros((1, 3), int) for name in ATTRIBUTES}
    values["flower_amount"][0] = [0, 1, 2]
    table = np.array(confusion(asked, values)["flowers"])
    assert table.shape == (5, 6)
    row = table[asked[0].named["flowers"]]
    assert row[[0, 5]].tolist() == [2, 1]
    assert table.sum() == 3


def test_reconstruction_is_infinite_where_nothing_is_lost():
    pictures = drawn(sample_scenes(np.random.default_rng(0), 3), SIZE)
    noise = np.random.default_rng(0).integers(-5, 6, pictures.shape)
    worse = np.clip(pictures.astype(int) + noise, 0, 255).astype(np.uint8)
    assert reconstruction(pictures, worse)["psnr"] == pytest.approx(38, abs=1.5)
    assert 0.5 < reconstruction(pictures, worse)["ssim"] < 1
    assert reconstruction(pictures, pictures) == {"psnr": np.inf, "ssim": 1.0, "octave": 1.0}
    assert reconstruction(pictures, worse)["octave"] > 1.0
    blurred = (pictures.astype(int) + np.roll(pictures, 1, 1) + np.roll(pictures, 1, 2)) // 3
    assert reconstruction(pictures, blurred.astype(np.uint8))["octave"] < 0.7


def test_the_highest_octave():
    """A checkerboard is all of it; a slow wave, and what is even, are none."""
    rows, columns = np.mgrid[:32, :32]
    board = np.where((rows + columns) % 2, 255, 0)
    slow = 127.5 + 127.5 * np.sin(2 * np.pi * columns / 16)
    pictures = [np.repeat(p[..., None], 3, 2).astype(np.uint8) for p in (board, slow, slow * 0 + 9)]
    octave = highest_octave(np.stack(pictures))
    assert octave[0] > 1000 * octave[1]
    assert octave[2] < 0.01 * octave[1]


def test_small_things_are_looked_at_alone():
    rng = partial(np.random.default_rng, 0)
    assert set(small_things(rng(), SIZE, lambda pictures: pictures).values()) == {np.inf}
    lost = small_things(rng(), SIZE, np.zeros_like)
    assert set(lost) == {"falling snow", "rain", "stars", "petals"}
    assert max(lost.values()) < 10

    def half_lost(pictures):
        """The lower half is black: petals are there, stars are not."""
        dark = pictures.copy()
        dark[:, SIZE * 3 // 4 :] = 0
        return dark

    found = small_things(rng(), SIZE, half_lost)
    assert found["stars"] == np.inf
    assert found["petals"] == lost["petals"]


def test_the_judges_own_accuracy_leaves_out_what_does_not_grow():
    scenes = sample_scenes(np.random.default_rng(0), 50)
    values = {name: np.array(getattr(scenes, name)) for name in ATTRIBUTES}
    values["tree_kind"] = np.where(scenes.trees > 0, values["tree_kind"], 3)
    found = own_accuracy(scenes, Verdict(values, np.zeros((50, 2), np.float32)))
    assert all(value.share == 1 for value in found.values())
    assert found["tree_kind"].total == (scenes.trees > 0).sum()


def test_pictures_are_drawn_in_bounded_numbers_and_all_of_them():
    scenes = sample_scenes(np.random.default_rng(0), 70)
    whole = drawn(scenes, SIZE)
    assert len(whole) == 70
    tail = drawn(Scene(*(field[66:] for field in scenes)), SIZE)
    assert np.array_equal(whole[66:], tail)


def test_an_evaluation_becomes_a_page(artist, judge, painted, tmp_path):
    trainings = [{"steps": 4, "batch_size": 16, "seed": 0}]
    report, everything, closest = evaluate(artist, judge, FEW, trainings)
    assert closest.shape[:2] == (8, 2)
    assert report["marks"]["all"]["all at once"].total == 2 * 3 * 2
    assert report["marks"]["held-out combinations"]["mean"].total > 0
    assert report["training pictures"] == {"looked at": 48, "of": 64}
    assert report["marks"]["their twins"]["mean"].total > 0
    assert report["calibration"]["renders, held-out combinations"]["mean"].total > 0
    assert set(report["novelty"]) == {"pictures", "renders after the VAE", "fresh renders"}
    assert 0 <= report["text"]["found"] <= 1
    assert report["text"]["chance"] < report["text"]["ideal reader"] < 1
    write(tmp_path, {"model": "tiny", "made": "today"} | report, everything, closest)
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert kept["marks"]["all"]["mean"]["total"] == report["marks"]["all"]["mean"].total
    page = (tmp_path / "evaluation.md").read_text()
    assert "The first picture of the first 6 captions" in page
    for link in ("attributes", "contact", "failures", "confusion", "neighbours"):
        assert f"({link}.png)" in page
        assert (tmp_path / f"{link}.png").read_bytes().startswith(b"\x89PNG")


def test_the_contact_sheet_takes_turns_among_all_languages():
    first = questions(3, "en")[0]
    asked = [dataclasses.replace(first, language=code) for code in ("en", "tr", "de") for _ in "12"]
    assert shown(asked)[1] == [0, 2, 4, 1, 3, 5]


def test_a_failure_shows_what_the_judge_sees_not_what_it_thinks_of_nothing():
    values = dict.fromkeys(ATTRIBUTES, 0)
    assert seen_of("tree_kind", values) == "not there"
    assert seen_of("tree_kind", values | {"trees": 1}) == ATTRIBUTES["tree_kind"][0]
    assert seen_of("trees", values) == "none"


def test_what_nobody_asked_for_is_no_number():
    nothing = marks(questions(1, "en"), {
        name: np.zeros((1, 1), int) for name in ATTRIBUTES
    })  # fmt: skip
    silent = next(name for name, value in nothing.items() if not value.total)
    assert plain(nothing)[silent]["share"] is None
    assert said(nothing[silent]) == "-"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--captions", "1"], "captions is 1; ask for 2 or more"),
        (["--pictures", "1"], "pictures is 1; ask for 2 or more"),
        (["--seed", "-1"], "seed is -1; give 0 or more"),
        (["--model", "nowhere"], "nowhere"),
        (["--judge", "nowhere"], "judge.safetensors is missing"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, says, tiny_folder, tmp_path, capsys):
    given = ["--model", str(tiny_folder), "--output", str(tmp_path / "out"), *arguments]
    assert main(["evaluate", *given]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_evaluates_a_folder(
    tiny_folder, artist, judge, painted, tmp_path, capsys, monkeypatch
):
    """One with a card, so that it is known what its trainings saw."""
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    first = {"steps": 3, "batch_size": 4, "seed": 0}
    card = {"unet": first | {"steps": 2, "seed": 1, "candidates": 2, "start": first}}
    (model / "training.json").write_text(json.dumps(card))
    judges.save(tmp_path, judge.params)
    monkeypatch.setattr(
        "diffusion.evaluation.run.EvaluationConfig",
        lambda **asked: dataclasses.replace(FEW, **(asked | {"combinations": 2})),
    )
    output = tmp_path / "out"
    given = ["--model", str(model), "--judge", str(tmp_path), "--output", str(output)]
    given += ["--seed", "5", "--captions", "4", "--pictures", "3"]
    loaded = {str(model): artist}
    monkeypatch.setattr("diffusion.evaluation.run.load", loaded.__getitem__)
    paint = Artist.paint

    def stopped_once(*args, **kwargs):
        if len(painted) == 5:
            painted.append(kwargs["seed"])
            raise KeyboardInterrupt
        return paint(*args, **kwargs)

    monkeypatch.setattr(Artist, "paint", stopped_once)
    assert main(["evaluate", *given]) == 130
    assert main(["evaluate", *given]) == 0
    # Of each language four captions, two held-out ones and two twins; the first four once only.
    assert painted == [0, 1, 2, 3, 0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 0, 1, 0, 1]
    assert not (output / "unfinished").exists()
    assert "all at once" in capsys.readouterr().out
    found = json.loads((output / "evaluation.json").read_text())
    assert {"seed": 5, "captions": 4, "pictures": 3}.items() <= found["settings"].items()
    assert found["marks"]["all"]["all at once"]["total"] == 2 * 4 * 3
    assert found["training pictures"] == {"looked at": 20, "of": 20}


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"text"])
def test_damaged_pictures_are_painted_again(artist, tmp_path, monkeypatch, damage):
    calls = []

    def paint(self, text, seed, count):
        calls.append(seed)
        return np.full((count, 4, 4, 3), seed, np.uint8)

    monkeypatch.setattr(Artist, "paint", paint)
    asked = questions(2, "en")
    first = answers.painted(artist, asked, 3, tmp_path)
    np.testing.assert_array_equal(answers.painted(artist, asked, 3, tmp_path), first)
    assert calls == [0, 1]
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(damage)
    np.testing.assert_array_equal(answers.painted(artist, asked, 3, tmp_path), first)
    assert calls == [0, 1, 0, 1]


def test_what_else_lies_beside_unfinished_pictures_stays(tmp_path):
    (tmp_path / "0.npy").write_bytes(b"kept")
    (tmp_path / "mine.txt").write_text("a note")
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_finds_out_first_whether_it_may_write(tiny_folder, judge, tmp_path, capsys):
    judges.save(tmp_path, judge.params)
    (tmp_path / "out").write_text("mine")
    given = ["--model", str(tiny_folder), "--judge", str(tmp_path)]
    assert main(["evaluate", *given, "--output", str(tmp_path / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err
