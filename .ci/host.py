"""A course's host: the installed package paints, is looked into, trains and teaches.

`make wheel` runs it, in an environment that has the wheel and the oldest JAX and Flax; with
`ARGS="8 9 12"` it executes the notebooks of these lessons, too.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import diffusion
from diffusion.course import __main__ as course
from diffusion.course.lesson import Lesson
from diffusion.inspection.trace import trace

COMMAND = (sys.executable, "-m", "diffusion")


def main() -> None:
    assert "site-packages" in diffusion.__file__, f"this is no wheel: {diffusion.__file__}"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        subprocess.run((*COMMAND, "paint", "a red house"), cwd=place, check=True)
        assert (place / "picture.png").stat().st_size > 5000
        # The smallest model: the loop is the same, and a U-Net's gradients compile for minutes.
        small = ("--output", "trained", "--set", "steps=2", "batch_size=2")
        subprocess.run((*COMMAND, "train", "autoencoder", *small), cwd=place, check=True)
        assert list((place / "trained").rglob("*.safetensors"))

        run = trace(diffusion.load(), "a red house", steps=2)
        assert run.activations(1).tensors["bottleneck"].ndim == 4
        lesson = Lesson(10)
        solved = lesson.check("guide", lambda u, c, scale: u + scale * (c - u))
        assert "right" in str(solved), solved
        assert "not right" in str(lesson.check("guide", lambda u, c, scale: c)), "too kind"

        course.copy(place / "course")
        for path in sorted((place / "course/solved").glob("*.ipynb")):
            if path.name[:2].lstrip("0") in sys.argv[1:]:
                NotebookClient(nbformat.read(path, 4), timeout=600, cwd=path.parent).execute()
                print(f"{path.name} executed")


if __name__ == "__main__":
    main()
