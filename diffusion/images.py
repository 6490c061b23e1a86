"""Between the package's pictures (float32 in [-1, 1]) and the world's (uint8); sheets."""

import numpy as np
from jaxtyping import Array, Float, UInt8


def to_uint8(images: Float[Array | np.ndarray, "*b h w c"]) -> UInt8[np.ndarray, "*b h w c"]:
    """[-1, 1] -> 0..255, rounded; what lies outside is clipped."""
    scaled = (np.asarray(images, np.float32) + 1.0) * 127.5
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def from_uint8(images: UInt8[np.ndarray, "*b h w c"]) -> Float[np.ndarray, "*b h w c"]:
    """0..255 -> [-1, 1] in float32; the way back of `to_uint8`."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def sheet(
    images: UInt8[np.ndarray, "n h w c"], columns: int, gap: int = 0
) -> UInt8[np.ndarray, "H W c"]:
    """Pictures side by side, `columns` a row, on white paper with `gap` pixels around each."""
    n, h, w, c = images.shape
    rows = -(-n // columns)
    page = np.full((rows * columns, h + gap, w + gap, c), 255, np.uint8)
    page[:n, gap:, gap:] = images
    page = page.reshape(rows, columns, h + gap, w + gap, c).swapaxes(1, 2)
    page = page.reshape(rows * (h + gap), columns * (w + gap), c)
    return np.pad(page, ((0, gap), (0, gap), (0, 0)), constant_values=255)
