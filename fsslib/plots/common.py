"""What several lessons draw, and the look of all figures: one theme, one table of colours, dashes and marks.

Each drawing function returns `(figure, alt text, data)` for `fsslib.plots.display.show`. Intervals are
(value, low, high) and come in finished; seaborn draws them as they are (`GIVEN`). Colours are of the
colour-blind-safe Okabe-Ito set for lines and classes and `cividis` for maps, which also survive grey printing.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from torch import Tensor

from ..analysis.intervals import Interval, Series, percent, verdict
from ..episode import Episode
from ..metrics import Scores
from ..training import History
from .pixels import COLOURS, HUES, Array, enlarged, overlay, tinted  # noqa: F401 (handed on)

Drawing = tuple[plt.Figure, str, pd.DataFrame | None]
Pictures = Sequence[tuple[str, Array]]
LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"]  # legible as thin lines
DASHES = ["", (4, 1.5), (1, 1), (4, 1.5, 1, 1.5), (6, 2, 1, 1, 1, 1)]
MARKS = ["o", "s", "^", "d", "v"]
LEAST = 1.7  # inches of a picture: five beside each other fill a page of 1,000 pixels, and each can be seen
# For seaborn: of the three numbers of an interval the first is drawn, with a bar from the second to the third.
GIVEN = {"estimator": lambda three: three.iloc[0], "errorbar": lambda three: (three.iloc[1], three.iloc[2])}


def theme():
    """The look of all figures, while it is entered: `with theme():`, or `@theme()` above a drawing function."""
    look = {**sns.plotting_context("paper", font_scale=0.94), **sns.axes_style("whitegrid")}
    look |= {"font.sans-serif": ["DejaVu Sans"], "patch.force_edgecolor": False, "lines.markersize": 6}
    return plt.rc_context({**look, "legend.frameon": False, "figure.constrained_layout.use": True})


def panels(count: int, width: float, height: float, **how) -> tuple[plt.Figure, np.ndarray]:
    """A figure of `count` panels side by side, each of this size in inches."""
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False, **how)
    return figure, axes[0]


def blank(size: tuple[float, float], rows: int, columns: int, labels=(), titles=(), pad: float = 0.04, **how):
    """A figure of `size` inches and its panels for pictures: no ticks, no frame; labels of rows, titles of columns."""
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **how)
    figure.get_layout_engine().set(w_pad=pad, h_pad=pad, **({} if pad == 0.04 else {"wspace": 0, "hspace": 0}))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, label in zip(axes[:, 0], labels):
        axis.set_ylabel(label, fontsize=8)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    return figure, axes


def legend(figure: plt.Figure, axes: Sequence[plt.Axes], where: str = "upper center") -> None:
    """The legend of the first panel outside all of them, in place of their own."""
    handles, labels = axes[0].get_legend_handles_labels()
    for axis in axes:
        if axis.get_legend():
            axis.get_legend().remove()
    figure.legend(handles, labels, loc=f"outside {where}", ncols=len(labels))


def beside(axis: plt.Axes, **how) -> None:
    """Move the legend of a panel to its right."""
    sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1), **how)


def _take(values: Sequence, count: int) -> list:
    """The first `count` values, from the start again after the last."""
    return [values[i % len(values)] for i in range(count)]


def curves(axis: plt.Axes, table: Mapping[str, Mapping], colours: Sequence[str] = LINES, marks: bool = False) -> None:
    """Lines label -> {x: y}, each with its colour and its dashes."""
    frame = pd.DataFrame(table)
    count = frame.shape[1]
    look = {"palette": _take(colours, count), "dashes": _take(DASHES, count), "markers": marks and _take(MARKS, count)}
    sns.lineplot(frame, estimator=None, ax=axis, **look)


def middle(series: Series) -> pd.DataFrame:
    """The values without their intervals, a column for each label."""
    return pd.DataFrame({label: {x: three[0] for x, three in points.items()} for label, points in series.items()})


def _long(series: Series) -> pd.DataFrame:
    """Three rows for each interval, as `GIVEN` takes them."""
    rows = [(label, x, y) for label, points in series.items() for x, three in points.items() for y in three]
    return pd.DataFrame(rows, columns=["", "x", "y"])


def ranges(axis: plt.Axes, series: Series, shift: float) -> None:
    """Lines label -> {x: (value, low, high)}; bars stand `shift` apart so that none covers another."""
    table, count = _long(series), len(series)
    table["x"] += shift * (table.groupby("", sort=False).ngroup() - (count - 1) / 2)
    look = {"palette": _take(LINES, count), "markers": _take(MARKS, count), "dashes": _take(DASHES, count)}
    look |= {"legend": count > 1, **GIVEN}
    look |= {"err_style": "bars", "err_kws": {"capsize": 3}}
    sns.lineplot(table, x="x", y="y", hue="", style="", sort=False, ax=axis, **look)
    axis.set(xlabel="", ylabel="")


def forest(axis: plt.Axes, series: Series, dodge: float = 0.28, **how) -> None:
    """Marks series -> {group: (value, low, high)}: a line for each group from the top, a mark for each series."""
    count = len(series)
    look = {"palette": _take(LINES, count), "markers": _take(MARKS, count), "dodge": dodge * (count - 1)}
    look |= {"legend": count > 1, "linestyle": "none", "capsize": 0.12, "err_kws": {"linewidth": 1.4}, **GIVEN, **how}
    sns.pointplot(_long(series), x="y", y="x", hue="", orient="y", ax=axis, **{"markersize": 5, **look})
    axis.set(xlabel="", ylabel="")


@theme()
def score_curves(series: Series, xlabel: str, ylabel: str = "mIoU, %", integer: bool = True) -> Drawing:
    """Lines of a score with 95 % intervals: label -> {x: (value, low, high)}.

    Args: integer: x are counts: put a tick on each.
    """
    figure, axis = plt.subplots(figsize=(5, 2.6))
    table = middle(series).rename_axis(xlabel)
    ranges(axis, series, shift=0.01 * (np.ptp(table.index) or 4))
    if integer:
        axis.set_xticks(sorted(table.index))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    words = "; ".join(
        f"{label} from {points[first][0]:.0f} at {first:g} to {points[last][0]:.0f} at {last:g}"
        for label, points in series.items()
        for first, *_, last in [[*points] * 2]
    )
    return figure, f"{ylabel} over {xlabel} with 95 % intervals: {words}.", table.round(1)


@theme()
def differences(rows: Mapping[str, Interval], xlabel: str = "paired difference in mIoU, points") -> Drawing:
    """Paired differences with their intervals beside a line at 0: label -> (value, low, high)."""
    figure, axis = plt.subplots(figsize=(5.4, 0.7 + 0.3 * len(rows)))
    forest(axis, {"": rows})
    axis.axvline(0, color="black", linewidth=1)
    axis.set(xlabel=xlabel)
    data = pd.DataFrame(rows, index=["difference", "low", "high"]).T
    words = "; ".join(verdict(label, value) for label, value in rows.items())
    return figure, f"Points with 95 % intervals, {xlabel}: {words}.", data.round(3)


@theme()
def histories(histories: Mapping[str, History], window: int = 25) -> Drawing:
    """Training curves of several stages, each in its own panel, smoothed."""
    trained = {name: history for name, history in histories.items() if history.rows}
    figure, axes = panels(max(len(trained), 1), 4.2, 2.6)
    words = []
    for axis, (name, history) in zip(axes, trained.items()):
        losses = [term for term in history.rows[0] if not term.startswith("val_")]
        terms = [term for term in losses if term != "total" or len(losses) == 1]
        smooth = pd.DataFrame({term: history.smooth(term, window) for term in terms}).rename(columns={"total": "loss"})
        curves(axis, smooth, COLOURS)
        ends = zip(terms, smooth.iloc[0], smooth.iloc[-1])
        words += [f"{name} {term} from {first:.2g} to {last:.2g}" for term, first, last in ends]
        last = smooth.iloc[-1]
        if ((last > 0) & (last < last.max() / 100)).any():
            axis.set_yscale("log")
        axis.set(title=name, xlabel="step", ylabel=f"loss (mean of {window} steps)")
        checks = {step: row["val_miou"] for step, row in enumerate(history.rows, 1) if "val_miou" in row}
        if checks:
            right = axis.twinx()
            curves(right, {"validation": checks}, ["black"], marks=True)
            right.get_legend().remove()
            right.set(ylabel="validation mIoU, %", ylim=(0, None))
            right.grid(False)
            first, *_, last = [*checks.values()] * 2
            words.append(f"validation from {first:.1f} to {last:.1f} percent")
    return figure, f"Training curves: {'; '.join(words) or 'nothing was trained'}.", None


@theme()
def class_bars(scores: Mapping[str, Scores], names: Mapping[int, str]) -> Drawing:
    """IoU per class with 95 % intervals, one group of bars per entry of `scores`."""
    series = {}
    for label, entry in scores.items():
        bounds = entry.class_intervals()
        series[label] = {names[c]: percent((value, *bounds[c])) for c, value in entry.per_class.items()}
    data = middle(series)
    figure, axis = plt.subplots(figsize=(1.4 + 1.1 * len(data), 2.8))
    _bars(axis, series, x="x", y="y", hue="", palette=_take(COLOURS, len(scores)), capsize=0.2)
    axis.set(xlabel="", ylabel="IoU, %")
    axis.tick_params(axis="x", rotation=20)
    beside(axis)
    best, worst = data.iloc[:, 0].idxmax(), data.iloc[:, 0].idxmin()
    alt = f"Bars of IoU per class for {', '.join(scores)}. {data.columns[0]}: best {best}, worst {worst}."
    return figure, alt, data.round(1)


@theme()
def score_bars(rows: Mapping[str, Interval], xlabel: str = "mIoU, %") -> Drawing:
    """Horizontal bars of a score with its interval: label -> (value, low, high)."""
    figure, axis = plt.subplots(figsize=(6, 0.5 + 0.38 * len(rows)))
    data = pd.DataFrame(rows, index=[xlabel, "low", "high"]).T
    _bars(axis, {"": rows}, x="y", y="x", color=COLOURS[1], capsize=0.3)
    axis.set(xlabel=xlabel, ylabel="")
    words = "; ".join(f"{label} {value:.1f} ({low:.1f} to {high:.1f})" for label, (value, low, high) in rows.items())
    return figure, f"Bars of {xlabel} with 95 % intervals: {words}.", data.round(1)


def _bars(axis: plt.Axes, series: Series, **how) -> None:
    look = {"saturation": 1, "edgecolor": "black", "linewidth": 0.5, "err_kws": {"color": "black", "linewidth": 1.2}}
    sns.barplot(_long(series), ax=axis, **look, **how, **GIVEN)


def outline(axis: plt.Axes, mask: Tensor, **place) -> None:
    """The edge of a (H, W) bool mask in white on black, if it marks anything; `place` as `axis.contour` takes it."""
    for colour, width in (("black", 2.1), ("white", 1)) if mask.any() else ():
        axis.contour(mask.float().cpu().numpy(), [0.5], colors=colour, linewidths=width, **place)


def badge(colour: str) -> dict:
    """How `axis.text` writes a black letter on a disc of this colour."""
    box = {"boxstyle": "circle,pad=0.15", "facecolor": colour, "edgecolor": "black"}
    return {"ha": "center", "va": "center", "fontsize": 8, "weight": "bold", "color": "black", "bbox": box}


def around(where: np.ndarray, margin: int = 3) -> tuple[int, int, int]:
    """Left, top and side of a square around the true cells of a square grid; the whole grid if there are none."""
    rows, columns = np.nonzero(where)
    side = len(where)
    if not len(rows):
        return 0, 0, side
    width = min(side, max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * margin)
    middle = ((rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2)
    top, left = (int(np.clip(m - width // 2, 0, side - width)) for m in middle)
    return left, top, int(width)


@theme()
def episodes(
    episode: Episode, predicted: Tensor | None = None, notes: Sequence[str] = (), names: Mapping[int, str] | None = None
) -> Drawing:
    """One row per episode: the supports with their masks, the query, its true mask, and the prediction (B, H, W)."""
    supports = episode.way * episode.shot
    titles = ["support"] * supports + ["query", "true mask"] + ["prediction"] * (predicted is not None)
    words = [[(names or {}).get(int(c), f"class {int(c)}") for c in classes] for classes in episode.classes]
    figure, axes = blank((1.75 * len(titles), 2 * episode.batch), episode.batch, len(titles), titles=titles)
    for b, row in enumerate(axes):
        pairs = zip(episode.support_images[b].flatten(0, 1), episode.support_masks[b].flatten(0, 1))
        for i, (image, mask) in enumerate(pairs):
            way = i // episode.shot
            row[i].imshow(overlay(image, mask.masked_fill(mask == 1, way + 1)))
            row[i].set_xlabel(words[b][way], fontsize=8)
        masks = None, episode.query_masks[b], None if predicted is None else predicted[b]
        for axis, mask in zip(row[supports:], masks):
            axis.imshow(overlay(episode.query_images[b], mask))
        if notes:
            row[-1].set_xlabel(notes[b], fontsize=8)
    shown = ", ".join(dict.fromkeys(word for row in words for word in row))
    what = "query image, true mask" + " and predicted mask" * (predicted is not None)
    alt = f"{episode.batch} episodes as rows: support images with masks, {what}. Classes: {shown}."
    return figure, alt + (f" {'; '.join(notes)}." if notes else ""), None


@theme()
def maps(pictures: Pictures, alt: str, limits: tuple | None = None, side: float = 2.2, columns: int = 5) -> Drawing:
    """Titled pictures: (H, W, 3) as they are, (h, w) as heat maps on one common scale with a colour bar.

    Args: side: inches of a picture, `LEAST` at least. columns: pictures beside each other, five at most.
    """
    columns, side = min(columns, len(pictures), 5), max(side, LEAST)
    rows, bar = -(-len(pictures) // columns), 0.6 * any(np.ndim(picture) == 2 for _, picture in pictures)
    tall = max(np.shape(picture)[0] / np.shape(picture)[1] for _, picture in pictures)
    words = 0.08 + 0.16 * max(title.count("\n") + 1 for title, _ in pictures)
    figure, axes = blank((side * columns + bar, (side * tall + words) * rows), rows, columns)
    values = [np.asarray(p) for _, p in pictures if np.ndim(p) == 2]
    low, high = limits or (min(map(np.min, values), default=0), max(map(np.max, values), default=1))
    drawn, bars = None, []
    for axis, (title, picture) in zip(axes.flat, pictures):
        axis.set_title(title)
        if np.ndim(picture) == 2:
            drawn = axis.imshow(picture, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
            bars.append(axis)
        else:
            axis.imshow(picture)
    if drawn is not None:
        figure.colorbar(drawn, ax=bars, shrink=0.75, pad=0.02).ax.tick_params(labelsize=7)
    return figure, alt, None


def strip(pictures: Pictures, alt: str, limits: tuple | None = None, side: float = 1.7, columns: int = 5) -> Drawing:
    """`maps` at about the pictures' own resolution, resized smoothly: hard pixel edges double a JPEG's bytes."""
    with plt.rc_context({"image.interpolation": "bicubic"}):
        return maps(pictures, alt, limits, side, columns)
