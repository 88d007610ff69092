"""Figures and words about several methods on the same episodes: who leads, under what conditions, at what cost.

Each drawing function returns `(figure, alt text, data)` for `fsslib.figure.show`, like those of `fsslib.plots`. Scores
and intervals are in percent throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from .episode import Episode
from .plots import Drawing, overlay
from .plots_prototypes import LINES, Interval

STYLES = ("o-", "s--", "^:", "d-.", "v-")
COLOURS = (*LINES, "#000000")
# What each knob does, as the label of its axis.
KNOBS = {
    "gap": "support/query gap",
    "parts": "parts of an object",
    "area": "size of the objects (radius)",
    "co_occurrence": "base classes in the background",
}
Row = Mapping[str, object]


def clear(difference: Interval, seeds: Sequence[float]) -> bool:
    """Whether a paired difference leaves out 0 and every training agrees on its sign."""
    _, low, high = difference
    return (low > 0 or high < 0) and (min(seeds) > 0 or max(seeds) < 0)


def ranking(
    scores: Mapping[str, float], differences: Mapping[tuple[str, str], tuple[Interval, Sequence[float]]]
) -> str:
    """The methods from best to worst: `>` where the difference of neighbours is clear, `≈` where it is not.

    Args:
        scores: method -> mIoU. differences: (method, other) -> paired difference and that of every training.
    """
    order = sorted(scores, key=lambda name: -scores[name])
    words = [f"{order[0]} {scores[order[0]]:.1f}"]
    for better, worse in pairwise(order):
        words += [">" if clear(*differences[better, worse]) else "≈", f"{worse} {scores[worse]:.1f}"]
    return " ".join(words)


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
            style = {"color": COLOURS[i % 5], "capsize": 2, "markersize": 4, "linewidth": 1.3}
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


def knob_verdicts(rows: Sequence[Row], names: Mapping[str, str], reference: str = "panet") -> list[str]:
    """For every knob in words: what it costs each method, and whether the lead over `reference` survives.

    The standard difficulty is the first value of a knob, the hardest the last. A lead "grows" or "shrinks" only when
    its two paired intervals are apart. Rows need `gain over panet` beside what `knobs` takes.
    """
    said = []
    for knob in dict.fromkeys(row["knob"] for row in rows):
        own = [row for row in rows if row["knob"] == knob]
        ends = {m: [row for row in own if row["method"] == m] for m in names}
        ends = {method: (entry[0], entry[-1]) for method, entry in ends.items()}
        first, last = (row["value"] for row in next(iter(ends.values())))
        parts = []
        for method, (easy, hard) in ends.items():
            apart = "" if hard["miou"][2] < easy["miou"][1] or hard["miou"][1] > easy["miou"][2] else " (overlap)"
            parts.append(f"{names[method]} {hard['miou'][0] - easy['miou'][0]:+.1f}{apart}")
        said.append(f"{KNOBS.get(knob, knob)}, {first:g} to {last:g}: {', '.join(parts)}")
        for method, (easy, hard) in ends.items():
            if method != reference:
                before, after = easy[f"gain over {reference}"], hard[f"gain over {reference}"]
                said.append(f"  {names[method]} - {names[reference]}: {_change(before, after)}")
    return said


def _change(before: Interval, after: Interval) -> str:
    numbers = f"{before[0]:+.1f} becomes {after[0]:+.1f} ({after[1]:.1f} to {after[2]:.1f})"
    apart = after[2] < before[1] or after[1] > before[2]
    if not apart:
        return f"{numbers}, no clear change"
    if (before[1] > 0 and after[2] < 0) or (before[2] < 0 and after[1] > 0):
        return f"{numbers}, turns round"
    return f"{numbers}, {'rises' if after[0] > before[0] else 'falls'}"


def contrasts(ious: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Which episodes to look at: method -> {"wins": largest lead over the best other, "fails": largest gap to it}.

    Args:
        ious: method -> (E,) IoU of every episode by itself. An episode is taken once at most, in the order of methods.
    """
    taken, picks = set(), {}
    for kind, sign in (("wins", -1), ("fails", 1)):
        for name, own in ious.items():
            lead = own - np.max([other for label, other in ious.items() if label != name], 0)
            order = [i for i in np.argsort(sign * lead, kind="stable").tolist() if i not in taken]
            picks.setdefault(name, {})[kind] = order[0]
            taken.add(order[0])
    return picks


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
        colour, mark = COLOURS[i % 5], STYLES[i % 5][0]
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
