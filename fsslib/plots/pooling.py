"""A figure about prototypes: how a mask weighs the cells that are pooled."""

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from .common import Drawing, blank, overlay, theme


@theme()
def pooling(image: Tensor, mask: Tensor, weights: Tensor) -> Drawing:
    """How a mask reaches the grid of the features: picture with grid, the weight of every cell, and a close-up.

    Args:
        image: (3, H, W) normalised. mask: (H, W) long, 1 object.
        weights: (h, w) float, how many pixels of the object each cell stands for (`ops.project_mask`).
    """
    radius = 3  # cells: half the side of the close-up, around the lower end of the object
    (height, width), (rows, columns) = mask.shape, weights.shape
    weights = weights.numpy()
    top = max(float(weights.max()), 1e-6)
    figure, (axes,) = blank((5.7, 2), 1, 3)
    heat = {"cmap": "cividis", "vmin": 0, "vmax": top}
    axes[0].imshow(overlay(image, mask), extent=(0, columns, rows, 0), interpolation="bicubic")
    axes[0].set_title(f"mask and {rows}x{columns} cells", fontsize=9)
    axes[0].hlines(range(rows + 1), 0, columns, color="white", linewidth=0.25)
    axes[0].vlines(range(columns + 1), 0, rows, color="white", linewidth=0.25)
    drawn = axes[1].imshow(weights, **heat, extent=(0, columns, rows, 0))
    axes[1].set_title("weight of every cell, pixels", fontsize=9)
    figure.colorbar(drawn, ax=axes[1], shrink=0.75, pad=0.02).ax.tick_params(labelsize=7)
    inside = np.argwhere(weights > 0.5 * top)
    row, column = inside[-1] if len(inside) else (rows // 2, columns // 2)
    row, column = (int(np.clip(v, radius, n - 1 - radius)) for v, n in ((row, rows), (column, columns)))
    part = np.s_[row - radius : row + radius + 1, column - radius : column + radius + 1]
    box = (column - radius, column + radius + 1, row + radius + 1, row - radius)
    axes[2].imshow(weights[part], **heat, extent=box)
    for (i, j), value in np.ndenumerate(weights[part]):
        colour = "black" if value > 0.6 * top else "white"
        where = (box[0] + j + 0.5, box[3] + i + 0.5)
        axes[2].text(*where, f"{max(value, 0):.0f}", ha="center", va="center", fontsize=6, color=colour)
    axes[2].set_title("close-up of its edge", fontsize=9)
    axes[1].add_patch(plt.Rectangle((box[0], box[3]), 2 * radius + 1, 2 * radius + 1, fill=False, color="white"))
    full, some = int((weights > 0.95 * top).sum()), int((weights > 0.05 * top).sum())
    alt = (
        f"A support picture of {height}x{width} pixels with its mask and a grid of {rows}x{columns} cells; the weight "
        f"of every cell; a close-up of the object's edge. {some} cells have a weight, {full} of them the full one."
    )
    return figure, alt, None
