"""All tests: shapes are checked, warnings are errors, ranks are never promoted, no network."""

import os
import socket

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("diffusion", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

from diffusion.config import (  # noqa: E402
    ModelConfig,
    ScheduleConfig,
    TextEncoderConfig,
    UNetConfig,
    VAEConfig,
)

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens a connection fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("the package opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """The smallest model with every kind of block: 16x16 pictures, 8x8x4 latents."""
    return ModelConfig(
        name="tiny",
        image_size=16,
        guidance=3.0,
        text_encoder=TextEncoderConfig(
            vocab_size=600, length=16, width=8, layers=2, heads=2, mlp_width=16
        ),
        unet=UNetConfig(
            block_out_channels=(8, 12, 16),
            layers_per_block=2,
            attention=(True, True, False),
            heads=(2, 3, 2),
            context_width=8,
            norm_groups=4,
        ),
        vae=VAEConfig(block_out_channels=(4, 8), layers_per_block=1, norm_groups=2),
        schedule=ScheduleConfig(prediction="v"),
    )
