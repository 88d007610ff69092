"""Weak support annotations made from masks: boxes and scribbles instead of outlines (PANet, arXiv 1908.06391, sec. 4).

Everything here is a pure function of its arguments and an integer seed; no argument is ever changed.
"""

import numpy as np
import torch
from torch import Tensor

from ..arguments import choose
from ..episode import IGNORE
from ..errors import DatasetError
from .base import check_seed

ANNOTATIONS = ("mask", "box", "scribble")
EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner belong together
# Of a stroke: how deep its ends lie, as a share of the greatest depth (keeps it out of legs, horns and the margins of
# the picture), and the cells along the region's longer side that it is planned on, before it is drawn finely.
CORE, GRID = 0.25, 48


def annotate(mask: Tensor, kind: str = "mask", seed: int = 0) -> Tensor:
    """A support mask as a weaker annotation would give it.

    Args:
        mask: (H, W) integer, 1 object, 0 background, 255 in neither.
        kind: `"mask"` returns a copy. `"box"`: object = filled box of the largest connected part, background = outside
            the boxes of all parts. `"scribble"`: one stroke on the object, one on the background.
        seed: draws the strokes; boxes do not depend on it.
    Returns:
        A new mask of the same shape, dtype and encoding: 255 where neither was annotated. Pixels that were 255 never
        become background, but a box may cover them. Raises DatasetError for an unknown kind or other values.
    """
    choose(kind, ANNOTATIONS, "annotation", DatasetError)
    label = _flat(mask, "mask")
    wrong = np.setdiff1d(label, (0, 1, IGNORE)).tolist()
    if wrong:
        raise DatasetError(f"mask: found the values {wrong[:5]}, expected 1 object, 0 background and 255 ignored.")
    if kind == "mask":
        return mask.clone()
    if kind == "box":
        fg, bg = box_support(label == 1)
    else:
        fg, bg = scribble(label == 1, seed), scribble(label == 0, seed)
    out = torch.full_like(mask, IGNORE)
    out[bg.to(mask.device) & (mask == 0)] = 0
    out[fg.to(mask.device)] = 1
    return out


