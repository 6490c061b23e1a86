"""How far apart two implementations are, block by block."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from diffusion.inspection.figures.style import COLOURS, INK, SMALL, paper, plain


def bars(names: Sequence[str], differences: Sequence[float], bound: float) -> Figure:
    """The relative difference of each block, on a logarithmic scale, and what is allowed."""
    figure = paper(0.17 * len(names) + 1.5, 3.4)
    axis = figure.subplots()
    axis.bar(range(len(names)), [max(d, 1e-9) for d in differences], color=COLOURS[0])
    axis.axhline(bound, color=COLOURS[1], linewidth=1)
    axis.set(yscale="log", ylim=(1e-9, 10 * bound), xlim=(-1, len(names)))
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_ylabel("largest difference / largest value", fontsize=SMALL, color=INK)
    plain(axis, SMALL - 1.5)
    return figure
