import jax.numpy as jnp
import numpy as np

from diffusion.images import sheet, to_uint8


def test_to_uint8_rounds_and_clips():
    values = np.array([-5.0, -1.0, -0.999, -0.001, 0.25, 1.0, 5.0], np.float32)
    levels = to_uint8(np.broadcast_to(values[:, None, None], (7, 2, 3)))
    assert levels.dtype == np.uint8
    assert levels.shape == (7, 2, 3)
    assert levels[:, 0, 0].tolist() == [0, 0, 0, 127, 159, 255, 255]


def test_every_level_survives_the_way_to_floats_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = levels.astype(np.float32) / 127.5 - 1.0
    np.testing.assert_array_equal(to_uint8(images), levels)
    np.testing.assert_array_equal(to_uint8(jnp.asarray(images)), levels)


def test_sheet_goes_row_by_row_on_white():
    pictures = np.stack([np.full((2, 3, 1), level, np.uint8) for level in (10, 20, 30)])
    page = sheet(pictures, columns=2)
    expected = np.array([[10, 10, 10, 20, 20, 20]] * 2 + [[30, 30, 30, 255, 255, 255]] * 2)
    np.testing.assert_array_equal(page[..., 0], expected)


def test_sheet_leaves_a_gap_around_each_picture():
    pictures = np.stack([np.full((1, 2, 3), level, np.uint8) for level in (10, 20)])
    page = sheet(pictures, columns=2, gap=1)
    w = 255
    expected = np.array([[w] * 7, [w, 10, 10, w, 20, 20, w], [w] * 7])
    assert page.shape == (3, 7, 3)
    np.testing.assert_array_equal(page, np.repeat(expected[..., None], 3, axis=-1))
