"""Figures and sums about the protocol: what a choice buys, how often an order turns, which checkpoint a rule picks.

Each drawing function returns `(figure, alt text, data)` for `display.show`, like those of `common`.
Scores and differences are in percent throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..analysis.intervals import verdict
from .common import METHOD_COLOURS, STYLES, Drawing


def switches(rows: Sequence[Mapping], sources: Mapping[str, str]) -> Drawing:
    """Differences in mIoU that choices make: a panel for each group, a colour for each source of data.

    A filled mark is a paired difference on the same episodes, a hollow one compares different episodes. Small dots
    below a mark are single trainings.

    Args:
        rows: dictionaries with `group`, `label`, `data` (a key of `sources`), `difference` (value, low, high),
            `paired`, and for trainings `difference per seed`. sources: key -> shown name.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    labels = {g: list(dict.fromkeys(row["label"] for row in rows if row["group"] == g)) for g in groups}
    heights = [len(own) for own in labels.values()]
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(6.6, 1.0 + 0.27 * sum(heights) + 0.3 * len(groups)), sharex=True, squeeze=False,
        height_ratios=[n + 0.5 for n in heights], layout="constrained",
    )  # fmt: skip
    said = []
    for axis, (group, names) in zip(axes[:, 0], labels.items()):
        axis.axvline(0, color="black", linewidth=1)
        for row in (row for row in rows if row["group"] == group):
            i = list(sources).index(row["data"])
            value, low, high = row["difference"]
            at = names.index(row["label"]) + 0.22 * (i - (len(sources) - 1) / 2)
            face = METHOD_COLOURS[i] if row["paired"] else "white"
            axis.errorbar(
                value, at, xerr=[[value - low], [high - value]], fmt=STYLES[i][0], color=METHOD_COLOURS[i],
                markerfacecolor=face, capsize=2, markersize=5,
            )  # fmt: skip
            each = row.get("difference per seed", ())
            axis.plot(each, [at + 0.3] * len(each), ".", color=METHOD_COLOURS[i], markersize=4)
            how = "" if row["paired"] else ", other episodes"
            said.append(verdict(f"{row['label']}, {sources[row['data']]}{how}", row["difference"]))
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set(ylim=(len(names) - 0.4, -0.6))
        axis.set_title(group, fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[-1, 0].set_xlabel("difference in mIoU, points", fontsize=9)
    marks = [
        plt.Line2D([], [], color=METHOD_COLOURS[i], marker=STYLES[i][0], linestyle="none", label=name)
        for i, name in enumerate(sources.values())
    ]
    marks.append(plt.Line2D([], [], color="black", marker="o", linestyle="none", fillstyle="none", label="not paired"))
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False, fontsize=8)
    table = pd.DataFrame({(r["group"], r["label"], sources[r["data"]]): r["difference"] for r in rows}).T
    table.columns = ["difference", "low", "high"]
    return figure, f"Differences in mIoU with 95 % intervals: {'; '.join(said)}.", table.round(1)


def flips(panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Drawing:
    """Chance that an order turns round against the number of episodes: title -> {label: {episodes: percent}}.

    The labels are the same in all panels.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.9 * len(panels), 2.8), sharey=True, squeeze=False, layout="constrained"
    )
    said = []
    for axis, (title, lines) in zip(axes[0], panels.items()):
        for i, (label, points) in enumerate(lines.items()):
            axis.plot(
                list(points),
                list(points.values()),
                STYLES[i % 5],
                color=METHOD_COLOURS[i % 5],
                label=label,
                markersize=4,
            )
            first, last = min(points), max(points)
            said.append(
                f"{title}, {label}: {points[first]:.0f} % at {first} and {points[last]:.0f} % at {last} episodes"
            )
        sizes = list(next(iter(lines.values())))
        axis.set_xscale("log")
        axis.set_xticks(sizes, [f"{n:,}" for n in sizes], fontsize=8, rotation=45)
        axis.minorticks_off()
        axis.set_xlabel("episodes", fontsize=9)
        axis.set_title(title, fontsize=10)
        axis.tick_params(axis="y", labelsize=8)
        axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9)
    axes[0, 0].set_ylabel("chance, %", fontsize=9)
    axes[0, 0].set_ylim(bottom=0)
    table = pd.concat({title: pd.DataFrame(lines) for title, lines in panels.items()}, axis=1)
    return figure, f"Chance against the number of episodes: {'; '.join(said)}.", table.round(0)


def picks(curves: Sequence[Sequence[Mapping[str, float]]], names: Mapping[str, str]) -> Drawing:
    """Scores along several trainings, a panel for each, with the checkpoint that every rule picks.

    Args:
        curves: for each training rows with `step` and a score for every key of `names`.
        names: column -> shown name; the highest score of a column is what a rule that selects by it picks.
    """
    figure, axes = plt.subplots(
        1, len(curves), figsize=(2.6 * len(curves) + 0.4, 2.6), sharey=True, squeeze=False, layout="constrained"
    )
    table, said = {}, []
    for t, (axis, curve) in enumerate(zip(axes[0], curves)):
        steps = [row["step"] for row in curve]
        for i, (column, name) in enumerate(names.items()):
            values = np.array([row[column] for row in curve])
            best = int(values.argmax())
            axis.plot(steps, values, STYLES[i][1:], color=METHOD_COLOURS[i], label=name)
            axis.plot(
                steps[best], values[best], STYLES[i][0], color=METHOD_COLOURS[i], markersize=8, markeredgecolor="black"
            )
            table[f"training {t}", name] = {"best step": steps[best], "best": values[best], "last": values[-1]}
            said.append(f"training {t}, {name}: best {values[best]:.1f} at step {steps[best]}, last {values[-1]:.1f}")
        axis.set_title(f"training {t}", fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mIoU, %", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)
    alt = f"mIoU along the trainings, the best checkpoint marked: {'; '.join(said)}."
    return figure, alt, pd.DataFrame(table).T.round(1)
