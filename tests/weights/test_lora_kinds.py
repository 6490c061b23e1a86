"""LoHa, LoKr, Tucker's form, DoRA, whole changes: each against the formula, in float64."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from diffusion.weights.architectures import architecture, structure
from diffusion.weights.architectures.unet import originals
from diffusion.weights.lora import LoRA
from diffusion.weights.lora_kinds import FORMS, Change, recognise, roles
from diffusion.weights.names import theirs

RANK, ALPHA, STRENGTH = 3, 5.0, 0.7
LINEAR, CONV = (6, 4), (6, 4, 3, 3)
SHAPES = {"denoiser": {"to_q.weight": LINEAR, "conv.weight": CONV, "conv.bias": (6,),
                       "norm.weight": (6,), "norm.bias": (6,)},
          "text_encoder": {"encoder.fc1.weight": LINEAR}}  # fmt: skip


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def merged(tensors, path, layer, value, strength=STRENGTH, **more):
    save_file({key: np.ascontiguousarray(x) for key, x in tensors.items()}, path, **more)
    return LoRA.open(path, strength, SHAPES).adjust("denoiser")(layer, value)


def check(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "style.safetensors"


def tucker(core, left, right):
    """left (out, a), core (a, b, h, w), right (b, in), one sum after the other."""
    out, inputs = len(left), right.shape[1]
    found = np.zeros((out, inputs, *core.shape[2:]))
    for a in range(core.shape[0]):
        for b in range(core.shape[1]):
            outer = np.multiply.outer(np.float64(left[:, a]), np.float64(right[b]))
            found += outer[..., None, None] * np.float64(core[a, b])
    return found


def kron(w1, w2):
    """Block (i, j) of the result is w1[i, j] w2; a window of a convolution stays as it is."""
    rows = [np.concatenate([np.float64(x) * w2 for x in row], axis=1) for row in w1]
    return np.concatenate(rows, axis=0)


def test_locon_with_a_core(path):
    up, mid, down = draw(6, RANK, 1, 1), draw(RANK, RANK, 3, 3), draw(RANK, 4, 1, 1)
    tensors = {"lora_unet_conv.lora_up.weight": up, "lora_unet_conv.lora_mid.weight": mid,
               "lora_unet_conv.lora_down.weight": down,
               "lora_unet_conv.alpha": np.float32(ALPHA)}  # fmt: skip
    value = draw(*CONV, seed=1)
    change = ALPHA / RANK * tucker(mid, up[..., 0, 0], down[..., 0, 0])
    check(merged(tensors, path, "conv.weight", value), value + STRENGTH * change)


@pytest.mark.parametrize("shape", [LINEAR, CONV])
def test_loha(path, shape):
    name = "to_q" if shape == LINEAR else "conv"
    out, inputs = shape[0], int(np.prod(shape[1:]))
    parts = {"w1_a": draw(out, RANK), "w1_b": draw(RANK, inputs),
             "w2_a": draw(out, RANK, seed=2), "w2_b": draw(RANK, inputs, seed=2)}  # fmt: skip
    tensors = {f"lora_unet_{name}.hada_{part}": x for part, x in parts.items()}
    tensors[f"lora_unet_{name}.alpha"] = np.float32(ALPHA)
    value = draw(*shape, seed=1)
    one, two = (np.float64(parts[f"w{i}_a"]) @ parts[f"w{i}_b"] for i in (1, 2))
    change = ALPHA / RANK * (one * two).reshape(shape)
    check(merged(tensors, path, f"{name}.weight", value), value + STRENGTH * change)


def test_loha_with_cores(path):
    parts = {f"w{i}_a": draw(RANK, 6, seed=i) for i in (1, 2)}
    parts |= {f"w{i}_b": draw(RANK, 4, seed=i) for i in (1, 2)}
    parts |= {f"t{i}": draw(RANK, RANK, 3, 3, seed=i) for i in (1, 2)}
    tensors = {f"lora_unet_conv.hada_{part}": x for part, x in parts.items()}
    value = draw(*CONV, seed=3)
    one, two = (tucker(parts[f"t{i}"], parts[f"w{i}_a"].T, parts[f"w{i}_b"]) for i in (1, 2))
    check(merged(tensors, path, "conv.weight", value), value + STRENGTH * one * two)


@pytest.mark.parametrize("thin", [(), ("1",), ("2",), ("1", "2")])
@pytest.mark.parametrize("shape", [LINEAR, CONV])
def test_lokr(path, shape, thin):
    """Where neither factor is thin, there is no rank, and alpha has no meaning."""
    name = "to_q" if shape == LINEAR else "conv"
    whole = {"1": (2, 2), "2": (3, 2, *shape[2:])}
    tensors, values = {"lora_unet_x.alpha": np.float32(ALPHA)}, {}
    for i, sides in whole.items():
        if i in thin:
            a, b = draw(sides[0], RANK, seed=4), draw(RANK, int(np.prod(sides[1:])), seed=5)
            tensors |= {f"lora_unet_x.lokr_w{i}_a": a, f"lora_unet_x.lokr_w{i}_b": b}
            values[i] = (np.float64(a) @ b).reshape(sides)
        else:
            tensors[f"lora_unet_x.lokr_w{i}"] = values[i] = draw(*sides, seed=6)
    tensors = {key.replace("_x.", f"_{name}."): x for key, x in tensors.items()}
    value = draw(*shape, seed=1)
    change = (ALPHA / RANK if thin else 1.0) * kron(values["1"], values["2"])
    check(merged(tensors, path, f"{name}.weight", value), value + STRENGTH * change)


def test_lokr_with_a_core(path):
    w1, core = draw(3, 2), draw(RANK, RANK, 3, 3)
    left, right = draw(RANK, 2), draw(RANK, 2, seed=1)
    tensors = {"lora_unet_conv.lokr_w1": w1, "lora_unet_conv.lokr_t2": core,
               "lora_unet_conv.lokr_w2_a": left, "lora_unet_conv.lokr_w2_b": right,
               "lora_unet_conv.alpha": np.float32(ALPHA)}  # fmt: skip
    value = draw(*CONV, seed=1)
    change = ALPHA / RANK * kron(w1, tucker(core, left.T, right))
    check(merged(tensors, path, "conv.weight", value), value + STRENGTH * change)


@pytest.mark.parametrize(
    ("layer", "role", "shape"),
    [("conv", "diff", CONV), ("to_q", "diff", LINEAR), ("norm", "w_norm", (6,)),
     ("norm", "diff", (6,))],
)  # fmt: skip
def test_whole_changes(path, layer, role, shape):
    value, change = draw(*shape, seed=1), draw(*shape)
    tensors = {f"lora_unet_{layer}.{role}": change, "unet.conv.diff_b": draw(6)}
    if role == "w_norm":
        tensors["lora_unet_norm.b_norm"] = draw(6, seed=2)
    check(merged(tensors, path, f"{layer}.weight", value), value + STRENGTH * change)
    lora = LoRA.open(path, STRENGTH, SHAPES)
    bias = draw(6, seed=3)
    check(lora.adjust("denoiser")("conv.bias", bias), bias + STRENGTH * draw(6))
    if role == "w_norm":
        added = STRENGTH * draw(6, seed=2)
        check(lora.adjust("denoiser")("norm.bias", bias), bias + added)


def lengths(shape, rows):
    return 0.5 + np.abs(draw(*((shape[0], 1) if rows else (1, shape[1])), seed=9))


@pytest.mark.parametrize("strength", [1.0, 0.7, 0.0])
@pytest.mark.parametrize(
    ("key", "rows", "spelled"),
    [
        ("dora_scale", True, lambda x, shape: x.reshape(*x.shape, *[1] * (len(shape) - 2))),
        ("dora_scale", False, lambda x, shape: x.reshape(*x.shape, *[1] * (len(shape) - 2))),
        ("lora_magnitude_vector", True, lambda x, shape: x.ravel()),
        ("lora_magnitude_vector.default_0.weight", True, lambda x, shape: x.ravel()),
        ("lora_magnitude_vector.weight", True, lambda x, shape: x.reshape(1, -1, 1, 1)),
    ],
)
@pytest.mark.parametrize("shape", [LINEAR, CONV, (4, 4)])
def test_dora(path, key, rows, spelled, shape, strength):
    """Rows (or columns, one for each input) of W + alpha / rank B A get their length."""
    name = "conv" if shape == CONV else "to_q"
    up, down = draw(shape[0], RANK), draw(RANK, *shape[1:])
    wanted = lengths(shape, rows)
    tensors = {f"lora_unet_{name}.lora_up.weight": up, f"lora_unet_{name}.lora_down.weight": down,
               f"lora_unet_{name}.{key}": spelled(wanted, shape),
               f"lora_unet_{name}.alpha": np.float32(ALPHA)}  # fmt: skip
    value = draw(*shape, seed=1)
    total = value + ALPHA / RANK * np.tensordot(np.float64(up), np.float64(down), 1)
    axis = 0 if rows else 1
    for i, length in enumerate(wanted.ravel()):
        part = total[i] if axis == 0 else total[:, i]
        part *= length / np.sqrt((part**2).sum())
    save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, path)
    known = {"denoiser": {f"{name}.weight": shape}, "text_encoder": {}}
    found = LoRA.open(path, strength, known).adjust("denoiser")(f"{name}.weight", value)
    check(found, value + strength * (total - value))


def test_dora_of_a_row_that_is_zero(path):
    tensors = {"unet.to_q.lora_B.weight": np.zeros((6, 2), np.float32),
               "unet.to_q.lora_A.weight": draw(2, 4),
               "unet.to_q.lora_magnitude_vector": np.ones(6, np.float32)}  # fmt: skip
    value = draw(*LINEAR)
    value[2] = 0.0
    found = merged(tensors, path, "to_q.weight", value, 1.0)
    np.testing.assert_array_equal(found[2], 0.0)
    np.testing.assert_allclose(np.linalg.norm(found[3:], axis=1), 1.0, rtol=1e-6)


def test_dora_of_a_loha(path):
    parts = {"w1_a": draw(6, RANK), "w1_b": draw(RANK, 4),
             "w2_a": draw(6, RANK, seed=2), "w2_b": draw(RANK, 4, seed=2)}  # fmt: skip
    tensors = {f"lora_unet_to_q.hada_{part}": x for part, x in parts.items()}
    tensors["lora_unet_to_q.dora_scale"] = wanted = lengths(LINEAR, True)
    value = draw(*LINEAR, seed=1)
    total = value + (parts["w1_a"] @ parts["w1_b"]) * (parts["w2_a"] @ parts["w2_b"])
    expected = total * wanted / np.linalg.norm(total, axis=1, keepdims=True)
    check(merged(tensors, path, "to_q.weight", value, 1.0), expected)


def test_every_form_is_recognised_and_any_part_of_it():
    for kind, form in FORMS:
        assert recognise(roles(form)) == (kind, form)
        for role in roles(form):
            assert recognise({role})[0].name == kind.name


def test_whatever_the_file_holds_the_sum_is_float32():
    kind, form = recognise({"lokr_w1", "lokr_w2"})
    tensors = {"lokr_w1": draw(2, 2).astype(np.float16), "lokr_w2": draw(3, 2).astype(np.float64)}
    found = Change(kind, form, tensors).added(draw(*LINEAR), 1.0)
    assert found.dtype == np.float32
    check(found, kron(tensors["lokr_w1"], tensors["lokr_w2"]))


def test_names_of_the_first_code(path, artist):
    """Every layer of the U-Net, in one row down and one up; with `_`, and with dots."""

    config = artist.config.denoiser
    [spelling] = originals(config)
    ours = [".".join(map(str, p)) for p in flatten_dict(structure(config)[1])]
    official = {theirs(name, architecture(config).names): name for name in ours}
    others = {name: theirs(own, spelling.names) for name, own in official.items()}
    known = {"denoiser": {name: LINEAR for name in official}, "text_encoder": {}}
    stems = {name: other.removesuffix(".weight") for name, other in others.items()
             if name.endswith(".weight")}  # fmt: skip
    assert "input_blocks.1.1.transformer_blocks.0.attn1.to_q" in stems.values()
    for write in (
        lambda stem: "lora_unet_" + stem.replace(".", "_"),
        lambda stem: f"diffusion_model.{stem}",
    ):
        tensors = {}
        for i, stem in enumerate(stems.values()):
            tensors |= {f"{write(stem)}.lora_up.weight": draw(6, 1),
                        f"{write(stem)}.lora_down.weight": draw(1, 4),
                        f"{write(stem)}.alpha": np.array(i, np.float32)}  # fmt: skip
        save_file(tensors, path)
        changes = LoRA.open(path, 1, known, {"denoiser": others}).changes
        assert {name: c.scale for (_, name), c in changes.items()} == {
            name: i for i, name in enumerate(stems)
        }
        with pytest.raises(ValueError, match="left over: "):
            LoRA.open(path, 1, known)
