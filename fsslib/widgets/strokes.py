"""Drawings as data: strokes in image pixels, kept as JSON, replayed into support masks by an exact rule.

A document is a dictionary of nothing but JSON:

    {"version": 1, "size": [height, width] or null, "cursor": 2, "history": [
        {"tool": "brush", "label": 1, "width": 6.0, "points": [[x, y], ...]},
        {"tool": "scribble", "label": 0, "width": 2.0, "points": [[x, y], ...]},
        {"tool": "eraser", "width": 6.0, "points": [[x, y], ...]},
        {"tool": "box", "label": 1, "points": [[x, y], [x, y]]},
        {"tool": "polygon", "label": 1, "points": [[x, y], [x, y], [x, y], ...]},
        {"tool": "clear"}]}

`size` is the picture the strokes were drawn on (null: any). The first `cursor` entries of `history` are in force, the
others are what redo brings back. Labels: 1 object, 0 background. `x` runs to the right and `y` down from the picture's
upper left corner; points may lie outside. A polygon closes itself, from its last corner to the first, and may cross
itself. `paint` says which pixels belong to a stroke: the same ones on every machine.

What a mask says (`rasterise`): brush, box and polygon state what is object, so whatever they leave is background. A
background scribble is only a hint, and so is then everything else: as long as a pixel of one is to be seen, untouched
pixels are 255, neither. The eraser makes pixels untouched. Later strokes cover earlier ones.
"""

import json
import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..files import located, read_json, write_text

VERSION = 1
SHAPE, LINE = {"tool", "label", "points"}, {"tool", "label", "width", "points"}
FIELDS = {"brush": LINE, "scribble": LINE, "eraser": LINE - {"label"}}
FIELDS |= {"box": SHAPE, "polygon": SHAPE, "clear": {"tool"}}
LIMIT = 1e6  # pixels: beyond this a coordinate is a mistake, and squares lose the pixel
UNTOUCHED, OBJECT, BACKGROUND, HINT = range(4)  # what a pixel says; HINT: background said by a scribble
GRID = 1024  # corners of polygons per pixel; the largest for which products of two distances fit into 64 bits


def empty(height: int | None = None, width: int | None = None) -> dict:
    """A document without strokes, for a picture of this size or, by default, for any."""
    return check({"version": VERSION, "size": None if height is None else [height, width], "cursor": 0, "history": []})


def check(document: Any) -> dict:
    """A copy of a valid document, coordinates and widths as floats; raises DatasetError naming the entry at fault."""
    fields = ["cursor", "history", "size", "version"]
    given = sorted(map(str, document)) if isinstance(document, dict) else type(document).__name__
    _insist(given == fields, f"strokes: found {given}, expected a dictionary with {', '.join(fields)}.")
    version, size, history, cursor = (document[name] for name in ("version", "size", "history", "cursor"))
    _insist(
        version == VERSION,
        f"strokes: version {version!r}, this library reads version {VERSION}: save the drawing again.",
    )
    if size is not None:
        fits = isinstance(size, Sequence) and len(size) == 2 and all(_whole(side) and side >= 1 for side in size)
        _insist(fits, f"strokes: size {size!r}, expected [height, width] in pixels, or null for any picture.")
        size = [int(side) for side in size]
    fits = isinstance(history, Sequence) and not isinstance(history, str)
    _insist(fits, f"strokes: history is {type(history).__name__}, expected a list of strokes.")
    fits = _whole(cursor) and 0 <= cursor <= len(history)
    _insist(fits, f"strokes: cursor {cursor!r}, expected 0 to {len(history)}, the number of strokes in force.")
    strokes = [_checked(stroke, number) for number, stroke in enumerate(history)]
    return {"version": VERSION, "size": size, "cursor": int(cursor), "history": strokes}


