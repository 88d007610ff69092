"""Figures about prior and attention maps: what matched what, what a map's values are, and what they are worth."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from torch import Tensor

from ..analysis.intervals import Series
from ..episode import Episode, Prediction
from .common import LINES, Drawing, around, badge, beside, blank, curves, forest, middle, panels, theme
from .pixels import HUES, Array, overlay
from .sdaanet_flow import LEARNED, ORANGE, SIDE, STUDENT, TRAINING, Canvas


@theme()
def matches(
    query: Tensor, support: Tensor, mask: Tensor, cosines: Tensor, positions: Mapping[str, tuple[int, int]]
) -> Drawing:
    """What chosen positions of the query matched in the support: one panel per position, the best match starred.

    Args:
        query, support: (3, H, W) normalised. mask: (H, W) long of the support, 1 object.
        cosines: (h*w, h*w) float, every support position (rows) with every query position (columns).
        positions: label -> (row, column) of a query position on the (h, w) grid.
    """
    side = round(cosines.shape[0] ** 0.5)
    count, extent, words = 1 + len(positions), (0, side, side, 0), []
    figure, ((first, *others),) = blank((1.85 * count + 0.5, 2.05), 1, count, titles=["query"])
    first.imshow(overlay(query), extent=extent, interpolation="bicubic")
    on_object, high = cosines.amax(1).view(side, side).numpy() > 0, float(cosines.max())
    left, top, width = around(on_object)
    for (label, (row, column)), axis, colour in zip(positions.items(), others, HUES):
        similar = cosines[:, row * side + column].view(side, side).numpy()
        axis.imshow(overlay(support, mask, 0.0), extent=extent, interpolation="bicubic")
        drawn = axis.imshow(np.ma.masked_where(~on_object, similar), cmap="cividis", vmin=0, vmax=high, extent=extent)
        best = np.unravel_index(similar.argmax(), similar.shape)
        axis.plot(best[1] + 0.5, best[0] + 0.5, "*", color=colour, markersize=12, markeredgecolor="black")
        axis.set(xlim=(left, left + width), ylim=(top + width, top))
        axis.set_title(f"support, best {similar.max():.2f}", fontsize=8)
        axis.text(0.1, 0.88, label, transform=axis.transAxes, **badge(colour))
        first.text(column + 0.5, row + 0.5, label, **badge(colour))
        words.append(f"{label}'s best match has a cosine of {similar.max():.1f}")
    figure.colorbar(drawn, ax=others, shrink=0.8, pad=0.02).ax.tick_params(labelsize=7)
    cosines_with = f"the cosines with the {int(on_object.sum())} object positions of the support: {'; '.join(words)}"
    return figure, f"A query with the positions {', '.join(positions)}, and for each {cosines_with}.", None


@theme()
def values(maps: Mapping[str, tuple[Array, Array]]) -> Drawing:
    """Histograms of maps, on the object and elsewhere: label -> (values on the object, values elsewhere)."""
    figure, axes = panels(len(maps), 2.4, 1.7)
    words, table = [], {}
    for axis, (name, pair) in zip(axes, maps.items()):
        parts = [np.asarray(v, float).ravel() for v in pair]
        low, high = min(map(np.min, parts)), max(map(np.max, parts))
        look = {"bins": np.linspace(low, high, 41), "stat": "probability", "element": "step", "fill": False}
        for part, label, colour, style in zip(parts, ("object", "elsewhere"), (LINES[1], LINES[0]), ("-", "--")):
            sns.histplot(x=part, color=colour, label=label, linestyle=style, linewidth=1.6, ax=axis, **look)
            table[f"{name}, {label}"] = [part.mean(), part.min(), part.max()]
        axis.axvline(0, color="black", linewidth=0.7)
        axis.set(xlabel=name, ylabel="")
        inside, outside = (part.mean() for part in parts)
        words.append(f"{name} from {low:.1f} to {high:.1f}, mean {inside:.2f} on it, {outside:.2f} off")
    axes[0].set_ylabel("share of positions")
    axes[0].legend()
    data = pd.DataFrame(table, index=["mean", "lowest", "highest"]).T
    return figure, f"Histograms of maps on the object and elsewhere: {'; '.join(words)}.", data.round(2)


@theme()
def gallery(rows: Mapping[str, Sequence[Array]], titles: Sequence[str], alt: str, side: float = 1.75) -> Drawing:
    """Labelled rows of pictures (H, W, 3) and maps (h, w); every column of maps has one scale, so rows compare."""
    size = (side * len(titles) + 0.3, side * len(rows) + 0.45)
    figure, axes = blank(size, len(rows), len(titles), rows, pad=0.015)
    for column, title in enumerate(titles):
        pictures = [np.asarray(row[column]) for row in rows.values()]
        maps = [p for p in pictures if p.ndim == 2]
        low, high = (min(p.min() for p in maps), max(p.max() for p in maps)) if maps else (0, 1)
        for axis, picture in zip(axes[:, column], pictures):
            axis.imshow(picture, cmap="cividis", vmin=low, vmax=high, interpolation="bicubic")
        axes[0, column].set_title(f"{title}\n{low:.1f} to {high:.1f}" if maps else f"{title}\n", fontsize=8)
    return figure, alt, None


@theme()
def dots(
    series: Series, xlabel: str, line: float | None = None,
    trainings: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> Drawing:  # fmt: skip
    """Values with 95 % intervals, one line per group and one mark per series: series -> {group: (value, low, high)}.

    Args:
        line: where to draw a vertical line, e.g. at chance.
        trainings: series -> {group: the values of the single trainings}, drawn as small dots.
    """
    table, count = middle(series), len(series)
    figure, axis = plt.subplots(figsize=(5.4, 0.6 + (0.14 + 0.14 * count) * len(table)))
    forest(axis, series)
    for i, groups in enumerate((trainings or {}).values()):
        shift = 0.28 * (i - (count - 1) / 2)
        for group, values in groups.items():
            place = [table.index.get_loc(group) + shift + 0.12] * len(values)
            axis.plot(values, place, "o", color=LINES[i % len(LINES)], alpha=0.55, markersize=3)
    if line is not None:
        axis.axvline(line, color="black", linewidth=0.8)
    axis.set(xlabel=xlabel)
    if count > 1:
        beside(axis)
    listed = {name: ", ".join(f"{group} {v:.2f}" for group, v in column.items()) for name, column in table.items()}
    words = "; ".join(f"{name}: {numbers}" if name else numbers for name, numbers in listed.items())
    singly = ", a dot for each training" if trainings else ""
    return figure, f"{xlabel}, with 95 % intervals{singly}. {words}.", table.round(3)


@theme()
def emergence(losses: Sequence[float], points: Mapping[str, Mapping[int, float]], ylabel: str = "AUC") -> Drawing:
    """A loss over the steps of a training, and beside it what was measured on the way: label -> {step: value}."""
    figure, (left, right) = panels(2, 2.7, 1.95)
    left.plot(range(1, len(losses) + 1), losses, color="black", linewidth=1.4)
    left.set(xlabel="step", ylabel="loss on the supports", ylim=(0, None))
    curves(right, points, marks=True)
    right.axhline(0.5, color="black", linewidth=0.8)
    right.set(xlabel="step", ylabel=ylabel)
    ends = {label: [*entry.values()] for label, entry in points.items()}
    words = "; ".join(f"{label} from {values[0]:.2f} to {values[-1]:.2f}" for label, values in ends.items())
    loss = f"from {losses[0]:.2f} to {losses[-1]:.2f}" if len(losses) else "of no step"
    return figure, f"Loss {loss}; {ylabel}: {words}.", pd.DataFrame(points).rename_axis("step").round(3)


@theme()
def storyboard(episode: Episode, prediction: Prediction, name: str = "the object") -> Drawing:
    """SAAM step by step, for one 1-way 1-shot episode: what its head is told, where it is taught, what it hands on.

    Args:
        episode: a single one (B = N = K = 1). prediction: of an SD-AANet with SAAM and `explain`, in eval mode.
        name: of the class, for the words.
    """
    maps = {key: value[0].float().cpu() for key, value in prediction.maps.items()}
    canvas, (first, second, head, last), top, low, half = Canvas(100, 46), (9.5, 31, 56, 89), 33, 9.7, SIDE / 2
    wide, taught = half + 0.6, maps["support_attention"][0].softmax(0)[1]
    support, query = episode.support_images[0, 0, 0], episode.query_images[0]
    canvas.picture(first, top, overlay(support, episode.support_masks[0, 0, 0]), "1 support, its mask")
    canvas.picture(first, low, overlay(query), "5 query")
    canvas.picture(second, top, maps["support_features"][0].norm(dim=0), "2 features $F_s$")
    canvas.picture(second, low, maps["query_features"].norm(dim=0), "6 features $F_q$")
    canvas.bars(head, 40.5, maps["pooled"][0], "3 pooled under the mask: $p$", STUDENT, size=(SIDE + 2, 4))
    canvas.box(head, 21.5, 10, 9, "head:\nconv, PSP,\nconv", LEARNED)
    canvas.box(70, top - 3, 9.5, 5, "support's\nlast layer", LEARNED)
    canvas.box(70, low, 9.5, 5, "query's\nlast layer", LEARNED)
    canvas.picture(last, top, taught, "4 P(object) on the support", dashed=True, limits=(0, 1))
    canvas.picture(last, low, maps["attention"][0], "7 attention $A$")
    for lane in (top, low):
        canvas.arrow((first + wide, lane), (second - wide, lane))
    canvas.arrow((second + wide, 40.5), (head - wide - 1.2, 40.5), colour=STUDENT)
    canvas.arrow((head, 38.2), (head, 26), colour=STUDENT)
    canvas.arrow((second + wide, top - 5), (head - 8, top - 5), (head - 8, 23), (head - 5, 23))
    canvas.arrow((second + wide, low), (head - 8, low), (head - 8, 20), (head - 5, 20))
    canvas.arrow((head + 5, 23), (70, 23), (70, top - 5.5))
    canvas.arrow((head + 5, 20), (70, 20), (70, low + 2.5))
    canvas.arrow((74.8, top - 3), (last - wide, top - 3))
    canvas.arrow((74.8, low), (last - wide, low))
    canvas.write(70, 44, "the mask teaches\nsteps 2 to 4", TRAINING)
    canvas.arrow((80.2, top + 6.5), (75, top + 6.5), (75, top - 0.5), **ORANGE)
    canvas.write(70, 4.3, "only the final loss teaches this layer", TRAINING)
    sizes = " by ".join(str(n) for n in maps["attention"].shape[-2:])
    alt = (
        f"SAAM for one episode of {name}, in seven steps. The support's features are pooled under its mask into the "
        "prototype p. One head compares features with p: on the support its last layer gives the object's probability, "
        "which its mask teaches; on the query another last layer, which only the final loss teaches, gives the "
        f"attention map, {sizes} cells from {maps['attention'].min():.1f} to {maps['attention'].max():.1f}."
    )
    return canvas.figure, alt, None
