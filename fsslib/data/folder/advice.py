"""What is said of masks that cannot be used as they are, and code that mends them (see `cures`).

A fault says what one file holds. What a colour or a number stands for is a matter of the whole folder, so `advise`
looks at all faults together: one table for all files, from the folder's label map where there is one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...episode import IGNORE
from ..base import few
from ..photographs.pascal import voc_palette
from ..pictures import LOSSY, STEP, soft
from .cures import pack, scaled, unpack
from .problems import Fault, Problem

COLOUR, DEEP, SHALLOW, CLEAR = "colour mask", "16-bit or floating-point mask", "16-bit image", "transparent mask"
RENUMBERED, LABEL_MAP = "renumbered palette", "labelmap.txt"
BLACK, WHITE, _MOST = (0, 0, 0), (255, 255, 255), IGNORE - 1
_EXPORT = "Export the masks again as PNG, without smoothing; resize label maps with nearest-neighbour only."


def code(cure: str, *arguments: object, **options: object) -> str:
    """A call of one of `cures` as it is printed."""
    words = [repr(str(value) if isinstance(value, Path) else value) for value in arguments]
    words += [f"{name}={value!r}" for name, value in options.items()]
    return f"`from fsslib.data.folder.cures import {cure}; {cure}({', '.join(words)})`"


def soft_fault(file: Path, values: list[int], kind: str) -> Fault:
    """A mask with soft edges: between background and object it leaves everything open."""
    cure = _EXPORT
    if kind == "binary":
        cure = code("harden", file, max(values) // 2) + " makes its edges hard."
    message = f"holds {len(values)} grey values ({few(values, 6)}), as smoothed edges or JPEG compression leave them"
    return Fault(file, "soft mask", message, cure)


def void_fault(file: Path, counts: dict[int, int]) -> Fault:
    """255 is most of what is drawn; `counts` are the pixels of every value."""
    others = sum(pixels for value, pixels in counts.items() if value not in (0, IGNORE))
    message = f"holds {counts[IGNORE]} pixels of 255 and {others} of other values, so 255 may be the object or ignored"
    cure = f"If 255 is the object: {code('harden', file, 127)}."
    cure += " If it marks ignored pixels, save them as 0, or as a border thinner than the object."
    return Fault(file, "unclear 255", message, cure)


def colour_fault(file: Path, colours: np.ndarray, doubt: str, kind: str) -> Fault:
    """A mask that differs in colour or transparency; `colours` (H, W) int32 as of `cures.packed`, `doubt` as of
    `pictures.mask_values`."""
    values, counts = np.unique(colours, return_counts=True)
    table = {unpack(int(value)): int(count) for value, count in zip(values, counts)}
    ranked = sorted((colour for colour in table if colour != BLACK), key=lambda colour: -table[colour])
    if doubt == "transparent":
        message, name = "is transparent in places, so colours or alpha may hold the shape", CLEAR
        cure = f"If the object is what can be seen: {code('visible', file)}. "
        cure += "If colours tell it apart, save without transparency."
    else:
        name = RENUMBERED if doubt == "renumbered" else COLOUR
        why = "is a colour picture; its"
        if name == RENUMBERED:
            why = "its palette has an order of its own, as programs save few colours;"
        message = f"{why} colours besides black: {few(ranked, 4)}"
        cure = f"If black is the background: {code('drawn', file)}."
        if BLACK not in table:  # then all of it would be object
            cure = "Draw the background in black, and save the mask again as PNG."
            if WHITE in table and 1 < len(table) <= _MOST:
                ids = {colour: int(colour != WHITE) for colour in ranked}
                cure = f"If white is the background: {code('recolour', file, ids)}."
        if _smooth(colours, values, file.suffix.lower() in LOSSY):
            table, cure = {}, _EXPORT
            if kind == "binary":  # half as light as the lightest
                lightest = max(unpack(int(value)) @ np.array([0.299, 0.587, 0.114]) for value in values)
                cure = f"If black is the background: {code('harden', file, int(lightest) // 2)}."
            message += f"; there are {len(values)}, as smoothed edges or JPEG compression leave them"
    return Fault(file, name, message, cure, table)


def _smooth(colours: np.ndarray, values: np.ndarray, lossy: bool) -> bool:
    """Whether there are too many colours to be classes, or most of them only line others."""
    if len(values) > (2 if lossy else _MOST):
        return True
    places = np.searchsorted(values, colours).astype(np.uint8)
    return len(values) > 9 and soft(places, np.arange(1, len(values)), "ids")


def deep_fault(file: Path, values: np.ndarray, kind: str) -> Fault:
    """A mask of 16 bits or of floating point numbers."""
    numbers, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    low, high = (float(part(values)) for part in (np.nanmin, np.nanmax)) if not np.isnan(values).all() else (0, 0)
    message = f"holds {values.dtype} numbers from {low:g} to {high:g}, and masks have 8 bit"
    if kind == "ids":
        table = dict(zip(numbers.tolist(), counts.tolist())) if len(numbers) <= IGNORE else {}
        return Fault(file, DEEP, message, _EXPORT, table)
    ramp = len(numbers) > 256 or soft(places.reshape(values.shape).astype(np.uint8), np.flatnonzero(numbers), "binary")
    cure = code("harden", file, high / 2) if ramp or (len(numbers) > 2 and (numbers % 1).any()) else code("drawn", file)
    table = dict(zip(numbers.tolist(), counts.tolist())) if not ramp else {}
    return Fault(file, DEEP, message, cure + " makes it 8 bit.", table)


def pages_fault(file: Path, message: str, kind: str) -> Fault:
    """A mask of several pages."""
    cure = "If page 1 is the mask of class 1, page 2 of class 2, …, as in all other files: "
    cure += f"{code('merge_pages', file)} draws them into one label map. Else save one mask a picture."
    if kind == "binary":
        cure = f"If its pages together are the object: {code('merge_pages', file, 1)}. Else save the one that is."
    return Fault(file, "several pages", message, cure)


def size_fault(image: Path, mask: Path, upright: tuple, stored: tuple, shape: tuple) -> Fault:
    """A mask of another size (`shape`) than its image (`upright` as seen, `stored` as in the file)."""
    message = f"is {shape[0]}x{shape[1]} pixels but the image {image.name} is {upright[0]}x{upright[1]}"
    if shape == stored:
        message += "; the image's EXIF note turns it, and the mask was drawn on the unturned picture"
        cure = code("turn_like", mask, image) + " turns the mask too."
    elif shape == upright[::-1]:
        message += ": the sides are swapped"
        cure = code("turn", mask, "left") + " turns it to the left ('right': to the right)."
    elif abs(shape[0] * upright[1] - shape[1] * upright[0]) <= max(shape + upright):
        cure = code("resize", mask, upright) + "."
    else:
        cure = f"The shapes differ too: look for the mask that was drawn on {image.name}, or crop both alike."
    return Fault(mask, "size mismatch", message, cure)


# Cures that are one for the whole folder.


def advise(
    faults: Sequence[Fault], kind: str, base: Path, listed: Mapping[tuple, int] | None, names: Mapping[int, str] | None
) -> list[Problem]:
    """The problems of all faults of a folder, with cures that give the same value the same meaning everywhere.

    Args:
        kind: as for `pairs.examine`. listed: colour -> class id, from the folder's label map.
        names: class id -> name, as far as they are known.
    """
    problems = {id(fault): fault.problem for fault in faults}
    for change in (_shallow, *((_deep, _coloured) if kind == "ids" else ())):
        for fault, cure in change(faults, base, listed, names):
            problems[id(fault)] = replace(fault.problem, cure=cure)
    return [problems[id(fault)] for fault in faults]


def _of(faults: Sequence[Fault], *kinds: str) -> list[Fault]:
    return [fault for fault in faults if fault.problem.kind in kinds and fault.values]


def _shallow(faults: Sequence[Fault], *_) -> Iterator[tuple[Fault, str]]:
    """Photographs of one number a pixel: one range, or the same light looks different in each."""
    deep = _of(faults, SHALLOW)
    ends = [value for fault in deep for value in fault.values if np.isfinite(value)]
    for fault in deep:
        yield fault, code("shrink", fault.problem.file, min(ends), max(ends)) + " stretches it to 8 bit."


def _deep(faults: Sequence[Fault], *_) -> Iterator[tuple[Fault, str]]:
    """Label maps of large numbers, or of fractions."""
    deep = _of(faults, DEEP)
    numbers = np.array(sorted({value for fault in deep for value in fault.values}))
    scales = [scale for scale in (1, 255, 1 / 257, 1 / 256) if len(numbers) and scaled(numbers, scale) is not None]
    for fault in deep:
        file = fault.problem.file
        if np.isnan(numbers).any() or (not scales and len(numbers) > _MOST):
            continue
        if scales and scales[0] == 1:
            cure = code("renumber", file) + " makes it 8 bit."
        elif scales:
            cure = "If they are ids times or divided by a power of 256, as all files say: "
            # A guess leaves the file where it is; the checker passes over it.
            cure += code("renumber", file, scale=scales[0], original=True) + f" Then remove {file.name}."
        else:
            cure = "Give every number its class id (the same in every file; here those beyond 255 take what is free): "
            cure += code("renumber", file, _free(numbers.tolist()))
        yield fault, cure


def _free(numbers: Sequence[float]) -> dict[float, int]:
    """Number -> class id: itself where it can be one, else the first that nothing else has."""
    table = {value: int(value) for value in numbers if value == int(value) and 0 <= value <= IGNORE}
    free = iter(sorted({*range(1, IGNORE)} - {*table.values()}))
    return {value: table[value] if value in table else next(free) for value in numbers}


def _coloured(
    faults: Sequence[Fault], base: Path, listed: Mapping | None, names: Mapping | None
) -> Iterator[tuple[Fault, str]]:
    """Label maps in colours: the table of the label map, VOC's, or one that this writes down for the next check."""
    coloured = _of(faults, COLOUR, RENUMBERED, CLEAR)
    grey = [fault for fault in coloured if not listed and all(r == g == b for r, g, b in fault.values)]
    levels = sorted({0, *(colour[0] for fault in grey for colour in fault.values)})
    if any(high - low < STEP for low, high in pairwise(levels)):
        coloured = [fault for fault in coloured if fault not in grey]
        for fault in grey:
            yield fault, f"If the grey values are the class ids: {code('greys', fault.problem.file)}"
    shown = Counter()
    for fault in coloured:
        shown.update(fault.values)
    seen = [c for c in shown if c != BLACK]
    if not listed and len(seen) == 1 and all(fault.problem.kind == CLEAR for fault in coloured):
        return  # the shape is in the transparency alone
    table, why = _table(coloured, shown, listed, names)
    where = () if listed else (base / LABEL_MAP,)
    for fault in coloured:
        strange = [colour for colour in fault.values if colour not in table]
        if strange:
            yield fault, f"The colours {few(strange, 4)} are no classes: {why}. {_EXPORT}"
        else:
            yield (
                fault,
                f"Give every colour its class id ({why}): {code('recolour', fault.problem.file, table, *where)}",
            )


def _table(faults: Sequence[Fault], shown: Counter, listed: Mapping | None, names: Mapping | None) -> tuple[dict, str]:
    """Colour -> class id, and where it is from."""
    if listed:
        return {BLACK: 0, **listed}, "as the folder's label map has them"
    voc = {unpack(pack(colour)): at for at, colour in enumerate(voc_palette().tolist())}
    ids = {colour: voc.get(colour) for colour in shown}
    if None not in ids.values() and (names is None or set(ids.values()) <= {0, IGNORE, *names}):
        return {BLACK: 0, **ids}, "VOC's colours"
    white = BLACK not in shown and all(WHITE in fault.values for fault in faults) and len(shown) > 1
    empty = WHITE if white else BLACK
    ranked = sorted((colour for colour in shown if colour != empty), key=lambda colour: (-shown[colour], colour))
    if len(ranked) > _MOST:
        return {}, f"all files together have {len(ranked)} colours"
    table = {empty: 0, **{colour: at for at, colour in enumerate(ranked, 1)}}
    why = "the same in every file; here they count from 1, put the right ones"
    return table, why