def _insist(fits: bool, text: str) -> None:
    if not fits:
        raise DatasetError(text)


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _checked(stroke: Any, number: int) -> dict:
    where = f"stroke {number}"
    tool = stroke.get("tool") if isinstance(stroke, dict) else None
    fits = isinstance(tool, str) and tool in FIELDS
    _insist(fits, f"{where}: tool {tool!r}, expected a dictionary with one of the tools {', '.join(FIELDS)}.")
    given, wanted = sorted(map(str, stroke)), sorted(FIELDS[tool])
    _insist(given == wanted, f"{where}: found the fields {given}, expected {wanted} of a {tool}.")
    checked: dict = {"tool": tool}
    if "label" in stroke:
        label = stroke["label"]
        fits = _whole(label) and label in (0, 1)
        _insist(fits, f"{where}: label {label!r}, expected 1 for object or 0 for background.")
        checked["label"] = int(label)
    if "width" in stroke:
        width = stroke["width"]
        fits = isinstance(width, numbers.Real) and not isinstance(width, bool) and 1 <= width <= LIMIT
        _insist(fits, f"{where}: width {width!r}, expected a pen of 1 or more image pixels.")
        checked["width"] = float(width)
    if "points" in stroke:
        try:
            points = np.asarray(stroke["points"])
        except ValueError:  # lists of unequal length
            points = np.empty(0)
        fits = points.ndim == 2 and points.shape[1] == 2 and points.dtype.kind in "iuf"
        _insist(fits, f"{where}: points must be one or more pairs [x, y] of numbers, in image pixels.")
        fits = (np.abs(points) <= LIMIT).all()  # false for NaN too
        _insist(fits, f"{where}: a coordinate is not finite or beyond {LIMIT:.0f} pixels: draw it again.")
        count, corners = len(points), {"box": "two opposite corners", "polygon": "three or more corners"}
        fits = count == 2 if tool == "box" else count >= 3 or tool != "polygon"
        _insist(fits, f"{where}: {count} points, expected {corners.get(tool)} of the {tool}.")
        checked["points"] = points.astype(float).tolist()
    return checked


def add(document: dict, stroke: dict) -> dict:
    """The document with one more stroke, given as a dictionary; what could have been redone is gone."""
    document = check(document)
    history = [*document["history"][: document["cursor"]], _checked(stroke, document["cursor"])]
    return {**document, "history": history, "cursor": len(history)}


def clear(document: dict) -> dict:
    """The document with an empty drawing; like any stroke this can be undone."""
    return add(document, {"tool": "clear"})


def undo(document: dict) -> dict:
    """The document without its last stroke in force; unchanged where there is none."""
    return _moved(document, -1)


def redo(document: dict) -> dict:
    """The document with the stroke that was undone last; unchanged where there is none."""
    return _moved(document, 1)


def _moved(document: dict, step: int) -> dict:
    document = check(document)
    return {**document, "cursor": min(max(document["cursor"] + step, 0), len(document["history"]))}


def rasterise(document: dict, height: int, width: int) -> np.ndarray:
    """The mask (height, width) uint8 of a document: 1 object, 0 background, 255 neither (see the top of this file).
    Raises DatasetError for a malformed document, and for one that was drawn on a picture of another size."""
    document = check(document)
    if document["size"] not in (None, [height, width]):
        drawn = " x ".join(map(str, document["size"]))
        raise DatasetError(f"strokes: drawn on {drawn} pixels (height x width), the picture has {height} x {width}.")
    fits = all(_whole(side) and side >= 1 for side in (height, width))
    _insist(fits, f"height {height!r}, width {width!r}: expected whole numbers of pixels, at least 1.")
    canvas = np.zeros((height, width), np.uint8)
    for stroke in document["history"][: document["cursor"]]:
        paint(canvas, stroke)
    return to_mask(canvas)


def save(document: dict, path: str | Path) -> Path:
    """Write a valid document as a JSON file, whole or not at all."""
    return write_text(path, json.dumps(check(document), separators=(",", ":")) + "\n")


def load(path: str | Path) -> dict:
    """Read what `save` wrote. Raises DatasetError naming the file when it is missing or not a valid document."""
    if not located(path, "strokes", DatasetError).is_file():
        raise DatasetError(f"there is no file of strokes {path}.")
    document = read_json(path, "strokes from", "Save the drawing again.")
    try:
        return check(document)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


# ---- strokes to pixels ----


def paint(canvas: np.ndarray, stroke: dict) -> None:
    """Draw one valid stroke (see `check`) on `canvas` (H, W) uint8 in place: UNTOUCHED, OBJECT, ... pixels."""
    tool, (height, width) = stroke["tool"], canvas.shape
    if tool == "clear":
        canvas[:] = UNTOUCHED
        return
    points = np.asarray(stroke["points"], dtype=np.float64)
    value = {1: OBJECT, 0: HINT if tool == "scribble" else BACKGROUND}.get(stroke.get("label"), UNTOUCHED)
    if tool == "box":
        low, high = np.sort(points, axis=0)
        first = np.maximum(np.ceil(low - 0.5), 0).astype(int)
        last = np.maximum(np.floor(high - 0.5) + 1, 0).astype(int)
        canvas[first[1] : last[1], first[0] : last[0]] = value
        return
    if tool == "polygon":
        top, inside = _inside(points, height, width)
        canvas[top : top + len(inside)][inside] = value
        return
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
