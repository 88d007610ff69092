"""Figures about dense correlation: HDMNet's matching as a storyboard, maps drawn on pictures, attention along both
axes, and what an ensemble decides."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from ..episode import Episode
from .common import LINES, Array, Drawing, blank, curves, outline, overlay, theme

SIDE = 1.75  # inches of a picture: 160 pixels and more on a page of 1,000
Panel = tuple[str, Array | None, Array | None, Tensor | None]


@theme()
def heat(rows: Mapping[str, Sequence[Panel]], alt: str, side: float = SIDE) -> Drawing:
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


ARROWS = (  # of the storyboard: (row, column) of its start and end, and what passes
    ((0, 0), (0, 1), "keys, values"), ((1, 0), (0, 1), "queries"), ((1, 1), (0, 1), "join the query"),
    ((0, 1), (0, 2), "guides, teaches"), ((0, 2), (0, 3), "guides, teaches"), ((0, 3), (0, 4), ""),
    ((0, 4), (1, 3), "f"), ((1, 2), (1, 3), "objects"), ((1, 3), (1, 4), ""),
)  # fmt: skip


@theme()
def storyboard(episode: Episode, maps: Mapping[str, Tensor]) -> Drawing:
    """HDMNet's matching with the maps of one episode: above the way from support to answer, below what joins it."""
    image, truth = episode.query_images[0], episode.query_masks[0]
    support, mask = episode.support_images[0, 0, 0], episode.support_masks[0, 0, 0]
    alone = overlay(support, mask, 0.0) * (mask == 1).numpy()[..., None]
    above = [(maps[f"correlation/{i}"][0], f"{4 + place} correlation") for place, i in enumerate((2, 1, 0))]
    ends = maps["scene/object"][0, 0] - maps["merged/background"][0, 0]
    panels = [("1 support: only the\nobject is left", alone, None, None)]
    panels += [(f"{name}\n{len(m)} x {m.shape[1]} cells", None, m.numpy(), truth) for m, name in above]
    panels += [("7 the matching's\nprobability f", None, maps["meta"][0, 1].numpy(), truth)]
    panels += [("2 query: every cell\nis compared", image, None, truth)]
    panels += [("3 prior map, merged\ninto the query", None, maps["prior"][0, 0].numpy(), truth)]
    panels += [("8 base learner:\nprobability b", None, maps["base_map"][0, 0].numpy(), truth)]
    panels += [("9 object minus\nbackground", None, ends.numpy(), truth)]
    panels += [("10 the answer,\ntruth outlined", None, (ends > 0).float().numpy(), truth)]
    figure, axes = blank((5 * SIDE + 1.2, 2 * SIDE + 1.4), 2, 5)
    figure.get_layout_engine().set(wspace=0.1, hspace=0.12)
    for axis, (title, *panel) in zip(axes.flat, panels):
        axis.set_title(title, fontsize=8)
        _draw(axis, *panel)
    for start, end, word in ARROWS:
        _arrow(figure, axes[start], axes[end], word, end[0] - start[0])
    alt = "Ten numbered pictures of HDMNet's matching: a support of which only the object is left, the query, a prior "
    alt += f"map, correlation maps of {', '.join(str(len(m)) for m, _ in above)} cells a side, the probabilities of "
    alt += "matching and base learner, their difference and the answer. Support and query meet in the coarsest map, "
    return figure, f"{alt}which guides the finer ones.", None


def _arrow(figure: plt.Figure, start: plt.Axes, end: plt.Axes, word: str, down: int) -> None:
    """An arrow from panel to panel with a word beside it: to the right, upwards (`down` -1) or downwards (1)."""
    places = {0: ((1.02, 0.5), (-0.02, 0.5)), -1: ((0.5, 1.25), (0.5, -0.02)), 1: ((0.5, -0.02), (0.5, 1.25))}
    look = {"arrowstyle": "-|>", "mutation_scale": 11, "color": LINES[1], "linewidth": 1.4}
    figure.add_artist(ConnectionPatch(*places[down], start.transAxes, end.transAxes, **look))
    (x, y), turn, side = {
        0: ((1.11, 0.55), 90, "center"),
        -1: ((0.46, 1.3), 0, "right"),
        1: ((0.54, -0.13), 0, "left"),
    }[down]
    how = {"rotation": turn, "ha": side, "va": "bottom" if turn else "center"}
    start.text(x, y, word, transform=start.transAxes, fontsize=7, color=LINES[1], **how)


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
def decision(lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> Drawing:
    """Thresholds as lines over an x from 0 to 1: label -> their values at equal steps; 0.5 is drawn dotted."""
    figure, axis = plt.subplots(figsize=(3.9, 2.2))
    curves(axis, {label: pd.Series(np.asarray(v, float), np.linspace(0, 1, len(v))) for label, v in lines.items()})
    axis.axhline(0.5, color="black", linestyle=":", linewidth=1.2, label="meta alone, 0.5")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel=ylabel)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    table = pd.DataFrame({label: {"at 0": v[0], "at 1": v[-1]} for label, v in lines.items()}).T
    words = "; ".join(f"{label}: {first:.2f} to {last:.2f}" for label, first, last in table.itertuples())
    alt = f"{ylabel} over {xlabel} from 0 to 1: {words}; dotted 0.5."
    return figure, alt, table.round(3)
