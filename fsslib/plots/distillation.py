"""Figures about self-distillation: gates, distributions over channels, shares of a loss, and curves shown apart."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..analysis.intervals import Series, entropy, scatter
from .common import COLOURS, Array, Drawing, beside, legend, middle, panels, ranges, theme


@theme()
def curve_panels(
    curves: Mapping[str, Series], xlabel: str, integer: bool = False, limits: Mapping[str, tuple] | None = None
) -> Drawing:
    """Panels of curves over one x that are to be read apart: panel title -> label -> {x: (value, low, high)}.

    Args: integer: x are counts: put a tick on each. limits: panel title -> range of its y axis.
    """
    figure, axes = panels(len(curves), 3.1, 2.6)
    columns, sentences = {}, []
    for axis, (title, series) in zip(axes, curves.items()):
        ranges(axis, series, band=True)
        values = middle(series)
        columns |= {(title, label): points for label, points in values.items()}
        begins, ends = (
            ", ".join(f"{label} {[*points.values()][at][0]:.3g}" for label, points in series.items()) for at in (0, -1)
        )
        sentences.append(f"{title}: first {begins}; last {ends}")
        if integer:
            axis.set_xticks(sorted(values.index))
        axis.set(title=title, xlabel=xlabel, ylim=(limits or {}).get(title))
    if len(next(iter(curves.values()))) > 1:
        legend(figure, axes, "lower center")
    alt = f"Curves over {xlabel} with 95 % intervals, {len(curves)} panel(s). {'. '.join(sentences)}."
    return figure, alt, pd.DataFrame(columns).rename_axis(xlabel).round(3)


@theme()
def gate_channels(gates: Array, classes: Sequence[str]) -> Drawing:
    """The gate of every channel, sorted by its mean: all episodes as dots, the mean of each class as a mark.

    Args: gates: (E, C) in 0..1, one gate per episode. classes: E names.
    """
    table = pd.DataFrame(np.asarray(gates, float))
    means = table.mean().sort_values(kind="stable")
    table, channels = table[means.index], np.arange(len(means))
    data = table.groupby(np.asarray(classes)).mean().T.rename_axis("channel")
    figure, axis = plt.subplots(figsize=(6.6, 2.7))
    places = channels + np.linspace(-0.3, 0.3, len(table))[:, None]
    axis.scatter(places, table, s=1.5, color="0.7", label="one episode", rasterized=True)
    count = data.shape[1]
    look = {"palette": [COLOURS[i % 7] for i in range(count)], "markers": ["os^dvP*"[i % 7] for i in range(count)]}
    sns.scatterplot(data.set_axis(channels), s=28, alpha=0.85, linewidth=0.3, ax=axis, **look)
    axis.set(xlabel="channel, sorted by its mean gate", ylabel="gate a", ylim=(0, 1), xlim=(-1, len(means)))
    axis.axhline(0.5, color="black", linewidth=0.7, linestyle=":")
    beside(axis)
    episodes, groups = scatter(table, classes)
    below = f"{int((means < 0.5).sum())} below one half"
    alt = f"Gate of {len(means)} channels: means from {means.min():.2f} to {means.max():.2f}, {below}. Episodes of one "
    alt += f"channel scatter by {episodes:.2f}; the means of the {count} classes lie {groups:.2f} apart."
    return figure, alt, data.round(2)


@theme()
def distributions(rows: Mapping[str, tuple[Array, Array]], names: Sequence[str] = ("student", "teacher")) -> Drawing:
    """Two distributions over the channels in each panel, with their entropies: title -> (student, teacher), each (C,).
    Channels are sorted by the student of the first panel."""
    figure, axes = panels(len(rows), 2.6, 2.3, sharey=True)
    order = np.asarray(next(iter(rows.values()))[0]).argsort()[::-1]
    table, words, x = {}, [], np.arange(len(order))
    for axis, (title, pair) in zip(axes, rows.items()):
        student, teacher = (np.asarray(shares, float)[order] for shares in pair)
        axis.bar(x, student, 1, color=COLOURS[5], label=names[0])
        axis.step(x, teacher, where="mid", color=COLOURS[0], linewidth=1.3, label=names[1])
        axis.axhline(1 / len(order), color="black", linewidth=0.8, linestyle=":", label="uniform")
        entropies = entropy(student), entropy(teacher)
        axis.set(title=f"{title}\nentropy {entropies[0]:.3f}, {entropies[1]:.3f}", xlabel="channel, sorted")
        table[title] = {f"entropy, {n}": e for n, e in zip(names, entropies)} | {"largest": student.max()}
        words.append("{}: largest {:.3f}, entropies {:.3f} and {:.3f}".format(title, student.max(), *entropies))
    legend(figure, axes, "lower center")
    uniform = f"the uniform one would have entropy {np.log(len(order)):.3f}"
    alt = f"Student and teacher as distributions over {len(order)} channels; {uniform}. {'; '.join(words)}."
    return figure, alt, pd.DataFrame(table).round(3)


@theme()
def shares(bars: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Stacked bars of parts of a whole: bar -> {part: amount}; each bar is scaled to 100 %."""
    figure, axis = plt.subplots(figsize=(6.2, 0.9 + 0.36 * len(bars)))
    table = pd.DataFrame(bars)
    table = 100 * table / table.sum()
    table.T.plot.barh(stacked=True, color=COLOURS[: len(table)], edgecolor="white", width=0.8, ax=axis)
    for i, stack in enumerate(axis.containers):
        ink = "white" if i % 7 == 1 else "black"
        texts = [f"{value:.0f}" if value >= 5 else "" for value in stack.datavalues]
        axis.bar_label(stack, texts, label_type="center", fontsize=8, color=ink)
    axis.invert_yaxis()
    axis.grid(False)
    axis.set(xlabel="share, %", xlim=(0, 100))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(table))
    words = (f"{bar}: {', '.join(f'{part} {v:.1f} %' for part, v in parts.items())}" for bar, parts in table.items())
    return figure, f"Stacked bars of shares. {'; '.join(words)}.", table.T.round(1)
