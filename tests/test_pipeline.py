import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import pipeline
from diffusion.images import from_uint8, to_uint8
from diffusion.loading import load
from diffusion.process import samplers
from diffusion.settings import Settings
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.weights.folder import find

PROMPT = "a red house"


@pytest.fixture
def turns_of_three(monkeypatch):
    """Batches of one and of three are all that these tests compile."""
    monkeypatch.setattr(pipeline, "BATCH", 3)


def finished(artist, prompt=PROMPT, **settings):
    *_, last = artist.sample(prompt, **{"steps": 3, **settings})
    return np.asarray(last.x_next)


def by_hand(artist, prompt, negative, seed, steps, guidance, sampler):
    """The six stages, called one after the other as the lessons do."""
    config = artist.config
    context = artist.text_encoder(jnp.asarray(artist.tokenizer([negative, prompt])))
    keys = picture_keys(seed, jnp.arange(1))
    z = initial_noise(
        keys, (config.latent_size, config.latent_size, config.denoiser.latent_channels)
    )
    memory = jnp.zeros_like(z)
    table = samplers.table(sampler, artist.process, steps)
    for call, t in enumerate(table.timestep):
        time = artist.denoiser.time_embedding(jnp.asarray([t, t]))
        h, skips = artist.denoiser.down(jnp.concatenate([z, z]), time, context)
        h = artist.denoiser.bottleneck(h, time, context)
        unconditional, conditional = artist.denoiser.up(h, skips, time, context)[:, None]
        prediction = samplers.guide(unconditional, conditional, guidance)
        x0 = artist.process.to_x0(prediction, z, jnp.asarray([t]))
        noise = samplers.noise_at(keys, call, z.shape[1:])
        seen = z
        z, memory = samplers.update(table.row(call), z, x0, memory, noise)
        yield t, seen, prediction, x0, z


def test_at_guidance_one_the_denoiser_is_called_once_a_step(artist):
    called = []
    advance = artist._advance

    def watched(x_t, memory, row, call, given, *rest):
        called.append(given[0].shape[0])
        return advance(x_t, memory, row, call, given, *rest)

    artist._advance = watched
    try:
        one = finished(artist, guidance=1.0)
        barely = finished(artist, guidance=1.0 + 1e-6)
    finally:
        artist._advance = advance
    assert called == [1] * 3 + [2] * 3
    np.testing.assert_allclose(one, barely, atol=1e-4)


@pytest.mark.parametrize("sampler", ["dpm++2m", "euler_a", "heun"])
def test_the_stages_by_hand_paint_what_the_artist_paints(artist, sampler):
    settings = {"negative": "a house at night", "seed": 5, "steps": 4, "guidance": 2.5}
    steps = artist.sample(PROMPT, sampler=sampler, **settings)
    expected = by_hand(artist, PROMPT, sampler=sampler, **settings)
    for step, (t, seen, prediction, x0, z) in zip(steps, expected, strict=True):
        assert step.t == t
        np.testing.assert_allclose(step.x_t, seen, atol=1e-5)
        np.testing.assert_allclose(step.prediction, prediction, atol=1e-5)
        np.testing.assert_allclose(step.x0, x0, atol=1e-5)
        np.testing.assert_allclose(step.x_next, z, atol=1e-5)
    picture = artist.paint(PROMPT, sampler=sampler, **settings)
    decoded = artist.autoencoder.decode(z)
    assert picture.shape == (1, 16, 16, 3)
    assert np.abs(picture.astype(int) - to_uint8(decoded)).max() <= 1


def test_steps_keep_the_books(artist):
    steps = list(artist.sample(PROMPT, steps=4, sampler="heun", seed=3))
    assert [step.index for step in steps] == [0, 0, 1, 1, 2, 2, 3]
    table = samplers.table("heun", artist.process, 4)
    assert [step.t for step in steps] == table.timestep.tolist()
    first = initial_noise(picture_keys(3, jnp.arange(1)), (8, 8, 4))
    np.testing.assert_array_equal(steps[0].x_t, first)
    for step, following in itertools.pairwise(steps):
        np.testing.assert_array_equal(step.x_next, following.x_t)
    assert {step.prediction.shape for step in steps} == {(1, 8, 8, 4)}


