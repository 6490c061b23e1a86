"""Whole models as configurations: the gardens of this repository, and Stable Diffusion's.

They differ in these numbers and in nothing else. Sources for Stable Diffusion's: Rombach et al.
2022, and the public configuration files of SD 1.x and 2.x.
"""

import dataclasses

from diffusion.config import (
    DiTConfig,
    DVAEConfig,
    ModelConfig,
    RectifiedFlowConfig,
    SamplingConfig,
    TextEncoderConfig,
    UNetConfig,
    VAEConfig,
    VariancePreservingConfig,
)
from diffusion.config_codes import MaskedTransformerConfig, MaskingConfig


def garden() -> ModelConfig:
    """The model that ships with the repository: 128x128 pictures, 16x16x12 latents."""
    few = SamplingConfig("dpm++2m", 8, "trailing")
    return dataclasses.replace(_garden(12, (16, 16, 32, 64)), name="garden", sampling=few)


def garden64() -> ModelConfig:
    """A smaller one, for the lessons and for tests: 64x64 pictures, 16x16x4 latents."""
    return dataclasses.replace(_garden(4, (16, 32, 64)), name="garden64")


def _garden(latent_channels: int, vae_channels: tuple[int, ...]) -> ModelConfig:
    """Latents of 16x16; each level of the VAE but the first halves the side of the picture."""
    return ModelConfig(
        image_size=8 * 2 ** len(vae_channels),
        guidance=3.0,
        text_encoder=TextEncoderConfig(
            vocab_size=1024, width=128, layers=3, heads=4, mlp_width=512
        ),
        denoiser=UNetConfig(
            in_channels=latent_channels,
            latent_channels=latent_channels,
            block_out_channels=(32, 64, 128),
            layers_per_block=1,
            attention=(True, True, False),
            heads=(1, 2, 4),
            context_width=128,
            norm_groups=16,
            linear_projection=True,
        ),
        autoencoder=VAEConfig(
            latent_channels=latent_channels,
            block_out_channels=vae_channels,
            layers_per_block=1,
            norm_groups=8,
            scaling_factor=1.0,
        ),
        process=VariancePreservingConfig(prediction="v"),
    )


def garden_dit() -> ModelConfig:
    """The garden's text encoder and VAE, a diffusion transformer for its U-Net, straight paths."""
    return dataclasses.replace(
        garden(),
        name="garden-dit",
        guidance=4.0,
        denoiser=DiTConfig(
            latent_channels=12,
            layers=8,
            heads=6,
            head_width=32,
            context_width=128,
            sample_size=16,
            learned_variance=False,
        ),
        process=RectifiedFlowConfig(),
        sampling=SamplingConfig("euler", 12, "trailing"),
    )


def garden_dvae() -> ModelConfig:
    """The smaller garden with a discrete autoencoder: 256 codes a picture, each one of 1,024."""
    discrete = DVAEConfig(
        latent_channels=4,
        codes=1024,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_groups=8,
        scaling_factor=0.27,  # so the codes of the VAE's latents are as far apart as they should be
    )
    return dataclasses.replace(garden64(), name="garden-dvae", autoencoder=discrete)


def garden_masked() -> ModelConfig:
    """The garden's painter of codes: 16x16 of the 1,024 codes, four a token, in 12 steps."""
    return dataclasses.replace(
        garden_dvae(),
        name="garden-masked",
        denoiser=MaskedTransformerConfig(
            codes=1024,
            vocabulary=1025,
            channels=128,
            blocks=2,
            block_heads=4,
            halves=True,
            width=192,
            layers=4,
            heads=6,
            mlp_width=384,
            context_width=128,
            size_code=16,
        ),
        process=MaskingConfig(mask=1024, temperature=6.0),
        guidance=4.0,
        sampling=SamplingConfig("maskgit", 12),
    )


def sd_v1() -> ModelConfig:
    """Stable Diffusion 1.1 to 1.5."""
    return ModelConfig()


def sd_v2_base() -> ModelConfig:
    """Stable Diffusion 2.0-base and 2.1-base: OpenCLIP text encoder, 512x512, predicts epsilon."""
    return ModelConfig(
        name="sd-v2-base",
        text_encoder=TextEncoderConfig(
            width=1024, layers=23, heads=16, mlp_width=4096, activation="gelu"
        ),
        denoiser=UNetConfig(heads=(5, 10, 20, 20), context_width=1024, linear_projection=True),
    )


def sd_v2() -> ModelConfig:
    """Stable Diffusion 2.0 and 2.1: as the base model, but 768x768 and predicting v."""
    return dataclasses.replace(
        sd_v2_base(), name="sd-v2", image_size=768, process=VariancePreservingConfig(prediction="v")
    )
