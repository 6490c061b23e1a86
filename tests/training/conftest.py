"""What the tests of training share."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import pytest

from diffusion.datasets.garden import Scene
from diffusion.training import autoencoder, decoder, denoiser, text_encoder


def stripes(scenes: Scene, size: int) -> jax.Array:
    """Pictures that compile in no time, in place of the garden's; each scene has its own."""
    frequencies = 20.0 * scenes.layout[:, :3][:, None, None, :]
    places = jnp.arange(size * size, dtype=jnp.float32).reshape(1, size, size, 1) / size**2
    return jnp.sin(frequencies * places)


@contextmanager
def striped() -> Iterator[None]:
    """Stripes in place of gardens: the renderer has tests of its own and takes long to compile."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (autoencoder, decoder, denoiser, text_encoder):
            patch.setattr(module, "render", stripes)
        yield


@pytest.fixture(scope="module")
def quick_pictures() -> Iterator[None]:
    """See `striped`."""
    with striped():
        yield
