"""A film: frames that look at each other, or a walk; the same from the same settings."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import diffusion
from diffusion import film, filming
from diffusion.config import UNetConfig
from diffusion.film_settings import FilmFileSettings, FilmSettings
from diffusion.images import from_uint8, to_uint8
from diffusion.inspection.film_trace import trace_film
from diffusion.motion_config import MotionConfig, PromptTravelConfig, motion_for
from diffusion.stages.moving_noise import SKY
from diffusion.weights import adapter, folder, prompt_travel
from diffusion.weights.architectures import structure
from tests.conftest import random_params

PROMPT = "a red house"
FAST = {"steps": 2, "frames": 8}


@pytest.fixture(scope="module")
def artist(shallow_folder):
    return diffusion.load(shallow_folder)


@pytest.fixture(scope="module")
def moving_folder(shallow_folder, tmp_path_factory):
    """The tiny model with motion modules that have learnt something."""
    place = tmp_path_factory.mktemp("moving") / "model"
    shutil.copytree(shallow_folder, place)
    config = dataclasses.replace(motion_for(folder.load_config(place).denoiser), length=8)
    params = random_params(structure(config)[1], 0)
    adapter.save_adapter(place / adapter.FOLDER, config, params)
    return place


@pytest.fixture(scope="module")
def moving(moving_folder):
    return diffusion.load(moving_folder)


@pytest.fixture(scope="module")
def travelling_folder(moving_folder, tmp_path_factory):
    """The same, with prompt travel, which writes two sentences; no view moves."""
    place = tmp_path_factory.mktemp("travelling") / "model"
    shutil.copytree(moving_folder, place)
    text = folder.load_config(place).text_encoder
    config = PromptTravelConfig(text.vocab_size, text.width, text.length, layers=1, heads=2)
    params = random_params(structure(config)[1], 0)
    params["views"] = {"kernel": np.zeros((text.width, 8), np.float32),
                       "bias": np.array([0, 0, 0, 0, 0.02, 0, 0, 0], np.float32)}  # fmt: skip
    prompt_travel.save_travel(place, config, params)
    return place


@pytest.fixture(scope="module")
def travelling(travelling_folder):
    return diffusion.load(travelling_folder)


def last(artist, settings, **more):
    [steps] = artist.sample_film(settings, **more)
    *_, step = steps
    return np.asarray(step.x_next)


def test_pictures_know_nothing_of_motion(moving, artist):
    pictures = artist.paint(PROMPT, steps=2, count=2)
    np.testing.assert_array_equal(moving.paint(PROMPT, steps=2, count=2), pictures)
    assert artist.motion is None


def test_an_untrained_film_is_the_series_of_its_seed(shallow_folder, artist, tmp_path):
    place = tmp_path / "fresh"
    unet = folder.load_config(shallow_folder).denoiser
    config = dataclasses.replace(motion_for(unet), common_noise=0.0)
    params = random_params(structure(config)[1], 0)
    silent = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 0 if any(k.key == "project_out" for k in path if hasattr(k, "key"))
        else x, params,
    )  # fmt: skip
    adapter.save_adapter(place, config, silent)
    fresh = diffusion.load(shallow_folder, motion=place)
    settings = {"seed": 5, "steps": 2, "sampler": "euler_a"}
    *_, step = artist.sample(PROMPT, count=8, **settings)
    filmed = last(fresh, FilmSettings(PROMPT, frames=8, **settings))
    np.testing.assert_allclose(filmed, step.x_next, atol=1e-4)


def test_frames_begin_with_noise_of_which_most_is_the_same(moving):
    [steps] = moving.sample_film(FilmSettings(PROMPT, **FAST))
    begins = np.asarray(next(steps).x_t).reshape(8, -1)
    alike = np.corrcoef(begins)[~np.eye(8, dtype=bool)]
    assert begins.std() == pytest.approx(1.0, abs=0.2)
    assert alike.mean() == pytest.approx(moving.motion.config.common_noise, abs=0.05)
    assert alike.mean() > 0.8
    [more] = moving.sample_film(FilmSettings(PROMPT, frames=10, steps=2))
    np.testing.assert_array_equal(np.asarray(next(more).x_t)[:8].reshape(8, -1), begins)


def test_frames_look_at_each_other(moving):
    frames = moving.film(PROMPT, **FAST)
    assert frames.shape == (8, 16, 16, 3)
    np.testing.assert_array_equal(moving.film(PROMPT, **FAST), frames)
    longer = last(moving, FilmSettings(PROMPT, frames=10, steps=2))
    assert longer.shape[0] == 10
    assert np.isfinite(longer).all()
    looped = last(moving, FilmSettings(PROMPT, loop=True, **FAST))
    assert np.abs(looped - last(moving, FilmSettings(PROMPT, **FAST))).max() > 1e-3


def test_a_sentence_says_how_a_film_begins_and_ends(travelling, moving):
    frames = travelling.film(PROMPT, **FAST)
    assert (frames != moving.film(PROMPT, **FAST)).any()
    pictures = travelling.paint(PROMPT, steps=2)
    np.testing.assert_array_equal(pictures, moving.paint(PROMPT, steps=2))
    run = trace_film(travelling, PROMPT, **FAST)
    told = np.asarray(run.heard(8)).reshape(2, 8, 16, -1)
    said = travelling.travel.network(run.context[:1], travelling.tokenizer([PROMPT])).tokens[0]
    ends = travelling.text_encoder(said)
    np.testing.assert_allclose(told[0, 0], ends[0], atol=1e-5)
    np.testing.assert_allclose(told[0, -1], ends[1], atol=1e-5)
    assert np.abs(told[0, 0] - told[0, -1]).max() > 1e-3
    assert (told[1] == told[1, :1]).all()  # nothing happens in the negative prompt
    np.testing.assert_array_equal(run.pictures, frames)


def test_where_nothing_tells_frames_apart_guidance_does_not_either(travelling, moving):
    def own(artist, **settings):
        """What each frame's first prediction has of its own, under two guidance scales."""
        turns = [artist.sample_film(FilmSettings(PROMPT, guidance=scale, **settings, **FAST))[0]
                 for scale in (2.0, 6.0)]  # fmt: skip
        found = [np.asarray(next(turn).prediction) for turn in turns]
        return [one - one.mean(axis=0) for one in found]

    np.testing.assert_allclose(*own(travelling, emphasis=True), atol=1e-4)
    [turn] = travelling.sample_film(FilmSettings(PROMPT, emphasis=True, **FAST))
    begins = np.asarray(next(turn).x_t)
    np.testing.assert_array_equal(begins, np.stack([begins[0]] * 8))  # nor does the noise
    for one, other in (own(travelling), own(travelling, to="a blue house"), own(moving)):
        assert np.abs(one - other).max() > 1e-2


