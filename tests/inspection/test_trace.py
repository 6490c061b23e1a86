"""What `trace` shows is what the sampler computed, by the modules that it computed with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion import load
from diffusion.config import ConvAutoencoderConfig
from diffusion.inspection.trace import trace, watched
from diffusion.process import samplers
from diffusion.stages.conv_autoencoder import ConvAutoencoder, Shrink, as_printed

PROMPT = "a red house with two old trees"
SETTINGS = {"seed": 3, "count": 2, "steps": 3, "negative": "a house at night", "guidance": 2.5}


@pytest.fixture(scope="module")
def run(artist):
    return trace(artist, PROMPT, **SETTINGS)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_the_run_is_that_of_the_artist(run, artist):
    np.testing.assert_array_equal(run.pictures, artist.paint(PROMPT, **SETTINGS))
    assert [step.index for step in run.steps] == [0, 1, 2]


def test_a_second_run_is_looked_into_by_the_same_programs(run, artist, tiny_folder, caplog):
    def compiled(run):
        caplog.clear()
        with jax.log_compiles():
            _ = run.activations(0), run.text_activations, run.decoder_activations
        return sum("Compiling jit(apply)" in message for message in caplog.messages)

    _ = run.activations(0), run.text_activations, run.decoder_activations
    other = "a blue house at night"
    assert compiled(trace(artist, other, **SETTINGS)) == 0
    assert compiled(trace(load(tiny_folder), other, **SETTINGS)) == 3


@pytest.mark.parametrize("index", [0, -1])
def test_both_branches_give_the_prediction_of_the_sampler(run, index):
    inside = run.activations(index)
    assert inside.step is run.steps[index]
    close(
        samplers.guide(inside.unconditional, inside.conditional, run.guidance),
        inside.step.prediction,
    )
    assert np.abs(inside.conditional - inside.unconditional).max() > 1e-3


def test_tensors_are_those_of_the_stages(run, artist):
    inside = run.activations(1)
    time = artist.denoiser.time_embedding(jnp.full(4, inside.step.t))
    context = jnp.repeat(run.context, 2, axis=0)
    h, skips = artist.denoiser.down(jnp.concatenate([inside.step.x_t] * 2), time, context)
    close(inside.tensors["time_embedding"], time)
    close(inside.tensors["down"], h)
    found = [inside.tensors[f"down.skips.{i}"] for i in range(len(skips))]
    for one, skip in zip(found, skips, strict=True):
        close(one, skip)
    np.testing.assert_array_equal(found[0], inside.tensors["down.conv_in"])
    np.testing.assert_array_equal(found[1], inside.tensors["down.blocks.0.transformers.0"])
    np.testing.assert_array_equal(found[-1], inside.tensors["down.blocks.2.residuals.1"])
    close(inside.tensors["bottleneck"], artist.denoiser.bottleneck(h, time, context))
    np.testing.assert_array_equal(inside.tensors["up.conv_out"][:2], inside.conditional)


def test_every_block_of_the_unet_is_there(run, tiny):
    names = run.activations(1).tensors
    for i in range(3):
        assert {f"down.blocks.{i}.residuals.{j}" for j in range(2)} <= names.keys()
        assert {f"up.blocks.{i}.residuals.{j}" for j in range(3)} <= names.keys()
    assert {"down.blocks.0.downsample", "up.blocks.1.upsample", "bottleneck.transformer"} <= (
        names.keys()
    )


def test_weights_of_attention_are_those_that_were_used(run, artist):
    inside = run.activations(1)
    name = "bottleneck.transformer.block.cross_attention"
    weights = inside.attention[name]
    assert weights.shape == (4, tiny_heads(artist), 4, 16)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-6)
    module = artist.denoiser.params["bottleneck"]["transformer"]["block"]["cross_attention"]
    value = jnp.repeat(run.context, 2, axis=0) @ module["value"]["kernel"]
    heads = value.reshape(4, 16, weights.shape[1], -1)
    mixed = jnp.einsum("bhnm,bmhd->bnhd", weights, heads).reshape(4, 4, -1)
    out = mixed @ module["out"]["kernel"] + module["out"]["bias"][None, None]
    close(inside.tensors[name], out)
    assert len(inside.attention) == 2 * (2 * 2 + 1 + 2 * 3)  # to itself and to the words


def tiny_heads(artist):
    return artist.config.denoiser.heads[-1]


def test_large_maps_keep_no_weights(artist, monkeypatch):
    monkeypatch.setattr("diffusion.inspection.trace.LARGEST", 2 * 3 * 16 * 16)
    monkeypatch.setattr(artist.denoiser, "_programs", {})  # those that know the usual limit
    run = trace(artist, PROMPT, steps=1)
    shapes = {x.shape[2:] for x in run.activations(0).attention.values()}
    assert shapes == {(16, 16), (4, 4), (4, 16)}  # 64 positions are too many, of words too


def test_the_text_encoder(run, artist):
    close(run.context, artist.text_encoder(jnp.asarray(run.tokens)))
    weights = np.asarray(run.text_activations["layers.1.attention.weights"])
    assert weights.shape == (2, 2, 16, 16)
    assert np.triu(weights, 1).max() == 0.0  # nobody looks ahead
    assert run.text_activations["token_embedding"].shape == (2, 16, 8)


def test_the_decoder(run, artist):
    close(run.decoder_activations["picture"], artist.autoencoder.decode(run.steps[-1].x_next))
    assert run.decoder_activations["decoder.levels.0"].shape == (2, 16, 16, 8)
    np.testing.assert_array_equal(
        run.decoder_activations["decoder.conv_out"], run.decoder_activations["picture"]
    )


def test_words_and_their_places(run, artist):
    assert " ".join(word.text for word in run.words) == PROMPT
    assert run.words[0].places.start == 1
    for word in run.words:
        text = artist.tokenizer.decode(run.tokens[0, word.places])
        assert text.strip() == word.text


def test_a_word_is_whole_though_a_letter_is_cut_into_its_bytes(artist):
    run = trace(artist, "taş ev", steps=1)
    assert [word.text for word in run.words] == ["taş", "ev"]
    assert any(r"\xc5" in label for label in run.labels)


def test_a_mark_that_is_written_out_is_no_word(artist):
    run = trace(artist, "red <|endoftext|> house", steps=1)
    assert [word.text for word in run.words] == ["red", "house"]


@pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")
def test_labels_name_every_row_that_is_told_and_no_other(artist):
    for prompt in ("", PROMPT, "red " * 80):
        run = trace(artist, prompt, steps=1)
        assert len(run.labels) == run.marked <= run.context.shape[1]
        assert run.labels[0] == "begin"
        assert run.tokens[0, run.marked - 1] == artist.tokenizer.eos
        assert run.labels[-1] == "end"


def test_unknown_steps_and_pictures_to_begin_with_are_refused(run, artist):
    with pytest.raises(IndexError):
        run.activations(3)
    with pytest.raises(ValueError, match="pure noise"):
        trace(artist, PROMPT, image=np.zeros((16, 16, 3), np.uint8))


def test_a_network_by_itself_is_watched_and_stays_as_it_is():
    network = ConvAutoencoder(ConvAutoencoderConfig(block_out_channels=(4, 2)), rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    codes, there = watched(network, images, method="encode")
    copies, back = watched(network, codes, method="decode")
    assert {name: x.shape for name, x in there.items()} == {
        "shrinks.0": (1, 4, 4, 4),
        "shrinks.1": (1, 2, 2, 2),
    }
    assert back.keys() == {"grows.0", "grows.1"}
    np.testing.assert_array_equal(there["shrinks.1"], codes)
    np.testing.assert_array_equal(codes, network.encode(images))
    np.testing.assert_array_equal(copies, network.decode(codes))
    assert type(network.shrinks[0]) is Shrink
    printed, _ = watched(as_printed(width=2, rngs=nnx.Rngs(0)), images)
    assert printed.shape == (1, 2, 2, 2)
