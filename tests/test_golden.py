"""Every block does what the reference's does, recorded by `parity.golden`; and mistakes show."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import diffusion
from diffusion import pipeline
from diffusion.inspection import blocks
from diffusion.inspection.blocks import PARTS
from diffusion.inspection.rows import compare, table
from diffusion.layers import attention, time_embedding
from diffusion.layers.activations import exact_gelu, quick_gelu
from diffusion.layers.normalisation import GroupNorm
from diffusion.process.samplers import SamplerTable
from diffusion.settings import Settings
from diffusion.stages import motion
from diffusion.stages.motion import frame_positions
from diffusion.weights import folder
from diffusion.weights.architectures import dvae, masked
from parity import motion_blocks, transformer_blocks

GOLDEN = folder.shipped("golden")
FAMILIES = ("sd1", "sd2")
TRANSFORMERS = ("pixart", "dit", "amused", "amused512")
PAINTED_BOUND = 5e-5
PROMPTS = {"prompt": "a red house with two old trees and yellow flowers", "negative": "night"}


@cache
def loaded(family, part):
    root = GOLDEN / family / "model"
    return folder.load_part(root, folder.load_config(root), PARTS[part].slot)


def network(family, part):
    """A new one each time: the mistakes below are made in it."""
    return nnx.merge(*loaded(family, part))


def record(family, part):
    return blocks.load_record(GOLDEN / family / f"{part}.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", PARTS)
def test_every_block_and_the_whole(family, part):
    rows = list(blocks.rows(network(family, part), part, record(family, part)))
    breaches = [row for row in rows if not row.ok]
    assert not breaches, f"\n{table(breaches)}"
    assert len(rows) == len(record(family, part))


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_with_odd_sides(family):
    arrays = load_file(GOLDEN / family / "odd.safetensors")
    sizes = {name.removesuffix(" in") for name in arrays if name.endswith(" in")}
    assert sizes == {"9x13", "1x1", "8x5"}
    unet = jax.jit(network(family, "unet"))
    for size in sizes:
        given = blocks.nhwc(arrays[f"{size} in"]), np.array([500]), arrays["context"]
        said = unet(*map(jnp.asarray, given))
        row = compare(size, np.asarray(said), blocks.nhwc(arrays[f"{size} out"]), 1e-5)
        assert row.ok, row


def transformer(family):
    root = GOLDEN / family / "model"
    if family.startswith("amused"):
        return blocks.load(root, masked.ARCHITECTURE)
    return folder.load_network(root, "denoiser")


def transformer_rows(network, family, wanted=lambda name: True):
    calls = blocks.load_record(GOLDEN / family / "transformer.safetensors")
    return list(transformer_blocks.rows(network, calls, wanted))


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_every_block_of_a_transformer_and_the_whole(family):
    rows = transformer_rows(transformer(family), family)
    breaches = [row for row in rows if not row.ok]
    assert not breaches, f"\n{table(breaches)}"
    found = {row.block for row in rows}
    assert found >= {"blocks.0", "exit", "transformer"}
    assert "blocks.0, faint" in found or "down.attentions.1" in found


def test_a_painter_of_codes_ends_with_the_same_codes_and_pictures():
    """Both sides drew the same numbers: every code of every step is the same."""
    artist = diffusion.load(GOLDEN / "amused/model")
    assert artist.config.text_encoder.summary
    golden = load_file(GOLDEN / "amused/painted.safetensors")
    asked = Settings(**PROMPTS, seed=3, count=2)  # 12 steps, and guidance 10, are the model's own
    steps = list(artist.sample(asked))
    codes = np.stack([np.asarray(step.x_next)[..., 0] for step in steps])
    np.testing.assert_array_equal(codes, golden["codes"])
    pictures = artist.decode(steps[-1].x_next)
    difference = pictures.astype(int) - golden["pictures"]
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.001  # where both are about half between two levels


@pytest.mark.parametrize("kind", ["celebahq", "amused"])
def test_every_block_of_a_discrete_autoencoder(kind):
    place = GOLDEN / "vq" / kind
    ours = blocks.load(place, dvae.ARCHITECTURE)
    calls = blocks.load_record(place / "record.safetensors")
    rows = list(blocks.rows(ours, dvae.ARCHITECTURE.folder, calls))
    assert {"encode", "decode", "codes", "from_codes", "codebook"} <= {row.block for row in rows}
    assert all(row.ok for row in rows), f"\n{table(rows)}"


def test_both_sides_must_have_the_same_blocks():
    calls = record("sd1", "text_encoder")
    del calls["encoder.layers.1"]
    with pytest.raises(ValueError, match=r"only one side has the blocks encoder\.layers\.1"):
        next(blocks.rows(network("sd1", "text_encoder"), "text_encoder", calls))


@pytest.fixture(scope="module", params=FAMILIES)
def artist(request):
    artist = diffusion.load(GOLDEN / request.param / "model")
    return artist, load_file(GOLDEN / request.param / "painted.safetensors")


def painted(artist, sampler):
    """The comparison of the final latents."""
    artist, golden = artist
    steps = list(artist.sample(Settings(**PROMPTS, sampler=sampler, steps=6, guidance=7.5)))
    np.testing.assert_allclose(steps[0].x_t, blocks.nhwc(golden["canvas"]), atol=1e-6)
    latents = np.asarray(steps[-1].x_next)
    return compare(sampler, latents, blocks.nhwc(golden[sampler]), PAINTED_BOUND)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun", "dpm++2m"])
def test_the_pipeline_ends_with_the_same_latents(artist, sampler):
    row = painted(artist, sampler)
    assert row.ok, row


# Known mistakes of other ports. Each is made in a network of ours, and the block must breach.


def eps_of_the_transformer(unet):
    unet.down.blocks[0].transformers[0].norm.eps = 1e-5


def eps_of_the_residual_block(unet):
    unet.down.blocks[0].residuals[0].norm1.eps = 1e-6


def eps_of_the_layer_norm(unet):
    unet.down.blocks[0].transformers[0].block.norm1.epsilon = 1e-6


def head_width_for_their_number(unet):
    """`attention_head_dim` is the number of heads: two, not heads that are two wide."""
    unet.down.blocks[2].transformers[0].block.self_attention.heads = 6


def gate_before_value(unet):
    linear = unet.down.blocks[1].transformers[0].block.feed_forward.linear1
    for parameter in (linear.kernel, linear.bias):
        parameter[...] = jnp.roll(parameter[...], parameter.shape[-1] // 2, axis=-1)


def padding_at_two_sides(unet):
    unet.down.blocks[0].downsample.conv.padding = ((0, 1), (0, 1))


def eps_of_the_vae(vae):
    vae.encoder.levels[0].residuals[0].norm1.eps = 1e-5


def eps_of_the_vaes_attention(vae):
    vae.decoder.middle.attention.norm.eps = 1e-5


def padding_at_four_sides(vae):
    vae.encoder.levels[0].change.conv.padding = ((1, 1), (1, 1))


def eps_of_the_text_encoder(text_encoder):
    text_encoder.layers[0].norm1.epsilon = 1e-6


def exact_for_quick_gelu(text_encoder):
    text_encoder.layers[0].activation = exact_gelu


def quick_for_exact_gelu(text_encoder):
    text_encoder.layers[0].activation = quick_gelu


MISTAKES = [  # family, part, the block of the reference
    (eps_of_the_transformer, "sd1", "unet", "down_blocks.0.attentions.0"),
    (eps_of_the_transformer, "sd2", "unet", "down_blocks.0.attentions.0"),
    (eps_of_the_residual_block, "sd1", "unet", "down_blocks.0.resnets.0"),
    (eps_of_the_layer_norm, "sd1", "unet", "down_blocks.0.attentions.0"),
    (head_width_for_their_number, "sd1", "unet", "down_blocks.2.attentions.0"),
    (gate_before_value, "sd1", "unet", "down_blocks.1.attentions.0"),
    (padding_at_two_sides, "sd1", "unet", "down_blocks.0.downsamplers.0"),
    (eps_of_the_vae, "sd1", "vae", "encoder.down_blocks.0.resnets.0"),
    (eps_of_the_vaes_attention, "sd1", "vae", "decoder.mid_block.attentions.0"),
    (padding_at_four_sides, "sd1", "vae", "encoder.down_blocks.0.downsamplers.0"),
    (eps_of_the_text_encoder, "sd1", "text_encoder", "encoder.layers.0"),
    (exact_for_quick_gelu, "sd1", "text_encoder", "encoder.layers.0"),
    (quick_for_exact_gelu, "sd2", "text_encoder", "encoder.layers.0"),
]


def row_of(module, family, part, block):
    [row] = blocks.rows(module, part, record(family, part), lambda name: name == block)
    return row


@pytest.mark.parametrize(
    ("mistake", "family", "part", "block"),
    MISTAKES,
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_mistake_in_a_block_shows(mistake, family, part, block):
    wrong = network(family, part)
    mistake(wrong)
    assert not row_of(wrong, family, part, block).ok


def frequencies_of_the_original_dit(network):
    """Over 128; the reference divides by 127."""
    network.label.time.shift = 0


def eps_of_the_first_norm(network):
    network.blocks[0].norm1.epsilon = 1e-5


def eps_of_the_second_norm(network):
    network.blocks[0].norm2.epsilon = 1e-6


def a_norm_before_the_words(network):
    attention, norm = network.blocks[0].cross_attention, network.blocks[0].norm2

    class Normed(type(attention)):
        def __call__(self, x, context):
            return super().__call__(norm(x), context)

    attention.__class__ = Normed


def row_before_column(network):
    kernel = network.patches

    class Turned(type(kernel)):
        def __call__(self, latents):
            place = super().__call__(0 * latents) - self.bias[None, None]
            return super().__call__(latents) - place + jnp.roll(place, place.shape[2] // 2, 2)

    kernel.__class__ = Turned


def silu_before_the_exit(network):
    modulation = network.exit.modulation

    class Bent(type(modulation)):
        def __call__(self, time):
            return super().__call__(jax.nn.silu(time))

    modulation.__class__ = Bent


def scale_before_shift(network):
    linear = network.exit.linear1
    for parameter in (linear.kernel, linear.bias):
        parameter[...] = jnp.roll(parameter[...], parameter.shape[-1] // 2, axis=-1)


def shift_before_scale(network):
    linear = network.blocks[0].norm1.linear
    linear.kernel[...] = jnp.roll(linear.kernel[...], linear.kernel.shape[-1] // 2, axis=-1)


def no_mean_taken_away(network):
    norm = network.blocks[0].norm3.norm

    class Rooted(type(norm)):
        def __call__(self, x):
            mean = jnp.square(x).mean(axis=-1, keepdims=True)
            return x / jnp.sqrt(mean + self.epsilon) * self.scale[None, None]

    norm.__class__ = Rooted


def height_before_width(network):
    condition = network.condition

    class Turned(type(condition)):
        def __call__(self, summary, sizes):
            return super().__call__(summary, sizes[:, jnp.asarray([1, 0, 2, 3, 4])])

    condition.__class__ = Turned


def response_without_what_was_there(network):
    response = network.down.maps[0].response

    class Alone(type(response)):
        def __call__(self, x):
            return super().__call__(x) - x

    response.__class__ = Alone


@pytest.mark.parametrize(
    ("mistake", "family", "block"),
    [
        (shift_before_scale, "amused", "transformer_layers.0"),
        (no_mean_taken_away, "amused", "transformer_layers.0"),
        (height_before_width, "amused", "transformer"),
        (response_without_what_was_there, "amused512", "down_block.res_blocks.0"),
        (frequencies_of_the_original_dit, "dit", "norm1.emb.timestep_embedder"),
        (eps_of_the_first_norm, "pixart", "transformer_blocks.0, faint"),
        (eps_of_the_first_norm, "dit", "transformer_blocks.0, faint"),
        (eps_of_the_second_norm, "dit", "transformer_blocks.0, faint"),
        (a_norm_before_the_words, "pixart", "transformer_blocks.0"),
        (row_before_column, "pixart", "pos_embed"),
        (silu_before_the_exit, "pixart", "proj_out"),
        (scale_before_shift, "dit", "proj_out_2"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_mistake_in_a_transformer_shows(mistake, family, block):
    network = transformer(family)
    mistake(network)
    [row] = transformer_rows(network, family, lambda name: name == block)
    assert not row.ok


def test_tanh_gelu_shows(monkeypatch):
    monkeypatch.setattr(attention, "exact_gelu", lambda x: jax.nn.gelu(x, approximate=True))
    assert not row_of(network("sd1", "unet"), "sd1", "unet", "down_blocks.1.attentions.0").ok


def test_sine_before_cosine_shows(monkeypatch):
    sinusoids = time_embedding.sinusoids

    def turned(t, width, shift=0):
        return jnp.roll(sinusoids(t, width, shift), width // 2, 1)

    monkeypatch.setattr(time_embedding, "sinusoids", turned)
    assert not row_of(network("sd1", "unet"), "sd1", "unet", "time_embedding").ok


def test_a_text_encoder_that_sees_what_comes_shows(monkeypatch):
    monkeypatch.setattr(jnp, "tril", lambda mask: mask)
    whole = row_of(network("sd1", "text_encoder"), "sd1", "text_encoder", "text_encoder")
    assert not whole.ok


def padded_with_the_other_mark(tokenizer, texts):
    """SD 1.x pads with the mark of the end, SD 2.x with "!", whose number is 0."""
    tokens = tokenizer(texts)
    end = tokens.max()
    after = np.cumsum(tokens == end, axis=1) - (tokens == end) > 0
    return np.where(after, 0 if tokens[0, -1] == end else end, tokens)


def test_wrong_padding_shows(artist, monkeypatch):
    right = artist[0].tokenizer
    wrong = partial(padded_with_the_other_mark, right)
    monkeypatch.setattr(artist[0], "tokenizer", wrong)
    assert not painted(artist, "ddim").ok


def bfloat16(table):
    """The sampler's arithmetic in half precision."""

    def rounded(column):
        if column.dtype != np.float32:
            return column
        return np.asarray(column).astype(ml_dtypes.bfloat16).astype(np.float32)

    return SamplerTable(*map(rounded, table))


