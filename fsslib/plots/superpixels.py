"""Figures about superpixels: where they start, how they move, how many there are, and what they gain."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from torch import Tensor, from_numpy

from ..analysis.intervals import gains_of, spread
from .common import HUES, LINES, MARKS, Drawing, around, badge, beside, blank, enlarged, legend, overlay, ranges, theme


@theme()
def placement(rows: Mapping[str, tuple[Tensor, Tensor, Mapping[str, tuple[Tensor, int]]]], margin: int = 2) -> Drawing:
    """Where rules put the seeds of supports: one row per support, one panel per rule, seeds numbered in their order.

    Args: rows: label -> (image (3, H, W) normalised, mask (h, w) of the cells, rule -> (points (P, 2), count)). Points
        beyond `count` are not drawn; a count below two means no seed at all.
    """
    columns = len(next(iter(rows.values()))[2])
    figure, axes = blank((1.35 * columns + 0.3, 1.45 * len(rows)), len(rows), columns, rows)
    words = []
    for line, (label, (image, cells, rules)) in zip(axes, rows.items()):
        side = cells.shape[-1]
        left, top, width = around(np.asarray(cells) > 0, margin)
        for axis, (rule, (points, count)) in zip(line, rules.items()):
            axis.imshow(overlay(image, from_numpy(enlarged(cells, image)).long()), extent=(0, side, side, 0))
            for number, (row, column) in enumerate(points[: count if count >= 2 else 0].tolist(), 1):
                axis.text(column + 0.5, row + 0.5, str(number), **badge("white"))
            axis.set(xlim=(left, left + width), ylim=(top + width, top))
            axis.set_title(f"{rule}: {count}", fontsize=8)
            words.append(f"{label}, {rule}: {count} superpixel{'s' * (count != 1)}")
    return figure, f"Numbered seeds on the cells of support objects. {'; '.join(words)}.", None


@theme()
def clustering(rows: Mapping[str, Mapping[int, tuple[Tensor, Tensor]]], cells: Tensor, shown: int = 0) -> Drawing:
    """Iterations of a clustering: one row per way of clustering, one panel per iteration.

    Colours are the weights of the cells in superpixel `shown` (its centre is a star), as a share of the largest;
    circles mark the other centres, lines the way each has come.

    Args:
        rows: label -> {iteration: (centres (P, 2) row and column in cells, weights (P, h, w))}.
        cells: (h, w) of the object. shown: number of a superpixel, from 0.
    """
    steps = list(next(iter(rows.values())))
    figure, axes = blank((1.25 * len(steps) + 0.3, 1.35 * len(rows)), len(rows), len(steps), rows, pad=0.02)
    inside = np.asarray(cells) > 0
    left, top, width = around(inside, 1)
    words = []
    for line, (label, stages) in zip(axes, rows.items()):
        trail = np.stack([np.asarray(centres) for centres, _ in stages.values()])
        for i, (axis, (step, (_, weights))) in enumerate(zip(line, stages.items())):
            weight = np.asarray(weights)[shown]
            axis.imshow(np.ma.masked_where(~inside, weight / weight.max()), cmap="cividis", vmin=0, vmax=1)
            for p in range(trail.shape[1]):
                row, column = trail[: i + 1, p].T
                mark, size = ("*", 9) if p == shown else ("o", 5)
                colour = HUES[p % len(HUES)]
                axis.plot(column, row, color=colour, linewidth=1.2)
                axis.plot(column[-1], row[-1], mark, color=colour, markersize=size, markeredgecolor="black")
            axis.set(xlim=(left - 0.5, left + width - 0.5), ylim=(top + width - 0.5, top - 0.5))
            axis.set_title(f"t = {step}", fontsize=8)
        first, last = spread(trail[0]), spread(trail[-1])
        words.append(f"{label}: mean distance of the centres from {first:.1f} to {last:.1f} cells")
    alt = f"Weights of superpixel {shown + 1} and all centres after {', '.join(map(str, steps))} iterations. "
    return figure, alt + "; ".join(words) + ".", None


@theme()
def counts(cells: Sequence[int], rules: Mapping[str, Sequence[int]], top: int | None = None) -> Drawing:
    """The number of superpixels against the area of the object: one mark per support and rule.

    Args:
        cells: object cells of each support. rules: label -> number of superpixels of each. top: last cell on the axis.
    """
    figure, axis = plt.subplots(figsize=(5.2, 2.2))
    numbers, count = pd.DataFrame({label: np.asarray(n) for label, n in rules.items()}), len(rules)
    apart = 0.12 * (np.arange(count) - (count - 1) / 2)  # so that no rule covers another
    look = {"palette": LINES[:count], "markers": MARKS[:count], "s": 12, "alpha": 0.5, "linewidth": 0}
    sns.scatterplot((numbers + apart).set_axis(cells), ax=axis, **look)
    axis.set(xlabel="cells of the object", ylabel="superpixels", xlim=(0, top))
    beside(axis)
    every = range(int(numbers.max(axis=None)) + 1)
    data = numbers.apply(pd.Series.value_counts).reindex(every).fillna(0).astype(int).rename_axis("superpixels")
    words = "; ".join(f"{label}: {min(n)} to {max(n)}" for label, n in rules.items())
    return figure, f"Superpixels against the area of {len(cells)} supports. {words}.", data


@theme()
def by_parts(rows: Sequence[Mapping]) -> Drawing:
    """mIoU of several prototypes and of one against the number of parts; below, the paired gain. A column a shot.

    Args: rows: dictionaries with `parts`, `shots`, and in percent `several`, `one`, `gain of several` (value, low,
        high) and `several per seed`, `one per seed`; as in `data/results/asgnet-parts.json`.
    """
    ordered = sorted(rows, key=lambda row: (row["shots"], row["parts"]))
    shots = sorted({row["shots"] for row in rows})
    size = (2.9 * len(shots), 3.9)
    figure, axes = plt.subplots(2, len(shots), figsize=size, sharex=True, sharey="row", squeeze=False)
    for (above, below), shot in zip(axes.T, shots):
        here = [row for row in ordered if row["shots"] == shot]
        labels = {"several prototypes": "several", "one prototype": "one"}
        ranges(above, {k: {r["parts"]: r[name] for r in here} for k, name in labels.items()}, shift=0.08)
        below.axhline(0, color="black", linewidth=0.8)
        for row in here:
            x, (value, low, high) = row["parts"], row["gain of several"]
            below.errorbar(x, value, [[value - low], [high - value]], fmt="o", color=LINES[0], capsize=3, markersize=5)
            below.plot([x + 0.2] * len(gains_of(row)), gains_of(row), "o", color=LINES[1], markersize=3)
        above.set_title(f"{shot} shot{'s' * (shot > 1)}")
        below.set(xlabel="parts of every object", xticks=[row["parts"] for row in here])
    legend(figure, axes[0])
    axes[0, 0].set_ylabel("mIoU, %")
    axes[1, 0].set_ylabel("gain of several,\npoints")
    words = (f"K={r['shots']}, {r['parts']} parts: {r['several'][0]:.1f} and {r['one'][0]:.1f}" for r in ordered)
    alt = f"mIoU of several prototypes and of one, with 95 % intervals over episodes. {'; '.join(words)}. "
    alt += "Below, the paired gain of several with its interval, a small dot for each training."
    data = pd.DataFrame({(f"K={r['shots']}", r["parts"]): {"gain": r["gain of several"][0]} for r in rows}).T.round(1)
    return figure, alt, data
