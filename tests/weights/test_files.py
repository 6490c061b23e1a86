"""What is read, what is refused, and that nothing is lost on the way."""

import json
import os
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from diffusion.runtime.parameters import shapes, split
from diffusion.weights import files, places
from diffusion.weights.files import Weights, save_params

NAMES = {"first": "one", "layers.*": "blocks.*.proj", "conv": "conv", "table": "table.weight"}


class Toy(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.layers = nnx.List(nnx.Linear(4, 4, rngs=rngs) for _ in range(2))
        self.conv = nnx.Conv(4, 200, (3, 3), rngs=rngs)
        self.table = nnx.Param(jnp.ones((5, 2)))

    def __call__(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.fixture
def toy():
    return Toy(nnx.Rngs(0))


@pytest.fixture
def path(tmp_path, toy):
    place = tmp_path / "net" / "toy.safetensors"
    save_params(place, split(toy)[1], NAMES)
    return place


def like():
    return shapes(lambda: Toy(nnx.Rngs(0)))[1]


def read(path, dtype="float32", adjusts=()):
    return Weights.open(places.find(path.parents[1], "net", "toy"), like(), NAMES).read(
        dtype, adjusts
    )


def rewrite(path, **changes):
    """Replace tensors of a file; None takes one out."""
    tensors = load_file(path) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, path)


def test_a_round_trip_is_exact(path, toy):
    structure, _ = shapes(lambda: Toy(nnx.Rngs(7)))
    back = nnx.merge(structure, read(path))
    x = jnp.ones((1, 3))
    np.testing.assert_array_equal(back(x), toy(x))
    expected = jax.tree.leaves(nnx.state(toy))
    assert len(expected) == 9
    for a, b in zip(jax.tree.leaves(nnx.state(back)), expected, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


def test_the_file_has_official_names_and_axes_and_nothing_else(path, toy):
    stored = load_file(path)
    assert {name: value.shape for name, value in stored.items()} == {
        "one.weight": (4, 3), "one.bias": (4,), "conv.weight": (200, 4, 3, 3), "conv.bias": (200,),
        "blocks.0.proj.weight": (4, 4), "blocks.0.proj.bias": (4,), "blocks.1.proj.weight": (4, 4),
        "blocks.1.proj.bias": (4,), "table.weight": (5, 2),
    }  # fmt: skip
    np.testing.assert_array_equal(stored["one.weight"], toy.first.kernel[...].T)
    assert os.listdir(path.parent) == [path.name]
    (path.parent / "usual").touch()
    assert path.stat().st_mode == (path.parent / "usual").stat().st_mode


@pytest.mark.parametrize("dtype", files.DTYPES)
@pytest.mark.parametrize("stored", [None, *files.DTYPES])
def test_every_precision_in_the_file_and_in_memory(path, toy, dtype, stored):
    save_params(path, split(toy)[1], NAMES, dtype=stored)
    kind = files.DTYPES[stored or "float32"]
    assert load_file(path)["one.weight"].dtype == kind
    params = read(path, dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    expected = np.asarray(toy.conv.kernel[...]).astype(kind).astype(files.DTYPES[dtype])
    np.testing.assert_array_equal(params["conv"]["kernel"], expected)
    again = path.parents[1] / "again" / "net" / "toy.safetensors"
    save_params(again, params, NAMES)
    assert load_file(again)["one.weight"].dtype == files.DTYPES[dtype]


def test_an_unknown_precision(path):
    with pytest.raises(ValueError, match="dtype is 'int8'; choose one of float32, bfloat16"):
        read(path, "int8")


def test_a_linear_layer_stored_as_a_convolution(path, toy):
    rewrite(path, **{"one.weight": load_file(path)["one.weight"][..., None, None]})
    np.testing.assert_array_equal(read(path)["first"]["kernel"], toy.first.kernel[...])


def test_changes_on_the_way_are_seen_in_the_layout_of_the_file(path, toy):
    seen = {}

    def adjust(name, value):
        seen[name] = value.shape
        return value + 1.0 if name == "one.weight" else value

    params = read(path, adjusts=[adjust, adjust])
    assert seen["conv.weight"] == (200, 4, 3, 3)
    np.testing.assert_allclose(params["first"]["kernel"], toy.first.kernel[...] + 2.0, rtol=1e-6)
    np.testing.assert_array_equal(params["conv"]["kernel"], toy.conv.kernel[...])


@pytest.mark.parametrize(
    ("dtype", "value", "says"),
    [("int8", 1.0, "dtype is 'int8'; choose one of"), ("float16", 1e6, "not finite in float16")],
)
def test_what_a_file_cannot_hold_is_not_written(toy, tmp_path, dtype, value, says):
    params = jax.tree.map(lambda x: jnp.full_like(x, value), split(toy)[1])
    with pytest.raises(ValueError, match=says):
        save_params(tmp_path / "toy.safetensors", params, NAMES, dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_position_ids_and_a_prefix_are_no_obstacle(path, toy):
    tensors = {f"text_model.{name}": value for name, value in load_file(path).items()}
    save_file(tensors | {"text_model.embeddings.position_ids": np.arange(5)}, path)
    np.testing.assert_array_equal(read(path)["table"], toy.table[...])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"one.bias": None}, r"1 missing: one\.bias"),
        ({"extra.weight": np.zeros(2, np.float32)}, r"1 left over: extra\.weight"),
        (
            {"one.weight": np.zeros((4, 5), np.float32)},
            r"1 wrong shape: one\.weight of \(4, 5\) instead of \(4, 3\)",
        ),
        ({"one.weight": np.zeros((4, 3), np.int32)}, r"no fractions: one\.weight of I32"),
        ({"text_model.one.bias": np.zeros(4, np.float32)}, r"1 twice: one\.bias"),
    ],
)
def test_what_does_not_fit_is_listed(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=rf"toy\.safetensors does not fit.*{message}"):
        read(path)


