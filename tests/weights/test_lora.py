import json
import math

import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from diffusion.config import ModelConfig, TextEncoderConfig, UNetConfig
from diffusion.weights import files
from diffusion.weights.architectures import architecture, structure
from diffusion.weights.lora import LoRA
from diffusion.weights.names import theirs, to_file

RANK = 2
BLOCK = "down_blocks.0.attentions.0"
ATTENTION = f"{BLOCK}.transformer_blocks.0"
TO_Q = ("denoiser", f"{ATTENTION}.attn1.to_q")
OUT = ("denoiser", f"{ATTENTION}.attn2.to_out.0")
CONV = ("denoiser", "mid_block.resnets.1.conv2")
WORDS = ("text_encoder", "encoder.layers.1.self_attn.v_proj")
LAYERS = (
    TO_Q,
    OUT,
    CONV,
    WORDS,
    ("denoiser", f"{ATTENTION}.ff.net.0.proj"),
    ("denoiser", f"{BLOCK}.proj_in"),
    ("denoiser", "down_blocks.1.resnets.0.time_emb_proj"),
    ("denoiser", "down_blocks.1.resnets.0.conv_shortcut"),
    ("denoiser", "up_blocks.0.upsamplers.0.conv"),
    ("text_encoder", "encoder.layers.0.self_attn.out_proj"),
    ("text_encoder", "encoder.layers.0.mlp.fc1"),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The files of a small model, with random numbers."""
    config = ModelConfig(
        text_encoder=TextEncoderConfig(
            vocab_size=12, length=4, width=6, layers=2, heads=2, mlp_width=10
        ),
        denoiser=UNetConfig(
            block_out_channels=(4, 8),
            layers_per_block=1,
            attention=(True, False),
            heads=(2, 2),
            context_width=6,
            norm_groups=2,
        ),
    )
    place = tmp_path_factory.mktemp("model")
    draw = np.random.default_rng(0)
    opened = {}
    for part in ("denoiser", "text_encoder"):
        network = getattr(config, part)
        _, like = structure(network)
        random = {
            path: draw.standard_normal(leaf.shape, np.float32)
            for path, leaf in flatten_dict(like).items()
        }
        names = architecture(network).names
        tensors = {}
        for path, value in random.items():
            name = ".".join(map(str, path))
            tensors[theirs(name, names)] = np.ascontiguousarray(to_file(value, name, False))
        save_file(tensors, place / f"{part}.safetensors")
        opened[part] = files.Weights.open([place / f"{part}.safetensors"], like, names)
    return opened


@pytest.fixture(scope="module")
def known(weights):
    return {part: opened.shapes for part, opened in weights.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "style.safetensors"


def factors(known, layers=LAYERS, seed=1):
    """(part, layer) -> down, up, in the shapes of the files."""
    draw = np.random.default_rng(seed)
    found = {}
    for part, layer in layers:
        out, *rest = known[part][f"{layer}.weight"]
        if layer.endswith(("proj_in", "conv_shortcut")):  # convolutions in the files of SD 1.x
            rest = [*rest[:1], 1, 1]
        down = draw.standard_normal((RANK, *rest), np.float32)
        up = draw.standard_normal((out, RANK, *[1] * len(rest[1:])), np.float32)
        found[part, layer] = down, up
    return found


def peft(factors, text="text_encoder."):
    tensors = {}
    for (part, layer), (down, up) in factors.items():
        stem = (text if part == "text_encoder" else "unet.") + layer
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    return tensors


def adapter(tensors, name):
    """With the name that the adapter had in PEFT."""
    return {key.replace(".weight", f".{name}.weight"): x for key, x in tensors.items()}


def kohya(factors, alpha=None, text="lora_te_text_model_"):
    tensors = {}
    for (part, layer), (down, up) in factors.items():
        stem = (text if part == "text_encoder" else "lora_unet_") + layer.replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors |= {} if alpha is None else {f"{stem}.alpha": np.array(alpha, np.float32)}
    return tensors


def earlier(factors):
    """As diffusers wrote before PEFT."""
    tensors = {}
    for (part, layer), (down, up) in factors.items():
        text = part == "text_encoder"
        stem = f"text_encoder.text_model.{layer}.lora_linear_layer" if text else f"{layer}.lora"
        tensors |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    return tensors


def settings(**entries):
    return {"lora_adapter_metadata": json.dumps(entries)}


def read(weights, *loras):
    """All parameters of both parts, by part and official name, in the layout of the files."""
    found = {}
    for part, opened in weights.items():
        params = opened.read(adjusts=[lora.adjust(part) for lora in loras])
        for keys, value in flatten_dict(params).items():
            name = ".".join(map(str, keys))
            found[part, theirs(name, opened.names)] = to_file(np.asarray(value), name)
    return found


def merged(weights, factors, scale):
    """W + scale B A, in float64."""
    expected = read(weights)
    for (part, layer), (down, up) in factors.items():
        name = (part, f"{layer}.weight")
        up, down = np.float64(up.reshape(len(up), -1)), np.float64(down.reshape(len(down), -1))
        expected[name] = expected[name] + scale * (up @ down).reshape(expected[name].shape)
    return expected


def check(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=3e-6, err_msg=str(name))


@pytest.mark.parametrize(
    ("write", "metadata", "alpha"),
    [
        (peft, None, RANK),
        (lambda f: peft(f, "text_encoder.text_model."), None, RANK),
        (peft, settings(**{"unet.lora_alpha": 5, "text_encoder.lora_alpha": 5.0}), 5),
        (peft, settings(lora_alpha=5), 5),
        (peft, settings(lora_alpha=5, use_rslora=True), 5 * math.sqrt(RANK)),
        (lambda f: adapter(peft(f), "default_0"), None, RANK),
        (lambda f: adapter(peft(f), "default"), settings(lora_alpha=5), 5),
        (earlier, None, RANK),
        (kohya, None, RANK),
        (lambda f: kohya(f, 5), None, 5),
        (lambda f: kohya(f, [5], "lora_te_"), None, 5),
        (lambda f: kohya(f, 5, "lora_te1_text_model_"), None, 5),
        (lambda f: kohya(f, 5), settings(lora_alpha=9), 5),
    ],
)
def test_every_convention_adds_strength_alpha_over_rank_b_a(
    weights, known, path, write, metadata, alpha
):
    change = factors(known)
    save_file(write(change), path, metadata)
    lora = LoRA.open(path, 0.7, known)
    check(read(weights, lora), merged(weights, change, 0.7 * alpha / RANK))


def test_attention_processors_of_old(weights, known, path):
    change = factors(known, [TO_Q, OUT, WORDS])
    (q_down, q_up), (out_down, out_up), (v_down, v_up) = change.values()
    words = "text_encoder.text_model.encoder.layers.1.self_attn.to_v_lora"
    save_file(
        {
            f"unet.{ATTENTION}.attn1.processor.to_q_lora.down.weight": q_down,
            f"unet.{ATTENTION}.attn1.processor.to_q_lora.up.weight": q_up,
            f"unet.{ATTENTION}.attn2.processor.to_out_lora.down.weight": out_down,
            f"unet.{ATTENTION}.attn2.processor.to_out_lora.up.weight": out_up,
            f"{words}.down.weight": v_down,
            f"{words}.up.weight": v_up,
        },
        path,
    )
    check(read(weights, LoRA.open(path, 1, known)), merged(weights, change, 1))


def test_every_layer_is_found_under_a_name_of_its_own(known, path):
    """The `_` that stands for dots is also in names; no two layers may be confused for that."""
    layers = [
        (part, name.removesuffix(".weight"))
        for part, shapes in known.items()
        for name, shape in shapes.items()
        if len(shape) > 1
    ]
    tensors = {}
    for number, layer in enumerate(layers):
        tensors |= kohya(factors(known, [layer]), alpha=number)
    save_file(tensors, path)
    changes = LoRA.open(path, 1, known).changes
    for number, (part, layer) in enumerate(layers):
        assert changes[part, f"{layer}.weight"].scale == number / RANK
    assert len(layers) == len(changes) > 80


def test_alpha_of_single_layers(known, path):
    """In PEFT's settings by the end of a name, or by all of it after a ^."""
    patterns = {
        "unet.alpha_pattern": {"attn1.to_q": 3, f"^{CONV[1]}": 5},
        "text_encoder.alpha_pattern": {"^text_model." + WORDS[1]: 7.5},
    }
    alphas = {"unet.lora_alpha": 2, "text_encoder.lora_alpha": 4}
    save_file(peft(factors(known)), path, settings(**patterns, **alphas))
    changes = LoRA.open(path, 1, known).changes
    scales = {layer: changes[layer[0], f"{layer[1]}.weight"].scale for layer in LAYERS}
    special = {TO_Q: 3 / RANK, CONV: 5 / RANK, WORDS: 7.5 / RANK}
    common = {"denoiser": 2 / RANK, "text_encoder": 4 / RANK}
    assert scales == {layer: special.get(layer, common[layer[0]]) for layer in LAYERS}


@pytest.mark.parametrize("dtype", [np.int64, np.float16, ml_dtypes.bfloat16, np.float64])
def test_alpha_of_any_type(known, path, dtype):
    tensors = kohya(factors(known), alpha=3)
    alphas = {key: value.astype(dtype) for key, value in tensors.items() if key.endswith("alpha")}
    save_file({**tensors, **alphas}, path)
    assert {c.scale for c in LoRA.open(path, 1, known).changes.values()} == {3 / RANK}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_sum_is_float32_whatever_the_files_hold(known, path, dtype):
    change = {
        layer: tuple(value.astype(dtype) for value in pair)
        for layer, pair in factors(known).items()
    }
    save_file(peft(change), path)
    lora = LoRA.open(path, 0.3, known)
    down, up = change[TO_Q]
    value = np.random.default_rng(2).standard_normal((len(up), down.shape[1])).astype(dtype)
    found = lora.adjust("denoiser")(f"{TO_Q[1]}.weight", value)
    assert found.dtype == np.float32
    expected = value.astype(np.float64) + 0.3 * (up.astype(np.float64) @ down.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_strength_zero_changes_nothing(weights, known, path):
    save_file(kohya(factors(known), alpha=5), path)
    plain = read(weights)
    for name, value in read(weights, LoRA.open(path, 0, known)).items():
        np.testing.assert_array_equal(value, plain[name])


def test_what_the_file_does_not_name_stays_as_it_is(known, path):
    save_file(peft(factors(known, [TO_Q])), path)
    lora = LoRA.open(path, 1, known)
    value = np.ones((4, 4), np.float16)
    assert lora.adjust("denoiser")(f"{OUT[1]}.weight", value) is value
    assert lora.adjust("autoencoder")(f"{TO_Q[1]}.weight", value) is value


def test_several_files_add_up_in_any_order(weights, known, tmp_path):
    first, second = factors(known), factors(known, [TO_Q, WORDS], seed=8)
    save_file(peft(first), tmp_path / "a.safetensors")
    save_file(kohya(second), tmp_path / "b.safetensors")
    a = LoRA.open(tmp_path / "a.safetensors", 0.5, known)
    b = LoRA.open(tmp_path / "b.safetensors", -2, known)
    expected = merged(weights, first, 0.5)
    plain = read(weights)
    for layer, value in merged(weights, second, -2).items():
        expected[layer] = expected[layer] + (value - plain[layer])
    check(read(weights, a, b), expected)
    check(read(weights, b, a), expected)


def refused(path, known, message):
    with pytest.raises(ValueError, match=rf"style\.safetensors does not fit the model.*{message}"):
        LoRA.open(path, 1, known)


STEM = f"unet.{TO_Q[1]}"
OUT_Q = f"{ATTENTION}.attn2.to_q"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{STEM}.lora_A.weight"), r"1 missing: down of unet\.down_blocks.*to_q"),
        (lambda t: t.pop(f"{STEM}.lora_B.weight"), r"1 missing: up of unet\.down_blocks.*to_q"),
        (
            lambda t: t.update({"unet.sky.lora_A.weight": np.ones((2, 4), np.float32)}),
            r"1 left over: unet\.sky\.lora_A\.weight\)",
        ),
        (
            lambda t: t.update({f"{STEM}.lora_B.bias": np.ones(4, np.float32)}),
            r"1 left over: .*lora_B\.bias",
        ),
        (
            lambda t: t.update({"unet.conv_norm_out.alpha": np.ones((), np.float32)}),
            r"1 left over: unet\.conv_norm_out\.alpha",
        ),
        (
            lambda t: t.update({f"{STEM}.lora.down.weight": t[f"{STEM}.lora_A.weight"]}),
            r"1 twice: unet\.down_blocks.*to_q\.lora",
        ),
        (
            lambda t: t.update({f"{STEM}.lora_A.weight": np.ones((2, 5), np.float32)}),
            r"1 wrong shape: \(4, 2\) times \(2, 5\) for unet\.down_blocks.*of \(4, 4\)",
        ),
        (
            lambda t: t.update({f"{STEM}.lora_A.weight": np.ones((3, 4), np.float32)}),
            r"1 wrong shape: \(4, 2\) times \(3, 4\)",
        ),
        (
            lambda t: t.update(
                {
                    f"{STEM}.lora_A.weight": np.ones((0, 4), np.float32),
                    f"{STEM}.lora_B.weight": np.ones((4, 0), np.float32),
                }
            ),
            r"1 wrong shape: \(4, 0\) times \(0, 4\)",
        ),
        (
            lambda t: t.update({f"{STEM}.lora_A.weight": np.array(1, np.float32)}),
            r"1 wrong shape: \(4, 2\) times \(\)",
        ),
        (
            lambda t: t.update({f"{STEM}.lora_A.weight": np.ones((2, 4), np.int8)}),
            r"1 no fractions: .*of I8",
        ),
        (
            lambda t: t.update({f"{STEM}.alpha": np.ones(2, np.float32)}),
            r"1 wrong shape: .*\.alpha of \(2,\) instead of one number",
        ),
        (lambda t: t[f"{STEM}.lora_B.weight"].fill(np.nan), r"1 not finite: .*to_q\.lora_B"),
        (
            lambda t: t.update({f"{STEM}.alpha": np.array(np.inf, np.float32)}),
            r"1 not finite: .*alpha; 1 senseless alpha: unet\.down_blocks.*inf",
        ),
        (
            lambda t: t.update({f"{STEM}.lora_magnitude_vector": np.ones(5, np.float32)}),
            r"1 wrong shape: .*magnitude_vector of \(5,\) for unet\.down.* of \(4, 4\)",
        ),
        (
            lambda t: t.update(
                {
                    f"{STEM}.lora_magnitude_vector": np.ones(4, np.float32),
                    f"{STEM}.dora_scale": np.ones((4, 1), np.float32),
                }
            ),
            r"1 twice: lengths of unet\.down.*to_q",
        ),
        (
            lambda t: t.update({f"{STEM}.lora_mid.weight": np.ones((2, 2, 3, 3), np.float32)}),
            r"1 wrong shape: \(4, 2\) times \(2, 2, 3, 3\) times \(2, 4\) for unet",
        ),
        (
            lambda t: t.update({f"{STEM}.diff": np.ones((4, 4), np.float32)}),
            r"1 left over: .*to_q\.diff",
        ),
        (
            lambda t: t.update({f"{STEM}.diff_b": np.ones(4, np.float32)}),  # it has no bias
            r"1 left over: .*to_q\.diff_b",
        ),
        (
            lambda t: t.update({"unet.conv_norm_out.w_norm": np.ones(5, np.float32)}),
            r"1 wrong shape: \(5,\) for unet\.conv_norm_out\.weight of \(4,\)",
        ),
        (
            lambda t: t.update({"unet.conv_norm_out.b_norm": np.ones(5, np.float32)}),
            r"1 wrong shape: unet\.conv_norm_out\.b_norm of \(5,\) instead of \(4,\)",
        ),
        (
            lambda t: t.update({f"unet.{OUT_Q}.hada_w1_a": np.ones((4, 2), np.float32)}),
            r"3 missing: hada_w1_b of unet.*, hada_w2_a of .*, hada_w2_b of",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_problems(known, path, change, message):
    tensors = peft(factors(known))
    change(tensors)
    save_file(tensors, path)
    refused(path, known, message)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("lora_unet_mid_block_resnets_0_conv1.oft_blocks", "an OFT"),
        ("lora_unet_mid_block_resnets_0_conv1.on_input", r"an \(IA\)\^3"),
        ("lora_unet_mid_block_resnets_0_conv1.a1.weight", "a GLoRA"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "a LoRA of SDXL"),
        (
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.lora_up.weight",
            "a LoRA of SDXL",
        ),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "a LoRA of SDXL"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", "a LoRA of a transformer, such"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "a LoRA of a transformer"),
        ("base_model.model.mid_block.resnets.0.conv1.lora_A.weight", "a file of PEFT's own"),
    ],
)
def test_what_is_not_read_is_called_by_its_name(known, path, key, kind):
    save_file({**kohya(factors(known)), key: np.ones((2, 2), np.float32)}, path)
    refused(path, known, rf"1 of {kind}.* which .*: {key}")


def test_a_lora_of_another_model_is_refused_by_its_shapes(known, path):
    layer = ("denoiser", f"{ATTENTION}.attn2.to_k")
    change = factors(known, [layer, TO_Q])
    down, up = change[layer]
    change[layer] = np.concatenate([down, down], axis=1), up  # listens to a wider text encoder
    save_file(kohya(change), path)
    refused(path, known, r"\(1 wrong shape: \(4, 2\) times \(2, 12\) for unet.*of \(4, 6\)\)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "1 not a JSON object: lora_adapter_metadata"),
        ("[" * 100_000, "1 not a JSON object: lora_adapter_metadata"),
        ("[]", "1 not a JSON object: lora_adapter_metadata"),
        ('{"unet.r": 2}', "senseless alpha: unet.*weight None"),
        ('{"lora_alpha": "4"}', "senseless alpha: unet.*weight 4"),
        ('{"lora_alpha": NaN}', "senseless alpha: unet.*weight nan"),
        ('{"lora_alpha": true}', "senseless alpha: unet.*weight True"),
        ('{"lora_alpha": 1e999}', "senseless alpha: unet.*weight inf"),
        (f'{{"lora_alpha": {10**400}}}', "senseless alpha: unet.*weight 10000"),
        ('{"lora_alpha": 4, "unet.alpha_pattern": [3]}', "1 not a JSON object: alpha_pattern"),
        (
            '{"lora_alpha": 4, "unet.alpha_pattern": {"o_q": 3, "attn1.to_q": 1}}',
            r"\(1 alpha_pattern without a layer: unet\.o_q\)",
        ),
        (
            '{"lora_alpha": 4, "unet.alpha_pattern": {"^attn1.to_q": 3}}',
            r"\(1 alpha_pattern without a layer: unet\.\^attn1\.to_q\)",
        ),
    ],
)
def test_senseless_settings_are_refused(known, path, text, message):
    save_file(peft(factors(known, [TO_Q])), path, {"lora_adapter_metadata": text})
    refused(path, known, message)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_truncated_file(known, path, kept):
    save_file(peft(factors(known)), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"LoRA .*style\.safetensors is damaged"):
        LoRA.open(path, 1, known)


