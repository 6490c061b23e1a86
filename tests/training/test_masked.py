"""A painter of codes learns in the trainer of the others: with cross-entropy behind the masks."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import diffusion
from diffusion import cli
from diffusion.config import DVAEConfig, SamplingConfig
from diffusion.config_codes import MaskedTransformerConfig, MaskingConfig
from diffusion.training import denoiser
from diffusion.training.denoiser import DenoiserTask
from diffusion.training.distillation import DistillTask
from diffusion.training.loop import train
from diffusion.training.recipe import train_part
from diffusion.training.train_config import TrainConfig
from diffusion.weights import folder
from tests.training.conftest import stripes

CODES, MASK = 16, 17
AUTOENCODER = DVAEConfig(
    latent_channels=4, codes=CODES, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2
)
SIZES = {
    "codes": CODES, "vocabulary": 18, "channels": 8, "blocks": 1, "block_heads": 2, "width": 12,
    "layers": 1, "heads": 2, "mlp_width": 8, "context_width": 8, "size_code": 4,
}  # fmt: skip
SETTINGS = [
    "steps=2", "batch_size=2", *(f"model.denoiser.{name}={size}" for name, size in SIZES.items()),
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser, "render", stripes)
        yield


@pytest.fixture(scope="module")
def discrete(tiny, write_model, tmp_path_factory):
    """The tiny model with a dVAE, and a U-Net that paints with it."""
    config = dataclasses.replace(tiny, autoencoder=AUTOENCODER)
    return write_model(tmp_path_factory.mktemp("discrete") / "codes", config)


@pytest.fixture(scope="module")
def task(discrete):
    before = folder.load_config(discrete)
    config = dataclasses.replace(
        before,
        denoiser=MaskedTransformerConfig(**SIZES),
        process=MaskingConfig(mask=MASK),
        sampling=SamplingConfig("maskgit", 12),
    )
    text, auto = (
        folder.load_part(discrete, before, slot)[1] for slot in ("text_encoder", "autoencoder")
    )
    return DenoiserTask(config, folder.load_tokenizer(discrete), text, auto)


def test_the_loss_is_the_cross_entropy_behind_the_masks(task, monkeypatch):
    """Of a network that finds all codes alike it is log K, however many are masked."""
    seen = {}

    class Silent(nnx.Module):
        def __call__(self, x_t, t, context):
            seen["x_t"], seen["t"] = x_t, t
            return jnp.zeros((*x_t.shape[:3], CODES))

    monkeypatch.setitem(task.structures, "denoiser", nnx.split(Silent())[0])
    batch = task.batch(np.random.default_rng(0), 16)

    @jax.jit
    def run(frozen):
        keys = jax.random.split(jax.random.key(0), 3)
        codes, _ = task.seen(frozen, batch, keys[0], jnp.float32)
        return *task.loss({}, frozen, batch, jax.random.key(0)), seen, codes

    loss, metrics, told, codes = run(task.frozen)
    assert float(loss) == pytest.approx(np.log(CODES), rel=0.02)  # less where nothing is masked
    assert float(metrics["error_when_noisy"]) == pytest.approx(np.log(CODES), rel=1e-5)
    x_t, t = np.asarray(told["x_t"]), np.asarray(told["t"])
    masked = x_t == MASK
    np.testing.assert_array_equal(x_t[~masked], np.asarray(codes)[~masked])
    expected = np.cos(np.pi / 2 * (1 - t / 1000))
    np.testing.assert_allclose(masked.mean((1, 2, 3)), expected, atol=0.25)
    assert abs((masked.mean((1, 2, 3)) - expected).mean()) < 0.02


def test_it_learns_and_its_sample_sheet_is_a_picture(task, tmp_path):
    settings = TrainConfig(
        steps=40, batch_size=8, learning_rate=0.01, warmup=1, log_every=5, picture_every=40
    )
    params = train(task, settings, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    page = task.picture(params)
    assert page.dtype == np.uint8
    assert len(np.unique(page)) > 10
    np.testing.assert_array_equal(page, task.picture(params))


def test_it_begins_in_a_copy_of_a_model_with_codes(discrete, tiny_folder, tmp_path):
    output = tmp_path / "masked"
    command = ["train", "masked", "--start", str(discrete), "--output", str(output)]
    assert cli.main([*command, "--set", *SETTINGS, "model.process.mask=17"]) == 0
    config = folder.load_config(output)
    assert (config.name, config.denoiser.codes) == ("garden-masked", CODES)
    assert (config.sampling.sampler, config.sampling.steps) == ("maskgit", 12)
    assert config.autoencoder == AUTOENCODER
    for name in ("vqvae/diffusion_pytorch_model", "text_encoder/model"):
        name += ".safetensors"
        assert (output / name).read_bytes() == (discrete / name).read_bytes()
    assert not (output / "unet").exists()
    card = json.loads((output / "training.json").read_text())
    assert card["masked"]["command"].startswith("diffusion train masked --start codes --set")
    pictures = diffusion.load(output).paint("a red house", count=2)
    assert pictures.shape == (2, 16, 16, 3)
    with pytest.raises(ValueError, match="VAEConfig has none; use a discrete autoencoder"):
        train_part("masked", tmp_path / "other", SETTINGS, start=tiny_folder)
    with pytest.raises(ValueError, match="Masking masks codes; take a model that mixes"):
        train_part("distill", tmp_path / "fast", start=output)
    assert not (tmp_path / "fast").exists()
    other = dataclasses.replace(AUTOENCODER, codes=8)
    with pytest.raises(ValueError, match=r"denoiser\.codes is 16, autoencoder\.codes is 8"):
        dataclasses.replace(config, autoencoder=other)


def test_it_cannot_be_distilled(task):
    given = task.model, task.tokenizer, task.text_encoder, task.autoencoder
    with pytest.raises(ValueError, match="Masking masks codes; take a model that mixes"):
        DistillTask(*given, teacher={})