def test_a_long_list_is_cut(path):
    rewrite(path, **{f"extra.{i}": np.zeros(2, np.float32) for i in range(30)})
    with pytest.raises(ValueError, match=r"30 left over: extra\.0, .*extra\.13, \.\.\.\)"):
        read(path)


@pytest.mark.parametrize("dtype", files.DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(path, dtype, value):
    weight = load_file(path)["one.weight"]
    weight[2, 1] = value
    rewrite(path, **{"one.weight": weight})
    with pytest.raises(ValueError, match=r"one\.weight holds values that are not finite"):
        read(path, dtype)


def test_a_value_too_large_for_half_precision(path):
    rewrite(path, **{"one.bias": np.full(4, 1e5, np.float32)})
    assert read(path)["first"]["bias"][0] == np.float32(1e5)
    assert jnp.isfinite(read(path, "bfloat16")["first"]["bias"]).all()
    with pytest.raises(ValueError, match=r"not finite in float16.*load it in float32"):
        read(path, "float16")


def header(length, text=b"{}"):
    return struct.pack("<Q", length) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        header(2**63),
        header(2**40),
        header(100, b"{}"),
        header(2, b"[]"),
        header(4, b"nope"),
        header(66, b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}'),
        header(6000, b"[" * 6000),
    ],
    ids=["empty", "short", "absurd", "huge", "cut", "list", "words", "shape", "deep"],
)
def test_damaged_files_are_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights file .*toy\.safetensors is damaged"):
        read(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files_are_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"toy\.safetensors is damaged"):
        read(path)


def test_a_file_that_changes_between_check_and_reading(path):
    weights = Weights.open([path], like(), NAMES)
    weights.read()
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"toy\.safetensors has changed since"):
        weights.read()
    path.unlink()
    with pytest.raises(ValueError, match=r"toy\.safetensors has changed since"):
        weights.read()


