"""The error of fine detail, and whose parameters a decoder's training changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import DVAEConfig, ModelConfig
from diffusion.datasets.garden import sample_scenes
from diffusion.runtime.parameters import split
from diffusion.training.decoder import TRAINED, DecoderTask, detail, detail_error
from diffusion.weights.architectures import create
from tests.training.conftest import stripes


def flake(row, column, side=16):
    return jnp.zeros((1, side, side, 3)).at[:, row, column].set(1.0)


def test_a_flake_counts_wherever_in_its_square_it_lies():
    here, there, elsewhere = flake(2, 3), flake(5, 4), flake(2, 11)
    assert detail_error(here, here) == 0.0
    assert detail_error(here, there) == pytest.approx(0.0, abs=1e-6)
    assert detail_error(here, elsewhere) > 0.01
    assert detail_error(0.5 * here, here) > 0.01  # half as bright


@pytest.mark.parametrize(("side", "squares"), [(2, 1), (8, 1), (17, 2), (20, 2)])
def test_detail_is_counted_in_whole_squares(side, squares):
    images = jnp.linspace(-1.0, 1.0, side * side * 3).reshape(1, side, side, 3)
    down, right = detail(images)
    assert down.shape[1] == right.shape[2] == squares
    assert np.isfinite(down).all()


def test_a_flat_picture_has_a_finite_slope():
    slope = jax.grad(lambda images: detail_error(images, flake(2, 3)))(jnp.zeros((1, 16, 16, 3)))
    assert np.isfinite(slope).all()


@pytest.mark.usefixtures("quick_pictures")
def test_codes_stay_where_a_decoder_learns():
    network = DVAEConfig(codes=8, latent_channels=4, block_out_channels=(4,), norm_groups=2)
    model = ModelConfig(image_size=8, autoencoder=network)
    known = split(create(network, nnx.Rngs(0)))[1]
    task = DecoderTask(model, known=known)
    assert set(task.init(0)) == set(TRAINED)
    assert set(task.frozen["kept"]) == set(known) - set(TRAINED)
    assert "codebook" in task.frozen["kept"]
    batch = sample_scenes(np.random.default_rng(0), 2)
    look = jax.value_and_grad(
        lambda params: task.loss(params, task.frozen, batch, jax.random.key(0))[0]
    )
    loss, slopes = look(task.init(0))
    assert np.isfinite(loss)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(slopes)) > 0.0
    latents = nnx.merge(task.structure, known).encode(stripes(batch, 8))
    assert latents.shape == (2, 8, 8, 4)
