"""A pen stroke through a region: the longest comfortable path of its deep inside, smoothed like a hand-drawn curve."""

import numpy as np

CORE = 0.25  # of the greatest depth: keeps strokes out of legs, horns and the margins of the picture
GRID = 48  # cells along the longer side of the region: the path is planned coarsely and drawn finely


def longest_stroke(region: np.ndarray, generator: np.random.Generator, width: int) -> np.ndarray:
    """(H, W) bool stroke inside the connected, non-empty `region` (H, W) bool.

    The ends lie where the region is at least CORE times as deep as at its deepest point, as far apart as such points
    get (within 15 %, drawn by `generator`); between them the path follows the cheapest way, cost 1 / depth². `width`:
    the pen in pixels, clipped to the region.
    """
    from scipy import ndimage

    rows, columns = np.nonzero(region)
    corner, size = (rows.min(), columns.min()), (np.ptp(rows) + 1, np.ptp(columns) + 1)
    inside = region[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    # The frame counts as outline, so that strokes keep away from the image border too.
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    points = _smooth(_plan(depth, generator), depth, generator)
    drawn = np.ones_like(inside)
    drawn[tuple(np.floor(points).astype(int).T)] = False
    pen = ndimage.distance_transform_edt(drawn) < max(1.0, width / 2)
    stroke = np.zeros_like(region)
    stroke[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = pen & inside
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
