"""What the pixels of a mask mean: palette indices or grey values, smoothed edges, and 255."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .base import IGNORE

if TYPE_CHECKING:
    from PIL import Image

LOSSY = (".jpg", ".jpeg", ".jfif", ".webp", ".heic", ".heif", ".avif")
_ENOUGH = 2**19  # pixels of a mask that show whether it is soft
_STEP = 24  # grey values that lie closer than this were not chosen to be told apart by eye: they are class ids


def mask_values(picture: Image.Image, kind: str) -> tuple[np.ndarray, str]:
    """The whole numbers that a decoded mask stands for, one a pixel, and what leaves them open.

    Palette indices are class ids where the palette merely colours them, as VOC's does. A drawing program that saves few
    colours numbers them as it likes (white is often 0): where all of them are grey, a mask of one object means the
    greys. A label map may mean either.

    Args:
        picture: upright, in any mode. kind: `"binary"` for a mask of one object, `"ids"` for a label map.
    Returns (H, W) numbers and `""`; or RGB colours (H, W, 3) and `"colour"`, `"transparent"` (the shape may be in the
    alpha channel) or `"renumbered"` (the order of the palette contradicts its colours).
    """
    alpha, values = _alpha(picture), None
    if picture.mode in ("1", "L") or picture.mode.startswith(("I", "F")):
        values = np.array(picture)
        values = values.astype(np.uint8) if values.dtype == bool else values
    elif picture.mode == "P":
        values = _palette_values(picture, kind)
        if values is None:
            return np.array(picture.convert("RGB")), "renumbered"
    else:
        colours = np.array(picture.convert("RGB"))
        if (colours == colours[..., :1]).all():
            values = np.ascontiguousarray(colours[..., 0])
    # A file without an alpha channel may well call its background transparent: nothing is hidden there.
    if alpha is not None and (picture.mode[-1] in "Aa" or (values is not None and ((alpha > 0) != (values > 0)).any())):
        return np.array(picture.convert("RGB")), "transparent"
    return (colours, "colour") if values is None else (values, "")


def _alpha(picture: Image.Image) -> np.ndarray | None:
    """(H, W) opacity, if it differs from place to place."""
    coloured = picture.palette is not None and picture.palette.mode == "RGBA"
    if picture.mode[-1] in "Aa" or coloured or "transparency" in picture.info:
        alpha = np.array(picture.convert("RGBA"))[..., 3]
        return alpha if alpha.size and alpha.min() != alpha.max() else None
    return None


def _palette_values(picture: Image.Image, kind: str) -> np.ndarray | None:
    """Indices or grey values, whichever is meant; None if that is open."""
    indices, palette = np.array(picture), np.zeros(768, int)
    listed = picture.getpalette("RGB") or []
    palette[: len(listed)] = listed
    palette = palette.reshape(256, 3)
    used = np.flatnonzero(np.bincount(indices.ravel()))
    shown = palette[used]
    if len(used) > 1 and (shown == shown[0]).all():
        return indices  # the colours say nothing
    grey = (shown == shown[:, :1]).all()
    if kind == "binary" and grey:
        return palette[indices, 0].astype(np.uint8)
    black = used[~shown.any(1)]
    # Some data sets draw ignored pixels in black.
    void = kind == "ids" and len(used) > 2 and black.tolist() == [IGNORE]
    if palette[0].any() and 0 in used and len(black) and not void:
        return None
    levels = np.unique(np.append(shown[:, 0], 0))
    ids = grey and len(levels) > 1 and np.diff(levels).min() < _STEP
    return None if ids and (shown[:, 0] != used).any() else indices


def soft(label: np.ndarray, values: np.ndarray, kind: str, lossy: bool = False) -> bool:
    """Whether a mask has values that no one drew: smoothed edges, or what JPEG leaves around them.

    Such values come in thin lines and specks, and most lie between the values on their two sides.

    Args:
        label: (H, W) uint8. values: those of the mask besides 0, sorted. kind: as for `mask_values`.
        lossy: the file's format changes values.
    """
    if len(values) < 2:
        return False
    if lossy and len(values) > 2:
        return True
    if min(label.shape) < 3:
        return len(values) > 8
    if label.size > _ENOUGH:  # bands of 16 rows show as much
        label = label[np.arange(len(label)) // 16 % (label.size // _ENOUGH + 1) == 0]
    inner, left, right = label[1:-1, 1:-1], label[1:-1, :-2], label[1:-1, 2:]
    above, below = label[:-2, 1:-1], label[2:, 1:-1]
    between = [(a < inner) & (inner < b) for a, b in ((left, right), (right, left), (above, below), (below, above))]
    parts = (inner.ravel(), inner[(inner == right) & (inner == below)], inner[np.logical_or.reduce(between)])
    pixels, flat, ramp = (np.bincount(part, minlength=256)[values] for part in parts)
    thin = flat < pixels / 4
    if len(values) > 8:
        return bool(thin.sum() > len(values) / 2 or len(values) > 64)
    edge = thin & (ramp > pixels / 2)
    if kind == "binary":
        # 255 would be taken for "neither" and its edge for the object.
        return bool(values[-1] == IGNORE and edge[:-1].all())
    return bool(edge.sum() >= 2 and edge.sum() > len(values) / 2)


def void_outweighs(label: np.ndarray) -> bool:
    """Whether a mask of one object has other values besides 0 and 255, but fewer such pixels than 255.

    What is "neither" is a thin border; this much of it is the object itself.
    """
    void = int((label == IGNORE).sum())
    return 0 < int((label != 0).sum()) - void < void
