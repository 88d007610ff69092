"""Figures of tasks on photographs: what was drawn on the support, what is true in the query, and what was found."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from ..data.transforms import normalise
from .common import Drawing, beside, blank, curves, outline, theme
from .pixels import COLOURS, Array, grey, overlay, rgb, rim

PALE = 0.55  # of white in what was not found


@dataclass(frozen=True)
class Row:
    """A task: pictures (3, H, W) uint8, what was drawn on the support and what is true in the query (H, W), and by
    method the mask that was found (H, W) and its IoU, 0 to 1."""

    support: Tensor
    marked: Tensor
    query: Tensor
    truth: Tensor
    found: Mapping[str, tuple[Tensor, float]]


@theme()
def gallery(rows: Mapping[str, Row]) -> Drawing:
    """One line of pictures for each task, all of one width, each as high as its sides ask for."""
    width = 1.65  # inches
    methods = list(next(iter(rows.values())).found)
    heights = [width * row.query.shape[1] / row.query.shape[2] + 0.19 for row in rows.values()]
    titles, words = ["support", "query", *methods], []
    size = (width * len(titles), sum(heights) + 0.2)
    figure, axes = blank(size, len(rows), len(titles), titles=titles, pad=0.012, height_ratios=heights)
    for line, (name, row) in zip(axes, rows.items()):
        pictures = [drawn(row.support, row.marked), overlay(normalise(row.query))]
        for axis, picture in zip(line, [*pictures, *(cut_out(row.query, mask) for mask, _ in row.found.values())]):
            axis.imshow(picture, interpolation="antialiased")
        outline(line[1], row.truth == 1)
        line[0].set_xlabel(name, fontsize=8, labelpad=1)
        best = max(score for _, score in row.found.values())
        for axis, (_, score) in zip(line[2:], row.found.values()):
            axis.set_xlabel(f"{score:.0%}", fontsize=8, labelpad=1, weight="bold" if score == best else "normal")
        words.append(f"{name}: {', '.join(f'{method} {score:.0%}' for method, (_, score) in row.found.items())}")
    seen = "the support with its strokes, the query with the true outline, what was found"
    return figure, f"Lines of pictures: {seen}. IoU, {'; '.join(words)}.", None


@theme()
def answer(support: Tensor, marked: Tensor, query: Tensor, found: Array) -> Drawing:
    """One task in three pictures: support (3, H, W) uint8 with its strokes (H, W), query, and the mask found in it."""
    titles, found = ("what was marked", "the query", "what was found in it"), torch.as_tensor(found)
    figure, (axes,) = blank((6.9, 2.3 * query.shape[1] / query.shape[2] + 0.2), 1, 3, titles=titles, pad=0.012)
    for axis, picture in zip(axes, (drawn(support, marked), overlay(normalise(query)), cut_out(query, found))):
        axis.imshow(picture, interpolation="antialiased")
    share = float((found == 1).float().mean())
    return figure, f"A photograph with strokes on it, another one, and what was found there, {share:.0%} of it.", None


@theme()
def by_size(series: Mapping[str, Mapping[int, float]]) -> Drawing:
    """IoU (0..1) against the side of the picture that a network sees: task -> {pixels: IoU}."""
    figure, axis = plt.subplots(figsize=(4.6, 2.5))
    percent = {name: {side: 100 * value for side, value in points.items()} for name, points in series.items()}
    curves(axis, percent, COLOURS, marks=True)
    axis.set(xlabel="side of what the network sees, pixels", ylabel="IoU, %", xticks=list(next(iter(series.values()))))
    beside(axis)
    words = "; ".join(
        f"{name} {points[first]:.0f} at {first}, {points[last]:.0f} at {last}"
        for name, points in percent.items()
        for first, *_, last in [[*points]]
    )
    return figure, f"IoU in percent against the side of the picture in pixels: {words}.", None


def drawn(image: Tensor, mask: Tensor) -> np.ndarray:
    """(H, W, 3) picture in 0..1 with the strokes of a support on it: the object's and, where they leave something
    open, the background's."""
    picture = overlay(normalise(image))
    sides = (1, 0) if bool((mask == 255).any()) else (1,)
    for value, colour in zip(sides, COLOURS):
        inside = (mask == value).numpy()
        picture[inside] = 0.45 * picture[inside] + 0.55 * rgb(colour)
        picture[rim(inside, mode="edge")] = rgb(colour)
    return picture


def cut_out(image: Tensor, mask: Tensor) -> np.ndarray:
    """(H, W, 3) picture in 0..1: what the mask marks in its colours, with a rim, all else pale grey."""
    picture, inside = overlay(normalise(image)), (mask == 1).numpy()
    shown = grey(picture, PALE, 1 - PALE)
    shown[inside] = picture[inside]
    thick = rim(inside, mode="edge")
    if max(picture.shape) > 250:  # a rim of one pixel would be gone where the picture shrinks
        thick |= inside & rim(inside & ~thick, mode="edge")
    shown[thick] = rgb(COLOURS[0])
    return shown