def test_contexts_of_fewer_layers_are_not_travelled(travelling_folder, travelling):
    assert diffusion.load(travelling_folder, clip_skip=1).travel.config == travelling.travel.config
    assert diffusion.load(travelling_folder, clip_skip=2).travel is None


def test_an_embedding_s_sentence_is_told_as_it_is(travelling_folder, tmp_path):
    file = tmp_path / "red.safetensors"
    save_file({"emb_params": np.ones((1, 8), np.float32)}, file)
    artist = diffusion.load(travelling_folder, embeddings={str(file): "<red>"})
    context = artist.text_encoder(artist.tokenizer(["a <red> house", ""]))
    ends, views = artist.ends(FilmSettings("a <red> house", **FAST), context)
    np.testing.assert_array_equal(ends, np.stack([context, context], axis=1))
    assert not np.asarray(views).any()


def test_the_sentence_is_told_as_it_is(travelling, monkeypatch):
    """Where nothing happens, or view or clouds move, or it could not be written."""
    asked = FilmSettings(PROMPT, **FAST)
    context = travelling.text_encoder(travelling.tokenizer([PROMPT, ""]))
    still = np.stack([context, context], axis=1)
    changed, rests = travelling.ends(asked, context)
    assert np.abs(changed[0] - still[0]).max() > 1e-3
    assert not np.asarray(rests).any()
    more = dataclasses.replace(asked, emphasis=True)  # its signs are no words to write
    np.testing.assert_array_equal(travelling.ends(more, context)[0], still)
    found = travelling.travel.network(context[:1], travelling.tokenizer([PROMPT]))

    def told(found):
        travel = film.Travel(travelling.travel.config, lambda *_: found)
        monkeypatch.setattr(travelling, "travel", travel)
        return travelling.ends(asked, context)

    moving, views = told(found._replace(views=25 * found.views))
    np.testing.assert_allclose(moving, still, atol=1e-5)
    np.testing.assert_allclose(views[0, 1], [0.5, 0, 0, 0])
    same = found._replace(logits=jnp.stack([found.logits[:, 0]] * 2, axis=1), views=0 * found.views)
    np.testing.assert_allclose(told(same)[0], still, atol=1e-5)
    config = dataclasses.replace(travelling.travel.config, vocab_size=3)  # all are an embedding's
    monkeypatch.setattr(travelling, "travel", film.Travel(config, None))
    np.testing.assert_array_equal(travelling.ends(asked, context)[0], still)


