"""The judge of films: what it asks, and what it takes for right."""

import dataclasses
import json

import numpy as np
import pytest

from diffusion.datasets.garden import ATTRIBUTES
from diffusion.datasets.garden.motion import CHANGES, HELD_OUT, MOTIONS
from diffusion.evaluation import films, judge, page
from diffusion.evaluation.film_measures import View


def still(**values: str) -> films.Seen:
    """Four frames in which nothing happens, with these values of attributes."""
    at = {name: words.index(values.get(name, words[0])) for name, words in ATTRIBUTES.items()}
    return films.Seen(
        {name: np.full(4, value) for name, value in at.items()}, View(0.0, 1.0), 0.0, 0.0, 0.0, 0.0
    )


def from_to(name: str, first: str, last: str) -> films.Seen:
    seen = still()
    words = ATTRIBUTES[name]
    values = np.array([words.index(first)] * 2 + [words.index(last)] * 2)
    return seen._replace(values={**seen.values, name: values})


@pytest.fixture(scope="module")
def asked() -> list[films.FilmQuestion]:
    return films.questions(60, "en", seed=3)


def test_questions_are_always_the_same_and_others_for_another_seed(asked):
    again = films.questions(60, "en", seed=3)
    assert [question.text for question in again] == [question.text for question in asked]
    others = {question.text for question in films.questions(60, "en", seed=4)}
    assert not others & {question.text for question in asked}


def test_what_changes_is_not_named_and_some_ask_for_nothing_to_happen(asked):
    for question in asked:
        assert question.named
        if question.motion in CHANGES:
            assert CHANGES[question.motion][0] not in question.named
    assert 0 < sum(not question.motion for question in asked) < 30
    assert len({question.motion for question in asked}) > 10


def test_held_out_questions_are_combinations_that_training_never_sees():
    for question in films.questions(8, "tr", seed=3, held_out=True):
        scene = question.clip.scenes
        values = {name: words[int(getattr(scene, name)[0])] for name, words in ATTRIBUTES.items()}
        values["motion"] = question.motion
        assert any(all(values[k] == v for k, v in one.items()) for one in HELD_OUT)


@pytest.mark.parametrize("language", ["en", "tr"])
def test_journeys_say_what_is_before_and_afterwards_and_the_same_else(language):
    asked = films.journeys(12, language, seed=3)
    assert [one.text for one in asked] == [one.text for one in films.journeys(12, language, seed=3)]
    assert len({question.motion for question in asked}) > 3
    for question in asked:
        assert question.to not in (None, question.text)
        assert question.named
        assert CHANGES[question.motion][0] not in question.named


@pytest.mark.parametrize("motion", CHANGES)
def test_a_change_goes_from_one_value_to_the_other(motion):
    name, _, before, after = CHANGES[motion]
    assert films.happens(from_to(name, before, after), motion)
    assert not films.happens(from_to(name, after, before), motion)
    assert not films.happens(from_to(name, before, before), motion)


@pytest.mark.parametrize(
    ("motion", "field", "value"),
    [
        ("clouds drift left", "drift", -0.4),
        ("clouds drift right", "drift", 0.4),
        ("trees sway", "sways", 0.5),
        ("view moves left", "view", View(0.08, 1.0)),
        ("view moves right", "view", View(-0.08, 1.0)),
        ("view comes closer", "view", View(0.0, 1.15)),
        ("view widens", "view", View(0.0, 1 / 1.15)),
    ],
)
def test_what_is_measured_happens_where_it_is_measured(motion, field, value):
    assert films.happens(still()._replace(**{field: value}), motion)
    assert not films.happens(still(), motion)


def test_every_motion_can_be_answered():
    assert all(isinstance(bool(films.happens(still(), motion)), bool) for motion in MOTIONS)


def test_what_stands_still_keeps_view_hour_season_and_weather():
    assert films.stands_still(still())
    for seen in (
        from_to("sky", "day", "night"),
        from_to("weather", "clear", "rain"),
        still()._replace(view=View(0.08, 1.0)),
        still()._replace(view=View(0.0, 1.1)),
        still()._replace(change=0.1),
    ):
        assert not films.stands_still(seen)


def test_a_report_counts_each_by_itself(asked):
    named = dataclasses.replace(asked[0], named={"house": 0, "sky": 1}, motion="sun sets")
    calm = dataclasses.replace(asked[0], named={"sky": 0}, motion="")
    sets = from_to("sky", "day", "sunset")
    sets.values["house"][1:3] = 1  # another house in between
    found = films.report([named, calm], [sets, still()])
    assert found["films"] == 2
    assert found["named, right in all frames"] == 0.5
    assert found["named, right in a frame"] == 0.75
    assert found["named motion happens"] == 1.0
    assert found["still scenes stay still"] == 1.0
    assert found["stays from first to last frame"] == 1.0  # the hour was to change
    assert found["flicker"] is None  # no clouds drift
    assert found["motions"]["sun sets"] == [1, 1]
    assert found["motions"]["trees sway"] == [0, 0]


def test_flicker_is_taken_where_clouds_drift_and_nothing_falls(asked):
    drift = dataclasses.replace(asked[0], named={"sky": 0}, motion="clouds drift left")
    dry = still(weather="cloudy")._replace(flicker=0.25)
    wet = still(weather="rain")._replace(flicker=0.75)
    assert films.report([drift, drift], [dry, wet])["flicker"] == 0.25


