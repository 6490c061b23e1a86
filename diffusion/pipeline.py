"""The art class: a sentence goes in, passes the six stages in order, and leaves as pictures.

1   text_encoder       a teacher tells a story: words become a context
2   noisy_latent       each student gets a canvas of dots: a latent of pure noise
3A  unet_down          a glance at the canvas: the small sketch,
3B  unet_bottleneck    the essential shape,
4   unet_up            and the oil painting; glance upon glance, each with a little less noise
5   vae                the exhibition: the finished latent is hung as a picture, once
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Integer, Key, UInt8

from diffusion.config import LARGEST_GUIDANCE, LARGEST_SIDE, ModelConfig
from diffusion.images import from_uint8, to_uint8
from diffusion.kernels.device import has_bfloat16, suits_a_cpu
from diffusion.process import samplers, schedule
from diffusion.process.samplers import Plan
from diffusion.runtime.atomic_write import replacing
from diffusion.runtime.tiled_decoding import decode_in_tiles, whole_decode_bytes
from diffusion.runtime.transformed_kernels import transformed, transformed_bytes, worthwhile
from diffusion.stages.noisy_latent import canvas, picture_keys
from diffusion.stages.vae import Posterior
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights import configs, folder
from diffusion.weights.files import Params
from diffusion.weights.lora import LoRA

BATCH = 8  # pictures painted side by side; a longer series is painted in turns, in bounded memory
PIXELS = 512 * 512  # at most as many pixels side by side, or a single picture
STRENGTH = 0.8  # how much of a picture given is painted anew, if nobody says
Latents: TypeAlias = Float[Array, "b h w z"]
Picture: TypeAlias = UInt8[np.ndarray, "H W 3"]
Mask: TypeAlias = Bool[np.ndarray, "H W"]


@dataclass(frozen=True)
class Glance:
    """One look of the network at the canvas, and what came of it."""

    step: int  # which of the steps, from 0 (Heun's method glances twice in a step)
    timestep: int  # how noisy the network was told that the canvas is
    canvas: Latents  # z_t, what the network saw
    prediction: Latents  # what it said, after guidance: the noise or the velocity
    x0: Latents  # the finished latent as it imagines it now
    latents: Latents  # the canvas afterwards


class Given(NamedTuple):
    """What lies on the canvas before the painting begins."""

    latents: Float[Array, "1 h w z"]  # of the picture that is there; zeros if there is none
    paint: Bool[Array, "1 h w 1"]  # where to paint; elsewhere the picture shall stay
    beside: Float[Array, "1 h w c"]  # what an inpainting network sees beside the canvas; c = 0 or 5


class Start(NamedTuple):
    """All that a painting begins with, but for the noise."""

    context: Float[Array, "2 n d"]  # of the prompt and of the negative prompt
    guidance: np.float32
    seed: np.uint32
    given: Given
    noisy: bool  # is the given picture what the canvas shows first, under noise?


class Network:
    """One network: its structure, and its parameters for as long as they are needed.

    Inputs are brought to the precision of the parameters, and what comes out is float32.
    """

    def __init__(self, structure: nnx.GraphDef[Any], read: Callable[[], Params]):
        self.structure = structure
        self._read = read
        self._params: Params | None = None
        self._leaves: tuple[Array, ...] = ()
        self._programs: dict[Callable[..., Any], Program] = {}

    @property
    def params(self) -> Params:
        """The parameters; read again where they have been released."""
        if self._params is None:
            self._params = self._read()
        return self._params

    @property
    def dtype(self) -> str:
        """The precision of the parameters, and of the arithmetic."""
        return jax.tree.leaves(self.params)[0].dtype.name

    @property
    def leaves(self) -> tuple[Array, ...]:
        """The parameters in a row: 686 arrays are handed over in half the time of a tree."""
        if not self._leaves:
            self._leaves = tuple(jax.tree.leaves(self._prepared(self.params)))
        return self._leaves

    def _prepared(self, params: Params) -> Params:
        """The parameters in the form in which the programs take them."""
        return params

    def release(self) -> None:
        """Give the memory back. Whoever uses the network again waits until it is read again."""
        self._params, self._leaves = None, ()

    def compiled(self, method: Callable[..., Any]) -> Program:
        """`method(module, *inputs)` as a compiled function of the inputs alone."""

        def apply(params: Params, *inputs: Any) -> Any:
            outputs = method(nnx.merge(self.structure, params), *_cast(inputs, self.dtype))
            return _cast(outputs, jnp.float32)

        return Program(self, apply)

    def compiled_once(self, method: Callable[..., Any]) -> Program:
        """As `compiled`; whoever comes again with the same function gets the same program."""
        if method not in self._programs:
            self._programs[method] = self.compiled(method)
        return self._programs[method]


class Program:
    """A function of a network's parameters and of inputs, compiled once for each shape of these."""

    def __init__(self, network: Network, function: Callable[..., Any]):
        self.network, self.function = network, function

        def apply(leaves: tuple[Array, ...], *inputs: Any) -> Any:
            tree = jax.tree.structure(network.params)
            return function(jax.tree.unflatten(tree, leaves), *inputs)

        self.compiled = jax.jit(apply)

    def __call__(self, *inputs: Any) -> Any:
        return self.compiled(self.network.leaves, *inputs)


