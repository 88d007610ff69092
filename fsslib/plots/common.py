"""Every figure of the notebooks. Each function returns `(figure, alt text, data)` for `fsslib.plots.display.show`.

Colours are the colour-blind-safe Okabe-Ito set for classes and `cividis` for maps, which also survive grey printing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from torch import Tensor

from ..analysis.intervals import Interval, verdict
from ..data.transforms import denormalise
from ..episode import IGNORE, Episode
from ..metrics import Scores
from ..training import History

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # of the Okabe-Ito set, those that stay legible as thin lines


def strip(
    pictures: Sequence[tuple[str, np.ndarray | Tensor]],
    alt: str,
    limits: tuple[float, float] | None = None,
    side: float = 1.25,
    columns: int = 6,
) -> Drawing:
    """`plots.maps` at about the pictures' own resolution, resized smoothly: hard pixel edges double a JPEG's bytes."""
    with plt.rc_context({"image.interpolation": "bicubic"}):
        return maps(pictures, alt, limits, side, columns)


def score_curves(
    series: Mapping[str, Mapping[float, Interval]], xlabel: str, ylabel: str = "mIoU, %", integer: bool = True
) -> Drawing:
    """Lines of a score with 95 % intervals: label -> {x: (value, low, high)}.

    Args:
        integer: x are counts: put a tick on each.
    """
    figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
    table, said = {}, []
    for i, (label, points) in enumerate(series.items()):
        x, values = np.array(list(points), float), np.array(list(points.values()), float)
        error = np.abs(values[:, 1:].T - values[:, 0])
        shift = 0.04 * (i - (len(series) - 1) / 2) * (np.ptp(x) / 4 or 1)  # so that intervals do not cover each other
        colour = LINES[i % 4]
        style = ("o-", "s--", "^:", "d-.")[i % 4]
        axis.errorbar(x + shift, values[:, 0], error, fmt=style, color=colour, capsize=3, label=label, markersize=5)
        table[label] = dict(zip(points, values[:, 0]))
        said.append(f"{label} from {values[0, 0]:.0f} at {x[0]:g} to {values[-1, 0]:.0f} at {x[-1]:g}")
    if integer:
        axis.set_xticks(sorted({v for points in series.values() for v in points}))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    if len(series) > 1:
        axis.legend(frameon=False, fontsize=8)
    alt = f"{ylabel} over {xlabel} with 95 % intervals: {'; '.join(said)}."
    return figure, alt, pd.DataFrame(table).rename_axis(xlabel).round(1)


def differences(rows: Mapping[str, Interval], xlabel: str = "paired difference in mIoU, points") -> Drawing:
    """Paired differences with their intervals beside a line at 0: label -> (value, low, high)."""
    figure, axis = plt.subplots(figsize=(5.4, 0.7 + 0.3 * len(rows)), layout="constrained")
    labels = list(rows)[::-1]
    values = np.array([rows[label] for label in labels], float)
    error = np.abs(values[:, 1:].T - values[:, 0])
    axis.axvline(0, color="black", linewidth=1)
    axis.errorbar(values[:, 0], range(len(labels)), xerr=error, fmt="o", color=LINES[0], capsize=4)
    axis.set_yticks(range(len(labels)), labels, fontsize=9)
    axis.set(xlabel=xlabel, ylim=(-0.6, len(labels) - 0.4))
    axis.grid(axis="x", alpha=0.3)
    data = pd.DataFrame(rows, index=["difference", "low", "high"]).T
    said = "; ".join(verdict(label, value) for label, value in rows.items())
    return figure, f"Points with 95 % intervals, {xlabel}: {said}.", data.round(3)


STYLES = ("o-", "s--", "^:", "d-.", "v-")


METHOD_COLOURS = (*LINES, "#000000")


HUES = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73")  # one per superpixel, light enough for black letters


def tinted(labels: np.ndarray | Tensor, image: Tensor, strength: float = 0.65) -> np.ndarray:
    """(H, W, 3) grey picture with whole numbers 1, 2, … in the colours of `HUES`, which start again after five.

    Args:
        labels: (h, w) whole numbers, 0 for nothing; enlarged cell by cell. image: (3, H, W) normalised.
    """
    labels = _enlarged(labels, image).astype(int)
    shown = 0.45 + 0.4 * overlay(image).mean(-1, keepdims=True).repeat(3, -1)
    for value in np.unique(labels[labels > 0]):
        colour = np.array(to_rgb(HUES[(value - 1) % len(HUES)]))
        shown[labels == value] = (1 - strength) * shown[labels == value] + strength * colour
    return shown


def _enlarged(cells: np.ndarray | Tensor, image: Tensor) -> np.ndarray:
    """(h, w) numbers at the size of the image, without mixing them."""
    rows, columns = (np.arange(side) * n // side for side, n in zip(image.shape[-2:], cells.shape))
    return np.asarray(cells)[rows][:, columns]


MARKS = ("o", "s", "^", "d")


FILLS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7")  # of the Okabe-Ito set, those that carry black letters


def _badge(colour: str) -> dict:
    box = {"boxstyle": "circle,pad=0.15", "facecolor": colour, "edgecolor": "black"}
    return {"ha": "center", "va": "center", "fontsize": 8, "weight": "bold", "color": "black", "bbox": box}


def _around(where: np.ndarray, margin: int = 3) -> tuple[int, int, int]:
    """Left, top and side of a square around the true cells of a square grid; the whole grid if there are none."""
    rows, columns = np.nonzero(where)
    side = len(where)
    if not len(rows):
        return 0, 0, side
    width = min(side, max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * margin)
    middle = ((rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2)
    top, left = (int(np.clip(m - width // 2, 0, side - width)) for m in middle)
    return left, top, int(width)


COLOURS = ["#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442"]


Drawing = tuple[plt.Figure, str, pd.DataFrame | None]


def overlay(image: Tensor, mask: Tensor | None = None, tint: float = 0.2) -> np.ndarray:
    """(H, W, 3) picture in 0..1 of a normalised (3, H, W) image; with a (H, W) mask, what it marks stands out.

    Everything else turns pale grey. Ways 1.. get a tint and an outline in their colour; 255 turns dark grey.
    """
    picture = denormalise(image.detach().cpu()).permute(1, 2, 0).numpy() / 255
    if mask is None:
        return picture
    mask = mask.detach().cpu().numpy()
    shown = 0.45 + 0.4 * picture.mean(-1, keepdims=True).repeat(3, -1)
    shown[mask == IGNORE] = 0.3
    for value in np.unique(mask[(mask > 0) & (mask != IGNORE)]):
        inside, colour = mask == value, np.array(to_rgb(COLOURS[(value - 1) % len(COLOURS)]))
        shown[inside] = (1 - tint) * picture[inside] + tint * colour
        padded = np.pad(inside, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        shown[inside & ~core] = colour
    return shown


def _grid(rows: int, columns: int, side: float = 1.7) -> tuple[plt.Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, side * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def episodes(
    episode: Episode, predicted: Tensor | None = None, notes: Sequence[str] = (), names: Mapping[int, str] | None = None
) -> Drawing:
    """One row per episode: the supports with their masks, the query, its true mask, and the prediction (B, H, W)."""
    supports = episode.way * episode.shot
    figure, axes = _grid(episode.batch, supports + 2 + (predicted is not None))
    for b, row in enumerate(axes):
        images, masks = episode.support_images[b].flatten(0, 1), episode.support_masks[b].flatten(0, 1)
        for i in range(supports):
            way = i // episode.shot
            shown = masks[i].clone()
            shown[shown == 1] = way + 1
            row[i].imshow(overlay(images[i], shown))
            cls = int(episode.classes[b, way])
            row[i].set_xlabel((names or {}).get(cls, f"class {cls}"), fontsize=8)
        row[supports].imshow(overlay(episode.query_images[b]))
        row[supports + 1].imshow(overlay(episode.query_images[b], episode.query_masks[b]))
        if predicted is not None:
            row[-1].imshow(overlay(episode.query_images[b], predicted[b]))
        if notes:
            row[-1].set_xlabel(notes[b], fontsize=8)
    titles = ["support"] * supports + ["query", "true mask", "prediction"]
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9)
    shown = ", ".join(dict.fromkeys((names or {}).get(int(c), f"class {int(c)}") for c in episode.classes.flatten()))
    what = "support images with masks, query image, true mask" + (
        " and predicted mask" if predicted is not None else ""
    )
    alt = f"{episode.batch} episodes as rows: {what}. Classes: {shown}." + (f" {'; '.join(notes)}." if notes else "")
    return figure, alt, None


def maps(
    pictures: Sequence[tuple[str, np.ndarray | Tensor]],
    alt: str,
    limits: tuple[float, float] | None = None,
    side: float = 2.2,
    columns: int = 6,
) -> Drawing:
    """Titled pictures: (H, W, 3) as they are, (h, w) as heat maps on one common scale with a colour bar."""
    columns = min(columns, len(pictures))
    figure, axes = _grid(-(-len(pictures) // columns), columns, side)
    values = [np.asarray(p) for _, p in pictures if np.ndim(p) == 2]
    low, high = limits or (min(map(np.min, values), default=0), max(map(np.max, values), default=1))
    drawn, bars = None, []
    for axis, (title, picture) in zip(axes.flat, pictures):
        picture = np.asarray(picture)
        axis.set_title(title, fontsize=9)
        if picture.ndim == 2:
            drawn = axis.imshow(picture, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
            bars.append(axis)
        else:
            axis.imshow(picture)
    if drawn is not None:
        figure.colorbar(drawn, ax=bars, shrink=0.75, pad=0.02).ax.tick_params(labelsize=7)
    return figure, alt, None


def histories(histories: Mapping[str, History], window: int = 25) -> Drawing:
    """Training curves of several stages, each in its own panel, smoothed."""
    shown = {name: history for name, history in histories.items() if history.rows}
    figure, axes = plt.subplots(
        1, max(len(shown), 1), figsize=(4.2 * max(len(shown), 1), 2.6), squeeze=False, layout="constrained"
    )
    said = []
    for axis, (name, history) in zip(axes[0], shown.items()):
        losses = [term for term in history.rows[0] if not term.startswith("val_")]
        terms = [term for term in losses if term != "total" or len(losses) == 1]
        largest = 0.0
        for term, colour, style in zip(terms, COLOURS, ["-", "--", "-.", ":", "-"]):
            values = history.smooth(term, window)
            axis.plot(values, style, color=colour, label="loss" if term == "total" else term)
            said.append(f"{name} {term} from {values[0]:.2g} to {values[-1]:.2g}")
            largest = max(largest, values[-1])
        if any(0 < history.smooth(term, window)[-1] < largest / 100 for term in terms):
            axis.set_yscale("log")
        axis.set(title=name, xlabel="step", ylabel=f"loss (mean of {window} steps)")
        axis.grid(alpha=0.3)
        checks = [(step, row["val_miou"]) for step, row in enumerate(history.rows, 1) if "val_miou" in row]
        if checks:
            right = axis.twinx()
            right.plot(*zip(*checks), "o-", color="black", markersize=3, label="validation")
            right.set(ylabel="validation mIoU, %", ylim=(0, None))
            said.append(f"validation from {checks[0][1]:.1f} to {checks[-1][1]:.1f} percent")
        axis.legend(frameon=False)
    return figure, f"Training curves: {'; '.join(said) or 'nothing was trained'}.", None


def class_bars(scores: Mapping[str, Scores], names: Mapping[int, str]) -> Drawing:
    """IoU per class with 95 % intervals, one group of bars per entry of `scores`."""
    classes = list(next(iter(scores.values())).per_class)
    figure, axis = plt.subplots(figsize=(1.4 + 1.1 * len(classes), 2.8), layout="constrained")
    width, table = 0.8 / len(scores), {}
    for i, (label, entry) in enumerate(scores.items()):
        values = np.array([100 * entry.per_class[c] for c in classes])
        bounds = 100 * np.array([entry.class_intervals()[c] for c in classes])
        at = np.arange(len(classes)) + (i - (len(scores) - 1) / 2) * width
        error = np.abs(bounds.T - values)
        axis.bar(
            at,
            values,
            width,
            yerr=error,
            label=label,
            color=COLOURS[i % 7],
            edgecolor="black",
            capsize=2,
            linewidth=0.5,
        )
        table[label] = values
    axis.set_xticks(range(len(classes)), [names[c] for c in classes], rotation=20, ha="right", fontsize=8)
    axis.set(ylabel="IoU, %")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    data = pd.DataFrame(table, index=[names[c] for c in classes])
    best, worst = data.iloc[:, 0].idxmax(), data.iloc[:, 0].idxmin()
    alt = f"Bars of IoU per class for {', '.join(scores)}. {data.columns[0]}: best {best}, worst {worst}."
    return figure, alt, data.round(1)


def score_bars(rows: Mapping[str, tuple[float, float, float]], xlabel: str = "mIoU, %") -> Drawing:
    """Horizontal bars of a score with its interval: label -> (value, low, high)."""
    figure, axis = plt.subplots(figsize=(6, 0.5 + 0.38 * len(rows)), layout="constrained")
    labels = list(rows)[::-1]
    values = np.array([rows[label] for label in labels])
    error = np.abs(values[:, 1:].T - values[:, 0])
    axis.barh(labels, values[:, 0], xerr=error, color=COLOURS[1], edgecolor="black", linewidth=0.5, capsize=3)
    axis.set(xlabel=xlabel)
    axis.grid(axis="x", alpha=0.3)
    data = pd.DataFrame(rows, index=[xlabel, "low", "high"]).T
    said = "; ".join(f"{label} {value[0]:.1f} ({value[1]:.1f} to {value[2]:.1f})" for label, value in rows.items())
    return figure, f"Bars of {xlabel} with 95 % intervals: {said}.", data.round(1)
