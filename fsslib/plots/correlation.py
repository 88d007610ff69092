"""Figures about dense correlation: maps drawn on pictures, attention along both axes, and what an ensemble decides."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from .common import LINES, Array, Drawing, blank, curves, outline, overlay, theme

Panel = tuple[str, Array | None, Array | None, Tensor | None]


@theme()
def heat(rows: Mapping[str, Sequence[Panel]], alt: str, side: float = 1.15) -> Drawing:
    """Rows of pictures with heat maps on them and the outline of a mask: label -> panels of (title, image, map, mask).

    Args:
        rows: an image is (3, H, W) normalised, or a picture of `plots.overlay`; a map is (h, w) float of any size, each
            on its own scale, which stands under its title; a mask is (H, W) long, whose 1 is outlined. Each of the
            three may be None.
        alt: what there is to see; the ranges of the maps are added.
    """
    columns, words = max(map(len, rows.values())), []
    figure, axes = blank((side * columns + 0.2, (side + 0.32) * len(rows)), len(rows), columns, rows, pad=0.015)
    for row, (label, panels) in zip(axes, rows.items()):
        for axis, (title, image, values, mask) in zip(row, panels):
            if values is not None:
                values = np.asarray(values)
                ends = f"{_short(values.min())} to {_short(values.max())}"
                words.append(f"{label + ', ' if label else ''}{title} {ends}")
                title = f"{title}\n{ends}"
            axis.set_title(title, fontsize=8)
            _draw(axis, image, values, mask)
    return figure, f"{alt} Ranges: {'; '.join(words)}." if words else alt, None


def _draw(axis: plt.Axes, image: Tensor | None, values: np.ndarray | None, mask: Tensor | None) -> None:
    extent = (0, 1, 1, 0)
    if image is not None:
        picture = overlay(image) if isinstance(image, Tensor) else image
        if values is not None:  # colour would mix with that of the map
            picture = picture.mean(-1, keepdims=True).repeat(3, -1)
        axis.imshow(picture, extent=extent, interpolation="bicubic")
    if values is not None:
        alpha = 0.8 if image is not None else 1
        axis.imshow(values, cmap="cividis", alpha=alpha, extent=extent, interpolation="nearest")
    if mask is not None:
        y, x = (0.5 / side for side in mask.shape)
        outline(axis, mask == 1, extent=(x, 1 - x, y, 1 - y))
    axis.set_visible(image is not None or values is not None)


def _short(value: float) -> str:
    """Two digits that mean something, and no minus zero."""
    return "0" if abs(value) < 5e-4 else f"{value:.1g}" if abs(value) < 0.1 else f"{value:.2g}"


@theme()
def attention_axes(matrices: Mapping[str, Array]) -> Drawing:
    """Attention matrices with their sums at the margins: title -> (M, L), M support positions by L query positions.
    Beside a matrix stands what every support position gives, below it what every query position receives."""
    matrices = {title: np.asarray(matrix, float) for title, matrix in matrices.items()}
    count, (rows, columns) = len(matrices), next(iter(matrices.values())).shape
    figure = plt.figure(figsize=(3.3 * count, 2.35))
    grid = figure.add_gridspec(2, 2 * count, width_ratios=[5, 1.1] * count, height_ratios=[1.5, 1])
    words, table = [], {}
    top = 1.08 * max(matrix.sum(0).max() for matrix in matrices.values())
    for i, (title, matrix) in enumerate(matrices.items()):
        received, given = matrix.sum(0), matrix.sum(1)
        main, right, below = (figure.add_subplot(grid[place]) for place in ((0, 2 * i), (0, 2 * i + 1), (1, 2 * i)))
        main.imshow(matrix, cmap="cividis", vmin=0, vmax=matrix.max(), aspect="auto", interpolation="nearest")
        main.set(title=title, xticks=[], yticks=[], ylabel="support object")
        right.barh(range(rows), given, 0.9, color=LINES[0])
        right.set(title="gives", ylim=(rows - 0.5, -0.5), yticks=[], xlim=(0, 1.15 * given.max()))
        below.stairs(received, np.arange(columns + 1) - 0.5, fill=True, color=LINES[1])
        below.set(xlim=(-0.5, columns - 0.5), xticks=[], ylim=(0, top), xlabel="query positions", ylabel="receives")
        ends = {"gives": given, "receives": received}
        table[title] = {f"{n}, {e}": float(f(v)) for n, v in ends.items() for e, f in (("least", min), ("most", max))}
        words.append(f"{title}: a support position gives {_ends(given)}, a query position receives {_ends(received)}")
    alt = f"Attention of {rows} support positions to {columns} query positions, with sums. {'; '.join(words)}."
    return figure, alt, pd.DataFrame(table).round(2)


def _ends(values: np.ndarray) -> str:
    low, high = f"{values.min() + 0.0:.1f}", f"{values.max() + 0.0:.1f}"
    return low if low == high else f"{low} to {high}"


@theme()
def decision(lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, plain: float = 0.5) -> Drawing:
    """Thresholds as lines over an x from 0 to 1: label -> their values at equal steps; `plain` is drawn dotted."""
    figure, axis = plt.subplots(figsize=(3.9, 2.2))
    curves(axis, {label: pd.Series(np.asarray(v, float), np.linspace(0, 1, len(v))) for label, v in lines.items()})
    axis.axhline(plain, color="black", linestyle=":", linewidth=1.2, label=f"meta alone, {plain:g}")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel=ylabel)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    table = pd.DataFrame({label: {"at 0": v[0], "at 1": v[-1]} for label, v in lines.items()}).T
    words = "; ".join(f"{label}: {first:.2f} to {last:.2f}" for label, first, last in table.itertuples())
    alt = f"{ylabel} over {xlabel} from 0 to 1: {words}; dotted {plain:g}."
    return figure, alt, table.round(3)
