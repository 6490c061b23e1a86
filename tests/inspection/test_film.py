"""An animation that begins with the finished pictures, and shows every glance."""

import numpy as np
from PIL import Image

from diffusion.inspection.figures.film import PACE, REST, glances, save

PROMPTS = ["a red house", "iki çam", "a house at night"]


def test_every_glance_of_every_painting(artist, tmp_path):
    frames = glances(artist, PROMPTS, steps=2, columns=2)
    assert frames.shape == (3, 2 * 18 + 2, 2 * 18 + 2, 3)
    steps = list(artist.sample(PROMPTS[1], seed=1, steps=2))
    for frame, latents in zip(frames, [steps[0].x_t, steps[1].x_t, steps[1].x_next], strict=True):
        np.testing.assert_array_equal(frame[2:18, 20:36], artist.decode(latents)[0])
    assert (frames[:, 20:36, 20:36] == 255).all()  # no fourth painting

    save(tmp_path / "film.webp", frames, zoom=2)
    with Image.open(tmp_path / "film.webp") as film:
        assert (film.size, film.n_frames) == ((76, 76), 3)
        first = np.asarray(film.convert("RGB")).astype(int)
        # It is a lossy format: near enough to know which frame it is.
        large = frames.repeat(2, axis=1).repeat(2, axis=2).astype(int)
        apart = [np.abs(first - frame).mean() for frame in large]
        assert int(np.argmin(apart)) == 2
        durations = []
        for i in range(3):
            film.seek(i)
            film.load()
            durations.append(film.info["duration"])
    assert durations == [REST, PACE, PACE]
