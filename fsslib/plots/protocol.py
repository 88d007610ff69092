"""Figures about the protocol, in percent: what choices buy, how often an order turns, what picking a state gains."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from ..analysis.intervals import verdict
from .common import LINES, MARKS, Drawing, curves, forest, legend, panels, theme


@theme()
def switches(rows: Sequence[Mapping], sources: Mapping[str, str]) -> Drawing:
    """Differences in mIoU that choices make: a panel for each group, a colour for each source of data.

    A filled mark is a paired difference on the same episodes, a hollow one compares different episodes. Small dots
    below a mark are single trainings.

    Args: rows: dictionaries with `group`, `label`, `data` (a key of `sources`), `difference` (value, low, high),
        `paired`, and for trainings `difference per seed`. sources: key -> shown name.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    labels = {g: list(dict.fromkeys(row["label"] for row in rows if row["group"] == g)) for g in groups}
    heights = [len(names) + 0.5 for names in labels.values()]
    size = (6.6, 1.0 + 0.27 * sum(heights) + 0.165 * len(groups))
    figure, axes = plt.subplots(len(groups), 1, figsize=size, sharex=True, squeeze=False, height_ratios=heights)
    words = []
    for axis, (group, names) in zip(axes[:, 0], labels.items()):
        order = {"order": names, "hue_order": list(sources), "legend": False, "markersize": 4}
        for paired, look in ((True, {}), (False, {"markerfacecolor": "white"})):
            series = {key: {} for key in sources}
            for row in (row for row in rows if row["group"] == group and bool(row["paired"]) == paired):
                series[row["data"]][row["label"]] = row["difference"]
            if any(series.values()):
                forest(axis, series, dodge=0.4, **order, **look)
        for row in (row for row in rows if row["group"] == group):
            i, trainings = list(sources).index(row["data"]), row.get("difference per seed", ())
            at = names.index(row["label"]) + 0.4 * (i - (len(sources) - 1) / 2) + 0.25
            axis.plot(trainings, [at] * len(trainings), ".", color=LINES[i], markersize=4)
            how = "" if row["paired"] else ", other episodes"
            words.append(verdict(f"{row['label']}, {sources[row['data']]}{how}", row["difference"]))
        axis.axvline(0, color="black", linewidth=1, zorder=1)
        axis.set_title(group, loc="left")
    axes[-1, 0].set_xlabel("difference in mIoU, points")
    looks = {name: {"color": LINES[i], "marker": MARKS[i]} for i, name in enumerate(sources.values())}
    looks["not paired"] = {"color": "black", "marker": "o", "fillstyle": "none"}
    handles = [plt.Line2D([], [], linestyle="none", label=name, **look) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    table = pd.DataFrame({(r["group"], r["label"], sources[r["data"]]): r["difference"] for r in rows}).T
    table.columns = ["difference", "low", "high"]
    return figure, f"Differences in mIoU with 95 % intervals: {'; '.join(words)}.", table.round(1)


@theme()
def flips(chances: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Drawing:
    """Chance that an order turns round against the number of episodes: title -> {label: {episodes: percent}}.
    The labels are the same in all panels."""
    figure, axes = panels(len(chances), 2.9, 2.8, sharey=True)
    words = []
    for axis, (title, lines) in zip(axes, chances.items()):
        curves(axis, lines, marks=True)
        sizes = list(next(iter(lines.values())))
        axis.set_xscale("log")
        axis.set_xticks(sizes, [f"{n:,}" for n in sizes], rotation=45)
        axis.minorticks_off()
        axis.set(title=title, xlabel="episodes")
        for label, points in lines.items():
            (few, most), (many, least) = min(points.items()), max(points.items())
            words.append(f"{title}, {label}: {most:.0f} % at {few} and {least:.0f} % at {many} episodes")
    legend(figure, axes)
    axes[0].set(ylabel="chance, %", ylim=(0, None))
    table = pd.concat({title: pd.DataFrame(lines) for title, lines in chances.items()}, axis=1)
    return figure, f"Chance against the number of episodes: {'; '.join(words)}.", table.round(0)


@theme()
def stops(gains: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Drawing:
    """What a rule that picks a checkpoint gains over the last state, if a training is stopped early.

    Args: gains: rule -> {training: {step of the stop: points of mIoU}}; a panel for each rule.
    """
    figure, axes = panels(len(gains), 4, 2.6, sharey=True)
    words = []
    for axis, (rule, lines) in zip(axes, gains.items()):
        curves(axis, lines, marks=True)
        axis.axhline(0, color="black", linewidth=1, zorder=1)
        axis.set(title=rule, xlabel="stopped at step")
        every = [gain for line in lines.values() for gain in line.values()]
        words.append(f"{rule} from {min(every):+.1f} to {max(every):+.1f}")
    axes[0].set_ylabel("test score over that\nof the last state, points")
    legend(figure, axes)
    table = pd.concat({rule: pd.DataFrame(lines) for rule, lines in gains.items()}, axis=1)
    return (
        figure,
        f"Points gained by picking a checkpoint, against the step of the stop: {'; '.join(words)}.",
        table.round(1),
    )