def driven(artist, monkeypatch, *end):
    """An artist in whose films view, clouds or trees are at the end where `end` says."""
    ends = artist.ends

    def elsewhere(asked, context):
        return ends(asked, context)[0], jnp.array([[[0.0] * 4, end]], jnp.float32)

    monkeypatch.setattr(artist, "ends", elsewhere)
    return artist


def test_noise_goes_where_the_clouds_go(travelling, monkeypatch):
    drifting = driven(travelling, monkeypatch, 0, 0, 0.5 / film.AHEAD, 0)

    def begins(**more):
        [steps] = drifting.sample_film(FilmSettings(PROMPT, **(FAST | more)))
        return np.asarray(next(steps).x_t)

    canvases = begins()
    sky, side = int(np.ceil(SKY * canvases.shape[1])), canvases.shape[2]
    shifted, still = canvases[-1][:sky, side // 2 :], canvases[0][:sky, : side // 2]
    most = drifting.motion.config.common_noise
    assert np.corrcoef(shifted.ravel(), still.ravel())[0, 1] == pytest.approx(most, abs=0.1)
    below = np.corrcoef(canvases[-1][sky:].ravel(), canvases[0][sky:].ravel())[0, 1]
    assert below == pytest.approx(most, abs=0.1)


def test_a_loop_goes_there_and_back(travelling, moving):
    """What a sentence tells, at least; what nobody tells closes a circle."""
    settings = FilmSettings(PROMPT, loop=True, **FAST)
    frames = travelling.film(settings)
    np.testing.assert_array_equal(frames[[5, 6, 7]], frames[[3, 2, 1]])
    assert (frames[0] != frames[4]).any()
    once = travelling.film(dataclasses.replace(settings, loop=False))
    np.testing.assert_array_equal(frames[[0, 4]], once[[0, -1]])
    np.testing.assert_array_equal(trace_film(travelling, settings).pictures, once)
    circle = moving.film(settings)
    assert (circle[5] != circle[3]).any()


def test_while_clouds_drift_the_land_is_one_picture(travelling, monkeypatch):
    driven(travelling, monkeypatch, 0, 0, 0.5, 0)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for given in (None, image):
        end = last(travelling, FilmSettings(PROMPT, **FAST), image=given)
        land = int(np.ceil(SKY * end.shape[1]))
        np.testing.assert_array_equal(end[:, land:], np.repeat(end[:1, land:], 8, axis=0))
        assert np.abs(end[1, :land] - end[2, :land]).max() > 1e-3
        frames = travelling.film(PROMPT, image=given, **FAST)
        land *= 16 // end.shape[1]
        assert (frames[:, land:] == frames[:1, land:]).all()
        assert (frames[1, :land] != frames[2, :land]).any()
    known = travelling.autoencoder.encode(image[None] / np.float32(127.5) - 1, jax.random.key(0))
    np.testing.assert_allclose(end[:, land:], np.repeat(known[:, land:], 8, axis=0), atol=1e-4)


def test_two_prompts_say_all_that_happens(travelling):
    [steps] = travelling.sample_film(FilmSettings(PROMPT, to="two trees", **FAST))
    told = np.asarray(next(steps).x_t).reshape(8, -1)
    most = travelling.motion.config.common_noise
    assert np.corrcoef(told)[0, -1] == pytest.approx(most, abs=0.1)
    [walk, *_] = travelling.sample_film(FilmSettings(PROMPT, walk=True, to_seed=1, **FAST))
    assert np.isfinite(np.asarray(next(walk).x_t)).all()


def test_a_camera_goes_over_a_picture(travelling, monkeypatch):
    """Its views are painted once more, by half of the glances."""
    assert film.view_moves(jnp.array([[0.0] * 4, [0.5, 0, 0, 0]]))
    assert not film.view_moves(jnp.array([[0.0] * 4, [0, 0, 0.5, 0.5]]))
    driven(travelling, monkeypatch, 0.5, 0, 0, 0)
    pictures, seen, decode, camera = [], [], travelling.decode, travelling._camera
    monkeypatch.setattr(travelling, "decode", lambda x: pictures.append(decode(x)) or pictures[-1])
    monkeypatch.setattr(travelling, "_camera", lambda *given: seen.append(given) or camera(*given))
    [turn] = travelling.sample_film(FilmSettings(PROMPT, frames=8, steps=4))
    assert len(turn) == 2
    assert [len(step.x_t) for step in turn] == [8, 8]
    [(picture, route)] = seen
    np.testing.assert_array_equal(to_uint8(picture), pictures[0][0])
    np.testing.assert_allclose(route[[0, -1], 0], [-0.25, 0.25], atol=1e-6)
    [alone] = travelling.sample_film(FilmSettings(PROMPT, frames=8, steps=1))
    assert [len(step.x_t) for step in alone] == [8]
    assert len(trace_film(travelling, FilmSettings(PROMPT, frames=8, steps=4)).steps) == 2


def test_a_camera_goes_over_a_given_picture(travelling, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    seen = []
    driven(travelling, monkeypatch, 0.5, 0, 0, 0)
    camera = travelling._camera
    monkeypatch.setattr(travelling, "_camera", lambda *given: seen.append(given) or camera(*given))
    frames = travelling.film(PROMPT, image=image, **FAST)
    [(picture, route)] = seen
    np.testing.assert_array_equal(picture, from_uint8(image))
    np.testing.assert_allclose(route[[0, -1], 0], [0.0, 0.5], atol=1e-6)  # it begins as it is
    np.testing.assert_array_equal(frames[0], image)
    assert (frames[1] != image).any()


def test_words_go_over_into_others(moving):
    one, other = (last(moving, FilmSettings(text, **FAST)) for text in ("a house", "two trees"))
    way = last(moving, FilmSettings("a house", to="two trees", **FAST))
    same = last(moving, FilmSettings("a house", to="a house", **FAST))
    np.testing.assert_allclose(same, one, atol=1e-4)
    assert np.abs(way - one).max() > 1e-3
    assert np.abs(way - other).max() > 1e-3


def test_a_film_begins_with_a_picture(moving):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    frames = moving.film(PROMPT, image=image, **FAST)
    np.testing.assert_array_equal(frames[0], image)
    assert (frames[1] != image).any()
    known = moving.autoencoder.encode(image[None] / np.float32(127.5) - 1, jax.random.key(0))
    end = last(moving, FilmSettings(PROMPT, **FAST), image=image)
    np.testing.assert_allclose(end[0], known[0], atol=1e-4)


def test_a_walk_between_two_seeds(artist):
    settings = FilmSettings(PROMPT, seed=3, to_seed=9, **FAST)
    turns = [list(steps) for steps in artist.sample_film(settings)]
    latents = np.concatenate([steps[-1].x_next for steps in turns])[:8]
    for frame, seed in ((0, 3), (-1, 9)):
        *_, step = artist.sample(PROMPT, seed=seed, steps=2)
        np.testing.assert_allclose(latents[frame], step.x_next[0], atol=1e-3)
    frames = artist.film(settings)
    assert frames.shape == (8, 16, 16, 3)
    noise = np.concatenate([steps[0].x_t for steps in turns])[:8]
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), 1.0, atol=0.2)


