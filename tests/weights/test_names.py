import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from diffusion.presets import garden, sd_v1, sd_v2
from diffusion.weights.architectures import SLOTS, architecture, structure, text_encoder, unet, vae
from diffusion.weights.names import from_file, theirs, to_file, today


def names(config):
    _, like = structure(config)
    return [".".join(map(str, path)) for path in flatten_dict(like)]


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("down.conv_in.kernel", "conv_in.weight"),
        ("time_embedding.linear2.bias", "time_embedding.linear_2.bias"),
        (
            "down.blocks.1.residuals.0.shortcut.kernel",
            "down_blocks.1.resnets.0.conv_shortcut.weight",
        ),
        (
            "up.blocks.3.transformers.2.block.cross_attention.out.bias",
            "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.bias",
        ),
        ("bottleneck.residual2.time.kernel", "mid_block.resnets.1.time_emb_proj.weight"),
        ("down.blocks.0.downsample.conv.bias", "down_blocks.0.downsamplers.0.conv.bias"),
        ("up.norm_out.scale", "conv_norm_out.weight"),
    ],
)
def test_the_unet_is_called_as_in_official_files(ours, official):
    assert theirs(ours, unet.NAMES) == official


@pytest.mark.parametrize(
    ("network", "ours", "official"),
    [
        (text_encoder, "position_embedding", "embeddings.position_embedding.weight"),
        (text_encoder, "token_embedding.embedding", "embeddings.token_embedding.weight"),
        (
            text_encoder,
            "layers.11.attention.query.kernel",
            "encoder.layers.11.self_attn.q_proj.weight",
        ),
        (text_encoder, "final_norm.bias", "final_layer_norm.bias"),
        (
            vae,
            "encoder.middle.attention.attention.out.kernel",
            "encoder.mid_block.attentions.0.to_out.0.weight",
        ),
        (
            vae,
            "decoder.levels.2.change.conv.kernel",
            "decoder.up_blocks.2.upsamplers.0.conv.weight",
        ),
        (vae, "quant_conv.bias", "quant_conv.bias"),
    ],
)
def test_text_encoder_and_vae_are_called_as_in_official_files(network, ours, official):
    assert theirs(ours, network.NAMES) == official


@pytest.mark.parametrize("config", [garden(), sd_v1(), sd_v2()], ids=lambda config: config.name)
@pytest.mark.parametrize("slot", SLOTS)
def test_every_parameter_has_a_name_of_its_own(config, slot):
    network = getattr(config, slot)
    ours = names(network)
    assert len({theirs(name, architecture(network).names) for name in ours}) == len(ours) > 50


def test_a_module_has_a_name_too():
    assert theirs("bottleneck.transformer.norm", unet.NAMES) == "mid_block.attentions.0.norm"
    with pytest.raises(KeyError):
        theirs("down.nothing.kernel", unet.NAMES)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("text_model.encoder.layers.0.mlp.fc1.bias", "encoder.layers.0.mlp.fc1.bias"),
        (
            "encoder.mid_block.attentions.0.query.weight",
            "encoder.mid_block.attentions.0.to_q.weight",
        ),
        ("decoder.mid_block.attentions.0.key.bias", "decoder.mid_block.attentions.0.to_k.bias"),
        ("decoder.mid_block.attentions.0.value.bias", "decoder.mid_block.attentions.0.to_v.bias"),
        (
            "decoder.mid_block.attentions.0.proj_attn.bias",
            "decoder.mid_block.attentions.0.to_out.0.bias",
        ),
        ("down_blocks.0.attentions.0.proj_in.bias", "down_blocks.0.attentions.0.proj_in.bias"),
    ],
)
def test_old_spellings(old, new):
    assert today(old) == new


@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (5, 7), (7,)])
def test_axes_go_there_and_back(shape):
    value = np.arange(np.prod(shape)).reshape(shape)
    stored = to_file(value, "a.kernel")
    np.testing.assert_array_equal(from_file(stored, "a.kernel"), value)
    assert stored.shape == {4: (7, 5, 3, 3), 2: (7, 5), 1: (7,)}[len(shape)]
    assert to_file(value, "token_embedding.embedding").shape == shape


def test_sd_1_stores_projections_as_convolutions():
    value = np.ones((5, 7))
    assert to_file(value, "a.project_in.kernel", linear_projection=False).shape == (7, 5, 1, 1)
    assert to_file(value, "a.project_in.kernel", linear_projection=True).shape == (7, 5)
    assert to_file(value, "a.linear1.kernel", linear_projection=False).shape == (7, 5)
