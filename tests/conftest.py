"""All tests: shapes are checked, warnings are errors, ranks are never promoted, no network."""

import dataclasses
import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is what takes time. Without the emitters, a third less of it, and the same numbers to
# rounding; a small program cut into parts for other threads waits for them.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)

from jaxtyping import install_import_hook

# Without the front door (pipeline, cli, config, settings, text, weights): to refuse what has a
# wrong type, in words that a user understands, is its own work, and has tests of its own.
install_import_hook(
    [
        "diffusion.datasets",
        "diffusion.images",
        "diffusion.kernels",
        "diffusion.layers",
        "diffusion.process",
        "diffusion.stages",
        "diffusion.training",
    ],
    "beartype.beartype",
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from flax import nnx  # noqa: E402
from flax.traverse_util import flatten_dict  # noqa: E402
from hypothesis import settings  # noqa: E402

from diffusion.config import (  # noqa: E402
    ModelConfig,
    TextEncoderConfig,
    UNetConfig,
    VAEConfig,
    VariancePreservingConfig,
)
from diffusion.loading import load  # noqa: E402
from diffusion.pipeline import Artist  # noqa: E402
from diffusion.runtime import compilation_cache, parameters  # noqa: E402
from diffusion.runtime.parameters import Params  # noqa: E402
from diffusion.text.tokenizer import Tokenizer  # noqa: E402
from diffusion.weights import folder  # noqa: E402
from diffusion.weights.architectures import SLOTS, structure  # noqa: E402

LEFT_OUT = pytest.StashKey[int]()  # how many tests marked `slow` were left out

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
# Tracing makes many small objects, and little of it is garbage: 8 % less time if looked for less.
gc.freeze()
gc.set_threshold(100_000, 20, 100)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)


def pytest_deselected(items: list[pytest.Item]) -> None:
    slow = [item for item in items if item.get_closest_marker("slow")]
    for item in slow[:1]:
        item.config.stash[LEFT_OUT] = len(slow)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the others' head; each leaves out the same."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of all."""
    if count := config.stash.get(LEFT_OUT, 0) * (not hasattr(config, "workeroutput")):
        print(f"slow tests left out: {count}; `make test MARKS=` runs them, too")


@pytest.fixture(scope="session", autouse=True)
def own_cache(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[None]:
    """The user's compiled programs are left alone; those of the tests are shared among them.

    The workers of pytest-xdist share one folder. JAX writes a program without a lock: a worker
    that reads half of it says so (pyproject.toml lets it), and compiles the program itself.
    """
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if hasattr(request.config, "workerinput") else base) / "cache"
    (cache / "jax").mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation_cache.platformdirs, "user_cache_path", lambda name: cache)
        compilation_cache.keep_compilations()
        yield


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """What a file compiled goes when the file is done.

    All of it would be 6 GB in each worker, and Python's garbage collector walks through it again
    and again: tests at the end took eight times as long as alone.
    """
    yield
    jax.clear_caches()
    gc.collect()


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
        denoiser=UNetConfig(
            block_out_channels=(8, 12, 16),
            layers_per_block=2,
            attention=(True, True, False),
            heads=(2, 3, 2),
            context_width=8,
            norm_groups=4,
        ),
        autoencoder=VAEConfig(block_out_channels=(4, 8), layers_per_block=1, norm_groups=2),
        process=VariancePreservingConfig(prediction="v"),
    )


def random_params(like: Params, seed: int) -> Params:
    """Random parameters of the given shapes, none of them special.

    Layers that begin at zero, scales of one and biases of nothing hide what a test looks for.
    """
    draw = np.random.default_rng(seed)

    def fill(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        noise = draw.standard_normal(leaf.shape, np.float32)
        if len(leaf.shape) == 1:
            return jnp.asarray((path[-1].key == "scale") + np.float32(0.2) * noise)
        return jnp.asarray(noise * np.prod(leaf.shape[:-1]).astype(np.float32) ** -0.5)

    return jax.tree_util.tree_map_with_path(fill, like)


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """`build(lambda: UNet(config, rngs=nnx.Rngs(0)))` is that module with `random_params`."""

    def build(create: Callable[[], nnx.Module], seed: int = 0) -> nnx.Module:
        structure, like = parameters.shapes(create)
        return nnx.merge(structure, random_params(like, seed))

    return build


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """`write_model(place, config)` writes a complete model folder with `random_params`."""

    def write_model(place: Path, config: ModelConfig) -> Path:
        captions = ["a red house with two old trees", "a house at night", "kırmızı çatılı ev"]
        length = config.text_encoder.length
        tokenizer = Tokenizer.train(captions, vocab_size=600, length=length)
        text = dataclasses.replace(config.text_encoder, vocab_size=tokenizer.vocab_size)
        config = dataclasses.replace(config, text_encoder=text)
        folder.save_config(place, config)
        tokenizer.save(place / "tokenizer")
        for seed, slot in enumerate(SLOTS):
            _, like = structure(getattr(config, slot))
            folder.save_part(place, config, slot, random_params(like, seed))
        return place

    return write_model


@pytest.fixture(scope="session")
def tiny_folder(
    tiny: ModelConfig, write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model in a folder. Copy it before you change it."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny", tiny)


@pytest.fixture(scope="session")
def shallow_folder(
    tiny: ModelConfig, write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model with few layers, for what compiles often. Copy it before you change it."""
    unet = UNetConfig(
        block_out_channels=(4, 8), layers_per_block=1, attention=(True, False), heads=(2, 2),
        context_width=8, norm_groups=2,
    )  # fmt: skip
    config = dataclasses.replace(tiny, name="shallow", denoiser=unet)
    return write_model(tmp_path_factory.mktemp("models") / "shallow", config)


@pytest.fixture(scope="session")
def artist(tiny_folder: Path) -> Artist:
    """The tiny model, loaded from its folder."""
    return load(tiny_folder)


@pytest.fixture(scope="session")
def trained() -> Callable[..., None]:
    """Check that a loss reaches every single number that a module holds, as its gradient."""

    def trained(
        module: nnx.Module,
        loss: Callable[[Any, jax.Array], jax.Array],
        shape: tuple[int, ...],
        used: dict[str, np.ndarray] | None = None,
    ) -> None:
        """`loss(module, weights)` weighs the outputs; `used`: the part that an input makes use of.

        The one exception is the bias of an attention's keys: it adds the same to all logits of a
        query, and the softmax takes it away again.
        """
        structure, state = nnx.split(module)
        weights = jax.random.normal(jax.random.key(5), shape)
        of_state = jax.grad(lambda state: loss(nnx.merge(structure, state), weights))
        gradient = jax.jit(of_state)(state)
        gradients = {
            ".".join(map(str, path)): np.asarray(leaf)
            for path, leaf in flatten_dict(nnx.to_pure_dict(gradient)).items()
        }
        assert len(gradients) == len(jax.tree.leaves(state))
        largest = max(np.abs(leaf).max() for leaf in gradients.values())
        for name, leaf in gradients.items():
            if name.endswith("key.bias"):
                assert np.abs(leaf).max() < 1e-5 * largest, name
            else:
                expected = (used or {}).get(name, np.ones(leaf.shape, bool))
                np.testing.assert_array_equal(leaf != 0, expected, err_msg=name)

    return trained
