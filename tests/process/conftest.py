import jax
import pytest

SHAPE = (4, 2, 3, 4)  # of clean latents and of their noise


@pytest.fixture
def latents() -> jax.Array:
    return jax.random.normal(jax.random.key(0), SHAPE)


@pytest.fixture
def noise() -> jax.Array:
    return jax.random.normal(jax.random.key(1), SHAPE)