def test_settings_and_a_prompt_with_settings_are_the_same(artist):
    settings = Settings(PROMPT, seed=3, steps=2)
    for one, other in zip(
        artist.sample(settings), artist.sample(PROMPT, seed=3, steps=2), strict=True
    ):
        np.testing.assert_array_equal(one.x_next, other.x_next)
    np.testing.assert_array_equal(artist.paint(settings), artist.paint(PROMPT, seed=3, steps=2))
    for paint in (artist.paint, artist.sample):
        with pytest.raises(TypeError, match="steps, eta: part of the settings, or beside a prompt"):
            paint(settings, steps=2, eta=0.5)
        with pytest.raises(TypeError, match="colour"):
            paint(PROMPT, colour="red")


def test_a_step_is_painted_when_it_is_asked_for(artist, monkeypatch):
    advance, asked = artist._advance, []

    def counted(*inputs):
        asked.append(int(inputs[3]))
        return advance(*inputs)

    monkeypatch.setattr(artist, "_advance", counted)
    steps = artist.sample(PROMPT, steps=3)
    assert asked == []
    next(steps)
    next(steps)
    assert asked == [0, 1]


def test_one_seed_one_picture_whatever_is_painted_beside_it(artist):
    for sampler in ("dpm++2m", "ddpm"):
        together = finished(artist, count=3, seed=9, sampler=sampler)
        spread = np.abs(together - np.roll(together, 1, axis=0)).max(axis=(1, 2, 3))
        assert spread.min() > 0.1  # they are three different pictures
        for i in (0, 2):
            alone = finished(artist, count=1, first=i, seed=9, sampler=sampler)
            np.testing.assert_allclose(alone[0], together[i], atol=1e-5)


@pytest.mark.slow  # compiles the garden
def test_other_counts_change_the_shipped_garden_by_no_more_than_the_docs_say():
    garden = load("garden")
    together = garden.paint(PROMPT, count=2, seed=3).astype(int)
    alone = [garden.paint(PROMPT, count=1, first=i, seed=3)[0] for i in range(2)]
    apart = np.abs(together - np.stack(alone))
    assert apart.max() <= 1
    assert np.mean(apart > 0) <= 1e-4


def test_a_long_series_is_painted_in_turns(artist, turns_of_three):
    seen = []
    series = artist.paint(PROMPT, count=8, steps=3, on_step=seen.append)
    assert series.shape == (8, 16, 16, 3)
    assert [len(step.x_next) for step in seen] == [3] * 9
    for i in (0, 2, 3, 7):
        alone = artist.decode(jnp.asarray(finished(artist, first=i)))
        assert np.abs(series[i].astype(int) - alone[0]).max() <= 1
    assert len(np.unique(series.reshape(8, -1), axis=0)) == 8


def test_same_seed_same_picture_bit_for_bit(artist):
    paint = [artist.paint(PROMPT, steps=3, seed=seed, sampler="ddpm") for seed in (4, 4, 5)]
    np.testing.assert_array_equal(paint[0], paint[1])
    assert (paint[0] != paint[2]).mean() > 0.5
    edge = artist.paint(PROMPT, steps=1, seed=2**32 - 1)
    assert edge.shape == (1, 16, 16, 3)


def compiled(artist):
    """How many programs there are: of a step, of the noise, and of each network."""
    inside = (program for one in artist.networks for program in one._programs.values())
    programs = [artist._advance, *inside]
    return [artist._begin._cache_size(), *(one.compiled._cache_size() for one in programs)]


def test_nothing_that_a_user_chooses_compiles_again(tiny_folder):
    """But guidance 1, the default of "lcm", which needs one call a step and not two."""
    artist = load(tiny_folder)
    artist.paint(PROMPT, steps=2)
    before = compiled(artist)
    assert min(before) >= 1
    artist.paint("a house at night", negative="two old trees", steps=3, guidance=7, seed=2**32 - 1)
    artist.paint("", steps=1, guidance=0.5)
    artist.paint("", sampler="ddim", steps=2, eta=0.5)
    for sampler in samplers.SAMPLERS:
        artist.paint(PROMPT, sampler=sampler, steps=2, guidance=2)
    assert compiled(artist) == before


def test_every_sampler_paints_something_finite_of_its_own(artist):
    found = {name: finished(artist, steps=6, sampler=name) for name in samplers.SAMPLERS}
    for latents in found.values():
        assert np.isfinite(latents).all()
        assert 0.05 < latents.std() < 20
    for one, other in itertools.combinations(found, 2):
        if {one, other} != {"ddpm", "euler_a"}:  # one table
            assert np.abs(found[one] - found[other]).max() > 1e-3, (one, other)


