"""Figures and words about superpixels: where they start, how they move, how many there are, and what they gain.

Each drawing function returns `(figure, alt text, data)` for `display.show`, like those of `common`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor, from_numpy

from ..analysis.intervals import gains_of, spread
from .common import HUES, LINES, Drawing, _around, _badge, _enlarged, overlay


def placement(rows: Mapping[str, tuple[Tensor, Tensor, Mapping[str, tuple[Tensor, int]]]], margin: int = 2) -> Drawing:
    """Where rules put the seeds of supports: one row per support, one panel per rule, seeds numbered in their order.

    Args:
        rows: label -> (image (3, H, W) normalised, mask (h, w) of the cells, rule -> (points (P, 2), count)).
            Points beyond `count` are not drawn; a count below two means no seed at all.
    """
    rules = list(next(iter(rows.values()))[2])
    figure, axes = plt.subplots(
        len(rows), len(rules), figsize=(1.35 * len(rules) + 0.3, 1.45 * len(rows)), squeeze=False, layout="constrained"
    )
    said = []
    for line, (label, (image, cells, found)) in zip(axes, rows.items()):
        side = cells.shape[-1]
        left, top, width = _around(np.asarray(cells) > 0, margin)
        for axis, (rule, (points, count)) in zip(line, found.items()):
            axis.imshow(overlay(image, from_numpy(_enlarged(cells, image)).long()), extent=(0, side, side, 0))
            shown = points[:count].tolist() if count >= 2 else []
            for number, (row, column) in enumerate(shown, 1):
                axis.text(column + 0.5, row + 0.5, str(number), **_badge("white"))
            axis.set(xlim=(left, left + width), ylim=(top + width, top), xticks=[], yticks=[])
            axis.set_title(f"{rule}: {count}", fontsize=8)
            said.append(f"{label}, {rule}: {count} superpixel{'s' * (count != 1)}")
        line[0].set_ylabel(label, fontsize=8)
    return figure, f"Numbered seeds on the cells of support objects. {'; '.join(said)}.", None


def clustering(rows: Mapping[str, Mapping[int, tuple[Tensor, Tensor]]], cells: Tensor, shown: int = 0) -> Drawing:
    """Iterations of a clustering: one row per way of clustering, one panel per iteration.

    Colours are the weights of the cells in superpixel `shown` (its centre is a star), as a share of the largest;
    circles mark the other centres, lines the way each has come.

    Args:
        rows: label -> {iteration: (centres (P, 2) row and column in cells, weights (P, h, w))}.
        cells: (h, w) of the object. shown: number of a superpixel, from 0.
    """
    steps = list(next(iter(rows.values())))
    figure, axes = plt.subplots(
        len(rows), len(steps), figsize=(1.25 * len(steps) + 0.3, 1.35 * len(rows)), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    inside = np.asarray(cells) > 0
    left, top, width = _around(inside, 1)
    said = []
    for line, (label, stages) in zip(axes, rows.items()):
        trail = np.stack([np.asarray(centres) for centres, _ in stages.values()])
        for i, (axis, step, (_, weights)) in enumerate(zip(line, steps, stages.values())):
            own = np.asarray(weights)[shown]
            axis.imshow(np.ma.masked_where(~inside, own / own.max()), cmap="cividis", vmin=0, vmax=1)
            for p in range(trail.shape[1]):
                row, column = trail[: i + 1, p].T
                colour, mark = HUES[p % len(HUES)], "*" if p == shown else "o"
                axis.plot(column, row, color=colour, linewidth=1.2)
                size = 9 if p == shown else 5
                axis.plot(column[-1], row[-1], mark, color=colour, markersize=size, markeredgecolor="black")
            axis.set(xlim=(left - 0.5, left + width - 0.5), ylim=(top + width - 0.5, top - 0.5), xticks=[], yticks=[])
            axis.set_title(f"t = {step}", fontsize=8)
        line[0].set_ylabel(label, fontsize=8)
        ends = [float(spread(points)) for points in (trail[0], trail[-1])]
        said.append(f"{label}: mean distance of the centres from {ends[0]:.1f} to {ends[1]:.1f} cells")
    alt = f"Weights of superpixel {shown + 1} and all centres after {', '.join(map(str, steps))} iterations. "
    return figure, alt + "; ".join(said) + ".", None


def counts(cells: Sequence[int], rules: Mapping[str, Sequence[int]], top: int | None = None) -> Drawing:
    """The number of superpixels against the area of the object: one mark per support and rule.

    Args:
        cells: object cells of each support. rules: label -> number of superpixels of each. top: last cell on the axis.
    """
    figure, axis = plt.subplots(figsize=(5.2, 2.2), layout="constrained")
    table = {}
    for i, (label, numbers) in enumerate(rules.items()):
        numbers, shift = np.asarray(numbers), 0.12 * (i - (len(rules) - 1) / 2)
        axis.plot(cells, numbers + shift, "os^d"[i % 4], color=LINES[i % 4], markersize=3, alpha=0.5, label=label)
        table[label] = {n: int((numbers == n).sum()) for n in range(int(max(map(max, rules.values()))) + 1)}
    axis.set(xlabel="cells of the object", ylabel="superpixels", xlim=(0, top))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    data = pd.DataFrame(table).rename_axis("superpixels")
    said = "; ".join(f"{label}: {min(n)} to {max(n)}" for label, n in rules.items())
    return figure, f"Superpixels against the area of {len(cells)} supports. {said}.", data


def by_parts(rows: Sequence[Mapping]) -> Drawing:
    """mIoU of several prototypes and of one against the number of parts; below, the paired gain. A column a shot.

    Args:
        rows: dictionaries with `parts`, `shots`, and in percent `several`, `one`, `gain of several` (value, low, high)
            and `several per seed`, `one per seed`; as in `data/results/asgnet-parts.json`.
    """
    shots = sorted({row["shots"] for row in rows})
    figure, axes = plt.subplots(
        2, len(shots), figsize=(2.9 * len(shots), 3.9), sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    said = []
    for column, shot in zip(axes.T, shots):
        own = sorted((row for row in rows if row["shots"] == shot), key=lambda row: row["parts"])
        x = np.array([row["parts"] for row in own], float)
        for i, name in enumerate(("several", "one")):
            value, low, high = np.array([row[name] for row in own], float).T
            style = {"fmt": ("o-", "s--")[i], "color": LINES[i], "capsize": 3, "markersize": 4}
            column[0].errorbar(x + 0.08 * i - 0.04, value, (value - low, high - value), label=name, **style)
        value, low, high = np.array([row["gain of several"] for row in own], float).T
        column[1].axhline(0, color="black", linewidth=0.8)
        column[1].errorbar(x, value, (value - low, high - value), fmt="o", color=LINES[0], capsize=3, markersize=5)
        for row, at in zip(own, x):
            column[1].plot([at + 0.2] * len(gains_of(row)), gains_of(row), "o", color=LINES[1], markersize=3)
        column[0].set_title(f"{shot} shot{'s' * (shot > 1)}", fontsize=10)
        column[1].set(xlabel="parts of every object", xticks=x)
        said += [f"K={shot}, {row['parts']} parts: {row['several'][0]:.1f} and {row['one'][0]:.1f}" for row in own]
    axes[0, 0].set_ylabel("mIoU, %")
    axes[0, -1].legend(frameon=False, fontsize=8, title="prototypes", title_fontsize=8)
    axes[1, 0].set_ylabel("gain of several,\npoints")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    alt = f"mIoU of several prototypes and of one, with 95 % intervals over episodes. {'; '.join(said)}. "
    alt += "Below, the paired gain of several with its interval, a small dot for each training."
    data = pd.DataFrame({(f"K={r['shots']}", r["parts"]): {"gain": r["gain of several"][0]} for r in rows}).T.round(1)
    return figure, alt, data
