import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from diffusion.weights import files
from diffusion.weights.files import load_params, save_params, shapes, split


class Toy(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.layers = nnx.List(nnx.Linear(4, 4, rngs=rngs) for _ in range(2))

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
    place = tmp_path / "toy.safetensors"
    save_params(place, split(toy)[1])
    return place


def like():
    return shapes(lambda: Toy(nnx.Rngs(0)))[1]


def test_a_round_trip_is_exact(path, toy):
    structure, _ = shapes(lambda: Toy(nnx.Rngs(7)))
    back = nnx.merge(structure, load_params(path, like()))
    x = jnp.ones((1, 3))
    np.testing.assert_array_equal(back(x), toy(x))
    expected = jax.tree.leaves(nnx.state(toy))
    assert len(expected) == 6
    for a, b in zip(jax.tree.leaves(nnx.state(back)), expected, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


def test_names_are_paths_and_the_file_holds_nothing_else(path):
    layers = ("first", "layers.0", "layers.1")
    names = [f"{layer}.{kind}" for layer in layers for kind in ("bias", "kernel")]
    assert sorted(load_file(path)) == names
    assert os.listdir(path.parent) == [path.name]


def test_half_precision_in_the_file_is_float32_in_memory(path, toy):
    _, params = split(toy)
    save_params(path, params, "float16")
    assert {value.dtype for value in load_file(path).values()} == {np.dtype("float16")}
    back = load_params(path, like())
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=2**-11, atol=1e-7)


def test_a_transposed_view_is_saved_as_it_looks(tmp_path):
    params = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    save_params(tmp_path / "view.safetensors", params)
    back = load_params(tmp_path / "view.safetensors", {"kernel": jnp.zeros((3, 2))})
    np.testing.assert_array_equal(back["kernel"], params["kernel"])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors is missing"):
        load_params(tmp_path / "gone.safetensors", like())


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_file(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"toy\.safetensors is damaged"):
        load_params(path, like())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("first.bias"), r"1 problems: missing first\.bias"),
        (lambda t: t.update(more=np.zeros(1, np.float32)), "left over more"),
        (
            lambda t: t.update({"first.kernel": np.ascontiguousarray(t["first.kernel"].T)}),
            r"first\.kernel has shape \(4, 3\) instead of \(3, 4\)",
        ),
        (lambda t: t["layers.1.bias"].fill(np.nan), r"layers\.1\.bias holds values.*not finite"),
        (lambda t: t["layers.0.bias"].__setitem__(2, np.inf), r"layers\.0\.bias.*not finite"),
        (lambda t: t.clear(), r"6 problems: .*\.\.\."),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_its_problems(path, change, message):
    tensors = {name: value.copy() for name, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=rf"toy\.safetensors.*{message}"):
        load_params(path, like())


@pytest.mark.parametrize("culprit", ["save_file", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(path, toy, monkeypatch, culprit):
    before = path.read_bytes()

    def half_then_full(tensors, place):
        place.write_bytes(b"half")
        raise OSError("no space left on device")

    def refuse(*_):
        raise OSError("no space left on device")

    if culprit == "save_file":
        monkeypatch.setattr(files, "save_file", half_then_full)
    else:
        monkeypatch.setattr("os.replace", refuse)
    _, params = split(toy)
    with pytest.raises(OSError, match="no space"):
        save_params(path, jax.tree.map(jnp.zeros_like, params))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
