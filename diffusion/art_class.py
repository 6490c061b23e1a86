"""The art class: a sentence goes in, passes the six stages in order, and leaves as pictures.

1   text_encoder       a teacher tells a story: words become a context
2   noisy_latent       each student gets a canvas of dots: a latent of pure noise
3A  unet_down          a glance at the canvas: the small sketch,
3B  unet_bottleneck    the essential shape,
4   unet_up            and the oil painting; glance upon glance, each with a little less noise
5   vae                the exhibition: the finished latent is hung as a picture, once
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from flax import nnx
from jaxtyping import Array, Float, Int, Integer, Key, UInt8

from diffusion import samplers, schedule
from diffusion.config import ModelConfig
from diffusion.images import to_uint8
from diffusion.samplers import Plan
from diffusion.stages.noisy_latent import canvas, picture_keys
from diffusion.tokenizer import Tokenizer
from diffusion.weights import folder
from diffusion.weights.files import Params

BATCH = 8  # pictures painted side by side; a longer series is painted in turns, in bounded memory
LARGEST_GUIDANCE = 100.0  # far beyond what makes sense, and far below what overflows
Latents: TypeAlias = Float[Array, "b h w z"]


@dataclass(frozen=True)
class Glance:
    """One look of the network at the canvas, and what came of it."""

    step: int  # which of the steps, from 0 (Heun's method glances twice in a step)
    timestep: int  # how noisy the network was told that the canvas is
    canvas: Latents  # z_t, what the network saw
    prediction: Latents  # what it said, after guidance: the noise or the velocity
    x0: Latents  # the finished latent as it imagines it now
    latents: Latents  # the canvas afterwards


def jitted(structure: nnx.GraphDef[Any], params: Params, method: Callable[..., Any]) -> Any:
    """A method of a module as a compiled function of its inputs alone.

    Parameters go in as plain nested dicts: the cheapest thing that JAX can dispatch on.
    """

    def apply(params: Params, *inputs: Any) -> Any:
        return method(nnx.merge(structure, params), *inputs)

    return partial(jax.jit(apply), params)


class UNetStages:
    """The U-Net as one call, and each of its stages as a call of its own."""

    def __init__(self, structure: nnx.GraphDef[Any], params: Params):
        self.structure, self.params = structure, params
        self.whole = jitted(structure, params, lambda unet, *inputs: unet(*inputs))
        self.time_embedding = jitted(structure, params, lambda unet, t: unet.time_embedding(t))
        self.down = jitted(structure, params, lambda unet, *inputs: unet.down(*inputs))
        self.bottleneck = jitted(structure, params, lambda unet, *inputs: unet.bottleneck(*inputs))
        self.up = jitted(structure, params, lambda unet, *inputs: unet.up(*inputs))

    def __call__(
        self, latents: Latents, timesteps: Int[Array, " b"], context: Float[Array, "b n d"]
    ) -> Latents:
        return self.whole(latents, timesteps, context)


class VAEStages:
    """`encode` and `decode`, each compiled; see `diffusion.stages.vae.VAE`."""

    def __init__(self, structure: nnx.GraphDef[Any], params: Params):
        self.encode = jitted(structure, params, lambda vae, images: vae.encode(images))
        self.decode = jitted(structure, params, lambda vae, latents: vae.decode(latents))


class Artist:
    """A whole model, ready to paint: `diffusion.load()` makes one."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        text_encoder: tuple[nnx.GraphDef[Any], Params],
        unet: tuple[nnx.GraphDef[Any], Params],
        vae: tuple[nnx.GraphDef[Any], Params],
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.text_encoder = jitted(*text_encoder, lambda encoder, tokens: encoder(tokens))
        self.unet = UNetStages(*unet)
        self.vae = VAEStages(*vae)
        self._glance = partial(jax.jit(partial(_glance, config, unet[0])), unet[1])
        size = (config.latent_size, config.latent_size, config.unet.latent_channels)
        self._canvas = jax.jit(
            lambda seed, indices: (keys := picture_keys(seed, indices), canvas(keys, size))
        )

    def plan(
        self,
        prompt: str,
        *,
        negative: str = "",
        seed: int = 0,
        count: int = 1,
        steps: int = 25,
        guidance: float | None = None,
        sampler: str = "dpm++2m",
        eta: float = 0.0,
    ) -> Plan:
        """Check the settings of `glances`, and say which calls of the network they lead to.

        Raises ValueError that names the argument that is out of range.
        """
        for name, text in (("prompt", prompt), ("negative", negative)):
            if not isinstance(text, str):
                raise ValueError(f"{name} is {text!r}; give a text")
        if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**32):
            raise ValueError(f"seed is {seed}; give a whole number from 0 to {2**32 - 1}")
        if count < 1:
            raise ValueError(f"count is {count}; ask for 1 picture or more")
        needed = count * self.config.image_size**2 * 3
        if needed > psutil.virtual_memory().available // 2:
            raise ValueError(
                f"count {count} needs {needed / 2**30:,.1f} GiB for the finished pictures alone, "
                "more than half of the free memory; paint fewer at a time, with other seeds"
            )
        if guidance is not None and not abs(guidance) <= LARGEST_GUIDANCE:
            raise ValueError(
                f"guidance is {guidance}; give a number up to {LARGEST_GUIDANCE}, such as 3"
            )
        return samplers.plan(sampler, self.config.schedule, steps, eta=eta)

    def glances(
        self,
        prompt: str,
        *,
        negative: str = "",
        seed: int = 0,
        count: int = 1,
        first: int = 0,
        steps: int = 25,
        guidance: float | None = None,
        sampler: str = "dpm++2m",
        eta: float = 0.0,
    ) -> Iterator[Glance]:
        """Paint, and yield every glance on the way; the last one's `latents` are the finished ones.

        Args:
            prompt: what to paint; "" lets the model choose.
            negative: what to stay away from (it takes the place of the empty prompt in guidance).
            seed: 0 <= seed < 2**32. Picture i of a seed depends on seed and i alone.
            count: how many pictures, side by side in one batch.
            first: the number of the first picture.
            steps: 1 to `config.schedule.train_steps`.
            guidance: how loud the teacher is (Ho & Salimans 2022): 0 ignores the prompt, 1 follows
                the model, more exaggerates. None: the model's own default.
            sampler: one of `diffusion.samplers.SAMPLERS`.
            eta: fresh noise in "ddim", 0 none, 1 as much as "ddpm".

        Raises ValueError that names the argument that is out of range.
        """
        plan = self.plan(
            prompt,
            negative=negative,
            seed=seed,
            count=count,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            eta=eta,
        )
        guidance = self.config.guidance if guidance is None else guidance
        tokens = jnp.asarray(self.tokenizer([prompt, negative]))
        context = self.text_encoder(tokens)
        keys, z = self._canvas(np.uint32(seed), first + np.arange(count, dtype=np.uint32))
        memory = jnp.zeros_like(z)
        for call in range(len(plan.timestep)):
            row = Plan(*(column[call] for column in plan))
            seen = z
            prediction, x0, z, memory = self._glance(
                z, memory, context, np.float32(guidance), row, np.uint32(call), keys
            )
            yield Glance(int(row.step), int(row.timestep), seen, prediction, x0, z)

    def paint(
        self,
        prompt: str,
        *,
        count: int = 1,
        on_glance: Callable[[Glance], None] | None = None,
        **settings: Any,
    ) -> UInt8[np.ndarray, "count H W 3"]:
        """Paint `count` pictures of a prompt; see `glances` for the other settings and errors.

        Args:
            on_glance: called after every glance, for progress bars and previews.
        """
        self.plan(prompt, count=count, **settings)
        batch = min(count, BATCH)
        pictures = []
        for first in range(0, count, batch):
            for glance in self.glances(prompt, count=batch, first=first, **settings):
                if on_glance is not None:
                    on_glance(glance)
            pictures.append(self.hang(glance.latents))
        return np.concatenate(pictures)[:count]

    def hang(self, latents: Latents) -> UInt8[np.ndarray, "b H W 3"]:
        """Finished latents, as pictures."""
        return to_uint8(self.vae.decode(latents / self.config.vae.scaling_factor))


