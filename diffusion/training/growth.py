"""A larger network begins with what a smaller one knows.

New parts change nothing at first, or as little as can be: so a model for larger pictures goes on
where that for small ones ended (the idea of Net2Net, Chen et al. 2016).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion.config import DVAEConfig, UNetConfig, VAEConfig
from diffusion.runtime.parameters import Params


def grown(before: Any, given: Params, after: Any, fresh: Params) -> Params:
    """Parameters for the configuration `after`, from `given`, those of `before`.

    Args:
        fresh: random parameters of `after`, for what is new.

    Raises ValueError as `check_growth` does.
    """
    check_growth(before, after)
    fresh = _copied(fresh)
    GROWTH[type(before), type(after)][0](before, _copied(given), after, fresh)
    return fresh


def grows(before: Any, after: Any) -> bool:
    """Can one kind of network begin with another, or with a smaller one of its own?"""
    return (type(before), type(after)) in GROWTH


def check_growth(before: Any, after: Any) -> None:
    """Raises ValueError where a network cannot begin with another one's weights."""
    if not grows(before, after):
        known = ", ".join(f"{b.__name__} with {a.__name__}" for a, b in GROWTH)
        raise ValueError(
            f"a {type(after).__name__} cannot begin with a {type(before).__name__}; what can: "
            f"{known}"
        )
    changes = GROWTH[type(before), type(after)][1]
    for entry in dataclasses.fields(after):
        new = getattr(after, entry.name)
        old = getattr(before, entry.name, entry.default)  # what it has no word for is as usual
        if old != new and entry.name not in changes:
            raise ValueError(
                f"{entry.name} is {new}, and {old} in the network to begin with: give the same"
            )
    now, least = after.latent_channels, before.latent_channels
    if now < least:
        raise ValueError(f"latent_channels is {now}; to begin with {least}, give {least} or more")
    if type(before) is type(after) and hasattr(after, "block_out_channels"):
        inner, outer = before.block_out_channels, after.block_out_channels
        if outer != (inner[0],) * (len(outer) - len(inner)) + inner:
            raise ValueError(
                f"block_out_channels is {outer}; to begin with a network of {inner}, give that or "
                f"{(inner[0], *inner)}"
            )


def _grow_unet(before: UNetConfig, given: Params, after: UNetConfig, fresh: Params) -> None:
    """More channels of the latent: not heard at first, and painted afresh."""
    conv_in, conv_out = (fresh["down"]["conv_in"], fresh["up"]["conv_out"])
    widen(conv_in, given["down"].pop("conv_in"))
    widen(conv_out, given["up"].pop("conv_out"))
    _take(fresh, given)


def _grow_vae(before: VAEConfig, given: Params, after: VAEConfig, fresh: Params) -> None:
    """More levels outside, and more channels of the latent.

    The same scene, drawn larger, has nearly the same latents in the first channels. New levels
    begin by halving pictures and by doubling them.
    """
    outer = len(after.block_out_channels) - len(before.block_out_channels)
    encoder, decoder = fresh["encoder"], fresh["decoder"]
    levels = given["encoder"].pop("levels")
    given["encoder"]["levels"] = {outer + i: level for i, level in levels.items()}
    for net, name, inputs, outputs in (
        (encoder, "conv_out", 1, 2),  # of the latent's mean and variance
        (fresh, "quant_conv", 2, 2),
        (fresh, "post_quant_conv", 1, 1),
        (decoder, "conv_in", 1, 1),
    ):
        old = given if net is fresh else given["encoder" if net is encoder else "decoder"]
        widen(net[name], old.pop(name), inputs, outputs)
    _take(fresh, given)
    last = len(after.block_out_channels) - 1
    for i in range(outer):
        _pass_on(encoder["levels"][i]["residuals"])
        halve = encoder["levels"][i]["change"]["conv"]["kernel"]
        halve[...] = 0.0
        halve[:2, :2] = np.eye(len(halve[0, 0])) / 4
        _pass_on(decoder["levels"][last - i]["residuals"])
        double = decoder["levels"][last - i - 1]["change"]["conv"]["kernel"]
        double[...] = 0.0
        double[1, 1] = np.eye(len(double[0, 0]))


def _choose_codes(before: VAEConfig, given: Params, after: DVAEConfig, fresh: Params) -> None:
    """The VAE's means and pictures, in the unit of the codes; the codes themselves are not known.

    1x1 convolutions follow the encoder's last one, so they are in it from now on.
    """
    unit, z = before.scaling_factor / after.scaling_factor, after.latent_channels
    mean = given.pop("quant_conv")
    last, kernel = given["encoder"]["conv_out"], mean["kernel"][0, 0, :, :z]
    last["kernel"] = last["kernel"] @ kernel
    last["bias"] = last["bias"] @ kernel + mean["bias"][:z]
    fresh["quant_conv"]["kernel"][...] = np.eye(z) * unit
    fresh["quant_conv"]["bias"][...] = 0.0
    given["post_quant_conv"]["kernel"] /= unit
    _take(fresh, given)


GROWTH: dict[tuple[type[Any], type[Any]], tuple[Callable[..., None], tuple[str, ...]]] = {
    (UNetConfig, UNetConfig): (_grow_unet, ("in_channels", "latent_channels")),
    (VAEConfig, VAEConfig): (
        _grow_vae, ("block_out_channels", "latent_channels", "scaling_factor")
    ),
    (VAEConfig, DVAEConfig): (_choose_codes, ("codes", "scaling_factor")),
}  # fmt: skip
"""What can begin with what -> how, and what may differ."""


def widen(fresh: Params, given: Params, inputs: int = 1, outputs: int = 1) -> None:
    """A convolution with more channels, in place: the old ones hear what they heard before.

    Args:
        inputs: of how many equal parts its channels are; each has new ones at its end.
        outputs: the same of what it gives.
    """
    kernel = fresh["kernel"]
    old_in, old_out = (_places(n, o, p) for n, o, p in zip(
        kernel.shape[2:], given["kernel"].shape[2:], (inputs, outputs), strict=True
    ))  # fmt: skip
    kernel[:, :, :, old_out] = 0.0
    kernel[:, :, old_in[:, None], old_out] = given["kernel"]
    fresh["bias"][old_out] = given["bias"]


def _places(new: int, old: int, parts: int) -> np.ndarray:
    """Where the old channels are among the new ones."""
    each = np.arange(parts)[:, None] * (new // parts) + np.arange(old // parts)
    return each.ravel()


def _pass_on(residuals: Any) -> None:
    """Residual blocks that add nothing."""
    for block in residuals.values():
        block["conv2"]["kernel"][...] = 0.0


def _take(fresh: Any, given: Any) -> None:
    """The numbers of `given`, in place; what only `fresh` has stays."""
    for name, entry in given.items():
        if isinstance(entry, dict):
            _take(fresh[name], entry)
        else:
            fresh[name][...] = entry


def _copied(params: Any) -> Any:
    """The same in arrays that can be written to."""
    if isinstance(params, dict):
        return {name: _copied(entry) for name, entry in params.items()}
    return np.array(params)