def one_timestep_off(table):
    return table._replace(timestep=table.timestep - 1)


@pytest.mark.parametrize("mistake", [bfloat16, one_timestep_off])
def test_a_wrong_table_shows(artist, monkeypatch, mistake):
    right = pipeline.table
    wrong = lambda *settings, **options: mistake(right(*settings, **options))  # noqa: E731
    monkeypatch.setattr(pipeline, "table", wrong)
    assert not painted(artist, "ddim").ok


# Motion modules beside the tiny U-Net of SD 1.x.


def moving():
    return motion_blocks.load(GOLDEN / "sd1/model", GOLDEN / "motion")


def motion_rows(image, adapter, wanted=lambda name: True):
    calls = blocks.load_record(GOLDEN / "motion/record.safetensors")
    return list(motion_blocks.compared(image, adapter, calls, wanted))


def test_every_motion_module_and_the_whole():
    rows = motion_rows(*moving())
    breaches = [row for row in rows if not row.ok]
    assert not breaches, f"\n{table(breaches)}"
    assert len(rows) == 22


def changed_call(module, call):
    """Another behaviour for this module alone."""
    kind = type(module)
    module.__class__ = type(kind)(kind.__name__, (kind,), {"__call__": call})


def a_norm_for_each_frame(module):
    def call(self, film):
        single = film.reshape(-1, film.shape[1] // motion_blocks.FRAMES, *film.shape[2:])
        return GroupNorm.__call__(self, single).reshape(film.shape)

    changed_call(module.norm, call)


def no_place_in_the_second_attention(module):
    def call(self, x):
        place = frame_positions(*x.shape[1:])[None]
        return type(self).__bases__[0].__call__(self, x - place)

    changed_call(module.block.attention2, call)


def places_that_stay(module):
    def call(self, x):
        place = frame_positions(*x.shape[1:])[None]
        return place + type(self).__bases__[0].__call__(self, x + place) - 0 * place

    changed_call(module.block, call)


def heads_that_are_two_wide(module):
    module.block.attention1.heads = 4


def frames_and_films_confused(module):
    def call(self, x, frames):
        return type(self).__bases__[0].__call__(self, x, len(x) // frames)

    changed_call(module, call)


@pytest.mark.parametrize(
    "mistake",
    [
        a_norm_for_each_frame, no_place_in_the_second_attention, places_that_stay,
        heads_that_are_two_wide, frames_and_films_confused,
    ],
)  # fmt: skip
def test_a_mistake_in_a_motion_module_shows(mistake):
    image, adapter = moving()
    mistake(adapter.down[1][0])
    name = "down_blocks.1.motion_modules.0"
    [row] = motion_rows(image, adapter, lambda found: found == name)
    assert not row.ok


def test_sines_before_cosines_show(monkeypatch):
    def apart(frames, width):
        table = frame_positions(frames, width)
        return jnp.concatenate([table[:, ::2], table[:, 1::2]], axis=1)

    monkeypatch.setattr(motion, "frame_positions", apart)
    name = "down_blocks.1.motion_modules.0"
    [row] = motion_rows(*moving(), lambda found: found == name)
    assert not row.ok
