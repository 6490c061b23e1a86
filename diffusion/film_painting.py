"""From settings to film files: paint with a progress bar, lay out, save."""

import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusion import film_files, picture_files, picture_reading
from diffusion.film_settings import FilmFileSettings
from diffusion.filming import FilmArtist
from diffusion.images import sheet
from diffusion.painting import GAP, STRIP_COLUMNS, keep_sources
from diffusion.runtime.progress import InFlight


def fitted(artist: FilmArtist, asked: FilmFileSettings) -> FilmFileSettings:
    """With what fits the artist where nothing was said."""
    moves = artist.motion is not None and not asked.walk
    model = artist.film_config if moves else artist.config
    return asked.filled(model, artist.denoiser.dtype, moves)


def film_file(artist: FilmArtist, settings: FilmFileSettings, output: Path) -> None:
    """Paint a film and write it: an animation, or a strip of its frames.

    Args:
        settings: with nothing left open; see `fitted`.

    Raises ValueError or OSError before anything is painted, where it could not be saved.
    """
    film_files.check_suffix(output, settings.strip)
    keep_sources(settings, [output])
    image = _source(artist, settings)
    if image is not None:
        settings = dataclasses.replace(settings, height=None, width=None)  # the image's by now
    artist.resolve_film(settings, image)
    picture_files.check_writable(output.parent)
    frames = paint(artist, settings, image)
    if settings.strip:
        page = sheet(frames, min(STRIP_COLUMNS, len(frames)), GAP)[None]
        film_files.save(output, page, settings)
    else:
        film_files.save(output, frames, settings)


def _source(artist: FilmArtist, settings: FilmFileSettings) -> np.ndarray | None:
    """The picture that is to be the first frame."""
    if settings.source is None:
        return None
    settings.stills.size(artist.config)  # before a picture of that size is made
    side, unit = artist.config.image_size, artist.config.unit
    source = Path(settings.source)
    return picture_reading.read_source(source, settings.height, settings.width, side, unit)


def paint(
    artist: FilmArtist, settings: FilmFileSettings, image: np.ndarray | None = None
) -> np.ndarray:
    """uint8 (frames, h, w, 3); a progress bar."""
    turns = artist.sample_film(settings, image=image)
    name = "walking" if settings.walk else "filming"
    latents = []
    with tqdm(total=sum(map(len, turns)), desc=name, unit="glance", leave=False) as progress:
        in_flight = InFlight(progress.update)
        for turn in turns:
            for step in turn:
                artist.text_encoder.release()  # the story has been told
                in_flight.add(step.x_next)
            latents.append(step.x_next)
        in_flight.finish()
        artist.release()  # the pictures can have the memory
        return artist.frames(latents, settings, image)
