"""Figures about superpixels: where they start, how they move, how many there are, and who is given which."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from torch import Tensor, from_numpy

from ..analysis.intervals import spread
from .common import HUES, Drawing, around, badge, blank, enlarged, overlay, theme
from .pixels import Array


@theme()
def placement(rows: Mapping[str, tuple[Tensor, Tensor, Mapping[str, tuple[Tensor, int]]]]) -> Drawing:
    """Where rules put the seeds of supports: one row per support, one panel per rule, seeds numbered in their order.

    Args: rows: label -> (image (3, H, W) normalised, mask (h, w) of the cells, rule -> (points (P, 2), count)). Points
        beyond `count` are not drawn; a count below two means no seed at all.
    """
    columns = len(next(iter(rows.values()))[2])
    figure, axes = blank((2.0 * columns + 0.3, 2.1 * len(rows)), len(rows), columns, rows)
    words = []
    for line, (label, (image, cells, rules)) in zip(axes, rows.items()):
        side = cells.shape[-1]
        left, top, width = around(np.asarray(cells) > 0, 2)
        for axis, (rule, (points, count)) in zip(line, rules.items()):
            axis.imshow(overlay(image, from_numpy(enlarged(cells, image)).long()), extent=(0, side, side, 0))
            for number, (row, column) in enumerate(points[: count if count >= 2 else 0].tolist(), 1):
                axis.text(column + 0.5, row + 0.5, str(number), **badge("white"))
            axis.set(xlim=(left, left + width), ylim=(top + width, top))
            axis.set_title(f"{rule}: {count}", fontsize=8)
            words.append(f"{label}, {rule}: {count} superpixel{'s' * (count != 1)}")
    return figure, f"Numbered seeds on the cells of support objects. {'; '.join(words)}.", None


@theme()
def clustering(rows: Mapping[str, Mapping[int, tuple[Tensor, Tensor]]], cells: Tensor) -> Drawing:
    """Iterations of a clustering: one row per way of clustering, one panel per iteration.

    A cell has the colour of the superpixel in which it weighs most, the stronger the nearer it comes to the largest
    weight there; circles mark the centres, lines the way each has come.

    Args: rows: label -> {iteration: (centres (P, 2) row and column in cells, weights (P, h, w))}. cells: (h, w).
    """
    steps = list(next(iter(rows.values())))
    figure, axes = blank((1.85 * len(steps) + 0.3, 1.95 * len(rows)), len(rows), len(steps), rows, pad=0.02)
    inside = np.asarray(cells) > 0
    left, top, width = around(inside, 1)
    words = []
    for line, (label, stages) in zip(axes, rows.items()):
        trail = np.stack([np.asarray(centres) for centres, _ in stages.values()])
        for i, (axis, (step, (_, weights))) in enumerate(zip(line, stages.items())):
            share = np.asarray(weights / weights.amax((1, 2), keepdim=True))
            owner = share.argmax(0)
            colour = np.array([to_rgb(HUES[p % len(HUES)]) for p in range(len(share))])[owner]
            axis.imshow(np.dstack([colour, np.where(inside, 0.2 + 0.8 * share.max(0), 0)]), interpolation="nearest")
            for p in range(trail.shape[1]):
                row, column = trail[: i + 1, p].T
                axis.plot(column, row, color="black", linewidth=1)
                axis.plot(column[-1], row[-1], "o", color=HUES[p % len(HUES)], markersize=8, markeredgecolor="black")
            axis.set(xlim=(left - 0.5, left + width - 0.5), ylim=(top + width - 0.5, top - 0.5))
            axis.set_title(f"t = {step}", fontsize=8)
        first, last = spread(trail[0]), spread(trail[-1])
        words.append(f"{label}: mean distance of the centres from {first:.1f} to {last:.1f} cells")
    alt = f"Superpixels of an object and their centres after {', '.join(map(str, steps))} iterations. "
    return figure, alt + "; ".join(words) + ".", None


@theme()
def storyboard(rows: Mapping[str, Sequence[tuple[str, Array, Sequence[tuple[float, float]]]]], alt: str) -> Drawing:
    """A method as rows of pictures joined by arrows, the rows one behind the other.

    Args:
        rows: name of the row -> (title, picture (H, W, 3) or map (h, w), places (row, column) to be numbered from 1),
            as many in every row.
    """
    columns = len(next(iter(rows.values())))
    figure, axes = blank((1.88 * columns + 0.3, 2.1 * len(rows)), len(rows), columns, rows, pad=0.1)
    for line, steps in zip(axes, rows.values()):
        for i, (axis, (title, picture, places)) in enumerate(zip(line, steps)):
            axis.imshow(np.asarray(picture), cmap="cividis", interpolation="nearest")
            axis.set_title(title, fontsize=9)
            for number, (row, column) in enumerate(places, 1):
                axis.text(column, row, str(number), **badge(HUES[(number - 1) % len(HUES)]))
            if i:
                head = {"arrowstyle": "-|>", "lw": 1.6, "color": "#333333"}
                axis.annotate("", (-0.01, 0.5), (-0.14, 0.5), "axes fraction", arrowprops=head, annotation_clip=False)
    return figure, alt, None
