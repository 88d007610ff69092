"""Figures and words about several methods on the same episodes: who leads, under what conditions, at what cost.

Each drawing function returns `(figure, alt text, data)` for `display.show`, like those of `common`. Scores
and intervals are in percent throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from ..analysis.intervals import KNOBS, Interval, Row, clear
from ..episode import Episode
from .common import METHOD_COLOURS, STYLES, Drawing, overlay


def matrix(
    panels: Mapping[str, Mapping[tuple[str, str], tuple[Interval, Sequence[float]]]], names: Sequence[str]
) -> Drawing:
    """Paired differences of all pairs, row minus column; a difference that is not clear stands in brackets.

    Args:
        panels: title -> {(row, column): (value, low, high), difference of every training}.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.2 * len(panels), 2.9), squeeze=False, sharey=True, layout="constrained"
    )
    found = {title: np.full((len(names), len(names)), np.nan) for title in panels}
    said = []
    for title, entry in panels.items():
        for (row, column), (value, _) in entry.items():
            found[title][names.index(row), names.index(column)] = value[0]
    top = max(float(np.nanmax(np.abs(table))) for table in found.values())
    for axis, (title, entry) in zip(axes[0], panels.items()):
        axis.imshow(found[title], cmap="PuOr_r", vmin=-top, vmax=top)
        for (row, column), (value, seeds) in entry.items():
            text = f"{value[0]:+.1f}" if clear(value, seeds) else f"({value[0]:+.1f})"
            colour = "white" if abs(value[0]) > 0.6 * top else "black"
            where = (names.index(column), names.index(row))
            axis.text(*where, text, ha="center", va="center", fontsize=9, color=colour)
            if where[0] > where[1]:
                said.append(f"{title}, {row} - {column} {text}")
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(names)), names, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0, 0].set_ylabel("this method …", fontsize=9)
    figure.supxlabel("… minus this one, points of mIoU", fontsize=9)
    data = pd.concat({title: pd.DataFrame(table, names, names) for title, table in found.items()})
    alt = f"Table of paired differences in mIoU, row minus column, in brackets where not clear: {'; '.join(said)}."
    return figure, alt, data.round(1)


def knobs(rows: Sequence[Row], names: Mapping[str, str]) -> Drawing:
    """mIoU with intervals against every difficulty, a panel for each knob and a line for each method.

    Args:
        rows: dictionaries with `knob`, `value`, `method` and `miou` (value, low, high). names: method -> shown name.
    """
    shown = list(dict.fromkeys(row["knob"] for row in rows))
    figure, axes = plt.subplots(
        1, len(shown), figsize=(2.3 * len(shown) + 0.4, 2.7), sharey=True, squeeze=False, layout="constrained"
    )
    table, said = {}, []
    for axis, knob in zip(axes[0], shown):
        own = [row for row in rows if row["knob"] == knob]
        values = list(dict.fromkeys(row["value"] for row in own))
        for i, (method, name) in enumerate(names.items()):
            points = np.array([row["miou"] for row in own if row["method"] == method], float)
            at = np.arange(len(values)) + 0.06 * (i - (len(names) - 1) / 2)  # so that intervals stay apart
            error = np.abs(points[:, 1:].T - points[:, 0])
            style = {"color": METHOD_COLOURS[i % 5], "capsize": 2, "markersize": 4, "linewidth": 1.3}
            axis.errorbar(at, points[:, 0], error, fmt=STYLES[i % 5], label=name, **style)
            table[knob, name] = f"{points[0, 0]:.1f} to {points[-1, 0]:.1f}"
            said.append(f"{knob} {values[0]:g} to {values[-1]:g}: {name} {points[0, 0]:.0f} to {points[-1, 0]:.0f}")
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values], fontsize=8)
        axis.set_xlabel(KNOBS.get(knob, knob), fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mIoU, %", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)
    data = pd.Series(table).unstack()
    return figure, f"mIoU with 95 % intervals against four difficulties. {'; '.join(said)}.", data


def side_by_side(
    episode: Episode, masks: Mapping[str, Tensor], ious: Mapping[str, Sequence[float]], rows: Sequence[str], what: str
) -> Drawing:
    """One row for each one-way episode: support, query with the true outline, and every method's mask with its IoU.

    Args:
        masks: method -> (B, H, W) long. ious: method -> B fractions. rows: label of every row. what: begins the words.
    """
    titles = ["support", "query", *masks]
    size = (0.7 * len(titles) + 0.3, 0.83 * episode.batch + 0.2)
    figure, axes = plt.subplots(episode.batch, len(titles), figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    said = []
    for b, row in enumerate(axes):
        query = episode.query_images[b]
        pictures = [_marked(episode.support_images[b, 0, 0], episode.support_masks[b, 0, 0]), overlay(query)]
        pictures += [_marked(query, mask[b]) for mask in masks.values()]
        for axis, picture in zip(row, pictures):
            axis.imshow(picture, interpolation="bicubic")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[1].contour(episode.query_masks[b] == 1, [0.5], colors="black", linewidths=2.2)
        row[1].contour(episode.query_masks[b] == 1, [0.5], colors="white", linewidths=1)
        best = max(ious, key=lambda name: ious[name][b])
        for axis, name in zip(row[2:], masks):
            weight = "bold" if name == best else "normal"
            axis.set_xlabel(f"IoU {100 * ious[name][b]:.0f} %", fontsize=8, labelpad=1, weight=weight)
        row[0].set_ylabel(rows[b], fontsize=8)
        numbers = ", ".join(f"{name} {100 * ious[name][b]:.0f}" for name in masks)
        said.append(f"{rows[b].replace(chr(10), ' ')}: {numbers}")
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    return figure, f"{what} IoU in percent. {'; '.join(said)}.", None


def _marked(image: Tensor, mask: Tensor) -> np.ndarray:
    """`overlay` with a paler background: small pictures need it."""
    shown = overlay(image, mask)
    outside = (mask == 0).numpy()
    shown[outside] = 0.65 + 0.35 * shown[outside]
    return shown


def trade(points: Mapping[str, tuple[float, Interval, int]], xlabel: str) -> Drawing:
    """Score against cost: method -> (cost, (mIoU, low, high), learnable parameters); the area grows with the latter."""
    figure, axis = plt.subplots(figsize=(5.8, 2.4), layout="constrained")
    said = []
    largest = max(learned for *_, learned in points.values())
    for i, (name, (cost, (value, low, high), learned)) in enumerate(points.items()):
        error = [[value - low], [high - value]]
        colour, mark = METHOD_COLOURS[i % 5], STYLES[i % 5][0]
        axis.errorbar(cost, value, yerr=error, fmt="none", color=colour, capsize=3)
        label = f"{name}, {learned:,} learned"
        area = 25 + 200 * learned / largest
        axis.scatter(cost, value, area, color=colour, marker=mark, alpha=0.75, edgecolor="black", label=label)
        said.append(f"{name} {cost:.2f} and {value:.1f}, {learned:,} learned parameters")
    axis.set(xlabel=xlabel, ylabel="mIoU, %")
    axis.margins(0.12, 0.15)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), labelspacing=1)
    data = pd.DataFrame({n: (c, v[0], k) for n, (c, v, k) in points.items()}, index=[xlabel, "mIoU, %", "learned"]).T
    return figure, f"mIoU against {xlabel}: {'; '.join(said)}.", data.round(2)
