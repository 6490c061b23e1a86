"""Films side by side, there and back."""

import numpy as np
from PIL import Image

from diffusion.inspection.figures.films import PACE, save, side_by_side
from tests.inspection.conftest import FRAMES

STORIES = ("a red house, night falls", "iki çam")


def test_a_film_for_each_story(filmer, tmp_path):
    frames = side_by_side(filmer, STORIES, frames=FRAMES, steps=1)
    assert frames.shape == (2 * FRAMES - 2, 16 + 2 * 2, 2 * 18 + 2, 3)
    second = filmer.film("iki çam", seed=1, frames=FRAMES, steps=1)
    np.testing.assert_array_equal(frames[:FRAMES, 2:18, 20:36], second)
    np.testing.assert_array_equal(frames[FRAMES:], frames[FRAMES - 2 : 0 : -1])

    save(tmp_path / "films.webp", frames, zoom=2)
    with Image.open(tmp_path / "films.webp") as film:
        assert film.size == (76, 40)
        film.load()
        assert film.info["duration"] == PACE
        assert film.info["loop"] == 0
