"""What the shipped model makes of twelve sentences: run this module to draw it."""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from diffusion.images import sheet
from diffusion.inspection.figures.style import paper
from diffusion.loading import load
from diffusion.pipeline import Artist

PROMPTS = (  # the same in English and in Turkish
    (
        "a red house with two old trees and yellow flowers",
        "iki yaşlı ağaçlı kırmızı ev, sarı çiçekler",
    ),
    ("a white house at night, the moon on the left", "gece, ay solda, beyaz bir ev"),
    ("a yellow house in the snow under a clear sky", "kışın, açık havada sarı ev"),
    ("an oil painting of a pink house at sunset", "gün batımında pembe ev, yağlı boya"),
    ("a pencil sketch of a blue house in the rain", "karakalem çizimi, yağmur altında mavi ev"),
    ("a green house in autumn, the sun on the right", "sonbaharda, güneş sağda, yeşil ev"),
)

DPI = 88.5  # a pixel of the file is one of a 128x128 picture


def prompts(artist: Artist, count: int = 4, seed: int = 0) -> Figure:
    """`count` pictures of each of `PROMPTS`, chosen by nobody: seed 0, numbers 0, 1, 2, ..."""
    figure = paper(12, 1.72 * len(PROMPTS), layout=None)
    axes = figure.subplots(len(PROMPTS), 2, squeeze=False)
    figure.subplots_adjust(
        left=0.005, right=0.995, top=0.97, bottom=0.005, wspace=0.02, hspace=0.16
    )
    for row, texts in zip(axes, PROMPTS, strict=True):
        for axis, text in zip(row, texts, strict=True):
            images = artist.paint(text, count=count, seed=seed)
            axis.imshow(sheet(images, columns=count, gap=1), interpolation="nearest")
            axis.set_title(text, fontsize=9.5, pad=3)
            axis.axis("off")
    return figure


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "prompts.webp")
    prompts(load()).savefig(path, dpi=DPI, pil_kwargs={"quality": 85})
    print(f"wrote {path}")
