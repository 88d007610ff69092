"""Figures about prototypes: what is pooled, how a score grows, and what differs beyond its interval.

Each function returns `(figure, alt text, data)` for `fsslib.figure.show`, like those of `fsslib.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from .plots import Drawing, maps, overlay

Interval = tuple[float, float, float]
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # of the Okabe-Ito set, those that stay legible as thin lines


def strip(
    pictures: Sequence[tuple[str, np.ndarray | Tensor]],
    alt: str,
    limits: tuple[float, float] | None = None,
    side: float = 1.25,
    columns: int = 6,
) -> Drawing:
    """`plots.maps` at about the pictures' own resolution, resized smoothly: hard pixel edges double a JPEG's bytes."""
    with plt.rc_context({"image.interpolation": "bicubic"}):
        return maps(pictures, alt, limits, side, columns)


def pooling(image: Tensor, mask: Tensor, weights: Tensor, radius: int = 3) -> Drawing:
    """How a mask reaches the grid of the features: picture with grid, the weight of every cell, and a close-up.

    Args:
        image: (3, H, W) normalised. mask: (H, W) long, 1 object.
        weights: (h, w) float, how many pixels of the object each cell stands for (`ops.project_mask`).
        radius: half the side of the close-up, in cells, around the lower end of the object.
    """
    (height, width), (rows, columns) = mask.shape, weights.shape
    weights = weights.numpy()
    top = max(float(weights.max()), 1e-6)
    figure, axes = plt.subplots(1, 3, figsize=(5.7, 2), layout="constrained")
    axes[0].imshow(overlay(image, mask), extent=(0, columns, rows, 0), interpolation="bicubic")
    axes[0].set_title(f"mask and {rows}x{columns} cells", fontsize=9)
    axes[0].hlines(range(rows + 1), 0, columns, color="white", linewidth=0.25)
    axes[0].vlines(range(columns + 1), 0, rows, color="white", linewidth=0.25)
    drawn = axes[1].imshow(weights, cmap="cividis", vmin=0, vmax=top, extent=(0, columns, rows, 0))
    axes[1].set_title("weight of every cell, pixels", fontsize=9)
    figure.colorbar(drawn, ax=axes[1], shrink=0.75, pad=0.02).ax.tick_params(labelsize=7)
    inside = np.argwhere(weights > 0.5 * top)
    row, column = inside[-1] if len(inside) else (rows // 2, columns // 2)
    row, column = (int(np.clip(v, radius, n - 1 - radius)) for v, n in ((row, rows), (column, columns)))
    part = np.s_[row - radius : row + radius + 1, column - radius : column + radius + 1]
    box = (column - radius, column + radius + 1, row + radius + 1, row - radius)
    axes[2].imshow(weights[part], cmap="cividis", vmin=0, vmax=top, extent=box)
    for (i, j), value in np.ndenumerate(weights[part]):
        colour = "black" if value > 0.6 * top else "white"
        where = (box[0] + j + 0.5, box[3] + i + 0.5)
        axes[2].text(*where, f"{max(value, 0):.0f}", ha="center", va="center", fontsize=6, color=colour)
    axes[2].set_title("close-up of its edge", fontsize=9)
    axes[1].add_patch(plt.Rectangle((box[0], box[3]), 2 * radius + 1, 2 * radius + 1, fill=False, color="white"))
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    full, some = int((weights > 0.95 * top).sum()), int((weights > 0.05 * top).sum())
    alt = (
        f"A support picture of {height}x{width} pixels with its mask and a grid of {rows}x{columns} cells; the weight "
        f"of every cell; a close-up of the object's edge. {some} cells have a weight, {full} of them the full one."
    )
    return figure, alt, None


def score_curves(
    series: Mapping[str, Mapping[float, Interval]], xlabel: str, ylabel: str = "mIoU, %", integer: bool = True
) -> Drawing:
    """Lines of a score with 95 % intervals: label -> {x: (value, low, high)}.

    Args:
        integer: x are counts: put a tick on each.
    """
    figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
    table, said = {}, []
    for i, (label, points) in enumerate(series.items()):
        x, values = np.array(list(points), float), np.array(list(points.values()), float)
        error = np.abs(values[:, 1:].T - values[:, 0])
        shift = 0.04 * (i - (len(series) - 1) / 2) * (np.ptp(x) / 4 or 1)  # so that intervals do not cover each other
        colour = LINES[i % 4]
        style = ("o-", "s--", "^:", "d-.")[i % 4]
        axis.errorbar(x + shift, values[:, 0], error, fmt=style, color=colour, capsize=3, label=label, markersize=5)
        table[label] = dict(zip(points, values[:, 0]))
        said.append(f"{label} from {values[0, 0]:.0f} at {x[0]:g} to {values[-1, 0]:.0f} at {x[-1]:g}")
    if integer:
        axis.set_xticks(sorted({v for points in series.values() for v in points}))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    if len(series) > 1:
        axis.legend(frameon=False, fontsize=8)
    alt = f"{ylabel} over {xlabel} with 95 % intervals: {'; '.join(said)}."
    return figure, alt, pd.DataFrame(table).rename_axis(xlabel).round(1)


def differences(rows: Mapping[str, Interval], xlabel: str = "paired difference in mIoU, points") -> Drawing:
    """Paired differences with their intervals beside a line at 0: label -> (value, low, high)."""
    figure, axis = plt.subplots(figsize=(5.4, 0.7 + 0.3 * len(rows)), layout="constrained")
    labels = list(rows)[::-1]
    values = np.array([rows[label] for label in labels], float)
    error = np.abs(values[:, 1:].T - values[:, 0])
    axis.axvline(0, color="black", linewidth=1)
    axis.errorbar(values[:, 0], range(len(labels)), xerr=error, fmt="o", color=LINES[0], capsize=4)
    axis.set_yticks(range(len(labels)), labels, fontsize=9)
    axis.set(xlabel=xlabel, ylim=(-0.6, len(labels) - 0.4))
    axis.grid(axis="x", alpha=0.3)
    data = pd.DataFrame(rows, index=["difference", "low", "high"]).T
    said = "; ".join(verdict(label, value) for label, value in rows.items())
    return figure, f"Points with 95 % intervals, {xlabel}: {said}.", data.round(3)


def verdict(label: str, difference: Interval, digits: int = 1) -> str:
    """A paired difference in words: `"K=5 - K=1: +6.2 (3.6 to 8.7), higher"`, or "no clear difference" around 0."""
    value, low, high = difference
    word = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
    return f"{label}: {value:+.{digits}f} ({low:.{digits}f} to {high:.{digits}f}), {word}"


def percent(values: Interval) -> Interval:
    """Value, low and high as percent."""
    return tuple(100 * float(v) for v in values)


def mean_interval(values: Tensor | np.ndarray, draws: int = 1000, seed: int = 0) -> Interval:
    """Mean of (E,) numbers, one per episode, and its 95 % bootstrap interval.

    Pass the differences of two measurements on the same episodes for a paired comparison.
    """
    values = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
