"""The figures of codes show the codes that there are, drawn by tiny models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import DVAEConfig, SamplingConfig
from diffusion.config_codes import MaskedTransformerConfig, MaskingConfig
from diffusion.inspection.figures import codes
from diffusion.inspection.figures.style import alike, amount
from diffusion.inspection.trace import trace
from diffusion.loading import load

PROMPT = "a red house with two old trees"
CODES, MASK = 16, 17
AUTOENCODER = DVAEConfig(
    latent_channels=4, codes=CODES, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2,
    scaling_factor=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def artist(tiny, write_model, tmp_path_factory):
    """The tiny U-Net, which paints for codes."""
    config = dataclasses.replace(tiny, name="eye", autoencoder=AUTOENCODER)
    return load(write_model(tmp_path_factory.mktemp("models") / "eye", config))


@pytest.fixture(scope="module")
def run(tiny, write_model, tmp_path_factory):
    config = dataclasses.replace(
        tiny,
        name="painter",
        autoencoder=AUTOENCODER,
        denoiser=MaskedTransformerConfig(
            codes=CODES, vocabulary=18, channels=8, blocks=1, block_heads=2, width=12, layers=1,
            heads=2, mlp_width=8, context_width=8, size_code=4,
        ),
        process=MaskingConfig(mask=MASK),
        sampling=SamplingConfig("maskgit", 4),
    )  # fmt: skip
    painter = load(write_model(tmp_path_factory.mktemp("models") / "painter", config))
    return trace(painter, PROMPT, seed=1)


def close(one, other):
    """The same picture; programs for more or fewer pictures round differently."""
    np.testing.assert_allclose(one.astype(float), other, atol=1)


def shown(figure):
    return [image.get_array() for axis in figure.axes for image in axis.images]


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


def test_the_nearest_codes_are_in_the_latents_unit(artist, pictures):
    latents = artist.encode(pictures)
    book = np.asarray(artist.autoencoder.module.codebook.codes)
    distance = np.square(2 * np.asarray(latents)[..., None, :] - book).sum(-1)
    expected = 0.5 * book[distance.argmin(-1)]
    np.testing.assert_allclose(codes.nearest(artist, latents), expected, atol=1e-6)


def test_a_picture_goes_there_and_back(artist, pictures):
    drawn = shown(codes.there_and_back(artist, pictures))
    latents = artist.encode(pictures)
    maps = alike([*np.asarray(latents), *np.asarray(codes.nearest(artist, latents))])
    expected = [*pictures, *maps, *artist.decode(latents)]
    for found, one in zip(drawn, expected, strict=False):
        np.testing.assert_array_equal(found, one)
    assert len(drawn) == 10


def test_cold_mixtures_lie_in_the_corners():
    hot, cold = codes.simplex(np.float32([1, 0, -1]), (2.0, 1 / 64)).axes
    assert int(hot.get_xlabel().split("%")[0]) < 30 < 90 < int(cold.get_xlabel().split("%")[0])
    dots = np.asarray(cold.collections[0].get_offsets())
    apart = np.linalg.norm(dots[:, None] - codes.CORNERS, axis=-1)
    assert np.median(apart.min(axis=1)) < 1e-3
    nearest = np.bincount(apart.argmin(axis=1)) / len(dots)
    np.testing.assert_allclose(nearest, jax.nn.softmax(np.float32([1, 0, -1])), atol=0.06)


def test_codes_lie_in_the_plane_as_their_tiles():
    rng = np.random.default_rng(0)
    latents, places = rng.standard_normal((9, 2)), rng.standard_normal((3, 2))
    tiles = rng.integers(0, 256, (3, 2, 2, 3), np.uint8)
    axis = codes.planes({"first": (latents, places, tiles)}).axes[0]
    assert axis.get_title() == "first"
    np.testing.assert_array_equal(axis.collections[0].get_offsets(), latents)
    for image, tile, (x, y) in zip(axis.images, tiles, places, strict=True):
        np.testing.assert_array_equal(image.get_array(), tile)
        left, right, bottom, top = image.get_extent()
        np.testing.assert_allclose([(left + right) / 2, (bottom + top) / 2], [x, y])
        assert axis.get_xlim()[0] < left < right < axis.get_xlim()[1]


def test_use_is_sorted_and_dead_codes_are_told():
    axis = codes.usage({"mine": np.array([0, 3, 1, 0, 4])}).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [50, 37.5, 12.5])
    assert axis.lines[0].get_label() == "mine: 3 of 5 used, perplexity 3"


def test_codes_alone_and_exchanged(artist, run):
    page = shown(codes.alone(artist, [3, 5, 7], columns=2))[0]
    assert page.shape == (44, 44, 3)
    everywhere = artist.decode(jnp.full((1, 8, 8, 1), 5))[0]
    close(page[4:20, 24:40], everywhere)

    finished = run.steps[-1].x_next
    figure = codes.exchanged(run.artist, finished, 2, 6, [0, 9])
    drawn = shown(figure)
    close(drawn[0], run.pictures[0])
    other = run.artist.decode(finished.at[:, 2, 6].set(9))[0]
    close(drawn[2], other)
    apart = np.abs(other.astype(float) - run.pictures[0]).mean(axis=-1) / 255
    np.testing.assert_allclose(drawn[5], amount(np.minimum(3 * apart, 1)), atol=0.03)
    assert figure.axes[2].get_title() == "code 9"
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata()[:2], [11.5, 13.5])


def test_the_last_glance_has_settled(artist):
    run = trace(artist, PROMPT, seed=1, steps=3)
    figure = codes.settling(run, moments=2)
    first, last, *maps = shown(figure)
    np.testing.assert_array_equal(first, artist.decode(run.steps[0].x0)[0])
    np.testing.assert_array_equal(last, artist.decode(run.steps[2].x0)[0])
    assert figure.axes[1].get_title().endswith("100% settled")
    ends, begins = (np.asarray(codes.nearest(artist, run.steps[i].x0)) for i in (2, 0))
    same = (begins == ends).all(axis=-1)[0]
    np.testing.assert_array_equal(maps[0], amount(0.8 * same))
    assert f"{same.mean():.0%} settled" in figure.axes[0].get_title()


def test_filling_shows_what_is_laid_drawn_and_how_sure(run):
    figure = codes.filling(run, moments=2)
    drawn = shown(figure)
    assert (drawn[0] == codes.OPEN).all()  # everything is masked at first
    step = run.steps[3]
    open_ = np.asarray(step.x_t[0, ..., 0]) == MASK
    wide = open_.repeat(2, axis=0).repeat(2, axis=1)
    assert (drawn[1][wide] == codes.OPEN).all()
    np.testing.assert_array_equal(drawn[1][~wide], run.artist.decode(step.x_t)[0][~wide])
    np.testing.assert_array_equal(drawn[3], run.artist.decode(step.x0)[0])
    shares = np.asarray(jax.nn.softmax(step.prediction[0], axis=-1))
    row, column = np.argwhere(open_)[0]
    of_drawn = shares[row, column, int(step.x0[0, row, column, 0])]
    np.testing.assert_allclose(drawn[5][row, column], amount(of_drawn[None])[0], atol=0.01)
    assert figure.axes[1].get_title() == f"step 4\n{open_.sum()} open"


def test_order_is_the_step_in_which_a_place_was_laid(run):
    picture, when = shown(codes.order(run))[:2]
    np.testing.assert_array_equal(picture, run.pictures[0])
    for number, step in enumerate(run.steps, start=1):
        laid_now = (np.asarray(step.x_t) == MASK) & (np.asarray(step.x_next) != MASK)
        assert (when[laid_now[0, ..., 0]] == number).all()
    assert when.min() == 1
    assert when.max() == 4


def test_a_painter_without_masks_is_named(artist):
    run = trace(artist, PROMPT, steps=1)
    for figure in (codes.filling, codes.order):
        with pytest.raises(ValueError, match="VariancePreserving has no masks; take a painter of"):
            figure(run)
