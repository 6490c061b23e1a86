"""What a person asks of a film, beside what is asked of a picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from diffusion.config import ModelConfig
from diffusion.settings import SMALL, PictureSettings, Settings, option

FRAMES = (8, 64)  # fewest and most
SUFFIXES = (".gif", ".webp", ".png", ".mp4")
FASTEST = 50  # frames a second: a GIF counts hundredths, and players want two of them


@dataclass(frozen=True)
class FilmSettings(Settings):
    """What decides the frames of a film.

    Raises ValueError that names a field that makes no sense, whatever the model.
    """

    frames: int = option(16, "how many, 8 to 64 (16)", "N")
    # With motion modules, each frame is told a mixture; in a walk, too.
    to: str | None = option(None, "what the last frame shows: the words go over into these", "TEXT")
    to_seed: int | None = option(
        None, "of a walk: the seed of its last frame (with --to the same, else the next)", "N"
    )
    loop: bool = option(False, "let the first frame follow the last")
    walk: bool = option(
        False,
        "no motion, but a walk between two pictures of the model: their noises and words are mixed "
        "(always so where a model has no motion modules)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = FRAMES
        if not least <= self.frames <= most:
            raise ValueError(f"frames is {self.frames}; give {least} to {most}")
        if self.count is not None:
            raise ValueError("count belongs to pictures; a film has frames")
        if self.to_seed is not None and not 0 <= self.to_seed < 2**32:
            raise ValueError(f"to_seed is {self.to_seed}; give a whole number up to {2**32 - 1}")

    @property
    def stills(self) -> Settings:
        """The settings of its frames, as so many pictures."""
        own = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Settings)}
        return Settings(**(own | {"count": self.frames}))

    def check(self, model: ModelConfig, moves: bool, from_image: bool) -> None:
        """Raises ValueError where a model cannot paint this film.

        Args:
            moves: do motion modules join the frames?
        """
        if model.inpaints:
            raise ValueError(f"{model.name} is for inpainting; take another model for films")
        if moves and self.to_seed is not None:
            raise ValueError("to_seed belongs to a walk; leave it out, or ask for walk")
        if not moves and from_image:
            raise ValueError(
                "a film that begins with a picture needs motion modules: choose a model or a "
                "motion adapter that has them, and leave walk out"
            )


@dataclass(frozen=True)
class FilmFileSettings(FilmSettings, PictureSettings):
    """All that decides a film's file."""

    fps: int = option(8, "frames a second (8)", "N")
    motion: str | None = option(
        None, "a motion adapter: a folder in the layout of diffusers (the model's own)", "FOLDER"
    )
    strip: bool = option(False, "all frames side by side in one PNG, for print")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.fps <= FASTEST:
            raise ValueError(f"fps is {self.fps}; give 1 to {FASTEST}")
        if self.motion is not None and self.walk:
            raise ValueError("motion and walk exclude each other; leave one out")

    def filled(self, model: ModelConfig, dtype: str, moves: bool) -> FilmFileSettings:
        """With what fits the model where nothing was said.

        Args:
            model: as it paints films.
            dtype: in which it was loaded.
            moves: do motion modules join the frames?
        """
        some = 4 if model.image_size <= SMALL else 1
        fitting = {"zoom": some, "dtype": dtype} | self.sampling(model)
        unsaid: dict[str, Any] = {k: v for k, v in fitting.items() if getattr(self, k) is None}
        return dataclasses.replace(self, walk=not moves, **unsaid)
