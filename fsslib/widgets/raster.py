"""Strokes to pixels: an exact rule, so that a recorded drawing gives the same mask on every machine.

A pixel belongs to a brush, eraser or scribble stroke when its centre is at most half the stroke's width away from the
line, or when a recorded point lies in it (a tap with the thinnest pen marks its pixel). It belongs to a box when its
centre lies in the box or on its border. Pixel (row i, column j) covers j <= x < j + 1, i <= y < i + 1.

It belongs to a polygon when its centre lies inside by the even-odd rule: a ray from it to the left crosses the border
an odd number of times. Corners are first rounded to 1/1024 pixel: from there on whole numbers decide, without error. A
centre exactly on the border counts as lying just to the right of it and, on a horizontal edge, just below it; so a left
or upper edge owns its centres, a right or lower one does not, and polygons that share an edge share no pixel and miss
none.
"""

import numpy as np

UNTOUCHED, OBJECT, BACKGROUND, HINT = range(4)  # HINT: background said by a scribble
MEANING = {("brush", 1): OBJECT, ("box", 1): OBJECT, ("polygon", 1): OBJECT}
MEANING |= {("scribble", 1): OBJECT, ("scribble", 0): HINT}
GRID = 1024  # corners of polygons per pixel; the largest for which products of two distances fit into 64 bits


def paint(canvas: np.ndarray, stroke: dict) -> None:
    """Draw one valid stroke (see `strokes.check`) on `canvas` (H, W) uint8 in place: UNTOUCHED, OBJECT, ... pixels."""
    tool = stroke["tool"]
    if tool == "clear":
        canvas[:] = UNTOUCHED
        return
    points = np.asarray(stroke["points"], dtype=np.float64)
    value = UNTOUCHED if tool == "eraser" else MEANING.get((tool, stroke["label"]), BACKGROUND)
    if tool == "box":
        low, high = np.sort(points, axis=0)
        first = np.maximum(np.ceil(low - 0.5), 0).astype(int)
        last = np.maximum(np.floor(high - 0.5) + 1, 0).astype(int)
        canvas[first[1] : last[1], first[0] : last[0]] = value
        return
    if tool == "polygon":
        top, inside = _inside(points, *canvas.shape)
        canvas[top : top + len(inside)][inside] = value
        return
    height, width = canvas.shape
    row, first, last = _spans(points, stroke["width"] / 2, height, width)
    if len(row):
        top = row.min()
        # +1 where a span begins, -1 behind its end: the running sum counts the spans over each pixel.
        size = (row.max() - top + 1) * (width + 1)
        start = (row - top) * (width + 1)
        change = np.bincount(start + first, minlength=size) - np.bincount(start + last + 1, minlength=size)
        covered = change.reshape(-1, width + 1).cumsum(1)[:, :width] > 0
        canvas[top : row.max() + 1][covered] = value
    column, row = np.floor(points).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    canvas[row[inside], column[inside]] = value


def _spans(points: np.ndarray, radius: float, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first and last column of every run of pixels that one segment of the line covers, clipped to the picture.

    What lies within `radius` of a segment is convex, so that every row cuts it in one interval: from the leftmost to
    the rightmost point of the two discs at its ends and of the rectangle between them.
    """
    begin, end = (points, points) if len(points) == 1 else (points[:-1], points[1:])
    top = np.clip(np.ceil(np.minimum(begin, end)[:, 1] - radius - 0.5), 0, height).astype(int)
    bottom = np.clip(np.floor(np.maximum(begin, end)[:, 1] + radius - 0.5), -1, height - 1).astype(int)
    count = np.maximum(bottom - top + 1, 0)
    segment = np.repeat(np.arange(len(begin)), count)
    row = np.arange(len(segment)) + np.repeat(top - (np.cumsum(count) - count), count)
    y = row + 0.5

    way = end - begin
    length = np.hypot(*way.T)
    unit = way / np.where(length > 0, length, 1)[:, None]
    (x0, y0), (ux, uy), length = begin[segment].T, unit[segment].T, length[segment]
    down = y - y0
    along = _between(0, length, ux, down * uy - x0 * ux)
    across = _between(-radius, radius, -uy, down * ux + x0 * uy)
    left, right = np.maximum(along[0], across[0]), np.minimum(along[1], across[1])
    empty = (left > right) | (length == 0)  # a tap is its disc alone
    left[empty], right[empty] = np.inf, -np.inf
    for x1, y1 in (begin[segment].T, end[segment].T):
        room = radius**2 - (y - y1) ** 2
        half = np.where(room >= 0, np.sqrt(np.maximum(room, 0)), -np.inf)
        left, right = np.minimum(left, x1 - half), np.maximum(right, x1 + half)
    first = np.clip(np.ceil(left - 0.5), 0, width).astype(int)
    last = np.clip(np.floor(right - 0.5), -1, width - 1).astype(int)
    kept = first <= last
    return row[kept], first[kept], last[kept]


def _inside(corners: np.ndarray, height: int, width: int) -> tuple[int, np.ndarray]:
    """The first row of a polygon in the picture, and which pixels of that row and those below it lie inside."""
    corners = np.round(corners * GRID).astype(np.int64)
    begin, end = corners, np.roll(corners, -1, axis=0)
    # Every edge downwards: whichever polygon an edge belongs to, its crossings are the same.
    upward = (begin[:, 1] > end[:, 1])[:, None]
    begin, end = np.where(upward, end, begin), np.where(upward, begin, end)
    # The rows whose centres have begin <= y < end; none where the edge is horizontal.
    above, below = (np.clip(-((GRID // 2 - y) // GRID), 0, height) for y in (begin[:, 1], end[:, 1]))
    top, bottom = above.min(), below.max()
    count = below - above
    edge = np.repeat(np.arange(len(begin)), count)
    row = np.arange(len(edge)) + np.repeat(above - (np.cumsum(count) - count), count)
    (x, y), (across, down) = begin[edge].T, (end - begin)[edge].T
    # The first pixel of the row whose centre is not to the left of the crossing, x + across (centre - y) / down.
    crossing = (x - GRID // 2) * down + across * (row * GRID + GRID // 2 - y)
    first = np.clip(-(-crossing // (GRID * down)), 0, width)
    crossings = np.bincount((row - top) * (width + 1) + first, minlength=(bottom - top) * (width + 1))
    return top, crossings.reshape(-1, width + 1).cumsum(1)[:, :width] % 2 == 1


def _between(low, high, slope: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of x with low <= slope x + offset <= high; (inf, -inf) where there is none."""
    flat = slope == 0
    slope = np.where(flat, 1.0, slope)
    ends = (low - offset) / slope, (high - offset) / slope
    always = (low <= offset) & (offset <= high)
    left = np.where(flat, np.where(always, -np.inf, np.inf), np.minimum(*ends))
    right = np.where(flat, np.where(always, np.inf, -np.inf), np.maximum(*ends))
    return left, right


def to_mask(canvas: np.ndarray) -> np.ndarray:
    """(H, W) uint8: 1 object, 0 background, 255 neither: untouched pixels, when there is a HINT."""
    mask = (canvas == OBJECT).astype(np.uint8)
    if (canvas == HINT).any():
        mask[canvas == UNTOUCHED] = 255
    return mask