def test_a_file_that_holds_nothing(known, path):
    save_file({}, path)
    with pytest.raises(ValueError, match=r"style\.safetensors holds nothing"):
        LoRA.open(path, 1, known)


@pytest.mark.parametrize("name", ["style.pt", "style.ckpt", "style.bin"])
def test_a_pickle_is_refused_unread(known, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match=rf"{name} is a pickle.*weights_only=True"):
        LoRA.open(tmp_path / name, 1, known)


def test_a_missing_file(known, tmp_path):
    with pytest.raises(FileNotFoundError, match="is missing or no file"):
        LoRA.open(tmp_path / "gone.safetensors", 1, known)


def test_a_folder_with_a_lora_in_it(known, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is a folder without a \.safetensors file"):
        LoRA.open(tmp_path, 1, known)
    save_file(peft(factors(known)), tmp_path / "b.safetensors")
    assert LoRA.open(tmp_path, 1, known).path == tmp_path / "b.safetensors"
    save_file(peft(factors(known)), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"holds a\.safetensors, b\.safetensors; name one of them"):
        LoRA.open(tmp_path, 1, known)
    usual = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(peft(factors(known)), usual)
    assert LoRA.open(str(tmp_path), 1, known).path == usual


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf, 10.01, -11])
def test_a_strength_out_of_bounds(known, path, strength):
    with pytest.raises(ValueError, match=r"strength .* is not between -10 and 10"):
        LoRA.open(path, strength, known)


def test_a_change_that_float32_cannot_hold_is_blamed_on_the_lora(weights, known, path):
    tensors = peft(factors(known))
    for key in tensors:
        tensors[key] = np.full_like(tensors[key], 1e30)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"style\.safetensors: its change of .* is too large"):
        read(weights, LoRA.open(path, 1, known))


def test_it_is_merged_where_a_model_is_read(weights, known, path):
    """Half precision in memory is rounded once, after the sum."""
    change = factors(known, [TO_Q])
    save_file(peft(change), path)
    lora = LoRA.open(path, 1, known)
    half = weights["denoiser"].read("bfloat16", [lora.adjust("denoiser")])
    full = weights["denoiser"].read("float32", [lora.adjust("denoiser")])
    for path_of, value in flatten_dict(full).items():
        expected = np.asarray(value).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(np.asarray(flatten_dict(half)[path_of]), expected)
