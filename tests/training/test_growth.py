"""A network that grew does at first what the smaller one did."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import ConvAutoencoderConfig, DVAEConfig, UNetConfig, VAEConfig
from diffusion.runtime.parameters import Params, split
from diffusion.training.growth import check_growth, grown
from diffusion.weights.architectures import create, structure

VAE = VAEConfig(
    latent_channels=2, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2,
    scaling_factor=0.5,
)  # fmt: skip
DVAE = DVAEConfig(
    latent_channels=2, codes=16, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2,
    scaling_factor=0.25,
)  # fmt: skip
LARGER_VAE = replace(VAE, latent_channels=5, block_out_channels=(4, 4, 4, 8))
UNET = UNetConfig(
    in_channels=2, latent_channels=2, block_out_channels=(4, 8), attention=(True, False),
    layers_per_block=1, heads=(1, 2), context_width=4, norm_groups=2,
)  # fmt: skip
LARGER_UNET = replace(UNET, in_channels=5, latent_channels=5)


def begun(before: Any, after: Any) -> tuple[Any, Any, Params]:
    """The network before and the one that grew from it, and the latter's fresh parameters."""
    given, fresh = (split(create(c, nnx.Rngs(i)))[1] for i, c in enumerate((before, after)))
    rng = np.random.default_rng(2)  # for what is zero in the beginning
    given = jax.tree.map(lambda x: np.float32(x + rng.normal(0.0, 0.1, x.shape)), given)
    if before == VAE:  # a window that looks at its middle alone knows no resolution
        for part, name in (("encoder", "conv_in"), ("decoder", "conv_out")):
            kernel = given[part][name]["kernel"]
            given[part][name]["kernel"] = np.zeros_like(kernel)
            given[part][name]["kernel"][1, 1] = kernel[1, 1]
    params = grown(before, given, after, fresh)
    smaller, larger = (
        nnx.merge(structure(config)[0], jax.tree.map(jnp.asarray, weights))
        for config, weights in ((before, given), (after, params))
    )
    return smaller, larger, fresh


def doubled(maps: Any, times: int = 4) -> Any:
    return jnp.repeat(jnp.repeat(maps, times, axis=1), times, axis=2)


def test_a_vae_that_grew_sees_and_decodes_larger_pictures_as_before():
    smaller, larger, fresh = begun(VAE, LARGER_VAE)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)
    latents = larger.encode(doubled(images))
    assert latents.shape == (2, 4, 4, 5)
    np.testing.assert_allclose(latents[..., :2], smaller.encode(images), atol=1e-5)
    assert np.std(latents[..., 2:]) > 0.01  # the new channels begin to say something
    decoded = doubled(smaller.decode(latents[..., :2]))
    np.testing.assert_allclose(larger.decode(latents), decoded, atol=1e-5)
    variances = larger.posterior(doubled(images)).log_variance[..., :2]
    np.testing.assert_allclose(variances, smaller.posterior(images).log_variance, atol=1e-5)
    new = larger.quant_conv.kernel[0, 0, :, 2:5]
    np.testing.assert_array_equal(new, fresh["quant_conv"]["kernel"][0, 0, :, 2:5])


def test_a_vae_that_chooses_codes_sees_and_decodes_as_before():
    before, after, fresh = begun(VAE, DVAE)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)
    latents = before.encode(images)
    np.testing.assert_allclose(after.encode(images), latents, atol=1e-5)
    np.testing.assert_allclose(after.soft_decode(latents), before.decode(latents), atol=1e-5)
    np.testing.assert_array_equal(after.codebook.codes, fresh["codebook"]["vectors"]["embedding"])


def test_a_unet_that_grew_paints_the_old_channels_as_before():
    smaller, larger, _ = begun(UNET, LARGER_UNET)
    x_t = jax.random.normal(jax.random.key(1), (2, 4, 4, 5))
    t, context = jnp.array([3.0, 700.0]), jax.random.normal(jax.random.key(2), (2, 6, 4))
    painted, before = larger(x_t, t, context), smaller(x_t[..., :2], t, context)
    np.testing.assert_allclose(painted[..., :2], before, atol=1e-5)
    assert np.std(before) > 0.1
    np.testing.assert_array_equal(painted[..., 2:], 0.0)  # as a new U-Net paints nothing


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (VAE, replace(LARGER_VAE, norm_groups=4), "norm_groups is 4, and 2 in the network"),
        (VAE, replace(VAE, block_out_channels=(2, 4, 8)), r"give that or \(4, 4, 8\)"),
        (LARGER_VAE, VAE, "latent_channels is 2; to begin with 5, give 5 or more"),
        (LARGER_UNET, UNET, "latent_channels is 2; to begin with 5, give 5 or more"),
        (UNET, VAE, "a VAEConfig cannot begin with a UNetConfig; what can: UNetConfig with UNet"),
        (ConvAutoencoderConfig(), ConvAutoencoderConfig(), "what can: .*DVAEConfig with VAEC"),
        (VAE, replace(DVAE, norm_groups=1), "norm_groups is 1, and 2 in the network"),
        (DVAE, VAE, "a VAEConfig cannot begin with a DVAEConfig"),
    ],
)  # fmt: skip
def test_what_cannot_grow_is_named(before, after, message):
    with pytest.raises(ValueError, match=message):
        check_growth(before, after)