def shard(path, variant="", index="toy.safetensors.index.json"):
    """The same parameters in two files and an index."""
    tensors = load_file(path)
    halves = sorted(tensors)[:4], sorted(tensors)[4:]
    weight_map = {}
    for i, half in enumerate(halves, start=1):
        name = f"toy-0000{i}-of-00002{variant}.safetensors"
        save_file({key: tensors[key] for key in half}, path.parent / name)
        weight_map |= dict.fromkeys(half, name)
    path.unlink()
    (path.parent / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


@pytest.mark.parametrize(
    ("variant", "index"),
    [
        ("", "toy.safetensors.index.json"),
        (".fp16", "toy.safetensors.index.fp16.json"),
        (".fp16", "toy.fp16.safetensors.index.json"),
    ],
)
def test_shards_and_their_index(path, toy, variant, index):
    shard(path, variant, index)
    np.testing.assert_array_equal(read(path)["conv"]["kernel"], toy.conv.kernel[...])


def test_half_a_model(path):
    shard(path)
    (path.parent / "toy-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"toy-00002-of-00002\.safetensors is missing"):
        read(path)


@pytest.mark.parametrize(
    "name", ["../toy.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b", 7, None]
)
def test_an_index_that_names_other_places(path, name):
    weight_map = shard(path)
    weight_map["one.bias"] = name
    index = path.parent / "toy.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match="names a file outside of its folder"):
        read(path)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(path, content):
    shard(path)
    (path.parent / "toy.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="has no weight_map"):
        read(path)


def test_the_fp16_variant_is_taken_where_there_is_no_other(path, toy):
    variant = path.with_name("toy.fp16.safetensors")
    save_params(variant, split(toy)[1], NAMES, dtype="float16")
    assert places.find(path.parents[1], "net", "toy") == [path]
    path.unlink()
    assert places.find(path.parents[1], "net", "toy") == [variant]
    expected = toy.first.kernel[...].astype(jnp.float16).astype(jnp.float32)
    np.testing.assert_array_equal(read(path)["first"]["kernel"], expected)


@pytest.mark.parametrize("name", ["toy.bin", "pytorch_model.pt", "toy.safetensors"])
@pytest.mark.parametrize("content", [b"PK\x03\x04...", b"\x80\x02...", b"\x80\x05..."])
def test_a_pickle_is_refused_by_its_content_with_the_way_out(path, name, content):
    path.unlink()
    path.with_name(name).write_bytes(content)
    says = rf"{name} is a pickle.*weights_only=True.*save_file.*FILE NEW\.safetensors"
    with pytest.raises(ValueError, match=says):
        read(path)


def test_safetensors_under_the_name_of_a_pickle(path, toy):
    path.rename(path.with_suffix(".bin"))
    np.testing.assert_array_equal(read(path)["first"]["kernel"], toy.first.kernel[...])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("toy.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("toy.msgpack", b"\x82", r"toy\.msgpack is a file of Flax.*take toy\.safetensors"),
        ("tf_model.h5", b"\x89HDF", "a file of TensorFlow"),
        ("model.onnx", b"\x08", "a file of ONNX"),
    ],
)
def test_what_lies_there_in_place_of_safetensors(path, name, content, says):
    path.unlink()
    path.with_name(name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read(path)


def test_another_variant_is_read_if_it_is_the_only_one(path, toy):
    path.rename(path.with_name("toy.non_ema.safetensors"))
    np.testing.assert_array_equal(read(path)["first"]["kernel"], toy.first.kernel[...])
    shutil.copy(path.with_name("toy.non_ema.safetensors"), path.with_name("toy.ema.safetensors"))
    with pytest.raises(ValueError, match=r"has the variants ema, non_ema; copy the one"):
        read(path)


def test_what_may_be_beside_is_left_and_told(path):
    rewrite(path, **{"text_projection.weight": np.ones((2, 2), np.float32)})
    names = [path], like(), NAMES
    found = Weights.open(*names, beside=lambda name: name.startswith("text_projection"))
    assert found.unused == ("text_projection.weight",)
    with pytest.raises(ValueError, match="left over: text_projection"):
        Weights.open(*names)


def test_a_missing_file(path):
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"toy\.safetensors is missing"):
        read(path)


def test_a_link_that_leads_out_of_the_folder(path, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside.safetensors"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(ValueError, match="is a link that leads out of"):
        read(path)


def test_a_link_to_no_ordinary_file(path):
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read(path)


def test_the_links_of_the_cache_of_hugging_face(tmp_path, path, toy):
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    (snapshot / "net").mkdir(parents=True)
    path.rename(blobs / "abcdef")
    link = snapshot / "net" / "toy.safetensors"
    link.symlink_to("../../../blobs/abcdef")
    np.testing.assert_array_equal(read(link)["first"]["kernel"], toy.first.kernel[...])


def test_a_configuration_of_absurd_size_or_depth(tmp_path):
    place = tmp_path / "config.json"
    place.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        places.read_json(place)
    with place.open("wb") as file:
        file.truncate(places.LARGEST_JSON + 1)
    with pytest.raises(ValueError, match="too many for a configuration"):
        places.read_json(place)


def test_a_failed_write_leaves_the_old_file(path, toy, monkeypatch):
    before = path.read_bytes()

    def refuse(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "save_file", refuse)
    with pytest.raises(OSError, match="no space"):
        save_params(path, split(Toy(nnx.Rngs(1)))[1], NAMES)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_large_arrays_are_used_where_they_lie():
    """On a CPU the aligned array that the file is read into is the parameter: no second copy."""
    memory = files._aligned((300, 7), np.dtype(np.float32))
    memory[:] = 1.0
    assert memory.ctypes.data % files.ALIGNMENT == 0
    assert jax.device_put(memory).unsafe_buffer_pointer() == memory.ctypes.data
