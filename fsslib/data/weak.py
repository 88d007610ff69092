"""Weak support annotations made from masks: boxes and scribbles instead of outlines (PANet, arXiv 1908.06391, sec. 4).

Everything here is a pure function of its arguments and an integer seed; no argument is ever changed.
"""

import numbers
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from .base import IGNORE
from .stroke import longest_stroke

KINDS = ("mask", "box", "scribble")
EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner belong together


def _flat(value: Tensor | np.ndarray, name: str) -> np.ndarray:
    """A copy as a two-dimensional array, so that nothing below can write into the caller's data."""
    array = value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else np.array(value)
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise DatasetError(f"{name}: found {array.dtype} {array.shape}, expected bool or integers (H, W).")
    return array


def _same(name: str, array: np.ndarray, like: np.ndarray) -> None:
    if array.shape != like.shape:
        raise DatasetError(
            f"{name}: found shape {array.shape}, expected {like.shape} like the mask: resize both alike."
        )


def _boolean(*maps: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(m, dtype=bool)) for m in maps)


def _components(fg: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.label(fg, structure=EIGHT)[0]


def box_support(fg: Tensor | np.ndarray, instances: Tensor | np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Foreground and background of a support annotated with boxes.

    Args:
        fg: (H, W) bool or integer, non-zero on the class.
        instances: (H, W) integer ids, 0 for none; without it the connected components (8 neighbours) of `fg`.
    Returns:
        Two (H, W) bool tensors: the filled tight box of the largest instance (most pixels inside `fg`, ties to the
        lowest id; corners inclusive), and everything outside the boxes of all instances of the class. An empty `fg`
        gives no foreground and background everywhere.
    Raises DatasetError for wrong shapes, and for an instance map that names no instance on a non-empty object.
    """
    fg = _flat(fg, "fg") != 0
    ids = _components(fg) if instances is None else _flat(instances, "instances").astype(np.int64)
    _same("instances", ids, fg)
    ids = np.where(fg, ids, 0)
    numbers_, sizes = np.unique(ids[ids != 0], return_counts=True)
    if fg.any() and not len(numbers_):
        raise DatasetError("instances: no id other than 0 on the object. Pass its instance map, or instances=None.")
    largest, union = np.zeros_like(fg), np.zeros_like(fg)
    for number in numbers_:
        rows, columns = np.nonzero(ids == number)
        box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        union[box] = True
        if number == numbers_[sizes.argmax()]:
            largest[box] = True
    return _boolean(largest, ~union)


def scribble_masks(
    scribble_map: Tensor | np.ndarray,
    fg: Tensor | np.ndarray,
    choose: Callable[[Sequence[int]], int] | int = 0,
    dilation: int = 0,
) -> tuple[Tensor, Tensor]:
    """Foreground and background of a support annotated with a prepared scribble map.

    Args:
        scribble_map: (H, W), 0 background scribble, 255 unlabelled, other values the id of a scribbled instance.
        fg: (H, W), non-zero on the class.
        choose: picks one of the ascending instance ids found on the class; an integer seeds a `random.Random().choice`.
        dilation: side of the square window that thickens the strokes (a minimum filter, so that background and low
            ids win); 0 is off.
    Returns:
        Two (H, W) bool tensors: the chosen instance's strokes inside `fg` (all false where there is none), and the
        background strokes, whatever the class. Raises DatasetError for wrong shapes or a negative window.
    """
    strokes, fg = _flat(scribble_map, "scribble_map"), _flat(fg, "fg") != 0
    _same("scribble_map", strokes, fg)
    if not isinstance(dilation, numbers.Integral) or dilation < 0:
        raise DatasetError(f"dilation={dilation!r}: expected a window of 0 (off) or more pixels.")
    if dilation:
        from scipy import ndimage

        strokes = ndimage.minimum_filter(strokes, size=int(dilation))
    found = [int(v) for v in np.unique(strokes[fg]) if v not in (0, IGNORE)]
    pick = choose if callable(choose) else random.Random(choose).choice
    chosen = (strokes == pick(found)) & fg if found else np.zeros_like(fg)
    return _boolean(chosen, strokes == 0)


def scribble(fg: Tensor | np.ndarray, seed: int = 0, width: int | None = None) -> Tensor:
    """One stroke through the largest connected part of an object, as a person would draw it.

    A smooth curve between two far ends of the part's deep inside, kept away from outline and image border; `width` is
    the pen in pixels (default: a hundredth of the longer image side). A simple robot in the spirit of DAVIS' and
    PANet's, but deterministic. Returns (H, W) bool, inside `fg`, non-empty for every non-empty `fg`.
    """
    fg = _flat(fg, "fg") != 0
    return _boolean(_draw(fg, seed, width))[0]


def background_scribble(
    fg: Tensor | np.ndarray, seed: int = 0, width: int | None = None, ignore: Tensor | np.ndarray | None = None
) -> Tensor:
    """One stroke through the largest connected part of the background: (H, W) bool, outside `fg` and `ignore`.

    Empty only where there is no background.
    """
    taken = _flat(fg, "fg") != 0
    if ignore is not None:
        other = _flat(ignore, "ignore") != 0
        _same("ignore", other, taken)
        taken |= other
    return _boolean(_draw(~taken, seed, width))[0]


def _draw(region: np.ndarray, seed: int, width: int | None) -> np.ndarray:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise DatasetError(f"seed={seed!r}: expected a whole number.")
    width = max(1, round(max(region.shape) / 100)) if width is None else width
    if not isinstance(width, numbers.Integral) or width < 1:
        raise DatasetError(f"width={width!r}: expected a pen of 1 or more pixels.")
    if not region.any():
        return region
    parts = _components(region)
    largest = parts == np.bincount(parts[region]).argmax()
    return longest_stroke(largest, np.random.default_rng(int(seed) % 2**63), int(width))


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
    if kind not in KINDS:
        raise DatasetError(f"annotation {kind!r} is unknown: use one of {', '.join(KINDS)}.")
    label = _flat(mask, "mask")
    wrong = np.setdiff1d(label, (0, 1, IGNORE)).tolist()
    if wrong:
        raise DatasetError(f"mask: found the values {wrong[:5]}, expected 1 object, 0 background and 255 ignored.")
    if kind == "mask":
        return mask.clone()
    if kind == "box":
        fg, bg = box_support(label == 1)
    else:
        fg, bg = scribble(label == 1, seed), background_scribble(label == 1, seed, ignore=label == IGNORE)
    out = torch.full_like(mask, IGNORE)
    out[bg.to(mask.device) & (mask == 0)] = 0
    out[fg.to(mask.device)] = 1
    return out
