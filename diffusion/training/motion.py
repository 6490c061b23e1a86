"""Training motion modules: show a clip under noise, let its frames hear of each other.

Guo et al. 2023, section 4.2. Text encoder, autoencoder and denoiser stay as they are. All frames of
a clip are as noisy as each other, and have a share of their noise in common (Ge et al. 2023). Where
view or clouds move, that noise moves with them (Burgert et al. 2025).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Real

from diffusion.datasets.captions import clip_captions
from diffusion.datasets.curriculum import CAPTION_DROPOUT, DETAILED_SHARE
from diffusion.datasets.garden import Clips, render_clips
from diffusion.datasets.garden.motion import views
from diffusion.images import sheet, to_uint8
from diffusion.motion_config import MotionConfig, PromptTravelConfig
from diffusion.process import mixing
from diffusion.process.samplers import table
from diffusion.process.sampling import finished, sample
from diffusion.runtime.parameters import Params, fingerprint, precision, split
from diffusion.stages.moving import MovingDenoiser
from diffusion.stages.moving_noise import moving_noise, places
from diffusion.stages.moving_view import STRENGTH
from diffusion.stages.noisy_latent import initial_noise, mixed_noise, picture_keys
from diffusion.stages.prompt_travel import VIEWS, between, told
from diffusion.text.tokenizer import Tokenizer
from diffusion.training.clips import Library, library
from diffusion.training.denoiser import DenoiserTask
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import create, structure

CLIPS = 1024  # that a training looks at again and again
COMMON_NOISE = 0.5  # share of its variance, at least; so that it pays to ask others. At most it is
# that of painting
BLIND_SHARE = 0.25  # of the clips, seen as a painting begins: noise and nothing else. The noisiest
# canvas of a schedule still hints at its frames (Lin et al. 2024), so nobody has to know what moves
STILL_SHARE = 0.2  # of the clips: nothing happens, so nothing is to move
OWN_WEIGHT = 10.0  # of the error in what a frame has of its own
SHOWN = 8  # frames of each film in a sample sheet
PREVIEWED = (  # what the sample sheets ask for, a film each
    "a red house with two old trees, the sun sets",
    "a white house in the snow",
    "mavi ev, kar yağmaya başlıyor",
    "a yellow house with purple flowers, the clouds drift to the left",
    "üç çam ve turuncu ev",
    "night falls over a house with a blue door",
)


class CaptionedClips(NamedTuple):
    tokens: Int[Array | np.ndarray, "b n"]  # with the words dropped in some
    latents: Float[Array | np.ndarray, "b f h w z"]
    views: Float[Array | np.ndarray, "b 2 4"]


def examples(
    tokenizer: Tokenizer, known: Library, rng: np.random.Generator, size: int
) -> CaptionedClips:
    """Any clips of a library, with new words."""
    chosen = rng.integers(len(known.latents), size=size)
    clips = jax.tree.map(lambda x: x[chosen], known.clips)
    said = clip_captions(clips, rng, DETAILED_SHARE)
    silent = rng.random(size) < CAPTION_DROPOUT
    texts = ["" if quiet else caption.text for quiet, caption in zip(silent, said, strict=True)]
    return CaptionedClips(tokenizer(texts), known.latents[chosen], np.asarray(views(clips)))


def noisier(t: Real[Array, " b"], train_steps: int) -> Real[Array, " b"]:
    """Timesteps moved towards the noise, in order; both ends stay.

    Frames hint at each other's content, so that more noise hides as much of a film as less hides of
    a picture. And where things go is decided in the first glances.
    """
    left = 1 - t / train_steps
    return (train_steps * (1 - left**2)).astype(t.dtype)


@dataclass
class MotionTask(DenoiserTask):
    """Trains the motion modules of a denoiser, which stays as it is."""

    denoiser: Params
    motion: MotionConfig
    travel: tuple[PromptTravelConfig, Params] | None = None  # None: all frames are told the same

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = "motion"
        self.frozen |= {"denoiser": self.denoiser}
        self.structures["motion"] = structure(self.motion)[0]
        self.way = np.linspace(0.0, 1.0, self.motion.length, dtype=np.float32)
        if self.travel is not None:
            config, self.frozen["travel"] = self.travel
            self.structures["travel"] = structure(config)[0]
        self.find_ends = jax.jit(self._ends)

    def prepare(self, place: Path, seed: int) -> None:
        """The clips of a training, in its folder."""
        encode = partial(jax.jit(self._encode), self.frozen)
        mark = f"{fingerprint(self.autoencoder)[:8]}-{self.motion.length}"
        known = library(place / "clips", CLIPS, seed, STILL_SHARE, encode, mark)
        self.batch = partial(examples, self.tokenizer, known)

    def _encode(self, frozen: Params, clips: Clips) -> Float[Array, "b f h w z"]:
        """The latents of all frames."""
        films = render_clips(clips, self.motion.length, self.model.image_size)
        autoencoder = self._frozen(frozen)[1]
        latents = self.process.encode(autoencoder, films.reshape(-1, *films.shape[2:]))
        return latents.reshape(*films.shape[:2], *latents.shape[1:])

    def init(self, seed: int) -> Params:
        return split(create(self.motion, nnx.Rngs(seed)))[1]

    def moving(self, params: Params, frozen: Params) -> MovingDenoiser:
        """The denoiser with the motion modules."""
        image = nnx.merge(self.structures["denoiser"], frozen["denoiser"])
        motion = nnx.merge(self.structures["motion"], params)
        length = self.motion.length
        return MovingDenoiser(image, motion, length, frames=length)

    def loss(
        self,
        params: Params,
        frozen: Params,
        batch: Any,  # `CaptionedClips`
        key: Array,
    ) -> tuple[Array, Metrics]:
        """Weighted squared error of the prediction, of all frames (Guo et al. 2023, eq. 4).

        It is the sum of two: the error of the frames' mean, and that of what each has of its own,
        which counts `OWN_WEIGHT` times. Both are least where their sum is. But the first is mostly
        what nobody can know of a new scene, and its gradients drown those of the second.
        """
        noise_key, time_key, blind_key = jax.random.split(key, 3)
        frames, dtype = self.motion.length, precision(params)
        latents, context = self.seen(frozen, batch)
        # A painting shows views of what it has already seen; see `diffusion.stages.moving_view`.
        viewed = (jnp.asarray(batch.views)[..., :2] != 0).any((1, 2))
        blind = jax.random.bernoulli(blind_key, BLIND_SHARE, viewed.shape) & ~viewed
        drawn = self.process.draw_timesteps(time_key, len(blind))
        t = noisier(drawn, self.process.train_steps)
        t = jnp.where(blind, self.process.train_steps - 1, t)
        t = jnp.where(viewed, (STRENGTH * drawn).astype(t.dtype), t)
        each = jnp.repeat(t, frames)
        noise = self.noise(noise_key, latents.shape, blind, batch.views)
        hidden = jnp.repeat(blind, frames)[:, None, None, None]
        x_t = jnp.where(hidden, noise, self.process.add_noise(latents, noise, each))
        denoiser = self.moving(params, frozen)
        prediction = denoiser(x_t.astype(dtype), each, context).astype(jnp.float32)
        wrong = prediction - mixing(self.process).target(latents, noise, each)
        films = wrong.reshape(len(blind), frames, -1)
        mean = films.mean(1, keepdims=True)
        common, own = jnp.square(mean).mean((1, 2)), jnp.square(films - mean).mean((1, 2))
        loss = jnp.mean(self.process.weight(t) * (common + OWN_WEIGHT * own))
        return loss, {"error_common": common.mean(), "error_own": own.mean()}

    def noise(
        self,
        key: Array,
        shape: tuple[int, ...],
        blind: Bool[Array, " b"],
        views: Float[Array | np.ndarray, "b 2 4"],
    ) -> Float[Array, "bf h w z"]:
        """The noise of all frames of some clips; that of a painting, where nothing else is seen.

        What is common to them goes where view and clouds go.
        """
        own_key, common_key, share_key = jax.random.split(key, 3)
        own = jax.random.normal(own_key, shape).reshape(-1, self.motion.length, *shape[1:])
        size = (shape[1], shape[2], shape[3])
        common = jax.vmap(partial(moving_noise, size=size))(
            jax.random.split(common_key, len(own)), places(jnp.asarray(views), self.way)
        )
        most = self.motion.common_noise
        least = min(COMMON_NOISE, most)
        share = jax.random.uniform(share_key, blind.shape, minval=least, maxval=most)
        share = jnp.where(blind, most, share)[:, None, None, None, None]
        return mixed_noise(own, common, share).reshape(shape)

    def seen(self, frozen: Params, batch: Any) -> tuple[Array, Array]:  # type: ignore[override]
        """Latents (bf h w z) and contexts (bf n d) of the frames of all clips."""
        films = jnp.asarray(batch.latents, jnp.float32)
        contexts, _ = self._ends(frozen, jnp.asarray(batch.tokens))
        contexts = between(contexts, self.way)
        return films.reshape(-1, *films.shape[2:]), contexts.reshape(-1, *contexts.shape[2:])

    def _ends(
        self, frozen: Params, tokens: Int[Array, "b n"]
    ) -> tuple[Float[Array, "b 2 n d"], Float[Array, "b 2 4"]]:
        """As `FilmArtist.ends`."""
        text_encoder, _ = self._frozen(frozen)
        context = text_encoder(tokens)
        if self.travel is None:
            return jnp.stack([context] * 2, axis=1), jnp.zeros((len(context), 2, VIEWS))
        found = nnx.merge(self.structures["travel"], frozen["travel"])(context, tokens)
        said, views = told(tokens, found)
        heard = text_encoder(said.reshape(-1, tokens.shape[1]))
        return heard.reshape(len(tokens), 2, *context.shape[1:]), views

    def picture(self, params: Params) -> np.ndarray:
        """A film for each of the sentences in `PREVIEWED`, a row each."""
        frames = self.motion.length
        shape = (self.model.latent_size,) * 2 + (self.model.denoiser.latent_channels,)
        shown = np.linspace(0, frames - 1, min(frames, SHOWN)).round().astype(int)
        shared = jax.jit(partial(moving_noise, size=shape))
        rows = table("dpm++2m", self.process, 20)
        films = []
        for i, text in enumerate(PREVIEWED):  # one program, and the memory of one film
            ends, views = self.find_ends(self.frozen, self.tokenizer([text, ""]))
            context = between(ends, self.way).reshape(-1, *ends.shape[2:])
            keys = picture_keys(i, jnp.arange(-1, frames))  # as `FilmArtist.sample_film`
            noise = initial_noise(keys, shape)
            common = shared(keys[0], places(views, self.way)[0])
            x_t = mixed_noise(noise[1:], common, self.motion.common_noise)
            whole = {"motion": params, "frozen": self.frozen}
            advance = partial(self.advance, whole, context, keys[1:])
            latents = finished(sample(advance, x_t, rows))
            films.append(to_uint8(self.decode(self.frozen, latents))[shown])
        return sheet(np.concatenate(films), columns=len(shown))

    def _merged(self, params: Params) -> MovingDenoiser:
        return self.moving(params["motion"], params["frozen"])


def preset() -> TrainConfig:
    return TrainConfig(
        steps=3000, batch_size=4, learning_rate=5e-4, ema=0.999, checkpoint_every=100
    )