@pytest.mark.parametrize("sampler", ["dpm++2m", "euler"])
def test_karras_and_odd_sides_paint(artist, sampler):
    settings = {"spacing": "karras", "height": 18, "width": 22, "steps": 3, "sampler": sampler}
    steps = list(artist.sample(PROMPT, **settings))
    assert steps[-1].x_next.shape == (1, 9, 11, 4)
    assert np.isfinite(steps[-1].x_next).all()
    assert (steps[0].t, round(steps[-1].t, 6)) == (999.0, 0.0)
    assert artist.decode(steps[-1].x_next).shape == (1, 18, 22, 3)


def test_guidance(artist):
    """0 hears the negative prompt alone, 1 the prompt alone, None is the model's own."""
    quiet = finished(artist, guidance=0.0)
    np.testing.assert_array_equal(finished(artist, "a house at night", guidance=0.0), quiet)
    one = finished(artist, guidance=1.0)
    np.testing.assert_allclose(finished(artist, negative="trees", guidance=1.0), one, atol=1e-5)
    three = finished(artist, guidance=3.0)
    assert np.abs(finished(artist, negative="trees", guidance=3.0) - three).max() > 1e-3
    np.testing.assert_array_equal(finished(artist, guidance=None), three)
    swapped = finished(artist, "", negative=PROMPT, guidance=0.0)
    np.testing.assert_allclose(swapped, one, atol=1e-5)
    assert np.abs(quiet - one).max() > 1e-3


def test_eta_is_the_noise_of_ddim(artist):
    still, noisy = (finished(artist, sampler="ddim", eta=eta) for eta in (0.0, 1.0))
    assert np.abs(still - noisy).max() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"count": 0}, "count is 0"),
        ({"count": -3}, "count is -3"),
        ({"count": 10**12}, "count 1000000000000 .*GiB.*memory"),
        ({"steps": 0}, "steps must be between 1 and 1000, got 0"),
        ({"steps": 10_000}, "steps must be between 1 and 1000, got 10000"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": float("-inf")}, "guidance is -inf"),
        ({"sampler": "dali"}, r"'dali'.*ddpm.*dpm\+\+2m"),
        ({"sampler": "ddim", "eta": 1.5}, "eta"),
        ({"sampler": "heun", "eta": 0.5}, "eta"),
        ({"prompt": None}, "prompt is None"),
        ({"prompt": ["a house"]}, "prompt is"),
        ({"negative": 7}, "negative is 7"),
    ],
)
def test_refuses_what_it_cannot_paint(artist, settings, message):
    with pytest.raises(ValueError, match=message):
        artist.paint(**{"prompt": PROMPT, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"first": -1}, "first is -1"), ({"first": 2**32}, "first is"), ({"steps": 0}, "steps must")],
)
def test_sample_refuses_at_once(artist, settings, message):
    with pytest.raises(ValueError, match=message):
        artist.sample(PROMPT, **settings)


def test_denoiser_and_autoencoder_are_callable_as_a_whole(artist):
    z = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    context = artist.text_encoder(jnp.asarray(artist.tokenizer([PROMPT, ""])))
    assert context.shape == (2, 16, 8)
    timesteps = jnp.asarray([3, 900])
    time = artist.denoiser.time_embedding(timesteps)
    h, skips = artist.denoiser.down(z, time, context)
    composed = artist.denoiser.up(
        artist.denoiser.bottleneck(h, time, context), skips, time, context
    )
    np.testing.assert_allclose(artist.denoiser(z, timesteps, context), composed, atol=1e-5)
    images = artist.autoencoder.decode(z)
    mean, log_variance = artist.autoencoder.posterior(images)
    assert images.shape == (2, 16, 16, 3)
    assert mean.shape == log_variance.shape == z.shape
    latents = artist.autoencoder.encode(images)  # the most plausible ones, scaled
    scale = artist.config.autoencoder.scaling_factor
    np.testing.assert_allclose(latents, mean * scale, atol=1e-6)
    pictures = to_uint8(images)
    np.testing.assert_array_equal(artist.decode(z), pictures)
    from_pictures = artist.autoencoder.encode(jnp.asarray(from_uint8(pictures)))
    np.testing.assert_array_equal(artist.encode(pictures), from_pictures)


def test_load_refuses_a_tokenizer_of_another_model(tiny_folder):
    with pytest.raises(
        ValueError, match=r"tokenizer has 1024 tokens .* use the files of one model"
    ):
        load(tiny_folder, tokenizer=find("garden") / "tokenizer")
