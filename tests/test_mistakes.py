"""Mistakes at the command line: each is refused with a word, and leaves nothing behind."""

import pytest

from diffusion import cli
from tests import mistakes

pytestmark = pytest.mark.filterwarnings("default::diffusion.text.tokenizer.PromptCutWarning")


@pytest.mark.slow
def test_fifty_mistakes():
    assert mistakes.run(50, seed=0) == []


@pytest.mark.parametrize("word", ["--hosts=--", "--output=--", "--set=--"])
def test_two_dashes_are_no_value(word, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "unet", word])
    assert end.value.code == 2
    assert f"argument {word[:-3]}: expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "said", "made", "found"),
    [
        (1, "", [], "said nothing"),
        (1, "Traceback", [], "said 'Traceback'"),
        (3, "no", [], "exit code 3"),
        (2, "no", ["run"], "left something behind"),
        (1, "no", [], ""),
        (0, "", ["picture.png"], ""),
    ],
)
def test_what_goes_wrong_is_found(code, said, made, found, monkeypatch, tmp_path):
    def main(arguments):
        for name in made:
            (tmp_path / name).mkdir()
        mistakes.sys.stderr.write(said)
        return code

    monkeypatch.setattr(mistakes.cli, "main", main)
    assert mistakes.refused(["paint"], tmp_path) == (code != 0, found)


def test_a_case_is_always_the_same_and_knows_every_option(tmp_path):
    assert mistakes.case(7, 1, tmp_path) == mistakes.case(7, 1, tmp_path)
    every = {word for i in range(4000) for word in mistakes.case(i, 0, tmp_path)}
    for command in ("paint", "film", "train", "evaluate"):
        for option in mistakes.options_of(command):
            name = option.option_strings[0]
            assert any(word.split("=")[0] == name for word in every)
