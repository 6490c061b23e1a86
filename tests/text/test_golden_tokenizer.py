"""The numbers that `transformers` gave a text, recorded by `parity.tokenizer.write_golden`."""

import json

import numpy as np
import pytest

from diffusion.weights.folder import shipped
from parity import tokenizer

RECORD = json.loads((shipped("golden") / tokenizer.GOLDEN).read_text("utf-8"))
MODEL = RECORD["tokenizer.json"]["model"]


@pytest.fixture
def one_file(tmp_path):
    """The folder that `transformers` 5 wrote: tokenizer.json and tokenizer_config.json."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(RECORD[name]), encoding="utf-8")
    return tmp_path


def assert_recorded(folder, layout):
    for ours, recorded in zip(
        tokenizer.ours(folder, RECORD["texts"]), RECORD["ids"][layout], strict=True
    ):
        np.testing.assert_array_equal(ours, recorded)


@pytest.mark.parametrize("layout", tokenizer.LAYOUTS)
def test_numbers_are_those_of_transformers(tmp_path, layout):
    folder = tokenizer.write_folder(tmp_path / "t", MODEL["vocab"], MODEL["merges"], layout)
    assert_recorded(folder, layout)


def test_one_file_is_read_like_the_folder_that_it_was_made_of(one_file):
    assert_recorded(one_file, list(tokenizer.LAYOUTS)[-1])


def test_the_layouts_differ_in_these_texts():
    whole = [tuple(numbers) for _, numbers in RECORD["ids"].values()]
    assert len(set(whole)) == len(tokenizer.LAYOUTS)
