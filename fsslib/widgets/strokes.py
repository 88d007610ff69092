"""Drawings as data: strokes in image pixels, kept as JSON, replayed into support masks.

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
itself. `raster.py` says which pixels belong to a stroke.

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
from ..files import atomic
from .raster import paint, to_mask

VERSION = 1
FIELDS = {
    "brush": {"tool", "label", "width", "points"},
    "scribble": {"tool", "label", "width", "points"},
    "eraser": {"tool", "width", "points"},
    "box": {"tool", "label", "points"},
    "polygon": {"tool", "label", "points"},
    "clear": {"tool"},
}
LIMIT = 1e6  # pixels: beyond this a coordinate is a mistake, and squares lose the pixel


def empty(height: int | None = None, width: int | None = None) -> dict:
    """A document without strokes, for a picture of this size or, by default, for any."""
    return check({"version": VERSION, "size": None if height is None else [height, width], "cursor": 0, "history": []})


def check(document: Any) -> dict:
    """A copy of a valid document, coordinates and widths as floats; raises DatasetError naming the entry at fault."""
    fields = {"version", "size", "cursor", "history"}
    if not isinstance(document, dict) or set(document) != fields:
        found = sorted(map(str, document)) if isinstance(document, dict) else type(document).__name__
        raise DatasetError(f"strokes: found {found}, expected a dictionary with {', '.join(sorted(fields))}.")
    if document["version"] != VERSION:
        raise DatasetError(f"strokes: version {document['version']!r}, this library reads version {VERSION}.")
    size, history, cursor = document["size"], document["history"], document["cursor"]
    if size is not None:
        if not isinstance(size, Sequence) or len(size) != 2 or not all(_whole(side) and side >= 1 for side in size):
            raise DatasetError(f"strokes: size {size!r}, expected [height, width] in pixels, or null for any picture.")
        size = [int(side) for side in size]
    if not isinstance(history, Sequence) or isinstance(history, str):
        raise DatasetError(f"strokes: history is {type(history).__name__}, expected a list of strokes.")
    if not _whole(cursor) or not 0 <= cursor <= len(history):
        raise DatasetError(f"strokes: cursor {cursor!r}, expected 0 to {len(history)}, the number of strokes in force.")
    strokes = [_checked(stroke, number) for number, stroke in enumerate(history)]
    return {"version": VERSION, "size": size, "cursor": int(cursor), "history": strokes}


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _checked(stroke: Any, number: int) -> dict:
    where = f"stroke {number}"
    tool = stroke.get("tool") if isinstance(stroke, dict) else None
    if not isinstance(tool, str) or tool not in FIELDS:
        raise DatasetError(f"{where}: tool {tool!r}, expected a dictionary with one of the tools {', '.join(FIELDS)}.")
    if set(stroke) != FIELDS[tool]:
        found, wanted = sorted(map(str, stroke)), sorted(FIELDS[tool])
        raise DatasetError(f"{where}: found the fields {found}, expected {wanted} of a {tool}.")
    checked: dict = {"tool": tool}
    if "label" in stroke:
        if not _whole(stroke["label"]) or stroke["label"] not in (0, 1):
            raise DatasetError(f"{where}: label {stroke['label']!r}, expected 1 for object or 0 for background.")
        checked["label"] = int(stroke["label"])
    if "width" in stroke:
        width = stroke["width"]
        real = isinstance(width, numbers.Real) and not isinstance(width, bool)
        if not real or not 1 <= width <= LIMIT:
            raise DatasetError(f"{where}: width {width!r}, expected a pen of 1 or more image pixels.")
        checked["width"] = float(width)
    if "points" in stroke:
        try:
            points = np.asarray(stroke["points"])
        except ValueError:  # lists of unequal length
            points = np.empty(0)
        if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "iuf":
            raise DatasetError(f"{where}: points must be one or more pairs [x, y] of numbers, in image pixels.")
        if not (np.abs(points) <= LIMIT).all():  # false for NaN too
            raise DatasetError(f"{where}: a coordinate is not finite or beyond {LIMIT:.0f} pixels.")
        if tool == "box" and len(points) != 2:
            raise DatasetError(f"{where}: {len(points)} points, expected two opposite corners of the box.")
        if tool == "polygon" and len(points) < 3:
            raise DatasetError(f"{where}: {len(points)} points, expected three or more corners of the polygon.")
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

    Raises DatasetError for a malformed document, and for one that was drawn on a picture of another size.
    """
    document = check(document)
    if document["size"] not in (None, [height, width]):
        drawn = " x ".join(map(str, document["size"]))
        raise DatasetError(f"strokes: drawn on {drawn} pixels (height x width), the picture has {height} x {width}.")
    if not all(_whole(side) and side >= 1 for side in (height, width)):
        raise DatasetError(f"height {height!r}, width {width!r}: expected whole numbers of pixels, at least 1.")
    canvas = np.zeros((height, width), np.uint8)
    for stroke in document["history"][: document["cursor"]]:
        paint(canvas, stroke)
    return to_mask(canvas)


def save(document: dict, path: str | Path) -> Path:
    """Write a valid document as a JSON file, whole or not at all."""
    text = json.dumps(check(document), separators=(",", ":"))
    with atomic(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def load(path: str | Path) -> dict:
    """Read what `save` wrote. Raises DatasetError naming the file when it is missing or not a valid document."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file of strokes {path}.") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read strokes from {path}: {error}. Save the drawing again.") from error
    try:
        return check(document)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
