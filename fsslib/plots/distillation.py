"""Figures about self-distillation: gates, student and teacher, what a claim comes to, and shares of a loss."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..analysis.intervals import scatter
from .common import COLOURS, LINES, Array, Drawing, beside, curves, legend, panels, ranges, theme


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
def student_teacher(student: Array, teacher: Array, losses: Mapping[float, tuple[float, float]]) -> Drawing:
    """A student S and its teacher T (C,) over the channels, what the loss sees of them, and what the temperature does.

    Args: losses: temperature -> the loss, with the factor of the squared temperature and without it.
    """
    student, teacher = (np.asarray(x, float) for x in (student, teacher))
    order = student.argsort(kind="stable")[::-1]
    x, apart = np.arange(len(order)), (teacher - student)[order]
    figure, (both, rest, last) = panels(3, 3.1, 2.7)
    both.bar(x, student[order], 1, color=COLOURS[5], label="student S")
    both.step(x, teacher[order], where="mid", color=COLOURS[0], linewidth=1.3, label="teacher T")
    both.set(title="prototypes", xlabel="channel, sorted by S")
    both.legend()
    rest.bar(x, apart, 1, color=COLOURS[1])
    rest.axhline(apart.mean(), color="black", linewidth=0.8, linestyle=":", label="mean over the channels")
    rest.set(title="what is left to learn: T − S", xlabel="channel, in the same order")
    rest.legend()
    names = ("with the factor τ²", "without")
    curves(last, {name: {tau: pair[i] for tau, pair in losses.items()} for i, name in enumerate(names)}, marks=True)
    last.set(xscale="log", yscale="log", title="loss", xlabel="temperature τ")
    ends = [(tau, losses[tau]) for tau in (min(losses), max(losses))]
    words = "; ".join(f"at {tau:g} {a:.2g} with τ² and {b:.2g} without" for tau, (a, b) in ends)
    alt = f"Student and teacher over {len(order)} channels. Their difference has mean {apart.mean():.3f} and runs from "
    alt += f"{apart.min():.3f} to {apart.max():.3f}. Loss over the temperature: {words}."
    return figure, alt, pd.DataFrame(losses, index=names).T.rename_axis("temperature")


@theme()
def claim_curves(claims: Mapping[str, Mapping], xlabel: str) -> Drawing:
    """Panels of a claim's experiment: title -> label -> {x: ((value, low, high), numbers of the single trainings)}.

    A line and a bar for the mean over the trainings and its interval; a dot for each training. Where there is no
    interval, give the value three times.
    """
    figure, axes = panels(len(claims), 3.3, 3.0)
    columns, sentences = {}, []
    for axis, (title, series) in zip(axes, claims.items()):
        xs = sorted({x for points in series.values() for x in points})
        step = 0.035 * (np.ptp(xs) or 1)
        ranges(axis, {label: {x: three for x, (three, _) in points.items()} for label, points in series.items()}, step)
        for i, (label, points) in enumerate(series.items()):
            for x, (_, single) in points.items():
                place = x + step * (i - (len(series) - 1) / 2)
                axis.plot([place] * len(single), single, "o", color=LINES[i % 5], alpha=0.45, markersize=3.5)
            columns[title, label] = {x: three[0] for x, (three, _) in points.items()}
            sentences.append(f"{title}, {label}: " + ", ".join(f"{t[0]:.3g} at {x:g}" for x, (t, _) in points.items()))
        axis.set(title=title, xlabel=xlabel, xticks=xs)
    legend(figure, axes, "lower center")
    alt = f"Means over the trainings against {xlabel}, a dot for each training. {'; '.join(sentences)}."
    return figure, alt, pd.DataFrame(columns).rename_axis(xlabel).round(3)


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
