"""Pictures of a run: its curves, a map of the embeddings, samples with their views, accuracy against labels.

Every function returns a matplotlib `Figure`; `save` writes it. A notebook shows it by naming it.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.report import style
from ssl_framework.report.table import Row, budget_label, summarise

Array = np.ndarray[Any, np.dtype[Any]]


class Curve(NamedTuple):
    """One logged quantity: `step` and `value` ``(T,)``."""

    step: Array
    value: Array


def read_metrics(run: Path | str) -> dict[str, Curve]:
    """Read what a run logged.

    Args:
        run: run folder, or a ``metrics.csv``.

    Returns:
        One curve per column, without the rows in which the column is empty or not finite, in the order of the file.

    Raises:
        ValueError: there is no such file, or nothing in it.
    """
    path = Path(run)
    path = path / "metrics.csv" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: name the folder of a run that has logged (logger=default writes metrics.csv)."
        )
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in (rows[0] if rows else {}) if name not in (None, "step", "epoch")]
        curves = {name: _column(rows, name) for name in names}
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is no table of numbers ({error}): copy it again.") from error
    curves = {name: curve for name, curve in curves.items() if len(curve.step)}
    if not curves:
        raise ValueError(f"{path} holds no numbers yet: the run has to log at least once (trainer.log_every_n_steps).")
    return curves


def training_curves(run: Path | str) -> Figure:
    """Losses on the left, accuracies of probes and neighbours on the right, against the step.

    Args:
        run: run folder, or a ``metrics.csv``.

    Raises:
        ValueError: see `read_metrics`; or the run logged neither a loss nor an accuracy.
    """
    curves = read_metrics(run)
    losses = {name: curve for name, curve in curves.items() if "loss" in name}
    scores = {name: curve for name, curve in curves.items() if "loss" not in name and _is_score(name)}
    panels = [(title, group) for title, group in (("Loss", losses), ("Accuracy of probes", scores)) if group]
    if not panels:
        raise ValueError(f"{run} logged neither a loss nor an accuracy, only {', '.join(curves)}.")
    picture = style.figure(5.2 * len(panels), 3.6)
    for axes, (title, group) in zip(np.atleast_1d(picture.subplots(1, len(panels))), panels, strict=True):
        _draw_curves(style.dress(axes, title, x="training step"), group, smooth=title == "Loss")
    return picture


def embedding_map(
    x: Tensor | Array, y: Tensor | Array, classes: Sequence[str] | None = None, *, most: int = 2000, seed: int = 0
) -> Figure:
    """Embeddings in the plane (t-SNE from a PCA start), coloured by label.

    Args:
        x: ``(N, D)`` embeddings.
        y: ``(N,)`` labels.
        classes: names of the labels; their numbers by default.
        most: at most so many points, drawn by `seed`: t-SNE takes seconds for 2,000 and minutes for 20,000.
        seed: of the subsample and of t-SNE.

    Raises:
        ValueError: fewer than 5 points, or as many labels as points are missing.
    """
    points, labels = torch.as_tensor(x).float().numpy(), torch.as_tensor(y).numpy()
    if len(points) < 5 or len(points) != len(labels):
        raise ValueError(f"a map needs at least 5 points and a label for each, got {len(points)} points, {len(labels)} labels.")
    chosen = np.sort(keyed.permutation(len(points), seed)[:most])
    places, labels = plane(points[chosen], seed), labels[chosen]
    picture = style.figure(6.4, 5.0)
    axes = style.dress(picture.subplots(), "Map of the embeddings")
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines["bottom"].set_visible(False)
    size = min(30.0, max(8.0, 16_000 / len(places)))  # square points: few samples show larger
    for number in map(int, np.unique(labels)):
        one = places[labels == number]
        color = style.PALETTE[number % len(style.PALETTE)]
        marker = style.MARKERS[number // len(style.PALETTE) % len(style.MARKERS)]
        name = str(number if classes is None else classes[number])
        axes.scatter(*one.T, s=size, c=color, marker=marker, alpha=0.8, linewidths=0, label=name)
        _name_cluster(axes, one, name)
    _legend_outside(picture, axes, columns=1 + (len(np.unique(labels)) - 1) // 20)
    axes.set_xlabel(f"t-SNE of {len(chosen):,} samples; distances between far groups mean little", fontsize=8.5)
    return picture


def views_grid(images: Tensor, views: Tensor, mean: Sequence[float], std: Sequence[float], *, most: int = 8) -> Figure:
    """Samples, one a column, and below each the views that were made of it.

    Args:
        images: ``(B, C, H, W)`` uint8, before augmentation.
        views: ``(V, B, C, h, w)`` normalised floats, as a view maker returns them.
        mean: what was subtracted, per channel, of inputs in [0, 1].
        std: what was divided by.
        most: samples to show at most.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if views.ndim != 5 or views.shape[1] != images.shape[0]:
        raise ValueError(
            f"views must be (V, B, C, h, w) with B = {images.shape[0]} as the images have, got {tuple(views.shape)}."
        )
    columns = min(most, images.shape[0])
    scale, shift = (torch.tensor(tuple(numbers))[:, None, None] for numbers in (std, mean))
    undone = (views[:, :columns].float().cpu() * scale + shift).clamp(0, 1)
    rows = [("sample", images[:columns].float().cpu() / 255), *((f"view {v + 1}", view) for v, view in enumerate(undone))]
    picture = style.figure(1.05 * columns + 0.7, 1.08 * len(rows))
    grid = picture.subplots(len(rows), columns, squeeze=False)
    for line, (name, row) in zip(grid, rows, strict=True):
        for axes, image in zip(line, row, strict=True):
            _show(axes, image)
        line[0].set_ylabel(name, fontsize=9.5, color=style.INK if name == "sample" else style.MUTED, labelpad=6)
    return picture


