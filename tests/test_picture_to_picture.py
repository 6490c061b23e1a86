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
    return initial_noise(picture_keys(seed, jnp.arange(1)), (h, w, 4))


def test_pictures_of_other_shapes(artist):
    assert artist.paint(PROMPT, steps=1, height=8, width=24).shape == (1, 8, 24, 3)
    assert artist.paint(PROMPT, steps=1, width=24).shape == (1, 16, 24, 3)
    first = next(artist.sample(PROMPT, height=8, width=24, seed=3))
    np.testing.assert_array_equal(first.x_t, noise(3, 4, 12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 20}, "height is 20; give a multiple of 8 up to 8192, such as 16 or 24"),
        ({"width": 3}, "width is 3; give a multiple of 8 up to 8192, such as 8 or 16"),
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
    steps = list(artist.sample(PROMPT, **settings))
    table = samplers.table("dpm++2m", artist.process, 6, strength=0.5)
    assert [step.t for step in steps] == table.timestep.tolist()
    assert [step.index for step in steps] == [3, 4, 5]
    latents = latents_of(artist, from_uint8(IMAGE), 7)
    expected = artist.process.add_noise(latents, noise(7), jnp.asarray(table.timestep[:1]))
    np.testing.assert_allclose(steps[0].x_t, expected, atol=1e-5)
    usual = list(artist.sample(PROMPT, image=IMAGE, steps=10))
    assert usual[0].index == 2  # strength 0.8


def test_several_pictures_from_one(artist):
    both = artist.paint(PROMPT, image=IMAGE, steps=3, count=2, strength=0.7)
    assert both.shape == (2, 16, 24, 3)
    assert (both[0] != both[1]).mean() > 0.1


@pytest.mark.parametrize("sampler", ["dpm++2m", "heun", "ddpm"])
def test_outside_of_the_mask_the_canvas_is_the_picture_under_noise(artist, sampler):
    settings = {"image": IMAGE, "mask": MASK, "steps": 3, "seed": 7, "sampler": sampler}
    steps = list(artist.sample(PROMPT, **settings))
    free = list(artist.sample(PROMPT, height=16, width=24, steps=3, seed=7, sampler=sampler))
    np.testing.assert_array_equal(steps[0].x_t, noise(7))  # strength 1: from pure noise
    known = latents_of(artist, from_uint8(IMAGE), 7)
    for i, step in enumerate(steps):
        expected = known  # the last step arrives at the picture itself
        if i + 1 < len(steps):
            expected = artist.process.add_noise(known, noise(7), jnp.asarray([steps[i + 1].t]))
        np.testing.assert_allclose(step.x_next[0, ~PAINTED], expected[0, ~PAINTED], atol=1e-5)
        assert np.abs(step.x_next - expected)[0, PAINTED].max() > 0.01
    np.testing.assert_allclose(steps[0].x_next[0, PAINTED], free[0].x_next[0, PAINTED], atol=1e-5)


def test_what_is_not_masked_stays_to_the_pixel(artist):
    painted = artist.paint(PROMPT, image=IMAGE, mask=MASK, steps=3, count=2)
    for picture in painted:
        np.testing.assert_array_equal(picture[~MASK], IMAGE[~MASK])
        assert (picture[MASK] != IMAGE[MASK]).mean() > 0.5


def test_part_of_the_way_back_within_the_mask(artist):
    settings = {"image": IMAGE, "mask": MASK, "steps": 4, "seed": 7, "strength": 0.5}
    steps = list(artist.sample(PROMPT, **settings))
    without = next(artist.sample(PROMPT, **(settings | {"mask": None})))
    assert len(steps) == 2
    np.testing.assert_array_equal(steps[0].x_t, without.x_t)


def test_an_inpainting_network_sees_mask_and_what_is_kept(inpainter):
    settings = {"image": IMAGE, "mask": MASK, "steps": 2, "seed": 7, "guidance": 2.0}
    step = next(inpainter.sample(PROMPT, **settings))
    kept = from_uint8(IMAGE) * ~MASK[..., None]  # grey where it is to be painted
    mask = jnp.asarray(PAINTED, jnp.float32)[None, ..., None]
    seen = jnp.concatenate([noise(7), mask, latents_of(inpainter, kept, 7)], axis=-1)
    context = inpainter.text_encoder(jnp.asarray(inpainter.tokenizer(["", PROMPT])))
    timesteps = jnp.full(2, step.t)
    without, told = inpainter.denoiser(jnp.concatenate([seen, seen]), timesteps, context)[:, None]
    expected = samplers.guide(without, told, 2.0)
    np.testing.assert_allclose(step.prediction, expected, atol=1e-5)
    picture = inpainter.paint(PROMPT, **settings)[0]
    np.testing.assert_array_equal(picture[~MASK], IMAGE[~MASK])


def test_an_inpainting_network_paints_from_nothing_too(inpainter):
    step = next(inpainter.sample(PROMPT, steps=2, seed=7, guidance=1.0))
    nothing = latents_of(inpainter, np.zeros((16, 16, 3), np.float32), 7)
    seen = jnp.concatenate([noise(7, 8, 8), jnp.ones((1, 8, 8, 1)), nothing], axis=-1)
    context = inpainter.text_encoder(jnp.asarray(inpainter.tokenizer([PROMPT])))
    expected = inpainter.denoiser(seen, jnp.full(1, step.t), context)
    np.testing.assert_allclose(step.prediction, expected, atol=1e-5)


def test_a_picture_or_a_mask_compiles_nothing_new(artist):
    artist.paint(PROMPT, steps=2, height=16, width=24)
    before = artist._advance.compiled._cache_size()
    artist.paint(PROMPT, steps=4, image=IMAGE, strength=0.5)
    artist.paint(PROMPT, steps=2, image=IMAGE, mask=MASK, sampler="ddpm")
    assert artist._advance.compiled._cache_size() == before
