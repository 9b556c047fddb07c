"""What people look at: a table and pictures, made from the rows of a study and from the folder of a run."""

from ssl_framework.report.figures import depth_curve, embedding_map, label_efficiency, read_metrics, training_curves, views_grid
from ssl_framework.report.style import save
from ssl_framework.report.table import Cell, Summary, gain, markdown, summarise, text

__all__ = [
    "Cell",
    "Summary",
    "depth_curve",
    "embedding_map",
    "gain",
    "label_efficiency",
    "markdown",
    "read_metrics",
    "save",
    "summarise",
    "text",
    "training_curves",
    "views_grid",
]