def label_efficiency(rows: Iterable[Row], value: str = "accuracy") -> Figure:
    """Accuracy against labels per class, one line a method, with the 95 % interval over seeds.

    Args:
        rows: of a study, see `ssl_framework.report.table`.
        value: the key to show.
    """
    summary = summarise(rows, value)
    picture = style.figure(7.2, 4.2)
    axes = style.dress(picture.subplots(), f"{value.capitalize()} with few labels", y=f"{value} on test (%)")
    count = len(summary.methods)
    for order, method in enumerate(summary.methods):
        known = [(p, summary.cells[method, b]) for p, b in enumerate(summary.budgets) if (method, b) in summary.cells]
        shift = 0.04 * (order - (count - 1) / 2)  # side by side: intervals that overlap stay readable
        x = [position + shift for position, _ in known]
        y = [100 * cell.mean for _, cell in known]
        error = [100 * (cell.half_width or 0.0) for _, cell in known]
        color, marker = style.PALETTE[order % len(style.PALETTE)], style.MARKERS[order % len(style.MARKERS)]
        axes.errorbar(
            x, y, yerr=error, color=color, marker=marker, markersize=6, linewidth=1.8, elinewidth=1.4, capsize=3, label=method
        )
    axes.set_xticks(range(len(summary.budgets)), [budget_label(budget) for budget in summary.budgets])
    axes.set_xlim(-0.3, len(summary.budgets) - 0.7)
    axes.grid(visible=False, axis="x")
    _legend_outside(picture, axes)
    return picture