def _flat(value: Tensor | np.ndarray, name: str) -> np.ndarray:
    """A copy as a two-dimensional array, so that nothing below can write into the caller's data."""
    array = np.array(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise DatasetError(f"{name}: found {array.dtype} {array.shape}, expected bool or integers (H, W).")
    return array


def _components(fg: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.label(fg, structure=EIGHT)[0]


def box_support(fg: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Foreground and background of a support annotated with boxes.

    `fg` is (H, W) bool or integer, non-zero on the class. Returns two (H, W) bool tensors: the filled tight box of the
    largest connected part (8 neighbours, ties to the first; corners inclusive), and everything outside the boxes of all
    parts. An empty `fg` gives no foreground and background everywhere.
    """
    from scipy import ndimage

    parts = _components(_flat(fg, "fg") != 0)
    largest, union = np.zeros(parts.shape, bool), np.zeros(parts.shape, bool)
    for box in (boxes := ndimage.find_objects(parts)):
        union[box] = True
    if boxes:
        largest[boxes[np.bincount(parts.ravel())[1:].argmax()]] = True
    return torch.from_numpy(largest), torch.from_numpy(~union)


def scribble(region: Tensor | np.ndarray, seed: int = 0) -> Tensor:
    """One stroke through the largest connected part of an object or a background, as a person would draw it.

    A smooth curve between two far ends of the part's deep inside, kept away from outline and image border; the pen is a
    hundredth of the longer image side. A simple robot in the spirit of DAVIS' and PANet's, but deterministic.
    Returns (H, W) bool, inside `region` (H, W), non-empty for every non-empty one.
    """
    check_seed(seed)
    region = _flat(region, "region") != 0
    if region.any():
        parts = _components(region)
        largest = parts == np.bincount(parts[region]).argmax()
        pen = max(1, round(max(region.shape) / 100))
        region = longest_stroke(largest, np.random.default_rng(int(seed) % 2**63), pen)
    return torch.from_numpy(region)


# A pen stroke through a region: the longest comfortable path of its deep inside, smoothed like a hand-drawn curve.


def longest_stroke(region: np.ndarray, generator: np.random.Generator, width: int) -> np.ndarray:
    """(H, W) bool stroke inside the connected, non-empty `region` (H, W) bool.

    The ends lie where the region is at least CORE times as deep as at its deepest point, as far apart as such points
    get (within 15 %, drawn by `generator`); between them the path follows the cheapest way, cost 1 / depth². `width`:
    the pen in pixels, clipped to the region.
    """
    from scipy import ndimage

    (box,) = ndimage.find_objects(region.astype(int))
    inside = region[box]
    # The frame counts as outline, so that strokes keep away from the image border too.
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    points = _smooth(_plan(depth, generator), depth, generator)
    drawn = np.ones_like(inside)
    drawn[tuple(np.floor(points).astype(int).T)] = False
    pen = ndimage.distance_transform_edt(drawn) < max(1.0, width / 2)
    stroke = np.zeros_like(region)
    stroke[box] = pen & inside
    return stroke


def _plan(depth: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, 2) pixel centres of the path, n >= 1, each the deepest pixel of a grid cell, neighbours in adjacent cells."""
    from scipy import ndimage
    from scipy.sparse.csgraph import dijkstra

    step = -(-max(depth.shape) // GRID)
    height, width = (-(-side // step) for side in depth.shape)
    cells = np.zeros((height * step, width * step))
    cells[: depth.shape[0], : depth.shape[1]] = depth
    cells = cells.reshape(height, step, width, step).swapaxes(1, 2).reshape(height, width, step * step)
    best, deep = cells.argmax(2), cells.max(2)
    place = np.stack([np.arange(height)[:, None] * step + best // step, np.arange(width) * step + best % step], -1)

    heart = ndimage.label(deep >= CORE * deep.max(), structure=np.ones((3, 3)))[0]
    heart = heart == heart.flat[deep.argmax()]
    node, length = _graph(heart, place, np.ones_like(deep))
    start = generator.integers(node.max() + 1)
    for _ in range(2):  # two sweeps find (nearly) the longest shortest path
        far = dijkstra(length, directed=False, indices=start)
        first, start = start, generator.choice(np.flatnonzero(far >= 0.85 * far.max()))
    _, cost = _graph(heart, place, (deep.max() / np.maximum(deep, 1e-9)) ** 2)
    before = dijkstra(cost, directed=False, indices=first, return_predecessors=True)[1]
    path = [int(start)]
    while path[-1] != first:
        path.append(int(before[path[-1]]))
    return place[heart][path] + 0.5


def _graph(cells: np.ndarray, place: np.ndarray, price: np.ndarray):
    """Number of every cell (-1 outside), and the edges between 8-neighbours: distance times mean price."""
    from scipy.sparse import coo_matrix

    node = np.where(cells, np.cumsum(cells).reshape(cells.shape) - 1, -1)
    height, width = cells.shape
    edges = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        there = np.s_[down:, max(0, right) : width + min(0, right)]
        both = cells[here] & cells[there]
        distance = np.linalg.norm(place[here] - place[there], axis=-1)
        edges.append(((distance * (price[here] + price[there]) / 2)[both], node[here][both], node[there][both]))
    weight, source, target = (np.concatenate(part) for part in zip(*edges))
    count = int(cells.sum())
    return node, coo_matrix((weight, (source, target)), shape=(count, count)).tocsr()


def _smooth(path: np.ndarray, depth: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Points at most half a pixel apart along a smoothed, slightly swaying version of `path`, all inside the region.

    The less smooth and the calmer, the safer: the first version that stays inside is taken, and at last the path's own
    points, which are inside by construction.
    """
    from scipy import ndimage

    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    if along[-1] < 2:
        return path
    at = np.linspace(0, along[-1], int(2 * along[-1]) + 2)
    line = np.stack([np.interp(at, along, path[:, axis]) for axis in (0, 1)], 1)
    sway = ndimage.gaussian_filter1d(generator.standard_normal(line.shape), len(at) / 12, axis=0, mode="reflect")
    sway *= np.minimum(0.35 * depth.max(), 0.06 * along[-1]) / (np.abs(sway).max() + 1e-12)
    for softness, strength in ((10, 1), (10, 0.5), (16, 0.5), (16, 0), (30, 0), (60, 0), (120, 0)):
        curve = ndimage.gaussian_filter1d(line, len(at) / softness, axis=0, mode="nearest") + strength * sway
        pixel = np.floor(curve).astype(int)
        held = (pixel >= 0).all() and (pixel < depth.shape).all()
        if held and (depth[tuple(pixel.T)] > min(2.0, 0.3 * depth.max())).all():
            return curve
    keep = depth[tuple(np.floor(line).astype(int).T)] > 0
    return np.concatenate([path, line[keep]])