def test_a_walk_between_two_prompts_has_one_noise(artist, moving):
    settings = FilmSettings("a house", to="two trees", walk=True, **FAST)
    [steps] = moving.sample_film(settings)
    first, *_, step = steps
    x_t = np.asarray(first.x_t)
    np.testing.assert_allclose(x_t, np.repeat(x_t[:1], 8, axis=0), atol=1e-5)
    *_, end = artist.sample("two trees", steps=2)
    np.testing.assert_allclose(step.x_next[-1], end.x_next[0], atol=1e-3)


def test_a_walk_between_prompts_of_different_length(artist, monkeypatch):
    """The shorter context is repeated, so that both can be mixed."""
    seen, mix = [], filming.between

    def between(ends, way):
        seen.extend((ends[:, 0], ends[:, 1]))
        return mix(ends, way)

    monkeypatch.setattr(filming, "between", between)
    prompts = {"to": "night", "emphasis": True, "walk": True, "frames": 8, "guidance": 1.0}
    artist.sample_film("a (red:1.3) house BREAK trees", **prompts)
    first, last = seen
    assert first.shape == last.shape == (1, 32, 8)
    plain = artist.text_encoder(jnp.asarray(artist.tokenizer(["night"])))
    np.testing.assert_array_equal(last, jnp.concatenate([plain, plain], axis=1))


