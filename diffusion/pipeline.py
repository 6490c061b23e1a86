"""The art class: a sentence goes in, passes the six stages in order, and leaves as pictures.

1   text_encoder       a teacher tells a story: words become a context
2   noisy_latent       each student gets a canvas of dots: a latent of pure noise
3A  unet_down          a glance at the canvas: the small sketch,
3B  unet_bottleneck    the essential shape,
4   unet_up            and the oil painting; glance upon glance, each with a little less noise
5   vae                the exhibition: the finished latent is hung as a picture, once

Stages 3A to 4 are one denoiser, stage 5 is the decoder of an autoencoder. Nothing here knows which
architecture fills either slot.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer, Key, Real, Shaped, UInt8

from diffusion.conditioning import Conditioning, condition, contexts, words_for
from diffusion.config import ModelConfig
from diffusion.images import from_uint8, to_uint8
from diffusion.process import Process, process
from diffusion.process.samplers import Table, guide, table
from diffusion.process.sampling import Step, one_step, sample
from diffusion.runtime.parameters import Params, cast
from diffusion.runtime.programs import Network, Program
from diffusion.runtime.tiled_decoding import decoder
from diffusion.settings import Image, Mask, Resolved, Settings
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights.architectures import SLOTS
from diffusion.weights.folder import save_model

BATCH = 8  # pictures painted side by side; a longer series is painted in turns, in bounded memory
PIXELS = 512 * 512  # at most as many pixels side by side, or a single picture
Latents: TypeAlias = Shaped[Array, "b h w z"]  # or the numbers of codes, with z = 1
S = TypeVar("S", bound=Settings)


class OverflowWarning(UserWarning):
    """A stage was computed again, in more bits."""


class Artist:
    """A whole model, ready to paint: `diffusion.load()` makes one.

    `text_encoder`, `denoiser` and `autoencoder` can be called on their own, and so can their parts
    (`denoiser.down`). Each has `release()`, which gives its memory back until it is used again.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        text_encoder: Network,
        denoiser: Network,
        autoencoder: Network,
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        self.process = process(config.process)
        told = config.denoiser.guidance_width is not None
        self._advance = Program(denoiser, partial(advance, self.process, denoiser.structure, told))
        self._begin = jax.jit(_begin, static_argnums=2)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those that paint a picture."""
        return self.text_encoder, self.denoiser, self.autoencoder

    def paint(
        self,
        prompt: str | Settings,
        *,
        image: Image | None = None,
        mask: Mask | None = None,
        on_step: Callable[[Step], None] | None = None,
        **settings: Any,
    ) -> UInt8[np.ndarray, "count H W 3"]:
        """Paint pictures of a prompt, the first ones of a seed.

        Args:
            prompt: a text, or settings.
            image: a picture to begin with, uint8 (H, W, 3), in place of pure noise.
            mask: True where the image is to be painted anew; the other pixels stay unchanged.
            on_step: called after every step, for progress bars and previews.
            settings: the other fields of `Settings`: seed, count, steps, guidance, sampler, ...

        Raises ValueError that names the setting that is out of range.
        """
        asked, rows = self.resolve(settings_of(Settings, prompt, settings), image, mask)
        given = self._condition(asked, image, mask)
        batch = self.side_by_side(asked.count, asked.height, asked.width)
        latents = []
        for first in range(asked.first, asked.first + asked.count, batch):
            for step in self._sample(rows, given, first, batch):
                if on_step is not None:
                    on_step(step)
            check_finite(step.x_next, "the painted latent", self.denoiser)
            latents.append(step.x_next)
        pictures = np.concatenate([self.decode(part) for part in latents])[: asked.count]
        if mask is None or image is None:
            return pictures
        return np.where(mask[None, ..., None], pictures, image)

    def sample(
        self,
        settings: str | Settings,
        *,
        image: Image | None = None,
        mask: Mask | None = None,
        **more: Any,
    ) -> Iterator[Step]:
        """Paint `count` pictures side by side, and give every step on the way.

        The last one's `x_next` is the finished latent. The settings are checked at once, the
        painting goes on as the steps are asked for. Arguments and errors are those of `paint`.
        """
        asked, rows = self.resolve(settings_of(Settings, settings, more), image, mask)
        given = self._condition(asked, image, mask)
        return self._sample(rows, given, asked.first, asked.count)

    def resolve(
        self, settings: Settings, image: Image | None = None, mask: Mask | None = None
    ) -> tuple[Resolved, Table]:
        """The settings with every default filled, and the calls of the denoiser they lead to.

        Raises ValueError that names the setting that is out of range.
        """
        asked = settings.resolve(self.config, image, mask)
        return asked, table_of(asked, self.process)

    def _condition(self, asked: Resolved, image: Image | None, mask: Mask | None) -> Conditioning:
        texts = [asked.prompt, asked.negative]
        if asked.guidance == 1.0 or self.config.denoiser.guidance_width is not None:
            texts = texts[:1]  # one call a step: nothing to push away from
        context = contexts(self.text_encoder, self.tokenizer, texts, asked.emphasis)
        given = condition(self.config, self.process, self.autoencoder, context, asked, image, mask)
        check_finite(given.context, "the text encoder's context", self.text_encoder)
        check_finite(given.known, "the picture's latent", self.autoencoder)
        check_finite(given.extra, "the picture's latent", self.autoencoder)
        return given

    def _sample(self, rows: Table, given: Conditioning, first: int, count: int) -> Iterator[Step]:
        """`count` pictures side by side, from where the process begins to the last step."""
        indices = first + np.arange(count, dtype=np.uint32)
        keys, noise = self._begin(given.seed, indices, given.known.shape[1:])
        return self._from(self._advance, self.process, rows, given, keys, noise)

    def _from(
        self,
        program: Program,
        process: Process,
        rows: Table,
        given: Conditioning,
        keys: Key[Array, " b"],
        noise: Latents,
    ) -> Iterator[Step]:
        """From noise to the last step, by the program of a step."""
        x_t = process.begin(noise, given.known, given.mask)
        if given.from_image:
            known = jnp.broadcast_to(given.known, noise.shape)
            x_t = process.add_noise(known, noise, jnp.full(len(noise), rows.timestep[0]))
        arrives = np.append(rows.timestep[1:], rows.timestep.dtype.type(-1))

        def step(x_t: Latents, memory: Latents, row: Table, call: np.uint32) -> Any:
            return program(x_t, memory, row, call, given[:-1], keys, noise, arrives[call])

        return sample(step, x_t, rows)

    def side_by_side(self, count: int, height: int, width: int) -> int:
        """How many of `count` pictures are painted in one batch."""
        fitting = max(1, min(BATCH, PIXELS // (height * width)))
        turns = max(1, math.ceil(count / fitting))
        # Alike, for each size is compiled, and what is painted beyond the count is thrown away.
        return math.ceil(count / turns)

    def encode(self, images: UInt8[np.ndarray, "b H W 3"]) -> Latents:
        """Pictures as the denoiser would have painted them: latents of unit variance.

        The most plausible ones; painting from an image draws among the plausible.
        """
        return self.process.encode(self.autoencoder, jnp.asarray(from_uint8(images)))

    def decode(self, latents: Latents) -> UInt8[np.ndarray, "b H W 3"]:
        """Latents, or codes, as pictures; large ones in tiles where memory is short.

        What overflows in float16 is decoded again in float32, with an `OverflowWarning`.

        Raises FloatingPointError where that does not help.
        """
        b, *sides, _ = latents.shape
        height, width = (side * self.config.autoencoder.downscale for side in sides)
        batch = self.side_by_side(b, height, width)
        decode = partial(self._decoded, self.autoencoder, height, width)
        turns = range(0, b, batch)
        return np.concatenate([to_uint8(decode(latents[i : i + batch])) for i in turns])

    def _decoded(
        self, autoencoder: Network, height: int, width: int, latents: Latents
    ) -> Float[np.ndarray, "b H W 3"]:
        decode = decoder(self.config.autoencoder, autoencoder, len(latents), height, width)
        images = np.asarray(decode(latents))
        if autoencoder.dtype != "float16" or np.isfinite(images).all():
            check_finite(images, "the decoded picture", autoencoder)
            return images
        warnings.warn("the VAE overflowed in float16; decoded in float32", OverflowWarning, 2)
        precise = Network(autoencoder.structure, lambda: cast(autoencoder.params, jnp.float32))
        return self._decoded(precise, height, width, latents)

    def save(self, place: str | Path, dtype: str | None = None) -> None:
        """Write the whole model as a folder that `load` and the PyTorch reference read.

        Args:
            dtype: "float32", "bfloat16" or "float16"; None keeps the precision in memory.

        The folder must be new or empty, and appears whole or not at all. Needs memory for a second
        copy of the largest network.

        Raises ValueError where the folder is not empty, OSError where it cannot be written.
        """
        params = {slot: partial(getattr, getattr(self, slot), "params") for slot in SLOTS}
        save_model(Path(place), self.config, self.tokenizer, params, dtype, self._save_more)

    def _save_more(self, place: Path, dtype: str | None) -> None:
        """What else belongs to the model."""


def check_finite(numbers: Any, what: str, network: Network) -> None:
    """Raises FloatingPointError where something that a network gave is infinite or no number."""
    if not np.isfinite(np.asarray(numbers)).all():
        others = " or ".join(name for name in ("float32", "bfloat16") if name != network.dtype)
        raise FloatingPointError(
            f"{what} is not finite in {network.dtype}; try --dtype {others}, or check the weights"
        )


def table_of(asked: Resolved, process: Process) -> Table:
    """The calls of the denoiser that settings lead to."""
    return table(
        asked.sampler,
        process,
        asked.steps,
        spacing=asked.spacing,
        eta=asked.eta,
        strength=asked.strength,
    )


def settings_of(kind: type[S], prompt: str | S, more: dict[str, Any]) -> S:
    """A prompt and its settings as one. Raises TypeError where both are settings."""
    if not isinstance(prompt, kind):
        text: Any = prompt
        return kind(text, **more)
    if more:
        raise TypeError(f"{', '.join(more)}: part of the settings, or beside a prompt, not both")
    return prompt


def _begin(
    seed: Integer[Array, ""], indices: Integer[Array, " b"], size: tuple[int, int, int]
) -> tuple[Key[Array, " b"], Latents]:
    keys = picture_keys(seed, indices)
    return keys, initial_noise(keys, size)


def advance(
    process: Process,
    structure: nnx.GraphDef[Any],
    told: bool,
    params: Params,
    x_t: Latents,
    memory: Latents,
    row: Table,
    call: Integer[Array, ""],
    given: Any,  # `Conditioning` without its last field
    keys: Key[Array, " b"],
    first_noise: Latents,
    arrives: Real[Array, ""],  # the next timestep, -1 after the last
) -> tuple[Latents, Latents, Latents, Latents]:
    """Denoiser, guidance and sampler in one program: prediction, x0, next x_t, next memory.

    Nothing that a user may change (steps, guidance, sampler, words) is a constant in it, so one
    program serves them all. Both branches of guidance are one batch; where there is one context,
    there is one branch. The sampler's arithmetic is float32 whatever the denoiser runs in.

    Args:
        told: is the denoiser told the guidance scale?
    """
    context, guidance, apart, _, known, mask, extra = given
    b, branches = len(x_t), len(context)
    dtype = jax.tree.leaves(params)[0].dtype

    def predict(x_t: Latents, t: Array) -> Latents:
        beside = jnp.broadcast_to(extra, (b, *extra.shape[1:])).astype(x_t.dtype)
        seen = jnp.concatenate([x_t, beside], axis=-1)
        inputs = jnp.concatenate([seen] * branches), words_for(context, b)
        scales = (jnp.full(b, guidance),) if told else ()
        canvases, words = cast(inputs, dtype)
        denoiser = nnx.merge(structure, params)
        said = denoiser(canvases, jnp.concatenate([t] * branches), words, *scales)
        said = said.astype(jnp.float32)
        return said if branches == 1 else guide(said[b:], said[:b], guidance, apart)

    prediction, x0, x_next, memory = one_step(process, predict, x_t, memory, row, call, keys)
    stays = process.kept(known, first_noise, arrives)  # where nothing is to be painted
    return prediction, x0, jnp.where(mask, x_next, stays), memory
