"""The look inside a film: its steps, and in every motion module which frame looks at which.

run = trace_film(diffusion.load("garden"), "a red house, the sun sets")
run.steps[0].x_t                            # (16, 16, 16, 12): the canvases of all frames
looks(run, 3, "down.0.0")                   # (16, 16, heads, 16, 16): for each position
"""

from functools import cached_property
from typing import Any

import jax
from jaxtyping import Array, Float

from diffusion import film
from diffusion.film import MotionModules
from diffusion.film_settings import FilmSettings
from diffusion.filming import FilmArtist
from diffusion.inspection.trace import Trace
from diffusion.pipeline import settings_of
from diffusion.process.sampling import Step
from diffusion.runtime.programs import Network
from diffusion.stages.prompt_travel import between

ATTENTION = ".block.attention"  # in the name of an attention, between its module and 1 or 2


class FilmTrace(Trace):
    """One film, with everything that happened in it; made by `trace_film`.

    As the trace of so many pictures. Names in its activations begin with "image." (the denoiser) or
    "motion." (what joins the frames); of "pictures" each is a frame.
    """

    artist: FilmArtist

    def __init__(
        self, artist: FilmArtist, settings: FilmSettings, guidance: float, steps: list[Step]
    ):
        super().__init__(artist, settings, guidance, steps)
        self.settings = settings

    @cached_property
    def denoiser(self) -> Network:
        """The image denoiser with the motion modules."""
        assert self.artist.motion is not None
        return self.artist.motion.joined(self.settings.frames, self.artist.closes(self.settings))

    def heard(self, count: int) -> Float[Array, "2f n d"]:
        """The contexts of all frames, in both branches."""
        ends, _ = self.artist.ends(self.settings, self.context)
        told = between(ends, film.shares(count, self.artist.closes(self.settings)))
        return told.reshape(-1, *told.shape[2:])


def trace_film(artist: FilmArtist, prompt: str | FilmSettings, **settings: Any) -> FilmTrace:
    """Paint a film and keep what happened.

    Args:
        prompt: a text, or settings; no walk.
        settings: of `FilmSettings`, beside a text: seed, frames, to, ...

    Raises ValueError as `FilmArtist.sample_film` does, and where no motion modules join all frames
    at once.
    """
    asked = settings_of(FilmSettings, prompt, settings)
    if artist.motion is None or asked.walk:
        raise ValueError("trace_film needs motion modules; take a model that has them, and no walk")
    length = artist.motion.config.length
    if asked.frames > length:
        raise ValueError(
            f"frames is {asked.frames}; give up to {length}, which the modules see at once"
        )
    resolved, _ = artist.resolve_film(asked)
    [steps] = artist.sample_film(asked)
    return FilmTrace(artist, asked, resolved.guidance, list(steps))


def modules(run: FilmTrace) -> list[str]:
    """The names of the motion modules, in the order in which they are called."""
    assert run.artist.motion is not None
    config = run.artist.motion.config
    levels, each = range(len(config.block_out_channels)), range(config.layers_per_block)
    down = [f"down.{level}.{i}" for level in levels for i in each]
    up = [f"up.{level}.{i}" for level in levels for i in (*each, len(each))]
    return [*down, *["middle"] * config.middle, *up]


def looks(
    run: FilmTrace, index: int, module: str, attention: int = 1
) -> Float[Array, "h w heads f f"]:
    """How much each frame looks at each other at every position of a map, with the prompt.

    Args:
        index: of the step.
        module: one of `modules`.
        attention: the first or the second of its two.

    Raises ValueError where there is no such module.
    """
    if module not in modules(run):
        raise ValueError(f"there is no module {module!r}; choose from {', '.join(modules(run))}")
    inside = run.activations(index)
    weights = inside.attention[f"motion.{module}{ATTENTION}{attention}"]
    _, h, w, _ = inside.tensors[f"motion.{module}"].shape
    return weights.reshape(2, h, w, *weights.shape[1:])[0]


def with_exit(artist: FilmArtist, share: float) -> FilmArtist:
    """The same artist, whose motion modules add `share` times what they would: 0 is not a word.

    Raises ValueError where there are no motion modules.
    """
    if artist.motion is None:
        raise ValueError("this model has no motion modules")

    def scaled(path: tuple[Any, ...], leaf: Array) -> Array:
        leaves = any(getattr(key, "key", None) == "project_out" for key in path)
        return leaf * leaf.dtype.type(share) if leaves else leaf

    adapter = artist.motion.adapter
    changed = Network(
        adapter.structure, lambda: jax.tree_util.tree_map_with_path(scaled, adapter.params)
    )
    other = FilmArtist(
        artist.config,
        artist.tokenizer,
        artist.text_encoder,
        artist.denoiser,
        artist.autoencoder,
    )
    other.motion = MotionModules(artist.motion.config, changed, artist.denoiser)
    other.travel = artist.travel
    return other