def _glance(
    config: ModelConfig,
    structure: nnx.GraphDef[Any],
    params: Params,
    z: Latents,
    memory: Latents,
    context: Float[Array, "2 n d"],  # of the prompt and of the negative prompt
    guidance: Float[Array, ""],
    row: Plan,
    call: Integer[Array, ""],
    keys: Key[Array, " b"],
) -> tuple[Latents, Latents, Latents, Latents]:
    """Network, guidance and sampler in one program: prediction, x0, next z, next memory.

    Nothing that a user may change (steps, guidance, sampler, words) is a constant in it, so one
    program serves them all. Both branches of guidance are one batch.
    """
    b = len(z)
    timesteps = jnp.full(2 * b, row.timestep)
    both = nnx.merge(structure, params)(
        jnp.concatenate([z, z]), timesteps, jnp.repeat(context, b, axis=0)
    )
    prediction = samplers.guide(both[b:], both[:b], guidance)
    alpha_bar = jnp.full(b, row.alpha_bar)
    x0 = schedule.to_x0(prediction, z, alpha_bar, config.schedule.prediction)
    noise = samplers.noise_at(keys, call, z.shape[1:])
    z, memory = samplers.update(row, z, x0, memory, noise)
    return prediction, x0, z, memory


def load(model: str | Path = "garden") -> Artist:
    """Load a model: the name of one that ships ("garden"), or a model folder.

    Raises FileNotFoundError or ValueError that names the file that is missing or does not fit.
    """
    place = folder.find(model)
    config = folder.load_config(place)
    tokenizer = folder.load_tokenizer(place)
    if tokenizer.vocab_size != config.text_encoder.vocab_size:
        raise ValueError(
            f"{place / 'tokenizer'} has {tokenizer.vocab_size} tokens, config.json says "
            f"{config.text_encoder.vocab_size}; use the files of one model"
        )
    parts = {part: folder.load_part(place, config, part) for part in folder.PARTS}
    return Artist(config, tokenizer, **parts)
