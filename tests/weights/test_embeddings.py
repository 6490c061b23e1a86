"""Words that a model did not know: tokens and contexts are those that the reference recorded."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import diffusion
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights import folder
from diffusion.weights.embeddings import Embedding

GOLDEN = folder.shipped("golden")
PLACE = GOLDEN / "embeddings"
# One of the prompts is longer than a row.
pytestmark = pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")
FILES = {str(PLACE / "cat.safetensors"): "", str(PLACE / "gold.safetensors"): ""}


def told():
    with safe_open(PLACE / "told.safetensors", "numpy") as file:
        prompts = json.loads(file.metadata()["prompts"])
        return prompts, file.get_tensor("tokens"), file.get_tensor("context")


@pytest.fixture(scope="module")
def artist():
    return diffusion.load(GOLDEN / "sd1/model", embeddings=FILES)


def test_tokens_and_context_are_the_reference_s(artist):
    prompts, tokens, context = told()
    ours = artist.tokenizer(prompts)
    np.testing.assert_array_equal(ours, tokens)
    found = artist.text_encoder(jnp.asarray(ours))[:, : context.shape[1]]
    np.testing.assert_allclose(found, context, atol=1e-5 * np.abs(context).max())


def test_a_folder_that_the_reference_saved_after_it():
    prompts, tokens, _ = told()
    np.testing.assert_array_equal(Tokenizer.load(PLACE / "tokenizer")(prompts), tokens)


def test_a_folder_that_we_save_after_it(artist, tmp_path):
    artist.save(tmp_path / "saved")
    again = diffusion.load(tmp_path / "saved")
    prompts, tokens, _ = told()
    np.testing.assert_array_equal(again.tokenizer(prompts), tokens)
    contexts = (one.text_encoder(jnp.asarray(tokens)) for one in (again, artist))
    np.testing.assert_array_equal(*contexts)
    assert again.config == artist.config


def test_the_memory_comes_back_with_the_rows(artist):
    before = np.asarray(artist.text_encoder.params["token_embedding"]["embedding"])
    artist.text_encoder.release()
    np.testing.assert_array_equal(
        artist.text_encoder.params["token_embedding"]["embedding"], before
    )
    cat = load_file(PLACE / "cat.safetensors")["<cat>"]
    np.testing.assert_array_equal(before[-4], cat)


def test_how_a_token_is_called(tmp_path):
    vectors = np.ones((2, 8), np.float16)
    for key in ("emb_params", "<hat>"):
        path = tmp_path / "my style.safetensors"
        save_file({key: vectors}, path)
        name = "my style" if key == "emb_params" else key
        assert Embedding.open(path, "", 8).tokens == (name, f"{name}_1")
        assert Embedding.open(path, "other", 8).tokens == ("other", "other_1")
        assert Embedding.open(path, "", 8).vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"a": np.ones(8, np.float32), "b": np.ones(8, np.float32)}, "holds 2 tensors"),
        ({"clip_l": np.ones((1, 8)), "clip_g": np.ones((1, 8))}, "one of SDXL"),
        ({"emb_params": np.ones((2, 9), np.float32)}, r"shape \(2, 9\); .* vectors of 8"),
        ({"emb_params": np.ones((76, 8), np.float32)}, "needs 1 to 75 vectors"),
        ({"emb_params": np.ones((0, 8), np.float32)}, "needs 1 to 75 vectors"),
        ({"emb_params": np.ones((1, 1, 8), np.float32)}, "has the shape"),
        ({"emb_params": np.array(1.0, np.float32)}, "has the shape"),
        ({"emb_params": np.ones((1, 8), np.int64)}, "holds I64, and no fractions"),
        ({"emb_params": np.full((1, 8), np.nan, np.float32)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, tensors, says):
    path = tmp_path / "cat.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match=f"cat.safetensors.*{says}"):
        Embedding.open(path, "", 8)


def test_pickles_and_files_that_are_not_there(tmp_path):
    (tmp_path / "cat.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"embedding .*cat\.pt is a pickle.*weights_only=True"):
        Embedding.open(tmp_path / "cat.pt", "", 8)
    with pytest.raises(FileNotFoundError, match="is missing or no file"):
        Embedding.open(tmp_path / "gone.safetensors", "", 8)


def test_a_token_that_is_taken():
    with pytest.raises(ValueError, match=r"is empty, too long or taken; name another: .*=<name>"):
        diffusion.load(GOLDEN / "sd1/model", embeddings={next(iter(FILES)): "gold"} | {
            list(FILES)[1]: "gold"
        })  # fmt: skip
