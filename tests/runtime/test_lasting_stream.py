"""Messages that nobody can read stop nothing."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from diffusion import cli
from diffusion.runtime.lasting_stream import Lasting


class Full(io.StringIO):
    """A log on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


class Gone(Full):
    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Full(), Gone(), closed(), None])
def test_a_stream_that_fails_is_dropped(stream):
    lasting = Lasting(stream)
    assert lasting.write("painting") == 8
    lasting.flush()
    print("again", file=lasting, flush=True)
    assert not lasting.isatty()
    with pytest.raises(io.UnsupportedOperation):
        lasting.fileno()


def test_a_stream_that_works_is_used():
    stream = io.StringIO()
    print("wrote it", file=Lasting(stream), flush=True)
    assert stream.getvalue() == "wrote it\n"
    assert Lasting(sys.__stderr__).encoding


@pytest.mark.parametrize("stream", [Full(), None], ids=["full", "closed"])
def test_a_picture_is_not_lost_with_its_messages(tmp_path, tiny_folder, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    output = tmp_path / "picture.png"
    arguments = [
        "a red house",
        "--model",
        tiny_folder,
        "--steps",
        2,
        "--count",
        1,
        "--output",
        output,
    ]
    assert cli.main(["paint", *map(str, arguments)]) == 0
    assert np.asarray(Image.open(output)).std() > 0
