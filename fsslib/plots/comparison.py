"""Figures about several methods in percent: who leads, under what conditions, at what cost."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from torch import Tensor

from ..analysis.intervals import KNOBS, Differences, Interval, Row, clear
from ..episode import Episode
from .common import LINES, MARKS, Drawing, beside, blank, legend, middle, outline, overlay, panels, ranges, theme


@theme()
def matrix(pairs: Mapping[str, Differences], names: Sequence[str]) -> Drawing:
    """Paired differences of all pairs, row minus column; a difference that is not clear stands in brackets.

    Args: pairs: title of a panel -> {(row, column): (value, low, high), difference of every training}.
    """
    figure, axes = panels(len(pairs), 3.2, 2.9, sharey=True)
    tables, words = {}, []
    for title, entry in pairs.items():
        values = pd.Series({pair: value[0] for pair, (value, _) in entry.items()})
        tables[title] = values.unstack().reindex(index=names, columns=names)
    top = max(table.abs().max(axis=None) for table in tables.values())
    for axis, (title, entry) in zip(axes, pairs.items()):
        texts = {pair: f"{v[0]:+.1f}" if clear(v, seeds) else f"({v[0]:+.1f})" for pair, (v, seeds) in entry.items()}
        words += [f"{title}, {a} - {b} {t}" for (a, b), t in texts.items() if names.index(b) > names.index(a)]
        texts = pd.Series(texts).unstack().reindex(index=names, columns=names)
        sns.heatmap(
            tables[title], annot=texts, fmt="", cmap="PuOr_r", vmin=-top, vmax=top, cbar=False, square=True, ax=axis
        )
        axis.set_title(title)
        axis.tick_params(axis="y", rotation=0)
        axis.grid(False)
    axes[0].set_ylabel("this method …")
    figure.supxlabel("… minus this one, points of mIoU", fontsize=9)
    alt = f"Table of paired differences in mIoU, row minus column, in brackets where not clear: {'; '.join(words)}."
    return figure, alt, pd.concat(tables).round(1)


@theme()
def knobs(rows: Sequence[Row], names: Mapping[str, str]) -> Drawing:
    """mIoU with intervals against every difficulty, a panel for each knob and a line for each method.

    Args: rows: dictionaries with `knob`, `value`, `method` and `miou` (value, low, high). names: method -> shown name.
    """
    turned = list(dict.fromkeys(row["knob"] for row in rows))
    figure, axes = panels(len(turned), 2.3 + 0.4 / len(turned), 2.7, sharey=True)
    table, words = {}, []
    for axis, knob in zip(axes, turned):
        values = list(dict.fromkeys(row["value"] for row in rows if row["knob"] == knob))
        series = {
            name: {values.index(r["value"]): r["miou"] for r in rows if (r["knob"], r["method"]) == (knob, method)}
            for method, name in names.items()
        }
        ranges(axis, series, shift=0.06)
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set_xlabel(KNOBS.get(knob, knob))
        for name, points in middle(series).items():
            first, last = points.iloc[0], points.iloc[-1]
            table[knob, name] = f"{first:.1f} to {last:.1f}"
            words.append(f"{knob} {values[0]:g} to {values[-1]:g}: {name} {first:.0f} to {last:.0f}")
    axes[0].set_ylabel("mIoU, %")
    legend(figure, axes)
    alt = f"mIoU with 95 % intervals against four difficulties. {'; '.join(words)}."
    return figure, alt, pd.Series(table).unstack()


@theme()
def side_by_side(
    episode: Episode, masks: Mapping[str, Tensor], ious: Mapping[str, Sequence[float]], rows: Sequence[str], what: str
) -> Drawing:
    """One row for each one-way episode: support, query with the true outline, and every method's mask with its IoU.

    Args:
        masks: method -> (B, H, W) long. ious: method -> B fractions. rows: label of every row. what: begins the words.
    """
    titles = ["support", "query", *masks]
    size = (1.65 * len(titles), 1.83 * episode.batch + 0.2)
    figure, axes = blank(size, episode.batch, len(titles), titles=titles, pad=0.01)
    words = []
    for b, row in enumerate(axes):
        query = episode.query_images[b]
        pictures = [_marked(episode.support_images[b, 0, 0], episode.support_masks[b, 0, 0]), overlay(query)]
        for axis, picture in zip(row, [*pictures, *(_marked(query, mask[b]) for mask in masks.values())]):
            axis.imshow(picture, interpolation="bicubic")
        outline(row[1], episode.query_masks[b] == 1)
        row[0].set_xlabel(rows[b], fontsize=8, labelpad=1)
        best = max(ious, key=lambda name: ious[name][b])
        for axis, name in zip(row[2:], masks):
            weight = "bold" if name == best else "normal"
            axis.set_xlabel(f"IoU {100 * ious[name][b]:.0f} %", fontsize=8, labelpad=1, weight=weight)
        numbers = ", ".join(f"{name} {100 * ious[name][b]:.0f}" for name in masks)
        words.append(f"{rows[b]}: {numbers}")
    return figure, f"{what} IoU in percent. {'; '.join(words)}.", None


def _marked(image: Tensor, mask: Tensor) -> np.ndarray:
    """`overlay` with a paler background: small pictures need it."""
    picture, outside = overlay(image, mask), (mask == 0).numpy()
    picture[outside] = 0.65 + 0.35 * picture[outside]
    return picture


@theme()
def trade(points: Mapping[str, tuple[float, Interval, int]], xlabel: str) -> Drawing:
    """Score against cost: method -> (cost, (mIoU, low, high), learnable parameters); the area grows with the latter."""
    figure, axis = plt.subplots(figsize=(5.8, 2.4))
    data = pd.DataFrame({n: (c, v[0], k) for n, (c, v, k) in points.items()}, index=[xlabel, "mIoU, %", "learned"]).T
    for (cost, (value, low, high), _), colour in zip(points.values(), LINES):
        axis.errorbar(cost, value, yerr=[[value - low], [high - value]], fmt="none", color=colour, capsize=3)
    labels = [f"{name}, {learned:,} learned" for name, (*_, learned) in points.items()]
    sizes = dict(zip(labels, 25 + 200 * data["learned"] / data["learned"].max()))
    look = {"palette": LINES[: len(points)], "markers": MARKS[: len(points)], "sizes": sizes, "edgecolor": "black"}
    sns.scatterplot(data, x=xlabel, y="mIoU, %", hue=labels, style=labels, size=labels, alpha=0.75, ax=axis, **look)
    axis.margins(0.12, 0.15)
    beside(axis, labelspacing=1)
    words = (f"{name} {c:.2f} and {v:.1f}, {k:,.0f} learned parameters" for name, c, v, k in data.itertuples())
    return figure, f"mIoU against {xlabel}: {'; '.join(words)}.", data.round(2)
