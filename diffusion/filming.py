"""Films: an artist who paints frames that belong together."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from diffusion import film
from diffusion.conditioning import Conditioning, alike, contexts
from diffusion.config import ModelConfig
from diffusion.film import MotionModules, Travel
from diffusion.film_settings import FilmSettings
from diffusion.images import from_uint8, to_uint8
from diffusion.pipeline import Artist, Latents, advance, settings_of, table_of
from diffusion.process import Process, process
from diffusion.process.sampling import Step, finished
from diffusion.process.tables import Table
from diffusion.runtime.programs import Program
from diffusion.settings import Image, Resolved
from diffusion.stages.moving_noise import moving_noise, sky
from diffusion.stages.moving_view import STRENGTH, through_camera
from diffusion.stages.noisy_latent import mixed_noise
from diffusion.stages.prompt_travel import VIEWS, between, told
from diffusion.weights.adapter import FOLDER, save_adapter
from diffusion.weights.prompt_travel import save_travel


class Turn(Iterator[Step]):
    """The steps of some frames, one as it is asked for, and how many they are."""

    def __init__(self, steps: Iterator[Step], count: int):
        self._steps, self._count = steps, count

    def __next__(self) -> Step:
        return next(self._steps)

    def __len__(self) -> int:
        """Of all steps, the past ones too."""
        return self._count


class FilmArtist(Artist):
    """An artist who has motion modules, or walks: `diffusion.load()` makes one.

    `motion` is None where a model has none; so is `travel`, which finds in a sentence what happens.
    """

    motion: MotionModules | None = None
    travel: Travel | None = None

    def film(
        self,
        prompt: str | FilmSettings,
        *,
        image: Image | None = None,
        on_step: Callable[[Step], None] | None = None,
        **settings: Any,
    ) -> UInt8[np.ndarray, "frames H W 3"]:
        """Paint a film: frames joined by motion modules, or a walk where a model has none.

        Args:
            prompt: a text, or settings.
            image: a picture that is to be the first frame, uint8 (H, W, 3).
            on_step: called after every step, for progress bars.
            settings: the other fields of `FilmSettings`: frames, to, loop, seed, steps, ...

        Raises ValueError that names the setting that is out of range, or does not fit the model.
        """
        asked = settings_of(FilmSettings, prompt, settings)
        latents = []
        for turn in self.sample_film(asked, image=image):
            for step in turn:
                if on_step is not None:
                    on_step(step)
            latents.append(step.x_next)
        return self.frames(latents, asked, image)

    def frames(
        self, latents: Sequence[Latents], asked: FilmSettings, image: Image | None = None
    ) -> UInt8[np.ndarray, "frames H W 3"]:
        """The pictures of a film that `sample_film` has painted, from what each turn ended with.

        What is the same in all latents is the same in all pictures: a decoder sees beyond a
        position's edge, and a sky that moves would make the land below it flicker.
        """
        pictures = np.concatenate([self.decode(part) for part in latents])[: asked.frames]
        if image is not None:
            pictures = np.concatenate([image[None], pictures[1:]])
        ends = np.concatenate([np.asarray(part) for part in latents])[: asked.frames]
        still = (ends == ends[:1]).all(axis=(0, -1))
        side = self.config.autoencoder.downscale
        still = still.repeat(side, axis=0).repeat(side, axis=1)
        pictures = np.where(still[None, ..., None], pictures[:1], pictures)
        if not asked.loop or self.closes(asked):
            return pictures
        way = film.shares(asked.frames, loop=True)
        return pictures[(way * (asked.frames - 1)).round().astype(int)]

    def closes(self, asked: FilmSettings) -> bool:
        """Does the last frame look at the first?

        Not where a sentence tells what happens: such a loop goes there and back, twice as fast, for
        frames that close a circle would stay as they begin.
        """
        return asked.loop and (self.travel is None or asked.walk)

    def sample_film(
        self, settings: str | FilmSettings, *, image: Image | None = None, **more: Any
    ) -> list[Turn]:
        """The steps of a film: of all frames side by side, or of some in turns, where they walk.

        Where view or clouds move, one picture is painted before: half of the steps paint views of
        it anew, or all of them its sky. What lies beyond the last frame is to be left out.
        Arguments and errors are those of `film`.
        """
        asked = settings_of(FilmSettings, settings, more)
        resolved, rows = self.resolve_film(asked, image)
        given = self._condition(resolved, image, None)
        way = film.shares(asked.frames, self.closes(asked))
        ends, views = self.ends(asked, given.context)
        given = given._replace(context=between(ends, way))
        if self.motion is None or asked.walk:
            return self._walk(asked, resolved, rows, given, way)
        route = film.route_of(views, way)
        shape = (asked.frames, *given.known.shape[1:])
        # The picture before the first frame has what is common to all.
        indices = np.arange(-1, asked.frames).astype(np.uint32) + np.uint32(asked.first)
        keys, noise = self._begin(given.seed, indices, shape[1:])
        common = noise[:1]
        if self.travel is not None:
            common = self._moving_noise(keys[0], route, shape[1:])
        # Nothing tells frames of a still film apart, so guidance and noise shall not: they make
        # night of a sunset that is by chance a little darker in the last frames.
        still = self.travel is not None and film.stands_still(ends, views)
        share = 1.0 if still else self.motion.config.common_noise
        noise = mixed_noise(noise[1:], common, share)
        given = given._replace(
            known=jnp.broadcast_to(given.known, shape),
            mask=jnp.broadcast_to(given.mask, (*shape[:-1], 1)),
        )
        picture = partial(self._picture, resolved, given, keys[1:2], noise[:1])
        if film.view_moves(route):
            given, rows = self._viewed(resolved, rows, given, route, picture, image)
        elif film.sky_moves(route):
            known = given.known[:1] if image is not None else picture()
            above = sky(shape[1])[None, :, None, None]
            given = given._replace(known=jnp.broadcast_to(known, shape), mask=given.mask & above)
        elif still:
            given = given._replace(apart=np.float32(film.APART))
        if image is not None:
            given = given._replace(mask=given.mask.at[0].set(False))
        program, place = self._moving(asked.frames, self.closes(asked)), self._film_process
        return [Turn(self._from(program, place, rows, given, keys[1:], noise), len(rows.step))]

    def _picture(
        self, asked: Resolved, given: Conditioning, key: Key[Array, "1"], noise: Latents
    ) -> Latents:
        """The latent of one picture, with the words and the noise of a film."""
        middle = given.context.shape[1] // 2
        alone = given._replace(
            context=given.context[:, middle : middle + 1],
            known=given.known[:1],
            mask=given.mask[:1],
        )
        rows = table_of(asked, self.process)
        return finished(self._from(self._advance, self.process, rows, alone, key, noise))

    def _viewed(
        self,
        asked: Resolved,
        rows: Table,
        given: Conditioning,
        route: Float[Array, "f 4"],
        picture: Callable[[], Latents],
        image: Image | None,
    ) -> tuple[Conditioning, Table]:
        """What a film begins with whose view moves: each frame with its view of a picture.

        See `diffusion.stages.moving_view`. A picture that is given is the first view.
        """
        if image is None:
            [image] = self.decode(picture())
            strength = max(STRENGTH, 1 / asked.steps)
            rows = table_of(dataclasses.replace(asked, strength=strength), self._film_process)
        else:
            route = route - route[:1]
        views = self._camera(from_uint8(image), route)
        return given._replace(known=self.encode(to_uint8(views)), from_image=True), rows

    def ends(
        self, asked: FilmSettings, context: Float[Array, "k n d"]
    ) -> tuple[Float[Array, "k 2 m d"], Float[Array, "1 2 4"]]:
        """What the denoiser hears of the first and of the last frame, and where their view is.

        Args:
            context: of the prompt, and of the negative prompt, in which nothing happens.
        """
        still, rests = jnp.stack([context, context], axis=1), jnp.zeros((1, 2, VIEWS))
        if asked.to is not None:
            texts = [asked.to, asked.negative][: len(context)]
            last = contexts(self.text_encoder, self.tokenizer, texts, asked.emphasis)
            return jnp.stack(alike([context, last]), axis=1), rests
        if self.motion is None or self.travel is None or asked.walk or asked.emphasis:
            return still, rests
        [tokens] = self.tokenizer([asked.prompt])
        if tokens.max() >= self.travel.config.vocab_size:  # of an embedding, which it cannot write
            return still, rests
        sentence = jnp.asarray(tokens)[None]
        [said], views = told(sentence, self.travel.network(context[:1], sentence))
        return jnp.concatenate([self.text_encoder(said)[None], still[1:]]), views

    @cached_property
    def _camera(self) -> Callable[..., Array]:
        return jax.jit(through_camera)

    @cached_property
    def _moving_noise(self) -> Callable[..., Array]:
        return jax.jit(moving_noise, static_argnums=2)

    def resolve_film(
        self, settings: FilmSettings, image: Image | None = None
    ) -> tuple[Resolved, Table]:
        """The settings of the frames with every default filled, and the calls of the denoiser.

        Raises ValueError that names the setting that is out of range, or does not fit the model.
        """
        moves = self.motion is not None and not settings.walk
        settings.check(self.config, moves, image is not None)
        asked = settings.stills.resolve(self.film_config if moves else self.config, image)
        return asked, table_of(asked, self._film_process if moves else self.process)

    @property
    def film_config(self) -> ModelConfig:
        """The model as it paints films; some motion modules have learnt with another noise."""
        return self.config if self.motion is None else self.motion.config.sampled(self.config)

    @cached_property
    def _films(self) -> dict[tuple[int, bool], Program]:
        return {}

    @cached_property
    def _film_process(self) -> Process:
        return process(self.film_config.process)

    def _moving(self, frames: int, loop: bool) -> Program:
        """A step of a film; kept, as each number of frames is compiled."""
        assert self.motion is not None
        if (frames, loop) not in self._films:
            network = self.motion.joined(frames, loop)
            told = self.config.denoiser.guidance_width is not None
            step = partial(advance, self._film_process, network.structure, told)
            self._films[frames, loop] = Program(network, step)
        return self._films[frames, loop]

    def _walk(
        self,
        asked: FilmSettings,
        resolved: Resolved,
        rows: Table,
        given: Conditioning,
        way: np.ndarray,
    ) -> list[Turn]:
        """Frames that nothing joins but where they begin: all have the fresh noise of one key."""
        size = given.known.shape[1:]
        one = np.array([asked.first], np.uint32)
        end = asked.seed if asked.to is not None else (asked.seed + 1) % 2**32
        end = end if asked.to_seed is None else asked.to_seed
        keys, noise = self._begin(given.seed, one, size)
        _, last = self._begin(np.uint32(end), one, size)
        batch = self.side_by_side(asked.frames, resolved.height, resolved.width)
        turns = []
        for i in range(0, asked.frames, batch):
            part = np.minimum(i + np.arange(batch), asked.frames - 1)
            begins = film.on_the_way(noise[0], last[0], way[part])
            now = given._replace(context=given.context[:, part])
            same = jnp.broadcast_to(keys, (batch,))
            steps = self._from(self._advance, self.process, rows, now, same, begins)
            turns.append(Turn(steps, len(rows.step)))
        return turns

    def release(self) -> None:
        """Give the memory of the denoiser and of what joins its frames back."""
        for program in self._films.values():
            program.network.release()
        if self.motion is not None:
            self.motion.adapter.release()
        if self.travel is not None:
            self.travel.network.release()
        self.denoiser.release()

    def _save_more(self, place: Path, dtype: str | None) -> None:
        if self.motion is not None:
            params = self.motion.adapter.params
            save_adapter(place / FOLDER, self.motion.config, params, dtype)
        if self.travel is not None:
            save_travel(place, self.travel.config, self.travel.network.params, dtype)
