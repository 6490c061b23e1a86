"""Kernels transformed at load: the same numbers, only where it pays, only where there is memory."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config import sd_v1
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
from diffusion.weights.architectures import structure as structure_of

SIDE = 32  # of the latent: 64 channels at 32x32, 96 at 16x16, 64 at 8x8


@pytest.fixture(scope="module")
def unet(tiny):
    config = dataclasses.replace(
        tiny.denoiser,
        block_out_channels=(64, 96, 64),
        layers_per_block=1,
        attention=(False, False, False),
        heads=(2, 2, 2),
        norm_groups=8,
    )
    structure, params = shapes(lambda: UNet(config, rngs=SameKey(0)))
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), jnp.float32)  # noqa: E731
    params = jax.tree.map(draw, params)
    inputs = rng.standard_normal((1, SIDE, SIDE, 4)), np.asarray([37]), np.zeros((1, 5, 8))
    return structure, params, [jnp.asarray(x) for x in inputs]


def kernels_at_points(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator=".") for path, leaf in leaves
            if path[-1].key == "kernel" and leaf.ndim == 3}  # fmt: skip


def ready(structure, params):
    """The network with its kernels transformed, where it pays."""
    return Network(structure, lambda: params, partial(prepare, structure, positions=SIDE**2))


def test_same_pass(unet):
    structure, params, inputs = unet
    plain, fast = Network(structure, lambda: params), ready(structure, params)
    expected, found = (np.asarray(network(*inputs)) for network in (plain, fast))
    assert 0 < np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert plain.prepared_bytes == 0
    assert fast.prepared_bytes == transformed_bytes(params, worthwhile(structure, params, SIDE**2))
    assert fast.params is params  # what is saved is what was loaded


def test_residual_blocks_at_two_levels(unet):
    structure, params, _ = unet
    found = kernels_at_points(transformed(params, worthwhile(structure, params, SIDE**2)))
    assert found == {
        f"{way}.blocks.{block}.residuals.{i}.{conv}.kernel"
        for way, block, count in (("down", 0, 1), ("down", 1, 1), ("up", 1, 2), ("up", 2, 2))
        for i in range(count)
        for conv in ("conv1", "conv2")
    }
    assert kernels_at_points(params) == set()  # the parameters themselves stay


def test_narrow_kernels_and_other_maps_stay(unet, monkeypatch):
    structure, params, _ = unet
    places = partial(worthwhile, structure, params)
    assert places(0) == places(256**2) == []
    assert transformed_bytes(params, []) == 0
    assert {place[:3] for place in places(64**2) if place[0] == "down"} == {
        ("down", "blocks", 1), ("down", "blocks", 2),
    }  # fmt: skip
    monkeypatch.setattr(transformed_kernels, "MEDIUM", 65)
    found = kernels_at_points(transformed(params, places(SIDE**2)))
    assert "down.blocks.1.residuals.0.conv2.kernel" in found  # 96 to 96 channels
    assert "down.blocks.1.residuals.0.conv1.kernel" not in found  # 64 to 96


def test_size_of_stable_diffusion():
    structure, params = structure_of(sd_v1().denoiser)
    needed = transformed_bytes(params, worthwhile(structure, params, 64 * 64))
    assert 3.3 < needed / 2**30 < 3.4


@pytest.mark.parametrize("reason", ["memory", "precision", "platform"])
def test_only_where_it_pays(unet, monkeypatch, reason):
    structure, params, _ = unet
    if reason == "memory":
        needed = transformed_bytes(params, worthwhile(structure, params, SIDE**2))
        monkeypatch.setattr(transformed_kernels, "free_memory", lambda: 2 * needed - 1)
    if reason == "precision":
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    if reason == "platform":
        monkeypatch.setattr(transformed_kernels, "suits_a_cpu", lambda x: False)
    assert ready(structure, params).prepared_bytes == 0


def test_enough_memory_is_enough(unet, monkeypatch):
    structure, params, _ = unet
    needed = transformed_bytes(params, worthwhile(structure, params, SIDE**2))
    monkeypatch.setattr(transformed_kernels, "free_memory", lambda: 2 * needed)
    assert ready(structure, params).prepared_bytes == needed


def test_released_memory_is_taken_again(unet):
    structure, params, _ = unet
    network = ready(structure, params)
    before = network.prepared_bytes
    network.release()
    assert network._leaves == ()
    assert network.prepared_bytes == before > 0
