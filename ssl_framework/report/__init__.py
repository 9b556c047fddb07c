"""What people look at: a table, pictures and a page, made from the rows of a study and from the folder of a run."""

from ssl_framework.report.contact import Sheet, Shown, write_sheet
from ssl_framework.report.figures import (
    depth_curve,
    embedding_map,
    label_efficiency,
    plane,
    read_metrics,
    training_curves,
    views_grid,
)
from ssl_framework.report.page import picture, sprite, write_comparison, write_page
from ssl_framework.report.style import save
from ssl_framework.report.table import Cell, Summary, gain, markdown, summarise, text

__all__ = [
    "Cell",
    "Sheet",
    "Shown",
    "Summary",
    "depth_curve",
    "embedding_map",
    "gain",
    "label_efficiency",
    "markdown",
    "picture",
    "plane",
    "read_metrics",
    "save",
    "sprite",
    "summarise",
    "text",
    "training_curves",
    "views_grid",
    "write_comparison",
    "write_page",
    "write_sheet",
]
