"""Frames look at each other, and at nothing else; a film that has learnt nothing is pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import UNetConfig
from diffusion.motion_config import MotionConfig, motion_for
from diffusion.stages.motion import (
    MotionAdapter,
    MotionModule,
    frame_positions,
    to_maps,
    to_sequences,
)
from diffusion.stages.moving import MovingDenoiser, shares, windows
from diffusion.stages.unet import UNet

FRAMES, FILMS = 3, 2
UNET = UNetConfig(
    block_out_channels=(4, 8), layers_per_block=1, attention=(True, False), heads=(2, 2),
    context_width=8, norm_groups=2,
)  # fmt: skip
CONFIG = motion_for(UNET)


@pytest.fixture(scope="module")
def unet(build):
    return build(lambda: UNet(UNET, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def adapter(build):
    return build(lambda: MotionAdapter(CONFIG, rngs=nnx.Rngs(0)), seed=1)


@pytest.fixture(scope="module")
def module(build):
    return build(lambda: MotionModule(8, 2, 2, 4, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def film():
    keys = jax.random.split(jax.random.key(0), 2)
    x_t = jax.random.normal(keys[0], (FILMS * FRAMES, 4, 4, 4))
    t = jnp.repeat(jnp.array([10, 700]), FRAMES)
    context = jax.random.normal(keys[1], (FILMS * FRAMES, 5, 8))
    return x_t, t, context


def run(module, *inputs):
    return jax.jit(lambda *given: module(*given))(*inputs)


def maps(key=0):
    return jax.random.normal(jax.random.key(key), (FILMS * FRAMES, 2, 3, 8))


def test_places_in_time():
    table = np.asarray(frame_positions(5, 6))
    np.testing.assert_allclose(table[:, 0], np.sin(np.arange(5)), atol=1e-6)
    np.testing.assert_allclose(table[:, 1], np.cos(np.arange(5)), atol=1e-6)
    np.testing.assert_allclose(table[:, 4], np.sin(np.arange(5) * 10_000 ** (-4 / 6)), atol=1e-6)


def test_sequences_are_the_frames_of_a_position():
    x = maps()
    sequences = to_sequences(x, FRAMES)
    assert sequences.shape == (FILMS * 2 * 3, FRAMES, 8)
    np.testing.assert_array_equal(sequences[6 + 3 + 2], x[FRAMES:, 1, 2])  # of the second film
    np.testing.assert_array_equal(to_maps(sequences, 2, 3), x)


def test_a_fresh_module_changes_nothing():
    fresh = MotionModule(8, 2, 2, 4, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(fresh(maps(), FRAMES), maps())


def test_films_are_apart_and_frames_are_not(module):
    x = maps()
    whole = module(x, FRAMES)
    np.testing.assert_allclose(whole[FRAMES:], module(x[FRAMES:], FRAMES), atol=1e-5)
    turned = x.reshape(FILMS, FRAMES, *x.shape[1:])[:, ::-1].reshape(x.shape)
    back = module(turned, FRAMES).reshape(FILMS, FRAMES, *x.shape[1:])[:, ::-1]
    assert np.abs(back.reshape(x.shape) - whole).max() > 1e-2  # a frame knows its number


def test_a_position_hears_of_itself_but_for_the_norm(module):
    def heard(x):
        return (module(x, FRAMES) - x)[0, 0, 0].sum()

    gradient = np.abs(jax.grad(heard)(maps())).max(axis=-1)
    assert (gradient[:FRAMES, 0, 0] > 1e-3).all()
    assert (gradient[FRAMES:] == 0).all()
    assert gradient[:FRAMES, 0, 0].min() > gradient[:FRAMES, 1, 1].max()


def test_all_frames_have_one_norm(module):
    """Whoever normalises each frame for itself does not see that one is brighter."""
    x = maps()
    brighter = x.at[1].add(3.0)
    change = (module(brighter, FRAMES) - brighter) - (module(x, FRAMES) - x)
    assert np.abs(change[0]).max() > 1e-2


def test_one_frame_is_a_film_and_too_many_are_named(module):
    assert module(maps(), 1).shape == maps().shape
    with pytest.raises(ValueError, match="6 frames at once; these motion modules have learnt 4"):
        module(maps(), 6)


def test_an_untrained_film_is_single_pictures(unet, film):
    fresh = MotionAdapter(CONFIG, rngs=nnx.Rngs(0))
    moving = MovingDenoiser(unet, fresh, CONFIG.length, FRAMES)
    np.testing.assert_allclose(run(moving, *film), run(unet, *film), atol=1e-5)


@pytest.mark.parametrize("middle", [True, False])
def test_every_module_is_heard_from(unet, film, build, middle):
    config = MotionConfig((4, 8), 1, (1, 2), 2, length=4, middle=middle)
    adapter = build(lambda: MotionAdapter(config, rngs=nnx.Rngs(0)), seed=1)
    structure, state = nnx.split(adapter)
    assert (adapter.middle is not None) == middle
    assert [len(level) for level in adapter.down] == [1, 1]
    assert [len(level) for level in adapter.up] == [2, 2]

    @jax.jit
    @jax.grad
    def gradient(state):
        moving = MovingDenoiser(unet, nnx.merge(structure, state), 4, FRAMES)
        return jnp.sum(moving(*film) * film[0])

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(state)):
        assert np.abs(leaf).max() > 0, path


def test_skips_are_taken_after_the_modules(unet, adapter, film):
    # The coarsest level listens to no words, and moves.
    assert unet.down.blocks[1].transformers[0] is None

    @jax.jit
    def compared(x_t, t, context):
        time = unet.time_embedding(t)
        h, skips = unet.down(x_t, time, context, adapter.over(FRAMES))
        plain = unet.down.blocks[0].residuals[0](unet.down.conv_in(x_t), time)
        plain = unet.down.blocks[0].transformers[0](plain, context)
        before = unet.down.blocks[1].residuals[0](skips[2], time)
        moved = adapter.down[0][0](plain, FRAMES), adapter.down[1][0](before, FRAMES)
        return (skips[1], h), moved

    found, expected = compared(*film)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(("frames", "length"), [(8, 16), (16, 16), (17, 16), (24, 16), (64, 24)])
def test_windows_see_every_frame(frames, length, loop):
    seen = windows(frames, length, loop)
    assert seen.shape[1] == min(frames, length)
    assert set(seen.ravel()) == set(range(frames))
    assert (np.diff(seen, axis=1) % frames == 1).all()
    if not loop:
        assert (np.diff(seen, axis=1) == 1).all()
        assert (len(seen) == 1) == (frames <= length)
    else:  # some window has the last frame and then the first, well inside
        at = [row.tolist().index(0) for row in seen if 0 in row[1:]]
        assert max(at) >= min(frames, length) // 2
    total = np.zeros(frames)
    np.add.at(total, seen, shares(seen, frames))
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def test_windows_of_what_has_learnt_nothing_are_single_pictures(unet):
    fresh = MotionAdapter(CONFIG, rngs=nnx.Rngs(0))
    x_t = jax.random.normal(jax.random.key(1), (5, 4, 4, 4))
    t, context = jnp.full(5, 300), jnp.ones((5, 5, 8))
    for loop in (False, True):
        moving = MovingDenoiser(unet, fresh, 2, frames=5, loop=loop)
        said = run(moving, x_t, t, context)
        np.testing.assert_allclose(said, run(unet, x_t, t, context), atol=1e-5)


def test_a_loop_has_no_beginning(unet, adapter):
    """Turned by the stride of its windows, a loop is the same film."""
    moving = MovingDenoiser(unet, adapter, 4, frames=4, loop=True)
    x_t = jax.random.normal(jax.random.key(1), (4, 4, 4, 4))
    t, context = jnp.full(4, 300), jnp.ones((4, 5, 8))
    said, turned = (run(moving, x, t, context) for x in (x_t, jnp.roll(x_t, 2, axis=0)))
    np.testing.assert_allclose(jnp.roll(said, 2, axis=0), turned, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": (8,)}, "heads needs one entry a level: 4"),
        ({"length": 0}, "length is 0; give whole numbers from 1 on"),
        ({"common_noise": 1.0}, "common_noise is 1.0; give 0 to less than 1"),
        ({"beta_rule": "cosine"}, "beta_rule is 'cosine'; choose one of scaled_linear, linear"),
    ],
)
def test_configurations_that_make_no_sense_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        MotionConfig(**change)
