"""What the autoencoder keeps of a picture: all in all, and the small things that words name."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, UInt8
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from diffusion.datasets.garden import ATTRIBUTES, Scene, render, sample_scenes
from diffusion.images import to_uint8

Pictures = UInt8[np.ndarray, "n h w 3"]

SMALL_THINGS = {  # what is small -> the layer that draws it, where it can be seen
    "falling snow": ("weather", {"weather": "snow"}),
    "rain": ("weather", {"weather": "rain"}),
    "stars": ("stars", {"sky": "night", "weather": "clear"}),
    "petals": ("flowers", {"flower_amount": "many"}),
}
DARKEST = 16  # of 255, by which a thing changes a pixel, at least, to be seen in it
SCENES = 4096  # drawn to find those that show a thing
LOOKED_AT = 128  # of these


def reconstruction(pictures: Pictures, decoded: Pictures) -> dict[str, float]:
    """What comes back of pictures.

    Peak signal-to-noise ratio in dB; structural similarity (Wang et al. 2004); and the energy of
    the highest octave, as a share of what it was: below 1 pictures are blurred, above they are
    noisy.
    """
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = list(zip(pictures, decoded, strict=True))
    with np.errstate(divide="ignore"):  # infinite, where nothing is lost
        ratios = [peak_signal_noise_ratio(a, b) for a, b in pairs]
    alike = [structural_similarity(a, b, channel_axis=2, **wang) for a, b in pairs]
    return {
        "psnr": float(np.mean(ratios)),
        "ssim": float(np.mean(alike)),
        "octave": float(highest_octave(decoded).mean() / highest_octave(pictures).mean()),
    }


def highest_octave(pictures: Pictures) -> Float[np.ndarray, " n"]:
    """The energy of each picture at more than a quarter of a wave a pixel, across or down.

    A window (Hann) keeps opposite edges, which do not meet, from counting.
    """
    _, h, w, _ = pictures.shape
    window = np.hanning(h)[:, None, None] * np.hanning(w)[None, :, None]
    waves = np.fft.fft2(pictures.astype(np.float32) * window, axes=(1, 2))
    down, across = np.abs(np.fft.fftfreq(h))[:, None], np.abs(np.fft.fftfreq(w))[None, :]
    high = np.maximum(down, across) > 0.25
    return np.square(np.abs(waves[:, high])).sum(axis=(1, 2)) / waves[0].size


def small_things(
    rng: np.random.Generator, size: int, reconstructed: Callable[[Pictures], Pictures]
) -> dict[str, float]:
    """The peak signal-to-noise ratio (dB) of those pixels alone that show a small thing.

    Where it is, is where the picture changes when its layer is left out.

    Args:
        size: of the pictures, in pixels.
        reconstructed: encodes and decodes.
    """
    scenes = sample_scenes(rng, SCENES)
    found = {}
    for name, (layer, values) in SMALL_THINGS.items():
        some = _showing(scenes, values)
        pictures = to_uint8(np.asarray(render(some, size)))
        bare = to_uint8(np.asarray(render(some, size, without=layer)))
        there = _differs(pictures, bare)
        error = np.square(reconstructed(pictures).astype(np.float64) - pictures)[there].mean()
        found[name] = float(10.0 * np.log10(255.0**2 / error)) if error else np.inf
    return found


def _showing(scenes: Scene, values: dict[str, str]) -> Scene:
    matches = [
        getattr(scenes, name) == ATTRIBUTES[name].index(word) for name, word in values.items()
    ]
    which = np.flatnonzero(np.all(matches, axis=0))
    return Scene(*(field[np.resize(which, LOOKED_AT)] for field in scenes))


def _differs(one: Pictures, other: Pictures) -> Bool[np.ndarray, "n h w"]:
    return np.abs(one.astype(np.int16) - other).max(axis=3) >= DARKEST
