"""The figures of the lessons show the tensors of the run, drawn by the tiny model."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from diffusion.datasets.garden import render, sample_scenes
from diffusion.inspection.figures import (
    decoder,
    maps,
    noise,
    parity,
    sampling,
    text,
    training,
    words,
)
from diffusion.inspection.figures.style import alike, pca_rgb, share_shown, signed
from diffusion.inspection.trace import trace
from diffusion.process.samplers import guide
from diffusion.process.schedule import add_noise, alpha_bars
from diffusion.training.conv_autoencoder import keras_adam

PROMPT = "a red house with two old trees"


@pytest.fixture(scope="module")
def run(artist):
    return trace(artist, PROMPT, seed=1, steps=4)


def shown(figure):
    return [image.get_array() for axis in figure.axes for image in axis.images]


def holds(figure, picture):
    return any(np.array_equal(one, picture) for one in shown(figure))


def test_maps_alike_have_common_colours():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(6, 6, 5)).astype(np.float32)
    one, other, last = alike([first, 0.5 * first, first])
    np.testing.assert_array_equal(one, last)
    assert np.ptp(other) < np.ptp(one)  # alone, it would be just as colourful
    np.testing.assert_allclose(pca_rgb(0.5 * first), pca_rgb(first), atol=1e-5)


def test_three_directions_show_a_share_of_the_variance():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(20, 20, 3)) @ rng.normal(size=(3, 8))
    assert share_shown(flat) == pytest.approx(1.0)
    assert share_shown(rng.normal(size=(200, 200, 8))) == pytest.approx(3 / 8, abs=0.01)
    assert share_shown(flat + 100.0) == pytest.approx(1.0)  # the mean is no variance


def test_film_shows_canvas_and_estimate_of_every_moment(run):
    figure = sampling.film(run, moments=3)
    for i in (0, 2, 3):
        step = run.steps[i]
        assert holds(figure, run.artist.decode(step.x_t)[0])
        assert holds(figure, run.artist.decode(step.x0)[0])
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        f"t = {run.steps[i].t}" for i in (0, 2, 3)
    ]
    assert sampling.spread(4, 9) == [0, 1, 2, 3]


def test_branches_show_both_answers_and_their_guided_sum(run):
    figure = sampling.branches(run, moments=2)
    seen = [run.activations(0), run.activations(3)]
    guided = [guide(one.unconditional, one.conditional, run.guidance) for one in seen]
    every = [
        x[0]
        for x in (*(one.conditional for one in seen), *(one.unconditional for one in seen), *guided)
    ]
    pictures = shown(figure)
    assert len(pictures) == 12
    for i, expected in enumerate(alike(every)):
        np.testing.assert_array_equal(pictures[i if i < 4 else i + 2], expected)
    last = run.steps[3]
    x0 = run.artist.process.to_x0(seen[1].conditional, last.x_t, jnp.full(1, last.t))
    np.testing.assert_array_equal(pictures[9], run.artist.decode(x0)[0])


def test_guidance_and_samplers_are_painted_as_said(run):
    artist = run.artist
    figure = sampling.guidance(artist, PROMPT, (0, 4), (7,))
    for scale in (0, 4):
        assert holds(figure, artist.paint(PROMPT, seed=7, guidance=scale)[0])
    figure = sampling.samplers(artist, PROMPT, ("ddim", "euler"), (2, 3))
    assert holds(figure, artist.paint(PROMPT, sampler="euler", steps=2)[0])
    assert len(shown(figure)) == 4
    heun = sampling.samplers(artist, PROMPT, ("heun",), (2,))
    assert heun.axes[0].get_ylabel() == "heun\n3"


def test_few_glances_show_what_is_seen_in_pure_noise(artist):
    figure = sampling.few_glances([(artist, 2), (artist, 1)], PROMPT, (5, 6))
    first, *pictures, alone, same, _ = shown(figure)
    for seed, picture in zip((5, 6), pictures, strict=True):
        how = {"steps": 2, "sampler": "euler", "spacing": "trailing"}
        np.testing.assert_array_equal(picture, artist.paint(PROMPT, seed=seed, **how)[0])
    np.testing.assert_array_equal(alone, first)
    np.testing.assert_array_equal(alone, same)  # a single step ends where it sees the picture


def test_channels_are_those_that_there_are():
    features = np.random.default_rng(0).normal(size=(4, 4, 5)).astype(np.float32)
    drawn = shown(maps.channels(features, count=20, columns=3))
    assert len(drawn) == 5
    np.testing.assert_array_equal(drawn[4], features[..., 4])
    assert len(shown(maps.channels(features, count=1, columns=1))) == 1


def test_a_wide_canvas_and_no_words(artist):
    wide = trace(artist, PROMPT, steps=1, height=16, width=32).activations(0)
    assert words.sizes(wide) == [8, 4, 2]
    house = next(word for word in trace(artist, PROMPT, steps=1).words if word.text == "house")
    assert words.heat(wide, house, 8).shape == (8, 16)
    empty = trace(artist, "", steps=1)
    assert empty.words == []
    assert shown(text.states(empty))[0].shape[0] == empty.marked == 2
    assert (
        len(shown(sampling.branches(empty, moments=1))) == 6
    )  # no difference, and no division by it


def test_heat_is_the_mean_of_heads_and_modules_over_a_words_tokens(run):
    one = run.activations(1)
    assert words.sizes(one) == [8, 4, 2]
    house = next(word for word in run.words if word.text == "house")
    modules = [
        np.asarray(weights[0])
        for name, weights in one.attention.items()
        if name.endswith("cross_attention") and weights.shape[2] == 16
    ]
    assert len(modules) == 5  # two on the way down, three on the way up
    mean = np.mean([weights.mean(axis=0) for weights in modules], axis=0)
    expected = mean[:, house.places].sum(axis=1).reshape(4, 4)
    np.testing.assert_allclose(words.heat(one, house, 4), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="5x5"):
        words.heat(one, house, 5)


def test_heat_maps_name_every_word_and_resolution(run):
    figure = words.heat_maps(run, 1)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[1 : len(run.words) + 1] == [word.text for word in run.words]
    assert holds(figure, words.heat(run.activations(1), run.words[1], 8))
    figure = words.over_time(run, (0, 2), ("red", "trees"), 8)
    assert len(shown(figure)) == 6
    with pytest.raises(ValueError, match="'blue'; its words are a, red"):
        words.over_time(run, (0,), ("blue",), 8)


def test_the_u_has_every_map_with_its_shape(run):
    figure = maps.the_u(run.activations(1))
    labels = [axis.get_xlabel() for axis in figure.axes]
    down, bottom, up = labels[:4], labels[4], labels[5:]
    assert down == ["8×8×8", "8×8×8", "4×4×12", "2×2×16"]
    assert bottom == "2×2×16"
    assert up == ["2×2×16", "4×4×12", "8×8×8", "8×8×4"]
    one = run.activations(1)
    assert holds(figure, pca_rgb(one.tensors["down.blocks.1.transformers.1"][0]))
    assert holds(figure, pca_rgb(one.tensors["up.blocks.1.transformers.2"][0]))


def test_resolutions_and_channels(run):
    figure = maps.resolutions(run, (0, 3))
    seen = [run.activations(0), run.activations(3)]
    expected = alike([one.tensors["down.blocks.2.residuals.1"][0] for one in seen])
    assert all(holds(figure, one) for one in expected)
    features = seen[0].tensors["down.conv_in"][0]
    figure = maps.channels(features, count=8, columns=4)
    np.testing.assert_array_equal(shown(figure)[5], features[..., 5])


def test_where_the_bottleneck_looks(run):
    figure = maps.looked_at(run, 1, ((0, 1),))
    weights = run.activations(1).attention["bottleneck.transformer.block.self_attention"][0]
    assert holds(figure, np.asarray(weights).mean(axis=0)[1].reshape(2, 2))


def test_without_its_skips_the_picture_is_another(run):
    figure = maps.without_skips(run, 2)
    pictures = shown(figure)
    assert len(pictures) == 10  # all, none of each of three sizes, none; with zeros, with means
    whole = run.artist.decode(run.steps[2].x0)[0].astype(int)
    for row in (pictures[:5], pictures[5:]):
        assert np.abs(row[0] - whole).max() <= 1  # compiled in parts, rounded to bytes
        assert all(np.abs(one - whole).max() > 5 for one in row[1:])
    assert np.abs(pictures[1].astype(int) - pictures[6]).max() > 5


def test_the_bottleneck_scaled_and_swapped(run):
    figure = maps.bottleneck_scaled(run, (1,), (0, 1))
    silent, own, change = shown(figure)
    assert change.shape == (*own.shape[:2], 4)
    sees = run.artist.decode(run.steps[1].x0)[0].astype(int)
    assert np.abs(own - sees).max() <= 1
    assert np.abs(silent - sees).max() > 5
    other = trace(run.artist, "a house at night", seed=2, steps=4)
    first, mixed, last = shown(maps.bottleneck_swapped(run, other, (1,)))
    np.testing.assert_array_equal(first, sees)
    np.testing.assert_array_equal(last, run.artist.decode(other.steps[1].x0)[0])
    assert np.abs(mixed.astype(int) - sees).max() > 5


def test_every_timestep_has_its_code(artist):
    code, embedded = shown(maps.time_code(artist, width=6))
    assert code.shape == (8, 1000)
    np.testing.assert_allclose(code[0, :5], np.cos(np.arange(5)), atol=1e-6)
    expected = artist.denoiser.time_embedding(jnp.arange(1000))[:, :6]
    np.testing.assert_allclose(embedded.T, expected, atol=1e-6)


def test_receptive_fields_grow_with_the_level(run):
    fields = shown(maps.receptive_field(run, 1, 5, 2))
    assert [field.shape for field in fields] == [(8, 8)] * 3
    assert all(field.max() == 1 for field in fields)
    near = [field[4:7, 1:4].sum() / field.sum() for field in fields]
    assert near[0] > near[2]  # one position of the coarsest map hears from far away


def test_a_receptive_field_lies_around_its_place_on_a_wide_canvas(artist):
    wide = trace(artist, PROMPT, width=32, steps=1)
    finest, *_ = shown(maps.receptive_field(wide, 0, 4, 14))
    assert finest.shape == (8, 16)
    assert abs(int(finest.sum(axis=0).argmax()) - 14) <= 1


def test_energy_finds_the_frequency_of_a_wave():
    x = np.arange(32)
    wave = np.round(127 + 100 * np.sin(2 * np.pi * 5 * x / 32)).astype(np.uint8)
    periods, power = maps.energy(np.tile(wave[None, :, None], (32, 1, 3)))
    assert periods[power.argmax()] == 5
    assert power.max() > 0.99 * power.sum()
    figure = maps.bands({"wave": np.tile(wave[None, :, None], (32, 1, 3))})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), power)


def test_the_decoder(run):
    figure = decoder.latent_channels(run)
    np.testing.assert_array_equal(shown(figure)[2], run.steps[-1].x_next[0, ..., 2])
    figure = decoder.decoder(run)
    assert [axis.get_xlabel().split("\n")[0] for axis in figure.axes] == [
        "post_quant_conv", "decoder.conv_in", "decoder.middle", "decoder.levels.0",
        "decoder.levels.1", "picture",
    ]  # fmt: skip
    latents = run.steps[-1].x_next
    before, after, change = shown(decoder.perturbed(run.artist, latents, 2, 5))
    np.testing.assert_array_equal(before, run.pictures[0])
    assert change.max() == np.abs(after.astype(float) - before).mean(axis=-1).max() > 0


def test_noise_in_pixels_and_in_the_latent(artist):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    figure = noise.noising(artist, image, (0, 999))
    pictures = shown(figure)
    assert len(pictures) == 6
    assert (
        np.abs(pictures[0].astype(int) - image).mean()
        < 5
        < np.abs(pictures[1].astype(int) - image).mean()
    )
    clean = artist.encode(image[None])
    dots = jax.random.normal(jax.random.key(0), clean.shape)
    levels = jnp.asarray(alpha_bars(artist.config.process)[[0, 999]], jnp.float32)
    z = add_noise(jnp.repeat(clean, 2, axis=0), jnp.repeat(dots, 2, axis=0), levels)
    for seen, expected in zip(pictures[2:4], alike(list(z)), strict=True):
        np.testing.assert_allclose(seen, expected, atol=0.01)
    figure = noise.channels(artist, image, (0, 999))
    clean = artist.encode(image[None])[0] * alpha_bars(artist.config.process)[0] ** 0.5
    for channel in range(4):  # hardly any noise at t = 0
        seen = shown(figure)[2 * channel].astype(float)
        np.testing.assert_allclose(seen, signed(clean[..., channel]), atol=0.06)
    figure = noise.values(artist, image[None], (0, 999))
    assert "t = 999: mean" in figure.axes[1].get_title()
    figure = noise.canvases(artist, (3, 4), PROMPT)
    assert holds(figure, artist.paint(PROMPT, seed=4)[0])


def test_schedules_are_drawn_as_they_are(artist):
    bars = alpha_bars(artist.config.process)
    left, right = noise.schedules({"the garden's": bars}).axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), bars)
    np.testing.assert_allclose(right.lines[0].get_ydata(), np.log(bars / (1 - bars)))
    assert left.get_legend().texts[0].get_text() == "the garden's"


def test_the_text_encoder(run):
    figure = text.cosines(run)
    rows = np.asarray(run.context[0, : run.words[-1].places.stop + 1])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(shown(figure)[1], rows @ rows.T, atol=1e-6)
    weights = shown(text.heads(run, 1))
    assert len(weights) == 2
    np.testing.assert_allclose(weights[0].sum(axis=1), 1.0, atol=1e-6)
    count = len(rows)
    np.testing.assert_array_equal(shown(text.states(run, width=8))[0], run.context[0, :count])


def test_likeness_is_the_cosine():
    rows = np.float32([[3, 4], [0, 2]])
    np.testing.assert_allclose(shown(text.likeness(rows, "ab"))[0], [[1, 0.8], [0.8, 1]])
    figure = text.likeness(rows, "ab", np.float32([[-1, 0]]), "c")
    np.testing.assert_allclose(shown(figure)[0], [[-0.6], [0]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["-0.60", "0.00"]


def test_chips_are_the_tokens_and_their_numbers(artist):
    texts = [
        text.get_text() for text in text.chips(artist.tokenizer, ["a red house"]).axes[0].texts
    ]
    numbers = artist.tokenizer.encode("a red house")
    assert [int(text) for text in texts[1::2]] == numbers
    assert "".join(texts[::2]) == "aredhouse"
    assert jnp.asarray(numbers).max() < artist.tokenizer.vocab_size


def test_errors_are_those_of_the_prediction(artist):
    scenes = sample_scenes(np.random.default_rng(0), 2)
    texts = ["a red house", "two pines"]
    found = training.errors(artist, scenes, texts, (900,))
    x0 = artist.autoencoder.encode(render(scenes, 16))
    noise_ = jax.random.normal(jax.random.key(0), x0.shape)
    ab = alpha_bars(artist.config.process)[900]
    z = ab**0.5 * x0 + (1 - ab) ** 0.5 * noise_
    v = ab**0.5 * noise_ - (1 - ab) ** 0.5 * x0
    for name, spoken in (("the right words", texts), ("another picture's words", texts[::-1])):
        context = artist.text_encoder(jnp.asarray(artist.tokenizer(spoken)))
        expected = jnp.square(artist.denoiser(z, jnp.full(2, 900), context) - v).mean()
        np.testing.assert_allclose(found[name], [expected], rtol=1e-3)  # 8 bits a colour
    figure = training.by_timestep((900,), found)
    assert [line.get_label() for line in figure.axes[0].lines] == [*found]


def test_what_a_training_wrote_is_shown(tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"step": i, "error": 1 / i, "gradient_norm": 2 / i} for i in (20, 40)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    left, right = training.curves(log).axes
    assert [*left.lines[0].get_ydata()] == [1 / 20, 1 / 40]
    assert right.get_title() == "gradient norm"
    marked = training.curves(log, ["error"], marks=(20,)).axes[0]
    assert [*marked.lines[1].get_xdata()] == [20, 20]
    with pytest.raises(ValueError, match=r"log.jsonl does not tell psnr; it tells error, gradient"):
        training.curves(log, ["psnr"])
    with pytest.raises(ValueError, match="has no sample sheets"):
        training.samples(tmp_path)
    for step in (2000, 500):  # two rows of eight pictures of one pixel, told apart by their grey
        sheet = np.arange(16).reshape(2, 8, 1) + step // 100
        Image.fromarray(np.repeat(sheet.astype(np.uint8), 3, 2)).save(tmp_path / f"{step:06d}.png")
    figure = training.samples(tmp_path)
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["step 500", "step 2,000"]
    assert [int(picture.max()) - 5 for picture in shown(figure)[:4]] == [0, 4, 8, 12]
    assert len(training.samples(tmp_path, [2000]).axes) == 4
    with pytest.raises(ValueError, match="no sample sheet of step 7; it has 500, 2000"):
        training.samples(tmp_path, [7])


def test_weights_of_the_loss(artist):
    epsilon, v, ours = (
        line.get_ydata() for line in training.weights(artist.config.process).axes[0].lines
    )
    np.testing.assert_allclose(v, epsilon + 1, rtol=1e-5)
    np.testing.assert_allclose(ours, np.clip(epsilon, 1, 5), rtol=1e-4)


def test_bars_of_parity():
    axis = parity.bars(["one", "two"], [1e-7, 0.0], 1e-5).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["one", "two"]
    assert [bar.get_height() for bar in axis.patches] == [1e-7, 1e-9]
    assert axis.lines[0].get_ydata()[0] == 1e-5


def test_two_places_of_eps_take_the_same_step_in_the_end():
    sizes = np.array([1e-7, 1e-3], np.float32)
    theirs = training.changes(optax.adam(1e-3, eps=1e-7), sizes, [1, 1000])
    np.testing.assert_allclose(theirs[0], theirs[1], rtol=1e-3)
    ours = training.changes(keras_adam(1e-3), sizes, [1, 1000])
    assert ours[0, 0] > 0.1 * theirs[0, 0]
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0.2)
    real = {"early": np.array([0.0, 1e-5, -1e-5]), "late": np.array([1e-3])}
    figure = training.places_of_eps(keras_adam(1e-3), optax.adam(1e-3), 1e-3, real, (1, 5))
    above, below = figure.axes
    assert [line.get_label() for line in above.lines] == [
        "Keras, step 1",
        "Keras, step 5",
        "optax, every step",
    ]
    heights = [sum(bar.get_height() for bar in bars) for bars in below.containers]
    np.testing.assert_allclose(heights, [200 / 3, 100])
