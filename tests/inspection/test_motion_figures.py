"""Figures of films show the frames and the weights of the run."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageSequence

from diffusion.inspection.figures import motion
from diffusion.inspection.figures.animation import GAP, LINE, side_by_side
from diffusion.inspection.film_trace import looks, modules, trace_film


@pytest.fixture(scope="module")
def run(filmer):
    return trace_film(filmer, "a red house", frames=8, steps=2)


@pytest.fixture(scope="module")
def films():
    draw = np.random.default_rng(0)
    return {name: draw.integers(0, 256, (8, 16, 16, 3), np.uint8) for name in ("one", "other")}


def shown(figure):
    return [image.get_array() for axis in figure.axes for image in axis.images]


def holds(figure, picture):
    return any(np.array_equal(one, picture) for one in shown(figure))


def test_strips_and_slices(films):
    figure = motion.strips(films, shown=3)
    assert len(shown(figure)) == 6
    assert holds(figure, films["other"][7])
    figure = motion.slices(films, row=0.3)
    assert holds(figure, films["one"][:, 4])
    assert [axis.get_title() for axis in figure.axes[:2]] == ["one", "other"]


def test_changes_are_those_of_neighbours(films):
    still = np.repeat(films["one"][:1], 4, axis=0)
    assert motion.changes(still) == 0.0
    still[2] = 255 - still[2]
    expected = 2 / 3 * np.abs(still[2].astype(int) - still[1]).mean()
    assert motion.changes(still) == pytest.approx(expected)


def test_canvases_and_beliefs_are_strips(run):
    figure = motion.over_time(run, moments=2, shown=2)
    assert len(shown(figure)) == 8
    for latents in (run.steps[0].x_t, run.steps[1].x0):
        assert holds(figure, run.artist.decode(latents)[7])


def test_who_looks_at_which(run):
    figure = motion.who_looks(run, 1)
    assert len(shown(figure)) == 2 * len(modules(run))
    assert holds(figure, np.asarray(looks(run, 1, "middle", 2).mean(axis=(0, 1, 2))))
    figure = motion.places_look(run, 1, "down.0.0", {"sky": (0.0, 0.99), "wall": (0.5, 0.5)})
    assert holds(figure, looks(run, 1, "down.0.0")[0, 7, 1])
    assert holds(figure, looks(run, 1, "down.0.0")[4, 4, 0])


def test_films_on_a_ring():
    angles = np.linspace(0, 6, 20)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    figure = motion.on_ring({"walk": ring.reshape(2, 10, 2)}, ring)
    lines = [line.get_xydata() for line in figure.axes[0].lines]
    assert any(np.allclose(line, ring[10:]) for line in lines if len(line) == 10)


def frames_of(png):
    return [np.asarray(one.convert("RGB")) for one in ImageSequence.Iterator(Image.open(png))]


def test_films_play_side_by_side(films):
    animation = side_by_side(films)
    png, told = animation._repr_png_()
    assert told == {"width": animation.width}
    found = np.stack(frames_of(BytesIO(png)))
    assert found.shape == (8, LINE + 16, 32 + GAP, 3)
    np.testing.assert_array_equal(found[:, LINE:, :16], films["one"])
    np.testing.assert_array_equal(found[:, LINE:, 16 + GAP :], films["other"])
    assert (found[:, :LINE] == found[:1, :LINE]).all()
    assert found[0, :LINE].min() < 150  # the names
    small = side_by_side({"one": films["one"]}, side=8).frames
    corner = films["one"][3, :2, :2].mean(axis=(0, 1))
    np.testing.assert_allclose(small[3, LINE, 0], corner, atol=0.5)


def test_films_that_do_not_fit_are_named(films):
    with pytest.raises(ValueError, match="give those of one shape"):
        side_by_side(films | {"short": films["one"][:3]})
    with pytest.raises(ValueError, match="side is 5; give one that divides 16"):
        side_by_side(films, side=5)
