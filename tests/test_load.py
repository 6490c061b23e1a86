"""A loaded model: its precision, its memory, and its way back to a folder."""

import gc
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import diffusion
from diffusion import pipeline
from diffusion.runtime import devices, tiled_decoding
from diffusion.weights import folder
from diffusion.weights.architectures import SLOTS

PROMPT = "a red house"


@pytest.mark.parametrize(
    ("capability", "dtype"), [("8.0", "bfloat16"), ("7.5", "float32"), ("", "float32")]
)
def test_precision_that_suits_the_device(tiny_folder, monkeypatch, capability, dtype):
    gpu = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr("diffusion.kernels.device.jax.devices", lambda: [gpu])
    loaded = diffusion.load(tiny_folder)
    assert {getattr(loaded, slot).dtype for slot in SLOTS} == {dtype}


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_half_precision_in_the_networks_float32_around_them(tiny_folder, artist, dtype):
    half = diffusion.load(tiny_folder, dtype=dtype)
    for slot in SLOTS:
        leaves = jax.tree.leaves(getattr(half, slot).params)
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
    steps = list(half.sample(PROMPT, steps=3))
    full = list(artist.sample(PROMPT, steps=3))
    rough = {"bfloat16": 0.1, "float16": 0.02}[dtype]
    for ours, exact in zip(steps, full, strict=True):
        assert {x.dtype for x in (ours.prediction, ours.x0, ours.x_next)} == {jnp.dtype("float32")}
        assert 0 < np.abs(ours.prediction - exact.prediction).max() < rough
    tokens = jnp.asarray(half.tokenizer([PROMPT]))
    inside = nnx.merge(*folder.load_part(tiny_folder, half.config, "text_encoder", dtype))
    assert inside(tokens).dtype == jnp.dtype(dtype)
    assert half.text_encoder(tokens).dtype == jnp.float32
    images = half.autoencoder.decode(full[-1].x_next)
    expected = artist.autoencoder.decode(full[-1].x_next)
    np.testing.assert_allclose(images, expected, atol=10 * rough)


def test_an_unknown_precision_is_refused(tiny_folder):
    with pytest.raises(ValueError, match="dtype is 'float8'; choose one of float32, bfloat16"):
        diffusion.load(tiny_folder, dtype="float8")


def test_a_released_network_gives_its_memory_back_and_can_be_used_again(tiny_folder):
    artist = diffusion.load(tiny_folder)
    before = artist.paint(PROMPT, steps=2)
    for slot in SLOTS:
        gc.collect()
        with_it = sum(x.nbytes for x in jax.live_arrays())
        network = getattr(artist, slot)
        size = sum(x.nbytes for x in jax.tree.leaves(network.params))
        network.release()
        network.release()
        gc.collect()
        assert with_it - sum(x.nbytes for x in jax.live_arrays()) >= size > 1000
        np.testing.assert_array_equal(artist.paint(PROMPT, steps=2), before)


def test_what_is_saved_is_what_was_loaded(tiny_folder, artist, tmp_path):
    artist.save(tmp_path / "copy")
    for slot in SLOTS:
        stored = load_file(folder.part_file(tiny_folder, artist.config, slot))
        copied = load_file(folder.part_file(tmp_path / "copy", artist.config, slot))
        assert stored.keys() == copied.keys()
        for name, value in stored.items():
            assert value.dtype == copied[name].dtype
            np.testing.assert_array_equal(copied[name], value)
    copy = diffusion.load(tmp_path / "copy")
    assert copy.config == artist.config
    np.testing.assert_array_equal(copy.paint(PROMPT, steps=2), artist.paint(PROMPT, steps=2))


def test_half_the_size_in_the_file(tiny_folder, artist, tmp_path):
    artist.save(tmp_path / "half", "float16")
    file = folder.part_file(tmp_path / "half", artist.config, "denoiser")
    assert {value.dtype for value in load_file(file).values()} == {np.dtype(np.float16)}
    assert diffusion.load(tmp_path / "half").denoiser.dtype == "float32"


