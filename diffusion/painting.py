"""From settings to picture files: paint with a progress bar, lay out, save."""

import dataclasses
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from diffusion import picture_files, picture_reading
from diffusion.images import sheet
from diffusion.pipeline import Artist
from diffusion.process.sampling import Step
from diffusion.runtime.progress import InFlight
from diffusion.settings import PictureSettings

STRIP_COLUMNS = 8  # how many of the steps a strip shows
GAP = 2  # pixels between the pictures of a sheet
Given = dict[str, np.ndarray]  # image and mask, as the artist takes them


def paint_files(artist: Artist, settings: PictureSettings, output: Path, single: bool) -> None:
    """Paint a series and write it: one sheet, or a folder of single files.

    Args:
        settings: with nothing left open; see `PictureSettings.fitted`.
        single: is `output` a folder for single files?

    Raises ValueError or OSError before anything is painted, where it could not be saved.
    """
    image_and_mask = given(artist, settings)
    # Refuses more pictures than there is room for, before they are named.
    asked, _ = artist.resolve(settings, **image_and_mask)
    count = settings.count or 1
    indices = range(count) if single and settings.index is None else [settings.index]
    names = [f"{index or 0:04d}.png" if single else "" for index in indices]
    paths = [output / name for name in names]
    keep_sources(settings, paths)
    if single and settings.index is None:
        tell_of_others(output, paths)
    picture_files.check_writable(output if single else output.parent)
    images = paint(artist, settings, image_and_mask)
    for path, index in zip(paths, indices, strict=True):
        one = dataclasses.replace(settings, index=index)
        picture_files.save(path, arrange(images, one), one, (asked.height, asked.width))


def keep_sources(settings: PictureSettings, paths: Sequence[Path]) -> None:
    """Raises ValueError where a new picture would replace a file that it begins with."""
    replaced = {os.path.realpath(path) for path in paths}
    for needed in filter(None, (settings.source, settings.mask)):
        if os.path.realpath(needed) in replaced:
            raise ValueError(
                f"{needed} would be replaced, and the new picture begins with it; name another "
                "--output"
            )


def tell_of_others(output: Path, paths: Sequence[Path]) -> None:
    """Warns of pictures of an earlier, longer series that stay in the folder."""
    others = {path for path in output.glob("[0-9][0-9][0-9][0-9].png") if path not in paths}
    if others:
        warnings.warn(
            f"{output} holds {len(others)} other pictures ({min(others).name} to "
            f"{max(others).name}), which stay beside the new ones",
            stacklevel=2,
        )


def given(artist: Artist, settings: PictureSettings) -> Given:
    """The picture to begin with and the mask, as the artist takes them."""
    if settings.source is None:
        if settings.mask is not None:
            raise ValueError("--mask belongs to a picture; give one with --from")
        return {}
    side, unit = artist.config.image_size, artist.config.unit
    settings.size(artist.config)  # before a picture of that size is made
    source = Path(settings.source)
    image = picture_reading.read_source(source, settings.height, settings.width, side, unit)
    if settings.mask is None:
        return {"image": image}
    height, width = image.shape[:2]
    mask = picture_reading.read_mask(Path(settings.mask), height, width, source)
    return {"image": image, "mask": mask}


def paint(artist: Artist, settings: PictureSettings, image_and_mask: Given) -> np.ndarray:
    """uint8 (n, h, w, 3): the pictures, or their strips, of a whole series; a progress bar."""
    if image_and_mask:
        settings = dataclasses.replace(settings, height=None, width=None)  # the image's by now
    asked, rows = artist.resolve(settings, **image_and_mask)
    calls = len(rows.timestep)
    turns = math.ceil(asked.count / artist.side_by_side(asked.count, asked.height, asked.width))
    shown = set(np.linspace(0, calls - 1, STRIP_COLUMNS).round().astype(int))
    moments: list[UInt8[np.ndarray, "2 b h w 3"]] = []
    asked_for = 0
    with tqdm(total=calls * turns, desc="painting", unit="glance", leave=False) as progress:
        in_flight = InFlight(progress.update)

        def on_step(step: Step) -> None:
            nonlocal asked_for
            artist.text_encoder.release()  # the story has been told
            if settings.strip and asked_for % calls in shown:
                moments.append(np.stack([artist.decode(step.x_t), artist.decode(step.x0)]))
            asked_for += 1
            in_flight.add(step.x_next)
            if asked_for == calls * turns:
                in_flight.finish()
                artist.denoiser.release()  # the pictures can have the memory

        images = artist.paint(settings, on_step=on_step, **image_and_mask)
    return strips(moments, len(shown), asked.count) if settings.strip else images


def strips(
    moments: list[UInt8[np.ndarray, "2 b h w 3"]], columns: int, count: int
) -> UInt8[np.ndarray, "n H W 3"]:
    """Of each picture its moments in a row: above x_t, below what the denoiser sees in it."""
    films = [np.stack(moments[i : i + columns]) for i in range(0, len(moments), columns)]
    by_picture = np.moveaxis(np.concatenate(films, axis=2), 2, 0)  # n, moment, 2, h, w, 3
    rows = by_picture.swapaxes(1, 2)[:count]
    return np.stack([sheet(row.reshape(-1, *row.shape[2:]), columns, GAP) for row in rows])


def arrange(
    images: UInt8[np.ndarray, "n h w 3"], settings: PictureSettings
) -> UInt8[np.ndarray, "H W 3"]:
    """One picture of the series, or a sheet of them all; of a single one, itself."""
    if settings.index is not None or len(images) == 1:
        return images[settings.index or 0]
    columns = 1 if settings.strip else math.ceil(math.sqrt(len(images)))
    return sheet(images, columns, GAP)