def test_a_model_without_motion_modules_is_named(monkeypatch, capsys, tmp_path):
    output = str(tmp_path / "films.json")
    monkeypatch.setattr("sys.argv", ["films", "--model", "garden64", "--output", output])
    with pytest.raises(SystemExit):
        films.main()
    assert "garden64 has no motion modules" in capsys.readouterr().err


def test_the_command_writes_what_it_prints(monkeypatch, capsys, tmp_path, asked):
    found = {"en": films.report(asked[:1], [still()])}
    monkeypatch.setattr(films, "load", lambda _: type("Artist", (), {"motion": 1})())
    monkeypatch.setattr(films, "evaluate", lambda *_: found)
    output = tmp_path / "deep" / "films.json"
    monkeypatch.setattr("sys.argv", ["films", "--output", str(output)])
    assert films.main() == 0
    assert json.loads(output.read_text("utf-8")) == json.loads(json.dumps(found))
    shown = capsys.readouterr().out
    assert shown.strip() == films.page(found)
    [row] = [line for line in shown.splitlines() if line.startswith("| en |")]
    assert row.startswith("| en | 1 | ")
    assert "| sun sets |" in shown
    [section, _, *tables] = page._films({"films": found})
    assert section == "## Films"
    assert "\n\n".join(tables) == films.page(found)
    assert page._films({}) == []


def test_what_was_seen_is_kept_and_not_painted_again(monkeypatch, tmp_path, asked):
    monkeypatch.setattr(films, "KEPT", 2)
    monkeypatch.setattr(films, "look", lambda film, _: film)
    painted = []

    def paint(question, seed):
        if seed == stops:
            raise KeyboardInterrupt
        painted.append(seed)
        return still()._replace(drift=0.5 * seed, view=View(0.1, 1.05))

    five, stops = [asked[0]] * 5, 4
    with pytest.raises(KeyboardInterrupt):
        films.answered(five, paint, None, "films", tmp_path)
    stops = None
    found = films.answered(five, paint, None, "films", tmp_path)
    assert painted == [0, 1, 2, 3, 4]
    assert [one.drift for one in found] == [0, 0.5, 1, 1.5, 2]
    np.testing.assert_array_equal(found[0].values["sky"], found[4].values["sky"])
    assert found[0].view == View(0.1, 1.05)
    films.answered(five, paint, None, "others", tmp_path)
    assert painted[5:] == [0, 1, 2, 3, 4]
    [first, *_] = sorted(tmp_path.glob("*.json"))
    first.write_text("{}")
    films.answered(five, paint, None, "films", tmp_path)
    films.answered(five, paint, None, "others", tmp_path)
    assert 10 < len(painted) <= 12  # what is damaged is painted again


def test_every_group_is_judged_and_nothing_is_left_of_the_work(monkeypatch, tmp_path):
    for name in ("painter", "drawer"):
        monkeypatch.setattr(films, name, lambda _: lambda question, seed: still())
    monkeypatch.setattr(films, "look", lambda film, _: film)
    monkeypatch.setattr(films, "_mark", lambda *_: "mark")
    found = films.evaluate(None, None, 2, 0, tmp_path / "deep" / "unfinished")
    groups = ("en", "tr", "held out", "words change")
    assert [*found] == [
        name + more for name in groups for more in ("", ", drawn", ", captions shuffled")
    ]
    assert found["en"]["films"] == 2
    assert found["held out"]["films"] == 4
    assert not [*(tmp_path / "deep").iterdir()]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--captions", "1", "--output", "films.json"], "captions is 1; ask for 2 or more"),
        (["--output", "/dev/null/films.json"], "output folder /dev/null cannot be written"),
    ],
)
def test_mistakes_at_the_command_line_are_named(monkeypatch, capsys, options, says):
    monkeypatch.setattr("sys.argv", ["films", *options])
    with pytest.raises(SystemExit):
        films.main()
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_drawn_is_what_is_said(tmp_path):
    """A clip of each motion, drawn: the judge sees it happen, and nothing else is right for all."""
    import jax

    from diffusion.datasets.garden import render_clips
    from diffusion.images import to_uint8

    trained = judge.load(None)
    draw = jax.jit(lambda clip: render_clips(clip, films.LENGTH, 128)[0])
    asked = {question.motion: question for question in films.questions(150, "en", seed=5)}
    assert len(asked) == len(MOTIONS) + 1
    seen = {name: films.look(to_uint8(draw(one.clip)), trained) for name, one in asked.items()}
    right = [films.happens(one, name) if name else films.stands_still(one)
             for name, one in seen.items()]  # fmt: skip
    assert sum(right) >= len(right) - 1
    wrong = [films.happens(one, other) for name, one in seen.items()
             for other in MOTIONS if name and other != name]  # fmt: skip
    assert np.mean(wrong) < 0.1


@pytest.mark.parametrize(("motion", "right"), [("sun sets", 1.0), ("rain begins", 0.5)])
def test_the_sun_may_go_where_the_hour_changes(motion, right):
    named = {"house": 0, "light": ATTRIBUTES["light"].index("right")}
    question = films.FilmQuestion("a house, sun on the right", named, motion, clip=None)
    report = films.report([question], [still(light="left")])
    assert report["named, right in all frames"] == right