def test_nothing_is_saved_over(tiny_folder, artist, tmp_path):
    with pytest.raises(ValueError, match=r"tiny is not empty; save to a new folder"):
        artist.save(tiny_folder)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="file is not empty"):
        artist.save(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    artist.save(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_a_failed_save_leaves_nothing(artist, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(folder, "save_config", refuse)
    with pytest.raises(OSError, match="no space"):
        artist.save(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_changed_on_disk_are_not_read_again(tiny_folder, tmp_path):
    place = shutil.copytree(tiny_folder, tmp_path / "model")
    artist = diffusion.load(place)
    folder.part_file(place, artist.config, "autoencoder").touch()
    artist.autoencoder.release()
    with pytest.raises(ValueError, match="has changed since; load the model again"):
        artist.decode(np.zeros((1, 8, 8, 4), np.float32))


def test_a_lora_is_merged_at_its_strength(tiny_folder, artist, tmp_path):
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    rng = np.random.default_rng(0)
    down, up = rng.standard_normal((2, 8)), rng.standard_normal((8, 2))
    path = tmp_path / "style.safetensors"
    save_file({f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}, path)
    changed = diffusion.load(tiny_folder, loras={str(path): 0.5})

    def query(artist):
        block = artist.denoiser.params["down"]["blocks"][0]["transformers"][0]["block"]
        return np.asarray(block["self_attention"]["query"]["kernel"])

    np.testing.assert_allclose(query(changed), query(artist) + 0.5 * (up @ down).T, atol=1e-6)
    old = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"  # as the first code says
    save_file({f"{old}.lora_down.weight": down, f"{old}.lora_up.weight": up}, tmp_path / "a.st")
    same = diffusion.load(tiny_folder, loras={str(tmp_path / "a.st"): 0.5})
    np.testing.assert_array_equal(query(same), query(changed))
    both = artist.denoiser.params["up"], changed.denoiser.params["up"]
    jax.tree.map(np.testing.assert_array_equal, *both)
    changed.denoiser.release()
    np.testing.assert_allclose(query(changed), query(artist) + 0.5 * (up @ down).T, atol=1e-6)


def test_a_text_encoder_without_its_last_layers(tiny_folder, artist, tmp_path):
    """As "clip skip": the layers before, and then the norm at the end."""
    place = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((place / "text_encoder/config.json").read_text())
    config["num_hidden_layers"] -= 1
    (place / "text_encoder/config.json").write_text(json.dumps(config))
    layer = "text_encoder.encoder.layers.1.mlp.fc1"  # of the layer that is left out
    rng = np.random.default_rng(0)
    down, up = rng.standard_normal((2, 8)), rng.standard_normal((16, 2))
    path = tmp_path / "style.safetensors"
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, path)
    with pytest.warns(UserWarning, match="not used: 16 tensors"):
        expected = diffusion.load(place)
    skipped = diffusion.load(tiny_folder, clip_skip=2, loras={str(path): 1.0})
    assert skipped.config.text_encoder == expected.config.text_encoder
    tokens = jnp.asarray(artist.tokenizer([PROMPT]))
    found = skipped.text_encoder(tokens)
    np.testing.assert_array_equal(found, expected.text_encoder(tokens))
    whole = diffusion.load(tiny_folder, clip_skip=1).text_encoder(tokens)
    np.testing.assert_array_equal(whole, artist.text_encoder(tokens))
    assert np.abs(whole - found).max() > 0.1
    for wrong in (0, 3, -1):
        with pytest.raises(ValueError, match=f"clip_skip is {wrong}; give 1 to 2 for tiny"):
            diffusion.load(tiny_folder, clip_skip=wrong)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_where_memory_is_short_a_picture_is_decoded_in_tiles(tiny_folder, monkeypatch, dtype):
    artist = diffusion.load(tiny_folder, dtype=dtype)
    latents = 5 * jax.random.normal(jax.random.key(0), (3, 4, 12, 4))
    whole = artist.decode(latents)
    monkeypatch.setattr(tiled_decoding, "free_memory", lambda: 1000)
    monkeypatch.setattr(artist.autoencoder, "decode", None)  # not as a whole
    tiles = artist.decode(latents)
    assert tiles.shape == (3, 8, 24, 3)
    difference = np.abs(tiles.astype(int) - whole)
    assert difference.max() <= {"float32": 1, "bfloat16": 8}[dtype]


def test_large_pictures_are_decoded_one_by_one(artist, monkeypatch):
    latents = jax.random.normal(jax.random.key(0), (3, 8, 8, 4))
    together = artist.decode(latents)
    monkeypatch.setattr(pipeline, "PIXELS", 16 * 16)
    decode, seen = artist.autoencoder.decode, []
    monkeypatch.setattr(artist.autoencoder, "decode", lambda z: (seen.append(len(z)), decode(z))[1])
    alone = artist.decode(latents)
    assert seen == [1, 1, 1]
    assert np.abs(alone.astype(int) - together).max() <= 1


def test_free_memory_is_that_of_the_machine_or_of_its_accelerator(monkeypatch):
    assert 2**20 < devices.free_memory() < 2**50

    class Accelerator:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 400}

    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator()])
    assert devices.free_memory() == 600
