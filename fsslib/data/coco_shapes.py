"""From COCO's polygons and run-length codes to one label map."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..errors import DatasetError
from .base import IGNORE

# Coordinates further out than this many image sides are no drawing: the rasteriser's memory grows with them.
OUTSIDE = 10


def rasterise(
    objects: Sequence[tuple[int, bool, list | dict]], height: int, width: int, dtype: type = np.uint8
) -> np.ndarray:
    """One label map (height, width) of all objects in an image.

    Objects are drawn from the one with most pixels to the one with fewest (equally large ones in the order given), so
    that where two overlap the smaller is seen. PFENet's ready-made PNGs, which most papers use, do not say their order:
    single pixels may differ. Crowds become 255 where no object is drawn.

    Args:
        objects: (class id, whether it is a crowd, segmentation) each, the latter polygons or a run-length code that
            `fault` has nothing against.
    Raises DatasetError where pycocotools is not installed.
    """
    parts = []
    for label, crowd, segmentation in objects:
        mask = _pixels(segmentation, height, width)
        x = np.flatnonzero(mask.any(1))
        if len(x):
            columns = slice(x[0], x[-1] + 1)
            y = np.flatnonzero(mask[columns].any(0))
            window = columns, slice(y[0], y[-1] + 1)
            part = mask[window].copy()  # the rest of the image is let go
            parts.append((not crowd, -int(np.count_nonzero(part)), IGNORE if crowd else label, window, part))
    # Column by column, as COCO's codes run: what is written lies side by side.
    drawn = np.zeros((width, height), dtype)
    for _, _, label, window, mask in sorted(parts, key=lambda part: part[:2]):
        drawn[window][mask] = label
    return np.ascontiguousarray(drawn.T)


def fault(annotation: dict, images: Mapping[int, tuple[str, int, int]], categories: Collection[int]) -> str | None:
    """Why an annotation cannot be drawn; None if it can.

    Nothing goes to pycocotools unseen: it takes four numbers for a box, and a wrong run-length code can crash it.
    """
    image, category, shape = (annotation.get(name) for name in ("image_id", "category_id", "segmentation"))
    try:
        if image not in images or category not in categories:
            return "of an image or category that is not listed"
        _, height, width = images[image]
        if not shape:
            return "without a segmentation"
        if isinstance(shape, dict):
            return None if _runs(shape, height, width) else "with a run-length code that does not fill its image"
        return None if _polygons(shape, height, width) else "without a polygon of three points"
    except (TypeError, KeyError, AttributeError):
        return "that is no COCO annotation"


def _polygons(shape: list, height: int, width: int) -> list[list[float]]:
    limit = OUTSIDE * max(height, width)
    good = []
    for part in shape if isinstance(shape[0], list) else [shape]:
        # sum() is not finite as soon as one number is not; min() and max() may overlook it.
        if (
            len(part) >= 6
            and len(part) % 2 == 0
            and abs(sum(part)) < np.inf
            and -limit <= min(part) <= max(part) <= limit
        ):
            good.append(part)
    return good


def _runs(shape: dict, height: int, width: int) -> list[int] | None:
    """Lengths of the runs of 0, 1, 0, ... down the columns; None unless they fill height x width."""
    if list(shape["size"]) != [height, width]:
        return None
    counts = shape["counts"]
    runs = counts if isinstance(counts, list) else _unpack(counts)
    fits = all(type(run) is int and run >= 0 for run in runs) and sum(runs) == height * width
    return runs if fits else None


def _unpack(text: str | bytes) -> list[int]:
    """COCO's compressed counts: five bits a character from chr(48), 32 says that more follow, 16 in the last one is
    the sign; from the fourth number on, differences to the last but one. An unfinished number is left out."""
    runs, value, shift = [], 0, 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _pixels(shape: list | dict, height: int, width: int) -> np.ndarray:
    """(width, height) bool: the pixels of one segmentation, first column first."""
    if isinstance(shape, dict):
        runs = _runs(shape, height, width)
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    try:
        from pycocotools import mask as coder
    except ImportError as error:
        raise DatasetError("drawing COCO's polygons needs pycocotools: pip install pycocotools") from error
    whole = coder.merge(coder.frPyObjects(_polygons(shape, height, width), height, width))
    return coder.decode(whole).T.view(bool)
