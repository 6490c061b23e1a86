"""Damaged files: every reader reads them or says what is wrong, within seconds."""

import random

import pytest

from tests import fuzzing


@pytest.mark.parametrize("part", range(4))
def test_readers_survive_damaged_files(part):
    assert fuzzing.run(range(part * 500, part * 500 + 500), seed=0) == []


def test_good_files_are_read(tmp_path):
    for kind, reader in fuzzing.readers().items():
        reader.make(tmp_path / kind)
        if kind != "single file":  # of it there is only the head
            reader.read(tmp_path / kind)


def test_a_reader_that_fails_is_found(tmp_path):
    def fails(place):
        raise KeyError("mode")

    every = fuzzing.readers()["again"]
    every.make(tmp_path / "good")
    reader = fuzzing.Reader(every.make, fails)
    told = fuzzing.failure(reader, 0, 0, tmp_path / "good", tmp_path / "damaged")
    assert told == "a.png: KeyError: 'mode'"


def test_damage_is_the_same_each_time():
    content = b'{"a": [1, 2, {"b": "text"}]}' * 3
    once, again = (fuzzing.damaged(content, random.Random(5)) for _ in range(2))
    assert once == again != content
