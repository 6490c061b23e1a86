"""Samplers, spacings and steps beside each other: what is painted and kept."""

import numpy as np
import pytest
from flax import nnx

from diffusion.config import SamplingConfig
from diffusion.evaluation import few_steps
from diffusion.evaluation import judge as judges
from diffusion.evaluation.judge import Judge, TrainedJudge
from diffusion.runtime.parameters import split
from diffusion.weights.places import read_json

# The small tokenizer of the tests has no room for long captions.
pytestmark = pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")


@pytest.fixture
def command(artist, monkeypatch, tmp_path):
    """With a judge that knows nothing, and drawings of one colour."""
    monkeypatch.setattr(judges, "WIDTHS", (8, 8))
    monkeypatch.setattr(judges, "SIZE", 16)
    judge = TrainedJudge(split(Judge(rngs=nnx.Rngs(0)))[1])
    monkeypatch.setattr(judges, "load", lambda folder: judge)
    monkeypatch.setattr(few_steps, "load", lambda name: artist)
    grey = lambda scenes, size: np.full((len(scenes.house), 16, 16, 3), 128, np.uint8)  # noqa: E731
    monkeypatch.setattr(few_steps, "drawn", grey)
    cases = [SamplingConfig("euler", steps, "trailing") for steps in (1, 2)]
    monkeypatch.setattr(few_steps, "CASES", cases)
    return ["--captions", "2", "--output", str(tmp_path / "marks.json")]


def test_each_case_has_a_row_and_is_painted_once(command, capsys, monkeypatch):
    assert few_steps.main(command) == 0
    rows = capsys.readouterr().out
    assert rows.count("| euler, 1, trailing |") == rows.count("| euler, 2, trailing |") == 1
    kept = read_json(few_steps.Path(command[-1]))["marks"]
    assert all(0.0 <= row["all at once"] <= row["right"] <= 1.0 for row in kept.values())
    monkeypatch.setattr(few_steps, "measure", None)
    assert few_steps.main(command) == 0
    assert capsys.readouterr().out == rows


def test_a_model_that_paints_as_it_does_by_itself(command, artist, capsys):
    own = artist.config.sampling
    assert few_steps.main([*command, "--own"]) == 0
    assert f"| {own.sampler}, {own.steps}, {own.spacing} |" in capsys.readouterr().out


def test_marks_of_other_captions_are_not_taken_for_these(command, capsys):
    assert few_steps.main(command) == 0
    with pytest.raises(SystemExit):
        few_steps.main([*command, "--seed", "1"])
    assert "of another model, or of other captions" in capsys.readouterr().err