def test_noise_goes_along_an_arc():
    one, other = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    way = film.on_the_way(one, other, film.shares(5, loop=False))
    np.testing.assert_allclose(way[0], one, atol=1e-5)
    np.testing.assert_allclose(way[-1], other, atol=1e-5)
    lengths = np.linalg.norm(np.asarray(way).reshape(5, -1), axis=1)
    assert lengths.min() > 0.97 * min(lengths[0], lengths[-1])
    straight = np.linalg.norm(np.asarray(one + other) / 2)
    assert straight < 0.8 * lengths[2]
    np.testing.assert_allclose(film.slerp(one, one, jnp.float32(0.3)), one, atol=1e-5)
    assert film.shares(4, loop=True).tolist() == [0.0, 0.5, 1.0, 0.5]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frames": 7}, "frames is 7; give 8 to 64"),
        ({"frames": 65}, "frames is 65; give 8 to 64"),
        ({"count": 2}, "count belongs to pictures; a film has frames"),
        ({"to_seed": -1}, "to_seed is -1; give a whole number"),
        ({"to": 3}, "to is 3; give a text"),
    ],
)
def test_what_makes_no_sense_is_named(settings, says):
    with pytest.raises(ValueError, match=says):
        FilmSettings(PROMPT, **settings)


def test_file_settings_are_checked():
    with pytest.raises(ValueError, match="fps is 0; give 1 to 50"):
        FilmFileSettings(PROMPT, fps=0)
    with pytest.raises(ValueError, match="motion and walk exclude each other"):
        FilmFileSettings(PROMPT, motion="folder", walk=True)


def test_what_a_model_cannot_film_is_named(moving, artist):
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="to_seed belongs to a walk"):
        moving.film(PROMPT, to_seed=4)
    with pytest.raises(ValueError, match="begins with a picture needs motion modules"):
        artist.film(PROMPT, image=image)
    with pytest.raises(ValueError, match="begins with a picture needs motion modules"):
        moving.film(PROMPT, image=image, walk=True)


def test_adapters_that_do_not_fit_are_named(shallow_folder, tmp_path):
    other = MotionConfig((4, 8, 8), 1, (1, 2, 2), 2)
    adapter.save_adapter(tmp_path, other, random_params(structure(other)[1], 0))
    with pytest.raises(ValueError, match=r"block_out_channels is \(4, 8, 8\); it is \(4, 8\)"):
        diffusion.load(shallow_folder, motion=tmp_path)
    with pytest.raises(FileNotFoundError, match="motion adapter"):
        diffusion.load(shallow_folder, motion=tmp_path / "nothing")


def test_motion_is_saved_with_the_model(moving, tmp_path):
    moving.save(tmp_path / "copy")
    copy = diffusion.load(tmp_path / "copy")
    assert copy.motion.config == moving.motion.config
    jax.tree.map(
        np.testing.assert_array_equal, copy.motion.adapter.params, moving.motion.adapter.params
    )


def test_an_official_adapter_brings_its_noise(shallow_folder, tmp_path):
    unet = folder.load_config(shallow_folder).denoiser
    assert isinstance(unet, UNetConfig)
    config = dataclasses.replace(motion_for(unet), beta_rule="linear")
    adapter.save_adapter(tmp_path, config, random_params(structure(config)[1], 0))
    artist = diffusion.load(shallow_folder, motion=tmp_path)
    assert artist.config.process.beta_rule == "scaled_linear"
    asked, rows = artist.resolve_film(FilmSettings(PROMPT))
    assert (asked.sampler, asked.spacing, asked.steps) == ("ddim", "linspace", 25)
    assert rows.timestep[:2].tolist() == [999, 957]
    asked, rows = artist.resolve_film(FilmSettings(PROMPT, walk=True))
    assert (asked.sampler, asked.spacing) == ("dpm++2m", "leading")
