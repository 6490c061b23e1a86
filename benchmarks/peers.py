"""PyTorch's side of a comparison: set up as ours is, as it is or compiled, on the same inputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from benchmarks.timing import EAGER, Call, Options, Side
from diffusion.inspection.blocks import nhwc
from parity import reference
from parity.full_size import synthetic_tokenizer

COMPILED = "torch.compile"
LAST = ", channels last"
KINDS = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}


@contextmanager
def random_model(family: str) -> Iterator[Path]:
    """A folder as an official one, of full size: random weights, a vocabulary of the right size."""
    with tempfile.TemporaryDirectory() as place:
        reference.build(reference.FULL[family], seed=0, tiny=False).save_pretrained(place)
        words = reference.FULL[family].text_encoder["vocab_size"]
        synthetic_tokenizer(words).save(Path(place) / "tokenizer")
        yield Path(place)


def pair(
    ours: Callable[..., dict[str, Call]],
    theirs: Callable[..., Call],
    arguments: tuple[Any, ...],
    options: Options,
    layouts: tuple[str, ...] = ("",),
) -> list[Side]:
    """Ours and, in each form and layout, theirs, which gets the form's name, too."""
    forms = [EAGER, COMPILED][: 1 + options.compile]
    names = [form + layout for layout in layouts for form in forms]
    peers = [Side(_alone, (theirs, *arguments, name), peer=True) for name in names]
    return [Side(ours, arguments), *peers]


def _alone(theirs: Callable[..., Call], *arguments: Any) -> dict[str, Call]:
    reference.quiet()
    return {arguments[-1]: theirs(*arguments)}


def device() -> torch.device:
    """Where PyTorch is to work, set up as JAX is: on the same cores, or on the same GPU.

    On a GPU both round the factors of float32 products to TensorFloat-32.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True  # XLA, too, tries what is fastest
    return torch.device("cuda")


def network(place: Any, part: str, form: str, dtype: torch.dtype = torch.float32) -> Any:
    """A network of a model folder, in the layout that the form's name says."""
    found = KINDS[part].from_pretrained(place, subfolder=part).eval()
    layout = torch.channels_last if form.endswith(LAST) else torch.contiguous_format
    found = found.to(device(), dtype, memory_format=layout)
    for parameter in found.parameters():
        parameter.data = parameter.data.clone()  # as it is, it lies askew in the file
    return found


def formed(function: Callable[..., Any], form: str) -> Callable[..., Any]:
    """A function as it is, or compiled."""
    return torch.compile(function, dynamic=False) if form.startswith(COMPILED) else function


def as_ours(x: torch.Tensor) -> jax.Array:
    """An input of PyTorch as ours."""
    if not x.is_floating_point():
        return jnp.asarray(x.int().numpy())
    ours = jnp.asarray(nhwc(x.float().numpy()))
    return ours.astype(jnp.bfloat16) if x.dtype == torch.bfloat16 else ours


def as_theirs(x: Any) -> torch.Tensor:
    """An input of ours as PyTorch's, where it works."""
    x = np.array(x)
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x
    return torch.from_numpy(x).to(device())