class TextEncoderStage(Network):
    """tokens (b, 77) -> context (b, 77, d); see `diffusion.stages.text_encoder.TextEncoder`."""

    def __init__(self, structure: nnx.GraphDef[Any], read: Callable[[], Params]):
        super().__init__(structure, read)
        self.whole = self.compiled(lambda encoder, tokens: encoder(tokens))

    def __call__(self, tokens: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        return self.whole(tokens)


class UNetStages(Network):
    """The U-Net as one call, and each of its stages as a call of its own.

    Args:
        positions: of the usual latent. Kernels for which it pays at this size are transformed for
            Winograd's form once, if half of the free memory is enough for them; 0: none are.
    """

    def __init__(
        self, structure: nnx.GraphDef[Any], read: Callable[[], Params], positions: int = 0
    ):
        super().__init__(structure, read)
        self.positions = positions
        self.whole = self.compiled(lambda unet, *inputs: unet(*inputs))
        self.time_embedding = self.compiled(lambda unet, t: unet.time_embedding(t))
        self.down = self.compiled(lambda unet, *inputs: unet.down(*inputs))
        self.bottleneck = self.compiled(lambda unet, *inputs: unet.bottleneck(*inputs))
        self.up = self.compiled(lambda unet, *inputs: unet.up(*inputs))

    @property
    def transformed_bytes(self) -> int:
        """What the transformed kernels take, in addition to the parameters."""
        kept = {id(leaf) for leaf in jax.tree.leaves(self.params)}
        return sum(leaf.nbytes for leaf in self.leaves if id(leaf) not in kept)

    def _prepared(self, params: Params) -> Params:
        if not suits_a_cpu(jax.tree.leaves(params)[0]):
            return params
        places = worthwhile(self.structure, params, self.positions)
        if transformed_bytes(params, places) > free_memory() // 2:
            return params
        return transformed(params, places)

    def __call__(
        self,
        latents: Float[Array, "b h w c"],
        timesteps: Int[Array, " b"],
        context: Float[Array, "b n d"],
    ) -> Latents:
        return self.whole(latents, timesteps, context)


class VAEStages(Network):
    """`encode` and `decode`, each compiled; see `diffusion.stages.vae.VAE`."""

    def __init__(self, structure: nnx.GraphDef[Any], read: Callable[[], Params]):
        super().__init__(structure, read)
        self.encode = self.compiled(lambda vae, images: vae.encode(images))
        self.decode = self.compiled(lambda vae, latents: vae.decode(latents))

    def decode_in_tiles(self, latents: Latents) -> Float[np.ndarray, "b H W k"]:
        """The same as `decode` in less memory and more time; see `diffusion.runtime.tiled_decoding`."""
        vae = nnx.merge(self.structure, self.params)
        return decode_in_tiles(vae, np.asarray(latents, self.dtype)).astype(np.float32)


class Artist:
    """A whole model, ready to paint: `diffusion.load()` makes one.

    `text_encoder`, `unet` and `vae` can be called on their own, and each has `release()`, which
    gives its memory back until it is used again.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        text_encoder: TextEncoderStage,
        unet: UNetStages,
        vae: VAEStages,
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.unet = unet
        self.vae = vae
        self._glance = Program(unet, partial(_glance, config, unet.structure))
        self._canvas = jax.jit(_canvas, static_argnums=2)

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
        height: int | None = None,
        width: int | None = None,
        image: Picture | None = None,
        mask: Mask | None = None,
        strength: float | None = None,
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
        self._check_given(image, mask, strength)
        rows, columns = self.size(height, width, image)
        needed = count * rows * columns * 3
        if needed > psutil.virtual_memory().available // 2:
            raise ValueError(
                f"count {count} needs {needed / 2**30:,.1f} GiB for the finished pictures alone, "
                "more than half of the free memory; paint fewer at a time, with other seeds"
            )
        if guidance is not None and not abs(guidance) <= LARGEST_GUIDANCE:
            raise ValueError(
                f"guidance is {guidance}; give a number up to {LARGEST_GUIDANCE}, such as 3"
            )
        if strength is None:
            strength = 1.0 if image is None or mask is not None else STRENGTH
        return samplers.plan(sampler, self.config.schedule, steps, eta=eta, strength=strength)

    def size(
        self, height: int | None = None, width: int | None = None, image: Picture | None = None
    ) -> tuple[int, int]:
        """Height and width in pixels: what was asked for, the picture's own, or the model's own.

        Raises ValueError for a size that the network cannot halve as often as it has to.
        """
        if image is not None and (height, width) not in ((None, None), image.shape[:2]):
            raise ValueError("height and width are those of the image; leave them out")
        own = (self.config.image_size,) * 2 if image is None else image.shape[:2]
        rows = own[0] if height is None else height
        columns = own[1] if width is None else width
        unit = self.config.unit
        for name, side in (("height", rows), ("width", columns)):
            if side % unit or not unit <= side <= LARGEST_SIDE:
                low = min(max(side // unit, 1) * unit, LARGEST_SIDE)
                raise ValueError(
                    f"{name} is {side}; give a multiple of {unit} up to {LARGEST_SIDE}, such as "
                    f"{low} or {min(low + unit, LARGEST_SIDE)}"
                )
        return rows, columns

    def _check_given(self, image: Any, mask: Any, strength: float | None) -> None:
        if image is None:
            if mask is not None or strength is not None:
                raise ValueError(
                    "mask and strength belong to an image; give one, or leave them out"
                )
            return
        if (
            not isinstance(image, np.ndarray)
            or image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
        ):
            raise ValueError("image must be a uint8 array of shape (height, width, 3)")
        if mask is not None and (
            not isinstance(mask, np.ndarray)
            or mask.dtype != bool
            or mask.shape != image.shape[:2]
            or not mask.any()
        ):
            raise ValueError(
                "mask must be a boolean array of the image's height and width, true somewhere: "
                "there it is painted"
            )

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
        height: int | None = None,
        width: int | None = None,
        image: Picture | None = None,
        mask: Mask | None = None,
        strength: float | None = None,
    ) -> Iterator[Glance]:
        """Paint, and give every glance on the way; the last one's `latents` are the finished ones.

        The settings are checked at once, the painting goes on as the glances are asked for.

        Args:
            prompt: what to paint; "" lets the model choose.
            negative: what to stay away from (it takes the place of the empty prompt in guidance).
            seed: 0 <= seed < 2**32. Picture i of a seed depends on seed and i alone.
            count: how many pictures, side by side in one batch.
            first: the number of the first picture.
            steps: 1 to `config.schedule.train_steps`. The first timestep is `(steps - 1) *
                (train_steps // steps) + 1`, with "dpm++2m" `steps * (train_steps // (steps + 1)) +
                1`: with a few steps, or with more than half of them, it is far from the last, and
                the network is told that a picture is in what is pure noise.
            guidance: how loud the teacher is (Ho & Salimans 2022): 0 ignores the prompt, 1 follows
                the model, more exaggerates. None: the model's own default.
            sampler: one of `diffusion.process.samplers.SAMPLERS`.
            eta: fresh noise in "ddim", 0 none, 1 as much as "ddpm".
            height, width: pixels, multiples of `config.unit`. None: `config.image_size`.
            image: a picture to begin with, uint8 (H, W, 3), in place of pure noise (Meng et al.
                2022, "SDEdit").
            mask: True where the image is to be painted anew; elsewhere it stays.
            strength: how much of the way back to pure noise the image is sent, and how much of the
                steps are taken from there. None: 0.8, or 1 with a mask.

        Raises ValueError that names the argument that is out of range.
        """
        if not 0 <= first <= 2**32 - count:
            raise ValueError(f"first is {first}; give 0 to {2**32} less the count")
        plan = self.plan(
            prompt,
            negative=negative,
            seed=seed,
            count=count,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            eta=eta,
            height=height,
            width=width,
            image=image,
            mask=mask,
            strength=strength,
        )
        start = self._start(
            prompt,
            negative=negative,
            seed=seed,
            guidance=guidance,
            height=height,
            width=width,
            image=image,
            mask=mask,
            strength=strength,
        )
        return self._turn(plan, start, first, count)

    def _start(
        self,
        prompt: str,
        *,
        negative: str = "",
        seed: int = 0,
        guidance: float | None = None,
        height: int | None = None,
        width: int | None = None,
        image: Picture | None = None,
        mask: Mask | None = None,
        strength: float | None = None,
        **_: Any,  # the settings that the plan knows about
    ) -> Start:
        tokens = jnp.asarray(self.tokenizer([prompt, negative]))
        return Start(
            self.text_encoder(tokens),
            np.float32(self.config.guidance if guidance is None else guidance),
            np.uint32(seed),
            self._given(image, mask, self.size(height, width, image), seed),
            noisy=image is not None and (mask is None or (strength or 1.0) < 1.0),
        )

    def _turn(self, plan: Plan, start: Start, first: int, count: int) -> Iterator[Glance]:
        """`count` pictures side by side, from the canvas to the last glance."""
        given = start.given
        indices = first + np.arange(count, dtype=np.uint32)
        keys, noise = self._canvas(start.seed, indices, given.latents.shape[1:])
        z = noise
        if start.noisy:
            latents = jnp.broadcast_to(given.latents, z.shape)
            z = schedule.add_noise(latents, noise, jnp.full(count, plan.alpha_bar[0]))
        memory = jnp.zeros_like(z)
        arrives = np.append(plan.alpha_bar[1:], np.float32(1.0))
        for call in range(len(plan.timestep)):
            row = Plan(*(column[call] for column in plan))
            seen = z
            prediction, x0, z, memory = self._glance(
                z, memory, start.context, start.guidance, row, np.uint32(call), keys,
                given, noise, arrives[call],
            )  # fmt: skip
            yield Glance(int(row.step), int(row.timestep), seen, prediction, x0, z)

    def _given(
        self, image: Picture | None, mask: Mask | None, size: tuple[int, int], seed: int
    ) -> Given:
        side = self.config.vae.downscale
        h, w = size[0] // side, size[1] // side
        latents = jnp.zeros((1, h, w, self.config.unet.latent_channels))
        paint: np.ndarray = np.ones((1, h, w, 1), bool)
        if mask is not None:  # a latent is painted where any of its pixels is
            paint = np.asarray(mask.reshape(h, side, w, side).any(axis=(1, 3)))[None, ..., None]
        if image is not None:
            latents = self._latents_of(from_uint8(image), seed)
        beside = jnp.zeros((1, h, w, 0))
        if self.config.inpaints:
            kept = np.zeros((*size, 3), np.float32) if image is None else from_uint8(image)
            kept = kept * ~(np.ones(size, bool) if mask is None else mask)[..., None]
            beside = jnp.concatenate([paint.astype(np.float32), self._latents_of(kept, seed)], -1)
            paint = np.ones_like(paint)  # the network itself leaves the rest as it is
        return Given(latents, jnp.asarray(paint), beside)

    def _latents_of(self, image: Float[np.ndarray, "H W 3"], seed: int) -> Latents:
        posterior = Posterior(*self.vae.encode(jnp.asarray(image)[None]))
        return posterior.sample(jax.random.key(seed)) * self.config.vae.scaling_factor

    def latents_of(self, images: UInt8[np.ndarray, "b H W 3"]) -> Latents:
        """Pictures as the U-Net would have painted them: encoded, and scaled to unit variance.

        The mean of what the encoder finds plausible; painting from a picture draws from it.
        """
        posterior = Posterior(*self.vae.encode(jnp.asarray(from_uint8(images))))
        return posterior.mean * self.config.vae.scaling_factor

    def paint(
        self,
        prompt: str,
        *,
        count: int = 1,
        on_glance: Callable[[Glance], None] | None = None,
        **settings: Any,
    ) -> UInt8[np.ndarray, "count H W 3"]:
        """Paint `count` pictures of a prompt, the first ones of a seed.

        `glances` has the other settings, but for its `first`, and the errors.

        With a mask, the pixels that it leaves out are those of the image, unchanged.

        Args:
            on_glance: called after every glance, for progress bars and previews.
        """
        plan = self.plan(prompt, count=count, **settings)
        start = self._start(prompt, **settings)
        size = {name: settings.get(name) for name in ("height", "width", "image")}
        batch = self.side_by_side(count, *self.size(**size))
        latents = []
        for first in range(0, count, batch):
            for glance in self._turn(plan, start, first, batch):
                if on_glance is not None:
                    on_glance(glance)
            latents.append(glance.latents)
        pictures = np.concatenate([self.hang(part) for part in latents])[:count]
        if settings.get("mask") is None:
            return pictures
        return np.where(settings["mask"][None, ..., None], pictures, settings["image"])

    def side_by_side(self, count: int, height: int, width: int) -> int:
        """How many of `count` pictures are painted in one batch."""
        fitting = max(1, min(BATCH, PIXELS // (height * width)))
        turns = max(1, math.ceil(count / fitting))
        # Alike, for each size is compiled, and what is painted beyond the count is thrown away.
        return math.ceil(count / turns)

    def hang(self, latents: Latents) -> UInt8[np.ndarray, "b H W 3"]:
        """Finished latents, as pictures; large ones in tiles where memory is short."""
        b, *sides, _ = latents.shape
        height, width = (side * self.config.vae.downscale for side in sides)
        batch = self.side_by_side(b, height, width)
        decode: Callable[[Latents], Any] = self.vae.decode
        if batch * whole_decode_bytes(self.config.vae, height, width) > free_memory() // 2:
            decode = self.vae.decode_in_tiles
        latents = latents / self.config.vae.scaling_factor
        turns = range(0, b, batch)
        return np.concatenate([to_uint8(decode(latents[i : i + batch])) for i in turns])

    def save(self, place: str | Path, dtype: str | None = None) -> None:
        """Write the whole model as a folder that `load` and the PyTorch reference read.

        Args:
            dtype: "float32", "bfloat16" or "float16"; None keeps the precision in memory.

        The folder must be new or empty, and appears whole or not at all. Needs memory for a second
        copy of the largest network.

        Raises ValueError where the folder is not empty, OSError where it cannot be written.
        """
        place = Path(place)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ValueError(f"{place} is not empty; save to a new folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        networks = {"text_encoder": self.text_encoder, "unet": self.unet, "vae": self.vae}
        with replacing(place) as draft:
            self.tokenizer.save(draft / "tokenizer")
            for part, network in networks.items():
                folder.save_part(draft, self.config, part, network.params, dtype)
            folder.save_config(draft, self.config)


def free_memory() -> int:
    """Bytes that are free where the networks run: on the accelerator, or in the machine."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is None:
        return psutil.virtual_memory().available
    return stats["bytes_limit"] - stats["bytes_in_use"]


def _cast(tree: Any, dtype: Any) -> Any:
    """The same with all floating point arrays in `dtype`."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def _canvas(
    seed: Integer[Array, ""], indices: Integer[Array, " b"], size: tuple[int, int, int]
) -> tuple[Key[Array, " b"], Latents]:
    keys = picture_keys(seed, indices)
    return keys, canvas(keys, size)


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
    given: Given,
    canvas_noise: Latents,
    arrives: Float[Array, ""],  # alpha_bar after this glance
) -> tuple[Latents, Latents, Latents, Latents]:
    """Network, guidance and sampler in one program: prediction, x0, next z, next memory.

    Nothing that a user may change (steps, guidance, sampler, words) is a constant in it, so one
    program serves them all. Both branches of guidance are one batch. The sampler's arithmetic is
    float32 whatever the network runs in.
    """
    b = len(z)
    dtype = jax.tree.leaves(params)[0].dtype
    beside = jnp.broadcast_to(given.beside, (b, *given.beside.shape[1:]))
    seen = jnp.concatenate([z, beside], axis=-1)
    inputs = (jnp.concatenate([seen, seen]), jnp.repeat(context, b, axis=0))
    twice, context = _cast(inputs, dtype)
    unet = nnx.merge(structure, params)
    both = unet(twice, jnp.full(2 * b, row.timestep), context).astype(jnp.float32)
    prediction = samplers.guide(both[b:], both[:b], guidance)
    alpha_bar = jnp.full(b, row.alpha_bar)
    x0 = schedule.to_x0(prediction, z, alpha_bar, config.schedule.prediction)
    noise = samplers.noise_at(keys, call, z.shape[1:])
    z, memory = samplers.update(row, z, x0, memory, noise)
    # Where nothing is to be painted, the given picture, as noisy as the canvas is by now.
    latents = jnp.broadcast_to(given.latents, z.shape)
    there = schedule.add_noise(latents, canvas_noise, jnp.full(b, arrives))
    return prediction, x0, jnp.where(given.paint, z, there), memory


def load(
    model: str | Path = "garden",
    *,
    dtype: str | None = None,
    loras: Mapping[str, float] | None = None,
) -> Artist:
    """Load a model: the name of one that ships ("garden"), or a folder of SD 1.x or 2.x.

    Args:
        model: a name, or a folder in the layout of Hugging Face's diffusers.
        dtype: precision of the weights and of the networks' arithmetic: "float32", "bfloat16" or
            "float16". None: bfloat16 where the device multiplies in it, float32 elsewhere.
        loras: LoRA files (safetensors) to merge into the weights, each with its strength.

    Raises FileNotFoundError or ValueError that names the file that is missing or does not fit.
    """
    dtype = dtype or ("bfloat16" if has_bfloat16() else "float32")
    place = folder.find(model)
    config = folder.load_config(place)
    tokenizer = folder.load_tokenizer(place)
    text = config.text_encoder
    if (tokenizer.vocab_size, tokenizer.length) != (text.vocab_size, text.length):
        raise ValueError(
            f"{place / 'tokenizer'} has {tokenizer.vocab_size} tokens and rows of "
            f"{tokenizer.length}, text_encoder/config.json says {text.vocab_size} and "
            f"{text.length}; use the files of one model"
        )
    structures = {}
    for part in folder.PARTS:
        with configs.naming(place / configs.FILES[part]):
            structures[part] = folder.structure_of(config, part)
    weights = {part: folder.open_part(place, part, structures[part][1]) for part in folder.PARTS}
    opened = [
        LoRA.open(path, strength, {part: w.shapes for part, w in weights.items()})
        for path, strength in (loras or {}).items()
    ]

    def stage(kind: Any, part: str) -> Any:
        adjusts = [lora.adjust(part) for lora in opened]
        network = kind(structures[part][0], partial(weights[part].read, dtype, adjusts))
        network.params  # noqa: B018 (what is wrong with the numbers should be known now)
        return network

    return Artist(
        config,
        tokenizer,
        stage(TextEncoderStage, "text_encoder"),
        stage(partial(UNetStages, positions=config.latent_size**2), "unet"),
        stage(VAEStages, "vae"),
    )
