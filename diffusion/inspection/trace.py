"""The look inside: the tensors of a real run, each by the name of the module that made it.

    run = trace(diffusion.load("garden"), "a red house with two old trees")
    run.steps[0].x_t                                  # (1, 16, 16, 4), what the denoiser saw first
    inside = run.activations(12)                      # the denoiser at the thirteenth step
    inside.tensors["down.blocks.0.residuals.0"]       # (2, 16, 16, c): with the prompt, and without
    inside.attention["up.blocks.2.transformers.0.block.cross_attention"]  # (2, heads, 256, 77)

Nothing is computed by a copy: the modules of the artist run, and what they return is kept. A module
is kept if its class says `traced = True`. The names are those of the parameters, so a tensor leads
to the line of code that made it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from diffusion.pipeline import Artist, Latents
from diffusion.process.sampling import Step
from diffusion.runtime.programs import Network
from diffusion.settings import Settings

LARGEST = 2**25  # values of an attention's weights; what looks at more positions keeps none
KEPT = 4  # steps whose activations a trace remembers, the latest: those of SD have gigabytes
WEIGHTS = ".weights"  # ends the name of an attention's weights

Tensors = Mapping[str, Float[Array, "..."]]


class Word(NamedTuple):
    """A word of the prompt, and where its tokens stand among the 77."""

    text: str
    places: slice


@dataclass(frozen=True)
class Activations:
    """Inside the denoiser at one step. The first axis is b pictures with the prompt, then the same
    b with the negative prompt: the two branches of guidance."""

    step: Step
    tensors: Tensors  # what each traced module returned; "down.skips.0", ... as they were made
    attention: Tensors  # (2b, heads, positions, tokens or positions); rows sum to 1
    conditional: Latents  # the prediction with the prompt
    unconditional: Latents  # with the negative prompt, usually empty


class Trace:
    """One run of the art class, with everything that happened in it; made by `trace`."""

    def __init__(self, artist: Artist, settings: Settings, guidance: float, steps: list[Step]):
        self.artist = artist
        self.prompt = settings.prompt
        self.guidance = guidance
        self.steps = steps
        self.tokens: Int[np.ndarray, "2 n"] = artist.tokenizer([settings.prompt, settings.negative])
        self._activations: dict[int, Activations] = {}

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
    def text_activations(self) -> Tensors:
        """Inside the text encoder: "token_embedding", "layers.0", ..., and "context", its end."""
        tokens = jnp.asarray(self.tokens)
        context, tensors = self.artist.text_encoder.compiled(_watched)(tokens)
        return tensors | {"context": context}

    @property
    def context(self) -> Float[Array, "2 n d"]:
        """What the denoiser listens to: of the prompt, and of the negative prompt."""
        return self.text_activations["context"]

    @property
    def denoiser(self) -> Network:
        """What was called at each step."""
        return self.artist.denoiser

    def heard(self, count: int) -> Float[Array, "2b n d"]:
        """The contexts of `count` pictures, in both branches."""
        return jnp.repeat(self.context, count, axis=0)

    @property
    def marked(self) -> int:
        """How many rows of the context are those of marks and words: the filling is left out."""
        return len(self._told) + 2

    def activations(self, index: int) -> Activations:
        """Inside the denoiser at step `index`, counted as in a list; computed when asked for.

        Raises IndexError where there is no such step.
        """
        step = self.steps[index]
        index = index % len(self.steps)
        if index not in self._activations:
            while len(self._activations) >= KEPT:
                del self._activations[next(iter(self._activations))]
            b = len(step.x_t)
            told = self.artist.config.denoiser.guidance_width is not None
            both, tensors = self.denoiser.compiled(_watched)(
                jnp.concatenate([step.x_t, step.x_t]),
                jnp.full(2 * b, step.t),
                self.heard(b),
                *([jnp.full(2 * b, self.guidance)] if told else []),
            )
            weights = {name: x for name, x in tensors.items() if name.endswith(WEIGHTS)}
            self._activations[index] = Activations(
                step,
                {name: x for name, x in tensors.items() if name not in weights},
                {name.removesuffix(WEIGHTS): x for name, x in weights.items()},
                both[:b],
                both[b:],
            )
        return self._activations[index]

    @cached_property
    def decoder_activations(self) -> Tensors:
        """Inside the decoder, with the finished latent; "picture" is about [-1, 1]."""
        program = self.artist.autoencoder.compiled(_watched_decoding)
        picture, tensors = program(self.steps[-1].x_next)
        return tensors | {"picture": picture}

    @cached_property
    def pictures(self) -> UInt8[np.ndarray, "b H W 3"]:
        """The finished pictures, the same that `Artist.paint` gives."""
        return self.artist.decode(self.steps[-1].x_next)


def trace(artist: Artist, prompt: str | Settings, **settings: Any) -> Trace:
    """Paint a prompt and keep what happened.

    Args:
        prompt: a text, or settings; nothing but an image to begin with is left out.
        settings: of `Settings`, beside a text: seed, count, steps, sampler, ...

    Raises ValueError as `Artist.sample` does, for an image, for emphasis, and for an inpainting
    model, which sees an image beside its canvas.
    """
    if artist.config.inpaints or settings.get("image") is not None:
        raise ValueError(
            "trace begins with pure noise; leave image and mask out, and take a model "
            "that is not for inpainting"
        )
    asked = prompt if isinstance(prompt, Settings) else Settings(prompt, **settings)
    if asked.emphasis:
        raise ValueError("trace tells words as they are; leave emphasis out")
    resolved, _ = artist.resolve(asked)
    return Trace(artist, asked, resolved.guidance, list(artist.sample(asked)))


def watched(
    network: nnx.Module, *inputs: Array, method: str = "__call__"
) -> tuple[Any, dict[str, Array]]:
    """What a network by itself returns, and what each traced module in it does, by its name.

    The network stays as it is: a copy of it is watched.
    """
    return _watched(nnx.clone(network), *inputs, method=method)


def _watched(
    module: nnx.Module, *inputs: Array, method: str = "__call__"
) -> tuple[Any, dict[str, Array]]:
    """What the module returns, and what those in it do."""
    seen = _watch(module)
    outputs, kept = getattr(module, method)(*inputs), dict(seen)
    seen.clear()  # the classes that remember stay; they shall not keep what is traced
    return outputs, kept


def _watched_decoding(autoencoder: Any, latents: Latents) -> tuple[Any, dict[str, Array]]:
    return _watched(autoencoder, latents, method="decode")


def _watch(module: nnx.Module) -> dict[str, Array]:
    """From now on, everything that a traced module inside returns is kept here.

    Each becomes one of a class of its own that remembers. (`nnx.capture` remembers every method of
    every module, and fails for those inside of a `jax.checkpoint` or a loop.)
    """
    seen: dict[str, Array] = {}
    for path, inner in list(nnx.iter_graph(module)):
        if getattr(inner, "traced", False):
            inner.__class__ = _remembering(type(inner), ".".join(map(str, path)), seen)
    return seen


def _remembering(kind: Any, name: str, seen: dict[str, Array]) -> Any:
    def call(self: Any, *inputs: Any, **named: Any) -> Any:
        outputs = kind.__call__(self, *inputs, **named)
        seen[name], *skips = outputs if isinstance(outputs, tuple) else (outputs,)
        for i, skip in enumerate(skips[0] if skips else ()):
            seen[f"{name}.skips.{i}"] = skip
        if hasattr(kind, "weights"):
            count = self.heads * inputs[0].shape[0] * inputs[0].shape[1] * inputs[-1].shape[1]
            if count <= LARGEST:
                seen[name + WEIGHTS] = self.weights(*inputs, **named)
        return outputs

    return type(kind)(kind.__name__, (kind,), {"__call__": call})
