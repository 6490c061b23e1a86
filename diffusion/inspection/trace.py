"""The look inside: the tensors of a real run, each by the name of the module that made it.

    run = trace(diffusion.load("garden"), "a red house with two old trees")
    run.glances[0].canvas                      # (1, 16, 16, 4), what the network saw first
    look = run.look(12)                        # the U-Net at the thirteenth glance
    look.tensors["down.blocks.0.residuals.0"]  # (2, 16, 16, c): with the prompt, and without
    look.attention["up.blocks.2.transformers.0.block.cross_attention"]  # (2, heads, 256, 77)

Nothing is computed by a copy: the modules of the artist run, and what they return is kept. The
names are those of the parameters, so a tensor leads to the line of code that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from diffusion.layers.attention import (
    Attention,
    FeedForward,
    SpatialTransformer,
    TransformerBlock,
    attention_weights,
)
from diffusion.layers.convolution import Conv2d, Downsample, Upsample
from diffusion.layers.residual import ResidualBlock
from diffusion.layers.time_embedding import TimeEmbedding
from diffusion.pipeline import Artist, Glance, Latents
from diffusion.stages.text_encoder import TextLayer
from diffusion.stages.unet_bottleneck import UNetBottleneck
from diffusion.stages.unet_down import UNetDown
from diffusion.stages.vae import VAE, ImageAttention, Level, Middle

WATCHED = (
    Attention, Conv2d, Downsample, FeedForward, ImageAttention, Level, Middle, nnx.Embed,
    ResidualBlock, SpatialTransformer, TextLayer, TimeEmbedding, TransformerBlock, UNetBottleneck,
    UNetDown, Upsample,
)  # fmt: skip
LARGEST = 2**25  # values of an attention's weights; what looks at more positions keeps none
LOOKS = 4  # how many a trace remembers, the latest: one of Stable Diffusion has gigabytes

Tensors = Mapping[str, Float[Array, "..."]]


class Word(NamedTuple):
    """A word of the prompt, and where its tokens stand among the 77."""

    text: str
    places: slice


@dataclass(frozen=True)
class Look:
    """Inside the U-Net at one glance. The first axis is b pictures told the prompt, then the same
    b told the negative prompt: the two branches of guidance."""

    glance: Glance
    tensors: Tensors  # what each of `WATCHED` returned; "down.skips.0", ... as they were made
    attention: Tensors  # (2b, heads, positions, tokens or positions); rows sum to 1
    told: Latents  # the prediction with the prompt: the conditional branch
    untold: Latents  # with the negative prompt, usually empty: the unconditional one


class Trace:
    """One run of the art class, with everything that happened in it; made by `trace`."""

    def __init__(
        self, artist: Artist, prompt: str, negative: str, guidance: float, glances: list[Glance]
    ):
        self.artist = artist
        self.prompt = prompt
        self.guidance = guidance
        self.glances = glances
        self.tokens: Int[np.ndarray, "2 n"] = artist.tokenizer([prompt, negative])
        self._looks: dict[int, Look] = {}
        self._inside = artist.unet.compiled_once(_look)

    @property
    def words(self) -> list[Word]:
        """The words of the prompt, as the tokenizer cuts it, as far as they are told; no marks."""
        tokenizer = self.artist.tokenizer
        found, start = [], 1  # the first place is the mark of the beginning
        for place, token in enumerate(self._told, start=1):
            numbers = self.tokens[0, start : place + 1].tolist()
            if numbers[-1] in (tokenizer.bos, tokenizer.eos, tokenizer.pad):  # written out
                start = place + 1
            elif token.endswith("</w>"):  # only now: a letter may be cut into its bytes
                found.append(Word(tokenizer.decode(numbers), slice(start, place + 1)))
                start = place + 1
        return found

    @property
    def labels(self) -> list[str]:
        """Names for the rows of the context, as far as they are told: marks and tokens."""
        return ["begin", *(token.removesuffix("</w>") for token in self._told), "end"]

    @property
    def _told(self) -> list[str]:
        return self.artist.tokenizer.tokens(self.prompt)[: self.tokens.shape[1] - 2]

    @cached_property
    def story(self) -> Tensors:
        """Inside the text encoder: "token_embedding", "layers.0", ..., and "context", its end."""
        tokens = jnp.asarray(self.tokens)
        context, tensors = self.artist.text_encoder.compiled_once(_look)(tokens)
        return tensors | {"context": context}

    @property
    def context(self) -> Float[Array, "2 n d"]:
        """What the U-Net listens to: of the prompt, and of the negative prompt."""
        return self.story["context"]

    @property
    def marked(self) -> int:
        """How many rows of the context are those of marks and words: the filling is left out."""
        return len(self._told) + 2

    def look(self, index: int) -> Look:
        """Inside the U-Net at glance `index`, counted as in a list; computed when asked for.

        Raises IndexError where there is no such glance.
        """
        glance = self.glances[index]
        index = index % len(self.glances)
        if index not in self._looks:
            while len(self._looks) >= LOOKS:
                del self._looks[next(iter(self._looks))]
            b = len(glance.canvas)
            both, tensors = self._inside(
                jnp.concatenate([glance.canvas, glance.canvas]),
                jnp.full(2 * b, glance.timestep),
                jnp.repeat(self.context, b, axis=0),
            )
            weights = {name: x for name, x in tensors.items() if name.endswith(WEIGHTS)}
            self._looks[index] = Look(
                glance,
                {name: x for name, x in tensors.items() if name not in weights},
                {name.removesuffix(WEIGHTS): x for name, x in weights.items()},
                both[:b],
                both[b:],
            )
        return self._looks[index]

    @cached_property
    def exhibition(self) -> Tensors:
        """Inside the VAE's decoder, with the finished latent; "picture" is about [-1, 1]."""
        latents = self.glances[-1].latents / self.artist.config.vae.scaling_factor
        picture, tensors = self.artist.vae.compiled_once(_look_decoding)(latents)
        return tensors | {"picture": picture}

    @cached_property
    def pictures(self) -> UInt8[np.ndarray, "b H W 3"]:
        """The finished pictures, the same that `Artist.paint` gives."""
        return self.artist.hang(self.glances[-1].latents)


