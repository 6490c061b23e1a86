"""One sentence, painted by each of the models that ship: run this module to draw it."""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from diffusion.images import sheet
from diffusion.inspection.figures.style import paper
from diffusion.loading import load
from diffusion.pipeline import Artist

PROMPT = "a red house with two old trees and yellow flowers"
MODELS = {
    "garden": "U-Net, VAE",
    "garden-fast": "that U-Net, distilled, in two glances",
    "garden-one": "distilled again, in a single glance",
    "garden-dit": "diffusion transformer, VAE",
    "garden64": "U-Net, VAE, half the size",
    "garden-dvae": "U-Net, discrete VAE",
    "garden-masked": "painter of codes, discrete VAE",
}
SIDE = 128  # pixels; smaller pictures are shown larger
DPI = 100


def museum(artists: dict[str, Artist], count: int = 6, seed: int = 0) -> Figure:
    """`count` pictures a row, chosen by nobody: seed 0, numbers 0, 1, 2, ..."""
    figure = paper(count * SIDE / DPI, len(artists) * (SIDE / DPI + 0.28), layout=None)
    axes = figure.subplots(len(artists), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.005, right=0.995, top=0.96, bottom=0.005, hspace=0.2)
    for axis, (name, artist) in zip(axes, artists.items(), strict=True):
        images = artist.paint(PROMPT, count=count, seed=seed)
        zoom = SIDE // artist.config.image_size
        images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
        axis.imshow(sheet(images, columns=count, gap=1), interpolation="nearest")
        axis.set_title(f"{name}: {MODELS[name]}", fontsize=9.5, pad=3)
        axis.axis("off")
    return figure


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "museum.webp")
    museum({name: load(name) for name in MODELS}).savefig(path, dpi=DPI, pil_kwargs={"quality": 85})
    print(f"wrote {path}")
