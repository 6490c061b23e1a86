"""Other sizes, a picture to begin with, a mask: what is given and what is left as it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion
from diffusion.images import from_uint8
from diffusion.process import samplers
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.stages.vae import Posterior

PROMPT = "a red house"
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
MASK = np.zeros((16, 24), bool)
MASK[4:10, 3:16] = True
PAINTED = np.zeros((8, 12), bool)
PAINTED[2:5, 1:8] = True  # of 2x2 pixels each: where any of them is in the mask


@pytest.fixture(scope="module")
def inpainter(tiny, write_model, tmp_path_factory):
    """The tiny model with a U-Net of nine channels."""
    denoiser = dataclasses.replace(tiny.denoiser, in_channels=9)
    place = tmp_path_factory.mktemp("models") / "inpainter"
    return diffusion.load(
        write_model(place, dataclasses.replace(tiny, name="i", denoiser=denoiser))
    )


def latents_of(artist, image, seed):
    posterior = Posterior(*artist.autoencoder.posterior(jnp.asarray(image)[None]))
    return posterior.sample(jax.random.key(seed)) * artist.config.autoencoder.scaling_factor


def noise(seed, h=8, w=12):
    return initial_noise(picture_keys(seed, jnp.arange(2)), (h, w, 4))


def sample(artist, **settings):
    """The steps of two pictures of 16x24: the only program for steps that these tests compile."""
    return artist.sample(PROMPT, count=2, **settings)


def test_pictures_of_other_shapes(artist):
    assert artist.paint(PROMPT, steps=1, count=2, height=16, width=24).shape == (2, 16, 24, 3)
    first = next(sample(artist, width=24, seed=3))
    np.testing.assert_array_equal(first.x_t, noise(3))


def test_height_and_width_decide_the_noise(artist, monkeypatch):
    monkeypatch.setattr(artist, "_advance", lambda x_t, memory, *_: (x_t, x_t, x_t, memory))
    first = next(sample(artist, height=8, width=24, seed=3))
    np.testing.assert_array_equal(first.x_t, noise(3, 4, 12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 21}, "height is 21; give a multiple of 2 up to 8192, such as 20 or 22"),
        ({"width": 1}, "width is 1; give a multiple of 2 up to 8192, such as 2 or 4"),
        ({"width": 0}, "width is 0"),
        ({"height": -8}, "height is -8"),
        ({"width": 10**9}, "width is 1000000000; .* such as 8192 or 8192"),
        ({"image": IMAGE, "height": 8}, "height and width are those of the image"),
        ({"image": IMAGE[:15]}, "height is 15"),
        ({"image": IMAGE.astype(np.float32)}, "image must be a uint8 array"),
        ({"image": IMAGE[..., 0]}, "image must be a uint8 array"),
        ({"image": "picture.png"}, "image must be a uint8 array"),
        ({"mask": MASK}, "mask and strength belong to an image"),
        ({"strength": 0.5}, "mask and strength belong to an image"),
        ({"image": IMAGE, "mask": MASK[:8]}, "mask must be a boolean array of the image's"),
        ({"image": IMAGE, "mask": MASK.astype(int)}, "mask must be a boolean array"),
        ({"image": IMAGE, "mask": np.zeros_like(MASK)}, "true somewhere"),
        ({"image": IMAGE, "strength": 0.0}, "strength must be above 0"),
        ({"image": IMAGE, "strength": 1.1}, "strength must be above 0"),
        ({"image": IMAGE, "strength": float("nan")}, "strength must be above 0"),
        ({"image": IMAGE, "strength": 0.1, "steps": 5}, "less than one step"),
    ],
)
def test_what_makes_no_sense_is_named(artist, settings, message):
    with pytest.raises(ValueError, match=message):
        artist.paint(PROMPT, **settings)
    with pytest.raises(ValueError, match=message):
        next(artist.sample(PROMPT, **settings))


def test_a_picture_is_sent_part_of_the_way_back_to_noise(artist):
    settings = {"image": IMAGE, "strength": 0.5, "steps": 6, "seed": 7}
    steps = list(sample(artist, **settings))
    table = samplers.table("dpm++2m", artist.process, 6, strength=0.5)
    assert [step.t for step in steps] == table.timestep.tolist()
    assert [step.index for step in steps] == [3, 4, 5]
    latents = jnp.repeat(latents_of(artist, from_uint8(IMAGE), 7), 2, axis=0)
    t = jnp.full(2, table.timestep[0])
    expected = artist.process.add_noise(latents, noise(7), t)
    np.testing.assert_allclose(steps[0].x_t, expected, atol=1e-5)
    usual = next(sample(artist, image=IMAGE, steps=10))
    assert usual.index == 2  # strength 0.8


def test_several_pictures_from_one(artist):
    both = artist.paint(PROMPT, image=IMAGE, steps=3, count=2, strength=0.7)
    assert both.shape == (2, 16, 24, 3)
    assert (both[0] != both[1]).mean() > 0.1


@pytest.mark.parametrize("sampler", ["dpm++2m", "heun", "ddpm"])
def test_outside_of_the_mask_x_t_is_the_picture_under_noise(artist, sampler):
    settings = {"image": IMAGE, "mask": MASK, "steps": 3, "seed": 7, "sampler": sampler}
    steps = list(sample(artist, **settings))
    free = list(sample(artist, height=16, width=24, steps=3, seed=7, sampler=sampler))
    np.testing.assert_array_equal(steps[0].x_t, noise(7))  # strength 1: from pure noise
    known = jnp.repeat(latents_of(artist, from_uint8(IMAGE), 7), 2, axis=0)
    for i, step in enumerate(steps):
        expected = known  # the last step arrives at the picture itself
        if i + 1 < len(steps):
            expected = artist.process.add_noise(known, noise(7), jnp.full(2, steps[i + 1].t))
        np.testing.assert_allclose(step.x_next[:, ~PAINTED], expected[:, ~PAINTED], atol=1e-5)
        assert np.abs(step.x_next - expected)[:, PAINTED].max() > 0.01
    np.testing.assert_allclose(steps[0].x_next[:, PAINTED], free[0].x_next[:, PAINTED], atol=1e-5)


def test_what_is_not_masked_stays_to_the_pixel(artist):
    painted = artist.paint(PROMPT, image=IMAGE, mask=MASK, steps=3, count=2)
    for picture in painted:
        np.testing.assert_array_equal(picture[~MASK], IMAGE[~MASK])
        assert (picture[MASK] != IMAGE[MASK]).mean() > 0.5


def test_part_of_the_way_back_within_the_mask(artist):
    settings = {"image": IMAGE, "mask": MASK, "steps": 4, "seed": 7, "strength": 0.5}
    steps = list(sample(artist, **settings))
    without = next(sample(artist, **(settings | {"mask": None})))
    assert len(steps) == 2
    np.testing.assert_array_equal(steps[0].x_t, without.x_t)


def predictions(inpainter, seen, t):
    """What the network says of both pictures with the prompt, and without."""
    context = inpainter.text_encoder(jnp.asarray(inpainter.tokenizer([PROMPT, ""])))
    context = jnp.repeat(context, 2, axis=0)
    both = inpainter.denoiser(jnp.concatenate([seen, seen]), jnp.full(4, t), context)
    return both[:2], both[2:]


def test_an_inpainting_network_sees_mask_and_what_is_kept(inpainter):
    settings = {"image": IMAGE, "mask": MASK, "steps": 2, "seed": 7, "guidance": 2.0}
    step = next(sample(inpainter, **settings))
    kept = from_uint8(IMAGE) * ~MASK[..., None]  # grey where it is to be painted
    mask = jnp.asarray(PAINTED, jnp.float32)[None, ..., None]
    beside = jnp.concatenate([mask, latents_of(inpainter, kept, 7)], axis=-1)
    seen = jnp.concatenate([noise(7), jnp.repeat(beside, 2, axis=0)], axis=-1)
    conditional, unconditional = predictions(inpainter, seen, step.t)
    expected = samplers.guide(unconditional, conditional, 2.0)
    np.testing.assert_allclose(step.prediction, expected, atol=1e-5)
    for picture in inpainter.paint(PROMPT, count=2, **settings):
        np.testing.assert_array_equal(picture[~MASK], IMAGE[~MASK])


def test_an_inpainting_network_paints_from_nothing_too(inpainter):
    step = next(sample(inpainter, steps=2, seed=7, guidance=1.0, width=24))
    nothing = latents_of(inpainter, np.zeros((16, 24, 3), np.float32), 7)
    beside = jnp.concatenate([jnp.ones((1, 8, 12, 1)), nothing], axis=-1)
    seen = jnp.concatenate([noise(7), jnp.repeat(beside, 2, axis=0)], axis=-1)
    expected, _ = predictions(inpainter, seen, step.t)
    np.testing.assert_allclose(step.prediction, expected, atol=1e-5)


def test_a_picture_or_a_mask_compiles_nothing_new(artist):
    artist.paint(PROMPT, steps=2, count=2, height=16, width=24)
    before = artist._advance.compiled._cache_size()
    artist.paint(PROMPT, steps=4, count=2, image=IMAGE, strength=0.5)
    artist.paint(PROMPT, steps=2, count=2, image=IMAGE, mask=MASK, sampler="ddpm")
    assert artist._advance.compiled._cache_size() == before
