"""Figures about self-distillation: gates, distributions over channels, shares of a loss, and curves shown apart.

Each function returns `(figure, alt text, data)` for `display.show`, like those of `common`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from ..analysis.intervals import Interval
from .common import COLOURS, LINES, Drawing

STYLES = ("o-", "s--", "^:", "d-.")


def apart(
    panels: Mapping[str, Mapping[str, Mapping[float, Interval]]],
    xlabel: str,
    integer: bool = False,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Drawing:
    """Panels of curves over one x that are to be read apart: panel title -> label -> {x: (value, low, high)}.

    Args:
        integer: x are counts: put a tick on each. limits: panel title -> range of its y axis.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 2.6), squeeze=False, layout="constrained")
    columns, said = {}, []
    for axis, (title, series) in zip(axes[0], panels.items()):
        for i, (label, points) in enumerate(series.items()):
            x, values = np.array(list(points), float), np.array(list(points.values()), float)
            axis.fill_between(x, values[:, 1], values[:, 2], color=LINES[i % 4], alpha=0.15, linewidth=0)
            axis.plot(x, values[:, 0], STYLES[i % 4], color=LINES[i % 4], label=label, markersize=4, linewidth=1.3)
            columns[title, label] = dict(zip(points, values[:, 0]))
        ends = [f"{name} {float(list(p.values())[-1][0]):.3g}" for name, p in series.items()]
        begins = [f"{name} {float(next(iter(p.values()))[0]):.3g}" for name, p in series.items()]
        said.append(f"{title}: first {', '.join(begins)}; last {', '.join(ends)}")
        if integer:
            axis.set_xticks(sorted({v for points in series.values() for v in points}))
        if limits and title in limits:
            axis.set_ylim(limits[title])
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(xlabel, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    names = list(next(iter(panels.values())))
    if len(names) > 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    alt = f"Curves over {xlabel} with 95 % intervals, {len(panels)} panel(s). {'. '.join(said)}."
    return figure, alt, pd.DataFrame(columns).rename_axis(xlabel).round(3)


def gate_channels(gates: Tensor | np.ndarray, classes: Sequence[str]) -> Drawing:
    """The gate of every channel, sorted by its mean: all episodes as dots, the mean of each class as a mark.

    Args:
        gates: (E, C) in 0..1, one gate per episode. classes: E names.
    """
    gates, classes = np.asarray(gates, float), np.asarray(classes)
    order = gates.mean(0).argsort()
    figure, axis = plt.subplots(figsize=(6.6, 2.7), layout="constrained")
    x, sorted_gates = np.arange(gates.shape[1]), gates[:, order]
    spread = np.tile(x, len(gates)) + np.random.default_rng(0).uniform(-0.3, 0.3, gates.size)
    axis.scatter(spread, sorted_gates.ravel(), s=1.5, color="0.7", label="one episode", rasterized=True)
    table = {}
    for i, name in enumerate(dict.fromkeys(sorted(classes))):
        mean = sorted_gates[classes == name].mean(0)
        axis.plot(x, mean, "os^dvP*"[i % 7], color=COLOURS[i % 7], markersize=4, label=name, alpha=0.85)
        table[name] = mean
    axis.set(xlabel="channel, sorted by its mean gate", ylabel="gate a", ylim=(0, 1), xlim=(-1, gates.shape[1]))
    axis.axhline(0.5, color="black", linewidth=0.7, linestyle=":")
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    data = pd.DataFrame(table, index=pd.Index(order, name="channel"))
    means = gates.mean(0)
    alt = (
        f"Gate of {gates.shape[1]} channels: means from {means.min():.2f} to {means.max():.2f}, "
        f"{int((means < 0.5).sum())} below one half. Episodes of one channel scatter by {gates.std(0).mean():.2f}; "
        f"the means of the {len(table)} classes lie {np.ptp(data.values, axis=1).mean():.2f} apart."
    )
    return figure, alt, data.round(2)


def distributions(
    rows: Mapping[str, tuple[Tensor, Tensor]], names: tuple[str, str] = ("student", "teacher")
) -> Drawing:
    """Two distributions over the channels in each panel, with their entropies: title -> (student, teacher), each (C,).

    Channels are sorted by the student of the first panel.
    """
    figure, axes = plt.subplots(1, len(rows), figsize=(2.6 * len(rows), 2.3), squeeze=False, layout="constrained")
    order = np.asarray(next(iter(rows.values()))[0]).argsort()[::-1]
    table, said = {}, []
    for axis, (title, pair) in zip(axes[0], rows.items()):
        pair = [np.asarray(p, float)[order] for p in pair]
        x = np.arange(len(order))
        axis.bar(x, pair[0], 1, color=COLOURS[5], label=names[0])
        axis.step(x, pair[1], where="mid", color=COLOURS[0], linewidth=1.3, label=names[1])
        axis.axhline(1 / len(order), color="black", linewidth=0.8, linestyle=":", label="uniform")
        entropy = [float(-(p * np.log(np.maximum(p, 1e-12))).sum()) for p in pair]
        axis.set_title(f"{title}\nentropy {entropy[0]:.3f}, {entropy[1]:.3f}", fontsize=9)
        axis.set_xlabel("channel, sorted", fontsize=9)
        axis.tick_params(labelsize=8)
        table[title] = {f"entropy, {n}": e for n, e in zip(names, entropy)} | {"largest": pair[0].max()}
        said.append(f"{title}: largest {pair[0].max():.3f}, entropies {entropy[0]:.3f} and {entropy[1]:.3f}")
    top = max(axis.get_ylim()[1] for axis in axes[0])
    for axis in axes[0]:
        axis.set_ylim(0, top)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    alt = (
        f"Student and teacher as distributions over {len(order)} channels; the uniform one would have entropy "
        f"{np.log(len(order)):.3f}. {'; '.join(said)}."
    )
    return figure, alt, pd.DataFrame(table).round(3)


def shares(bars: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Stacked bars of parts of a whole: bar -> {part: amount}; each bar is scaled to 100 %."""
    figure, axis = plt.subplots(figsize=(6.2, 0.9 + 0.36 * len(bars)), layout="constrained")
    table = pd.DataFrame(bars)
    table = 100 * table / table.sum()
    left = np.zeros(len(bars))
    for i, (part, values) in enumerate(table.iterrows()):
        axis.barh(range(len(bars)), values, left=left, color=COLOURS[i % 7], edgecolor="white", label=part)
        for y, (value, start) in enumerate(zip(values, left)):
            ink = "white" if i % 7 == 1 else "black"
            if value >= 5:
                axis.text(start + value / 2, y, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink)
        left += values.to_numpy()
    axis.set_yticks(range(len(bars)), list(bars), fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel="share, %", xlim=(0, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(table))
    said = "; ".join(
        f"{bar}: " + ", ".join(f"{part} {value:.1f} %" for part, value in table[bar].items()) for bar in bars
    )
    return figure, f"Stacked bars of shares. {said}.", table.T.round(1)
