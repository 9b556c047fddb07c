"""How every picture looks: colours that colour-blind readers tell apart, a light background, no global matplotlib state."""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Petroff, "Accessible color sequences for data visualization", 2021 (arXiv 2107.02270), ten colours.
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#832db6",
    "#4a4f57",  # darker than Petroff's #717581, so that it stays apart from #94a4a2
    "#e76300",
    "#92dadd",
    "#a96b59",
    "#b9ac70",
    "#94a4a2",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#22262b"
MUTED = "#6b7280"
GRID = "#e6e8eb"
PAPER = "#ffffff"


def figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that belongs to no window and to no global list."""
    made = Figure(figsize=(width, height), dpi=160, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(made)
    return made


def dress(axes: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    """Title at the left, quiet axes, a grid behind the data."""
    axes.set_facecolor(PAPER)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=8)
    axes.set_xlabel(x, fontsize=9.5, color=MUTED)
    axes.set_ylabel(y, fontsize=9.5, color=MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    return axes


def save(picture: Figure, path: Path | str) -> Path:
    """Write a picture as the ending of `path` says (.png, .svg, .pdf), whole or not at all.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    picture.savefig(partial, facecolor=picture.get_facecolor())
    os.replace(partial, path)  # noqa: PTH105  (Path.replace is the same call; os.replace says that it overwrites)
    return path
