"""Figures about dense correlation: maps drawn on pictures, attention along both axes, and what an ensemble decides.

Each function returns `(figure, alt text, data)` for `display.show`, like those of `common`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from .common import LINES, Drawing, overlay

Panel = tuple[str, Tensor | np.ndarray | None, Tensor | np.ndarray | None, Tensor | None]


def heat(rows: Mapping[str, Sequence[Panel]], alt: str, side: float = 1.15) -> Drawing:
    """Rows of pictures with heat maps on them and the outline of a mask: label -> panels of (title, image, map, mask).

    Args:
        rows: an image is (3, H, W) normalised, or a picture of `plots.overlay`; a map is (h, w) float of any size, each
            on its own scale, which stands under its title; a mask is (H, W) long, whose 1 is outlined. Each of the
            three may be None.
        alt: what there is to see; the ranges of the maps are added.
    """
    columns, said = max(map(len, rows.values())), []
    size = (side * columns + 0.2, (side + 0.32) * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    for row, (label, panels) in zip(axes, rows.items()):
        row[0].set_ylabel(label, fontsize=8)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, (title, image, values, mask) in zip(row, panels):
            if values is not None:
                values = np.asarray(values)
                ends = f"{_short(values.min())} to {_short(values.max())}"
                said.append(f"{label + ', ' if label else ''}{title} {ends}")
                title = f"{title}\n{ends}"
            axis.set_title(title, fontsize=8)
            _draw(axis, image, values, mask)
    return figure, f"{alt} Ranges: {'; '.join(said)}." if said else alt, None


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
    if mask is not None and bool((mask == 1).any()):
        inside = (mask == 1).cpu().numpy().astype(float)
        at = [(np.arange(n) + 0.5) / n for n in inside.shape]
        axis.contour(at[1], at[0], inside, [0.5], colors="black", linewidths=2)
        axis.contour(at[1], at[0], inside, [0.5], colors="white", linewidths=1)
    if image is None and values is None:
        axis.set_visible(False)


def _short(value: float) -> str:
    """Two digits that mean something, and no minus zero."""
    return "0" if abs(value) < 5e-4 else f"{value:.1g}" if abs(value) < 0.1 else f"{value:.2g}"


def attention_axes(matrices: Mapping[str, Tensor | np.ndarray]) -> Drawing:
    """Attention matrices with their sums at the margins: title -> (M, L), M support positions by L query positions.

    Beside a matrix stands what every support position gives, below it what every query position receives.
    """
    count = len(matrices)
    figure = plt.figure(figsize=(3.3 * count, 2.35), layout="constrained")
    grid = figure.add_gridspec(2, 2 * count, width_ratios=[5, 1.1] * count, height_ratios=[1.5, 1])
    said, table = [], {}
    received = {title: np.asarray(m, float).sum(0) for title, m in matrices.items()}
    given = {title: np.asarray(m, float).sum(1) for title, m in matrices.items()}
    top = 1.08 * max(float(v.max()) for v in received.values())
    for i, (title, matrix) in enumerate(matrices.items()):
        matrix = np.asarray(matrix, float)
        main, right, below = (figure.add_subplot(grid[place]) for place in ((0, 2 * i), (0, 2 * i + 1), (1, 2 * i)))
        main.imshow(matrix, cmap="cividis", vmin=0, vmax=matrix.max(), aspect="auto", interpolation="nearest")
        main.set_title(title, fontsize=9)
        main.set(xticks=[], yticks=[])
        main.set_ylabel("support object", fontsize=8)
        right.barh(range(len(matrix)), given[title], 0.9, color=LINES[0])
        right.set(ylim=(len(matrix) - 0.5, -0.5), yticks=[], xlim=(0, 1.15 * given[title].max()))
        right.set_title("gives", fontsize=8)
        below.stairs(received[title], np.arange(matrix.shape[1] + 1) - 0.5, fill=True, color=LINES[1])
        below.set(xlim=(-0.5, matrix.shape[1] - 0.5), xticks=[], ylim=(0, top))
        below.set_xlabel("query positions", fontsize=8)
        below.set_ylabel("receives", fontsize=8)
        for axis in (right, below):
            axis.tick_params(labelsize=8)
        ends = {"gives": given[title], "receives": received[title]}
        table[title] = {f"{n}, {e}": float(f(v)) for n, v in ends.items() for e, f in (("least", min), ("most", max))}
        said.append(
            f"{title}: a support position gives {_ends(given[title])}, a query position receives "
            f"{_ends(received[title])}"
        )
    shape = next(iter(matrices.values())).shape
    alt = f"Attention of {shape[0]} support positions to {shape[1]} query positions, with sums. {'; '.join(said)}."
    return figure, alt, pd.DataFrame(table).round(2)


def _ends(values: np.ndarray) -> str:
    low, high = f"{values.min() + 0.0:.1f}", f"{values.max() + 0.0:.1f}"
    return low if low == high else f"{low} to {high}"


def decision(lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, plain: float = 0.5) -> Drawing:
    """Thresholds as lines over an x from 0 to 1: label -> their values at equal steps; `plain` is drawn dotted."""
    figure, axis = plt.subplots(figsize=(3.9, 2.2), layout="constrained")
    table, said = {}, []
    for i, (label, values) in enumerate(lines.items()):
        values = np.asarray(values, float)
        axis.plot(np.linspace(0, 1, len(values)), values, ("-", "--", "-.")[i % 3], color=LINES[i % 4], label=label)
        table[label] = {"at 0": values[0], "at 1": values[-1]}
        said.append(f"{label}: {values[0]:.2f} to {values[-1]:.2f}")
    axis.axhline(plain, color="black", linestyle=":", linewidth=1.2, label=f"meta alone, {plain:g}")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    alt = f"{ylabel} over {xlabel} from 0 to 1: {'; '.join(said)}; dotted {plain:g}."
    return figure, alt, pd.DataFrame(table).T.round(3)