def depth_curve(mean: Tensor, error: Tensor, *, bar: float, chosen: int, measure: str = "accuracy") -> Figure:
    """What a probe reaches on each layer of an encoder, and the layer that was kept as the last.

    Args:
        mean: ``(L,)`` score of each layer.
        error: ``(L,)`` its standard error.
        bar: what a layer must reach.
        chosen: the layer, from 0.
        measure: of the scores; "accuracy" is shown in per cent.
    """
    percent = 100.0 if measure == "accuracy" else 1.0
    layers, score = np.arange(1, len(mean) + 1), percent * mean.numpy()
    picture = style.figure(max(5.2, 0.45 * len(mean)), 3.6)
    unit = f"{measure} (%)" if measure == "accuracy" else measure
    axes = style.dress(picture.subplots(), "Which layer to keep as the last", x="layer, from the input", y=f"probe: {unit}")
    look: dict[str, Any] = {"color": style.PALETTE[0], "marker": "o", "markersize": 5, "linewidth": 1.8, "capsize": 3}
    axes.errorbar(layers, score, yerr=percent * error.numpy(), **look, label="mean and standard error over folds")
    axes.axhline(percent * bar, color=style.MUTED, linestyle="--", linewidth=1.2, label="best, less its standard error")
    place = (layers[chosen], score[chosen])
    axes.plot(*place, marker="o", markersize=13, color=style.PALETTE[2], fillstyle="none", linestyle="none", label="kept")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_outside(picture, axes)
    return picture


def _column(rows: Sequence[dict[str, str]], name: str) -> Curve:
    filled = [(float(row["step"]), float(row[name])) for row in rows if row.get(name) and row.get("step")]
    table = np.array(filled, dtype=np.float64).reshape(-1, 2)
    step, value = table[np.isfinite(table).all(axis=1)].T
    return Curve(step, value)


def _is_score(name: str) -> bool:
    return any(word in name for word in ("accuracy", "knn", "probe"))


def _draw_curves(axes: Axes, curves: dict[str, Curve], *, smooth: bool) -> None:
    for order, (name, curve) in enumerate(sorted(curves.items())):  # train before val, in every run
        color, label = style.PALETTE[order % len(style.PALETTE)], name.replace("/", " ").replace("_", " ")
        if smooth and len(curve.step) >= 50:
            axes.plot(curve.step, curve.value, color=color, linewidth=0.8, alpha=0.3)
            axes.plot(curve.step, _smoothed(curve.value), color=color, linewidth=1.8, label=f"{label} (smoothed)")
        else:
            marker = "o" if len(curve.step) < 30 else ""
            axes.plot(curve.step, curve.value, color=color, linewidth=1.8, marker=marker, markersize=3.5, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.02)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=style.INK, loc="best")


def _smoothed(value: Array) -> Array:
    """Centred mean over 1/25 of the curve, narrower at the ends, so that nothing is shifted in time."""
    half = max(1, len(value) // 50)
    total = np.concatenate([[0.0], np.cumsum(value)])
    at = np.arange(len(value))
    reach = np.minimum(half, np.minimum(at, len(value) - 1 - at))
    return (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


def plane(points: Array | Tensor, seed: int = 0) -> Array:
    """Where points lie on a map that keeps neighbours together: ``(N, D)`` to ``(N, 2)``, by t-SNE.

    50 principal components first, as van der Maaten and Hinton (2008, section 4.2) do.
    """
    points = np.asarray(points)
    small = PCA(min(50, *points.shape), random_state=seed).fit_transform(points)
    perplexity = min(30.0, (len(points) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(small)


def _name_cluster(axes: Axes, one: Array, name: str) -> None:
    """The name at the most central point of a class, for readers who cannot tell the colours apart."""
    x, y = one[np.abs(one - np.median(one, axis=0)).sum(axis=1).argmin()]
    halo = [withStroke(linewidth=3, foreground=style.PAPER)]
    axes.annotate(name, (x, y), ha="center", va="center", fontsize=9, color=style.INK, path_effects=halo)


def _show(axes: Axes, image: Tensor) -> None:
    """One ``(C, H, W)`` image in [0, 1]; grey with one channel, the first three otherwise."""
    picture = image[0] if image.shape[0] < 3 else image[:3].permute(1, 2, 0)
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color(style.GRID)


def _legend_outside(picture: Figure, axes: Axes, columns: int = 1) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = picture.legend(
        handles,
        labels,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        labelcolor=style.INK,
        ncols=columns,
        markerscale=1.5,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
