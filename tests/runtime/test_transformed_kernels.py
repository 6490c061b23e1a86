"""Kernels transformed at load: the same numbers, only where it pays, only where there is memory."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.layers.convolution import Conv2d
from diffusion.layers.residual import ResidualBlock
from diffusion.presets import sd_v1
from diffusion.runtime import transformed_kernels
from diffusion.runtime.parameters import SameKey, shapes
from diffusion.runtime.programs import Network
from diffusion.runtime.transformed_kernels import (
    prepare,
    transformed,
    transformed_bytes,
    worthwhile,
)
from diffusion.stages.unet import UNet

SIDE = 32  # of the latent: 64 channels at 32x32, 96 at 16x16, 64 at 8x8


class Chain(nnx.Module):
    """A network that is no U-Net: a convolution that says nothing, and a block that does."""

    def __init__(self):
        self.conv_in = Conv2d(4, 64, rngs=SameKey(0))
        self.steps = nnx.List(
            [ResidualBlock(64, 64, groups=8, eps=1e-5, downscale=1, rngs=SameKey(0))]
        )

    def __call__(self, x):
        return self.steps[0](self.conv_in(x))


@pytest.fixture(scope="module")
def chain():
    structure, like = shapes(Chain)
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), jnp.float32)  # noqa: E731
    return structure, jax.tree.map(draw, like)


@pytest.fixture(scope="module")
def unet(tiny):
    """Structure and shapes; nobody runs it."""
    config = dataclasses.replace(
        tiny.denoiser,
        block_out_channels=(64, 96, 64),
        layers_per_block=1,
        attention=(False, False, False),
        heads=(2, 2, 2),
        norm_groups=8,
    )
    return shapes(lambda: UNet(config, rngs=SameKey(0)))


def names(places):
    return {".".join(map(str, place)) for place in places}


def test_same_pass_in_any_network(chain):
    structure, params = chain
    plain = Network(structure, lambda: params)
    ready = Network(structure, lambda: params, partial(prepare, structure, positions=SIDE**2))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, SIDE, SIDE, 4), np.float32))
    expected, found = np.asarray(plain(x)), np.asarray(ready(x))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    places = worthwhile(structure, params, SIDE**2)
    assert names(places) == {"steps.0.conv1", "steps.0.conv2"}
    assert plain.prepared_bytes == 0
    assert ready.prepared_bytes == transformed_bytes(params, places) == 2 * 36 * 64 * 64 * 4
    assert ready.params is params  # what is saved is what was loaded


def test_only_kernels_are_changed_and_only_in_the_copy(chain):
    structure, params = chain
    copy = transformed(params, worthwhile(structure, params, SIDE**2))
    changed = jax.tree.map(lambda a, b: a.shape != b.shape, params, copy)
    found = {jax.tree_util.keystr(path, simple=True, separator=".")
             for path, leaf in jax.tree_util.tree_leaves_with_path(changed) if leaf}  # fmt: skip
    assert found == {"steps.0.conv1.kernel", "steps.0.conv2.kernel"}


def test_residual_blocks_at_two_levels_of_a_unet(unet):
    assert names(worthwhile(*unet, SIDE**2)) == {
        f"{way}.blocks.{block}.residuals.{i}.{conv}"
        for way, block, count in (("down", 0, 1), ("down", 1, 1), ("up", 1, 2), ("up", 2, 2))
        for i in range(count)
        for conv in ("conv1", "conv2")
    }


def test_narrow_kernels_and_other_maps_stay(unet, monkeypatch):
    assert worthwhile(*unet, 0) == worthwhile(*unet, 256**2) == []
    coarser = names(worthwhile(*unet, 64**2))
    assert {name.split(".")[2] for name in coarser if name.startswith("down")} == {"1", "2"}
    assert "bottleneck.residual1.conv1" in coarser
    monkeypatch.setattr(transformed_kernels, "MEDIUM", 65)
    found = names(worthwhile(*unet, SIDE**2))
    assert "down.blocks.1.residuals.0.conv2" in found  # 96 to 96 channels
    assert "down.blocks.1.residuals.0.conv1" not in found  # 64 to 96


def test_size_of_stable_diffusion():
    structure, params = shapes(lambda: UNet(sd_v1().denoiser, rngs=SameKey(0)))
    places = worthwhile(structure, params, 64 * 64)
    assert 3.3 < transformed_bytes(params, places) / 2**30 < 3.4


@pytest.mark.parametrize("reason", ["memory", "precision", "platform"])
def test_only_where_it_pays(chain, monkeypatch, reason):
    structure, params = chain
    if reason == "memory":
        needed = transformed_bytes(params, worthwhile(structure, params, SIDE**2))
        monkeypatch.setattr(transformed_kernels, "free_memory", lambda: 2 * needed - 1)
    if reason == "precision":
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    if reason == "platform":
        monkeypatch.setattr(transformed_kernels, "suits_a_cpu", lambda x: False)
    assert prepare(structure, params, positions=SIDE**2) is params


def test_released_memory_is_taken_again(chain):
    structure, params = chain
    network = Network(structure, lambda: params, partial(prepare, structure, positions=SIDE**2))
    before = network.prepared_bytes
    network.release()
    assert network._leaves == ()
    assert network.prepared_bytes == before > 0