def trace(
    artist: Artist,
    prompt: str,
    *,
    negative: str = "",
    guidance: float | None = None,
    **settings: Any,
) -> Trace:
    """Paint a prompt and keep what happened.

    Args:
        settings: `seed`, `count`, `steps`, `sampler` and the others of `Artist.glances`, but for an
            image to begin with.

    Raises ValueError as `Artist.glances` does, for an image, and for an inpainting model, which
    sees one beside its canvas.
    """
    if artist.config.inpaints or settings.get("image") is not None:
        raise ValueError(
            "trace begins with pure noise; leave image and mask out, and take a model "
            "that is not for inpainting"
        )
    guidance = artist.config.guidance if guidance is None else guidance
    glances = artist.glances(prompt, negative=negative, guidance=guidance, **settings)
    return Trace(artist, prompt, negative, guidance, list(glances))


WEIGHTS = ".weights"


def _look(
    module: nnx.Module, *inputs: Array, method: str = "__call__"
) -> tuple[Any, dict[str, Array]]:
    """What the module returns, and what those in it do."""
    seen = _watch(module)
    outputs, kept = getattr(module, method)(*inputs), dict(seen)
    seen.clear()  # the classes that remember stay; they shall not keep what is traced
    return outputs, kept


def _look_decoding(vae: VAE, latents: Latents) -> tuple[Any, dict[str, Array]]:
    return _look(vae, latents, method="decode")


def _watch(module: nnx.Module) -> dict[str, Array]:
    """From now on, everything that a module of `WATCHED` inside returns is kept here.

    Each becomes one of a class of its own that remembers. (`nnx.capture` remembers every method of
    every module, and fails for those inside of a `jax.checkpoint` or a loop.)
    """
    seen: dict[str, Array] = {}
    for path, inner in list(nnx.iter_modules(module)):
        if isinstance(inner, WATCHED):
            inner.__class__ = _remembering(type(inner), ".".join(map(str, path)), seen)
    return seen


def _remembering(kind: Any, name: str, seen: dict[str, Array]) -> Any:
    def call(self: Any, *inputs: Any, **named: Any) -> Any:
        outputs = kind.__call__(self, *inputs, **named)
        seen[name], *skips = outputs if isinstance(outputs, tuple) else (outputs,)
        for i, skip in enumerate(skips[0] if skips else ()):
            seen[f"{name}.skips.{i}"] = skip
        if isinstance(self, Attention):
            query, key = self.query(inputs[0]), self.key(inputs[-1])
            if query.shape[0] * self.heads * query.shape[1] * key.shape[1] <= LARGEST:
                mask = named.get("mask")
                seen[name + WEIGHTS] = attention_weights(query, key, self.heads, mask)
        return outputs

    return type(kind)(kind.__name__, (kind,), {"__call__": call})
