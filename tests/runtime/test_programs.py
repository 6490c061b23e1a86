"""A network as compiled functions: its parts by name, its memory, its precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.runtime.parameters import split
from diffusion.runtime.programs import Network
from diffusion.stages.vae import Posterior


class Toy(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.second = nnx.Linear(4, 2, rngs=rngs)
        self.width = 4

    def __call__(self, x):
        return self.second(self.first(x))

    def doubled(self, x):
        return 2 * self(x)


X = jnp.ones((2, 3))


@pytest.fixture
def toy():
    return Toy(nnx.Rngs(0))


@pytest.fixture
def network(toy):
    structure, params = split(toy)
    return Network(structure, lambda: params)


def test_whole_method_and_part_by_name(network, toy):
    np.testing.assert_allclose(network(X), toy(X), rtol=1e-6)
    np.testing.assert_allclose(network.doubled(X), 2 * toy(X), rtol=1e-6)
    np.testing.assert_allclose(network.second(network.first(X)), toy(X), rtol=1e-6)
    np.testing.assert_array_equal(network.module(X), toy(X))


@pytest.mark.parametrize("name", ["third", "width"])
def test_a_wrong_name_is_an_error_in_one_sentence(network, name):
    with pytest.raises(AttributeError, match=rf"^Toy has no method or part '{name}'$"):
        getattr(network, name)
    assert not hasattr(network, name)
    assert not hasattr(network, "_hidden")


def test_one_program_a_function_compiled_once_a_shape(network):
    def total(module, x):
        return module(x).sum()

    program = network.compiled(total)
    for x in (X, X + 1, X):
        network.compiled(total)(x)
        network.first(x)
    assert network.compiled(total) is program
    assert network.first is network.first
    for one in (program, network.first):
        assert one.compiled._cache_size() == 1
    network.first(jnp.ones((5, 3)))
    assert network.first.compiled._cache_size() == 2


def test_released_parameters_are_read_again_when_they_are_needed(toy):
    structure, params = split(toy)
    read = []

    def give():
        read.append(None)
        return params

    network = Network(structure, give)
    assert read == []
    before = network(X)
    network(X)
    assert len(read) == 1
    network.release()
    network.release()
    assert (network._params, network._leaves, len(read)) == (None, (), 1)
    np.testing.assert_array_equal(network(X), before)
    assert network(X + 1).shape == (2, 2)
    assert len(read) == 2
    assert network.first.compiled._cache_size() == 0  # never called: never compiled


def test_a_prepared_form_takes_what_it_adds(toy):
    structure, params = split(toy)

    def prepare(params):
        return params | {"second": {name: leaf + 0 for name, leaf in params["second"].items()}}

    network = Network(structure, lambda: params, prepare)
    assert Network(structure, lambda: params).prepared_bytes == 0
    assert network.prepared_bytes == 4 * (4 * 2 + 2)
    assert network.params is params
    np.testing.assert_allclose(network(X), toy(X), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inside_float32_outside(toy, dtype):
    structure, params = split(toy)
    half = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    network = Network(structure, lambda: half)
    seen = []

    def watched(module, x, count):
        seen.extend((x.dtype.name, count.dtype.name))
        return module(x), count

    found, count = network.compiled(watched)(X, jnp.arange(3))
    assert network.dtype == dtype
    assert seen == [dtype, "int32"]
    assert (found.dtype, count.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_allclose(found, toy(X), atol=0.1)


@pytest.fixture
def optimised():
    """Programs as users have them; the other tests save the time."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def test_a_drawn_latent_is_the_same_compiled_or_not(optimised):
    """Without `rounded`, a quarter of these numbers differ in their last bit."""
    mean, log_variance = jax.random.normal(jax.random.key(0), (2, 2, 16, 16, 4))
    posterior, key = Posterior(mean, log_variance), jax.random.key(1)
    compiled = jax.jit(lambda posterior: posterior.sample(key))(posterior)
    np.testing.assert_array_equal(compiled, posterior.sample(key))
