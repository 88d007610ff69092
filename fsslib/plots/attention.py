"""Figures about prior and attention maps: what matched what, what a map's values are, and what they are worth.

Each function returns `(figure, alt text, data)` for `display.show`, like those of `common`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from ..analysis.intervals import Interval
from .common import FILLS, LINES, MARKS, Drawing, _around, _badge, overlay


def matches(
    query: Tensor, support: Tensor, mask: Tensor, cosines: Tensor, positions: Mapping[str, tuple[int, int]]
) -> Drawing:
    """What chosen positions of the query matched in the support: one panel per position, the best match starred.

    Args:
        query, support: (3, H, W) normalised. mask: (H, W) long of the support, 1 object.
        cosines: (h*w, h*w) float, every support position (rows) with every query position (columns).
        positions: label -> (row, column) of a query position on the (h, w) grid.
    """
    side = round(cosines.shape[0] ** 0.5)
    count, extent, said = 1 + len(positions), (0, side, side, 0), []
    figure, axes = plt.subplots(1, count, figsize=(1.15 * count + 0.3, 1.3), layout="constrained")
    axes[0].imshow(overlay(query), extent=extent, interpolation="bicubic")
    axes[0].set_title("query", fontsize=8)
    on_object, high = cosines.amax(1).view(side, side).numpy() > 0, float(cosines.max())
    left, top, width = _around(on_object)
    for (label, (row, column)), axis, colour in zip(positions.items(), axes[1:], FILLS):
        own = cosines[:, row * side + column].view(side, side).numpy()
        axis.imshow(overlay(support, mask, 0.0), extent=extent, interpolation="bicubic")
        shown = np.ma.masked_where(~on_object, own)
        drawn = axis.imshow(shown, cmap="cividis", vmin=0, vmax=high, extent=extent)
        best = np.unravel_index(own.argmax(), own.shape)
        axis.plot(best[1] + 0.5, best[0] + 0.5, "*", color=colour, markersize=12, markeredgecolor="black")
        axis.set(xlim=(left, left + width), ylim=(top + width, top))
        axis.set_title(f"support, best {own.max():.2f}", fontsize=8)
        axis.text(0.1, 0.88, label, transform=axis.transAxes, **_badge(colour))
        axes[0].text(column + 0.5, row + 0.5, label, **_badge(colour))
        said.append(f"{label}'s best match has a cosine of {own.max():.1f}")
    figure.colorbar(drawn, ax=axes[1:], shrink=0.8, pad=0.02).ax.tick_params(labelsize=7)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    alt = (
        f"A query with the positions {', '.join(positions)}, and for each the cosines with the {int(on_object.sum())} "
        f"object positions of the support: {'; '.join(said)}."
    )
    return figure, alt, None


def values(maps: Mapping[str, tuple[np.ndarray | Tensor, np.ndarray | Tensor]]) -> Drawing:
    """Histograms of maps, on the object and elsewhere: label -> (values on the object, values elsewhere)."""
    figure, axes = plt.subplots(1, len(maps), figsize=(2.4 * len(maps), 1.7), squeeze=False, layout="constrained")
    said, table = [], {}
    for axis, (name, pair) in zip(axes[0], maps.items()):
        inside, outside = (np.asarray(v, float).ravel() for v in pair)
        bins = np.linspace(min(inside.min(), outside.min()), max(inside.max(), outside.max()), 41)
        for part, label, colour, style in ((inside, "object", LINES[1], "-"), (outside, "elsewhere", LINES[0], "--")):
            share = np.full(part.size, 1 / part.size)
            axis.hist(part, bins, weights=share, histtype="step", color=colour, label=label, linewidth=1.6, ls=style)
            table[f"{name}, {label}"] = [part.mean(), part.min(), part.max()]
        axis.axvline(0, color="black", linewidth=0.7)
        axis.set_xlabel(name, fontsize=9)
        axis.tick_params(labelsize=8)
        ends = (min(inside.min(), outside.min()), max(inside.max(), outside.max()))
        said.append(
            f"{name} from {ends[0]:.1f} to {ends[1]:.1f}, mean {inside.mean():.2f} on it, {outside.mean():.2f} off"
        )
    axes[0, 0].set_ylabel("share of positions", fontsize=9)
    axes[0, 0].legend(frameon=False, fontsize=8)
    data = pd.DataFrame(table, index=["mean", "lowest", "highest"]).T
    return figure, f"Histograms of maps on the object and elsewhere: {'; '.join(said)}.", data.round(2)


def gallery(
    rows: Mapping[str, Sequence[np.ndarray | Tensor]], titles: Sequence[str], alt: str, side: float = 0.72
) -> Drawing:
    """Labelled rows of pictures (H, W, 3) and maps (h, w); every column of maps has one scale, so rows compare."""
    size = (side * len(titles) + 0.3, side * len(rows) + 0.35)
    figure, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    for column, title in enumerate(titles):
        pictures = [np.asarray(row[column]) for row in rows.values()]
        maps = [p for p in pictures if p.ndim == 2]
        ends = (min(p.min() for p in maps), max(p.max() for p in maps)) if maps else (0, 1)
        for axis, picture in zip(axes[:, column], pictures):
            axis.imshow(picture, cmap="cividis", vmin=ends[0], vmax=ends[1], interpolation="bicubic")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        scale = f"\n{ends[0]:.1f} to {ends[1]:.1f}" if maps else "\n"
        axes[0, column].set_title(title + scale, fontsize=8)
    for axis, label in zip(axes[:, 0], rows):
        axis.set_ylabel(label, fontsize=8)
    return figure, alt, None


def dots(
    series: Mapping[str, Mapping[str, Interval]], xlabel: str, line: float | None = None, limits: tuple | None = None
) -> Drawing:
    """Values with 95 % intervals, one line per group and one mark per series: series -> {group: (value, low, high)}.

    Args:
        line: where to draw a vertical line, e.g. at chance.
        limits: of the x axis.
    """
    groups = list(next(iter(series.values())))
    figure, axis = plt.subplots(figsize=(5.4, 0.6 + (0.14 + 0.14 * len(series)) * len(groups)), layout="constrained")
    table, said = {}, []
    for i, (name, entry) in enumerate(series.items()):
        found = np.array([entry[group] for group in groups], float)
        error = np.abs(found[:, 1:].T - found[:, 0])
        at = -np.arange(len(groups)) - 0.28 * (i - (len(series) - 1) / 2)
        axis.errorbar(found[:, 0], at, xerr=error, fmt=MARKS[i % 4], color=LINES[i % 4], capsize=3, label=name)
        table[name] = found[:, 0]
        label = f"{name}: " if name else ""
        said.append(label + ", ".join(f"{group} {value:.2f}" for group, value in zip(groups, found[:, 0])))
    if line is not None:
        axis.axvline(line, color="black", linewidth=0.8)
    axis.set_yticks(-np.arange(len(groups)), groups, fontsize=9)
    axis.set(xlabel=xlabel, ylim=(-len(groups) + 0.4, 0.6), xlim=limits)
    axis.grid(axis="x", alpha=0.3)
    if len(series) > 1:
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure, f"{xlabel}, with 95 % intervals. {'; '.join(said)}.", pd.DataFrame(table, index=groups).round(3)


def emergence(losses: Sequence[float], points: Mapping[str, Mapping[int, float]], ylabel: str = "AUC") -> Drawing:
    """A loss over the steps of a training, and beside it what was measured on the way: label -> {step: value}."""
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 1.95), layout="constrained")
    axes[0].plot(range(1, len(losses) + 1), losses, color="black", linewidth=1.4)
    axes[0].set(xlabel="step", ylabel="loss on the supports", ylim=(0, None))
    said = []
    for i, (label, entry) in enumerate(points.items()):
        style = ("-", "--", ":", "-.")[i % 4]
        axes[1].plot(list(entry), list(entry.values()), style, marker=MARKS[i % 4], color=LINES[i % 4], label=label)
        ends = list(entry.values())
        said.append(f"{label} from {ends[0]:.2f} to {ends[-1]:.2f}")
    axes[1].axhline(0.5, color="black", linewidth=0.8)
    axes[1].set(xlabel="step", ylabel=ylabel)
    axes[1].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    ends = f"from {losses[0]:.2f} to {losses[-1]:.2f}" if len(losses) else "of no step"
    return figure, f"Loss {ends}; {ylabel}: {'; '.join(said)}.", pd.DataFrame(points).rename_axis("step").round(3)
