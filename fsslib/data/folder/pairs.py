"""One image and its mask from somebody's own folder: read them, or say what is wrong and how to mend it."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ...episode import IGNORE
from ..photographs.base import pixel_counts
from ..pictures import LOSSY, ORIENTATION, TURNING, dropped, mask_values, rgb, soft, trouble, void_outweighs
from .advice import DEEP, SHALLOW, colour_fault, deep_fault, pages_fault, size_fault, soft_fault, void_fault
from .cures import packed
from .problems import Fault

Size = tuple[int, int]  # width and height
# Draws a label map (H, W) uint8 from a file of outlines, for a picture of two sizes, upright and stored; raises Fault.
Draw = Callable[[Path, Size, Size], np.ndarray]


def read_ids(file: Path) -> np.ndarray:
    """A label map (H, W) uint8 of class ids: the indices of a palette, grey values, or 0 and 1. Raises Fault."""
    return _read_mask(file, "ids")


def read_binary(file: Path) -> np.ndarray:
    """A mask of one object (H, W) uint8: 1 object, 0 background, 255 neither. Raises Fault.
    As `pictures.mask_tensor` reads masks: what is not 0 is object, but 255 is neither where there are other values."""
    label = _read_mask(file, "binary")
    out = (label != 0).astype(np.uint8)
    if ((label != 0) & (label != IGNORE)).any():
        out[label == IGNORE] = IGNORE
    return out


def examine(image: Path, mask: Path, kind: str | Draw) -> dict[int, int]:
    """Pixels of every value in a mask, after both files were decoded and compared. Raises Fault for what is wrong.

    Args: kind: `"ids"` for label maps, `"binary"` for masks of one object; what draws files of outlines.
    """
    upright, stored = image_size(image)
    if callable(kind):
        return pixel_counts(kind(mask, upright, stored))
    label = _read_mask(mask, kind)
    if label.shape[::-1] != upright:
        raise size_fault(image, mask, upright, stored, label.shape[::-1])
    counts = pixel_counts(label)
    if soft(label, np.array([value for value in counts if value]), kind, mask.suffix.lower() in LOSSY):
        raise soft_fault(mask, [*counts], kind)
    if kind == "binary" and void_outweighs(label):
        raise void_fault(mask, counts)
    return counts


def objects(counts: np.ndarray) -> np.ndarray:
    """(masks,) pixels of the object from (masks, 256) pixels of every value, as `read_binary` reads them."""
    others = counts[:, 1:IGNORE].sum(1)
    return np.where(others, others, counts[:, IGNORE])


def counted(image: Path, mask: Path, kind: str | Draw) -> dict[int, int]:
    """`examine` for an index: nothing for a fault, which is never kept, since a file that could not be read (its
    permissions, a full table of open files, a decoder that is missing) may be sound the next time."""
    try:
        return examine(image, mask, kind)
    except Fault:
        return {}


def examined(image: Path, mask: Path, kind: str | Draw) -> tuple[dict[int, int], list[Fault]]:
    """`examine` now, and everything that is wrong with a pair: image and mask may both be broken."""
    faults = []
    for check in (lambda: image_size(image), lambda: callable(kind) or _read_mask(mask, kind)):
        try:
            check()
        except Fault as fault:
            faults.append(fault)
    try:
        return ({}, faults) if faults else (examine(image, mask, kind), [])
    except Fault as fault:
        return {}, [fault]


def first_copies(files: Iterable[Path]) -> dict[Path, Path]:
    """File -> the first one with the same content, for those that are not the first of theirs; unreadable ones never.
    Few files have the same size, and of those few the same end: hardly any is read as a whole."""
    groups = [list(dict.fromkeys(files))]
    for mark in (lambda file: file.stat().st_size, _end, lambda file: hashlib.sha256(file.read_bytes()).digest()):
        parts: dict[tuple[int, object], list[Path]] = {}
        for at, group in enumerate(groups):
            for file in group:
                with contextlib.suppress(OSError):
                    parts.setdefault((at, mark(file)), []).append(file)
        groups = [part for part in parts.values() if len(part) > 1]
    return {file: group[0] for group in groups for file in group[1:]}


def _end(file: Path, length: int = 4096) -> bytes:
    with open(file, "rb") as stream:
        stream.seek(max(0, file.stat().st_size - length))
        return stream.read()


def image_size(file: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) upright and as stored, after the whole file was decoded (JPEG at an eighth of its size)."""
    from PIL import Image

    cure = "Copy it again, or open it in a picture program and save it as JPEG or PNG."
    with _decoding(file, "image", cure), Image.open(file) as picture:
        words = dropped(picture, str(file))
        stored, mode = picture.size, picture.mode
        turned = picture.getexif().get(ORIENTATION) in TURNING
        picture.draft(None, (max(1, stored[0] // 8), max(1, stored[1] // 8)))
        picture.load()
        if words:
            ends = picture.getextrema() if mode == "F" or mode.startswith("I") else ()
            kind = "several pages" if "pages" in words[0] else SHALLOW
            raise Fault(file, kind, *words, dict.fromkeys(ends if kind == SHALLOW else ()))
        if mode not in ("RGB", "L", "1", "P", "RGBA", "CMYK", "YCbCr", "LA"):
            rgb(picture)  # colours that nothing can convert
    return stored[::-1] if turned else stored, stored


def _read_mask(file: Path, kind: str) -> np.ndarray:
    """(H, W) uint8 of a mask whose pixels are one small whole number each."""
    from PIL import Image, ImageOps

    with _decoding(file, "mask", "Export the mask again as PNG."), Image.open(file) as picture:
        if words := dropped(picture, str(file), "mask"):
            raise pages_fault(file, words[0], kind) if "pages" in words[0] else Fault(file, DEEP, *words)
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        values, doubt = mask_values(picture, kind)
        if doubt:
            raise colour_fault(file, packed(picture), doubt, kind)
    if values.dtype != np.uint8:
        raise deep_fault(file, values, kind)
    return values


@contextlib.contextmanager
def _decoding(file: Path, what: str, cure: str) -> Iterator[None]:
    """A Fault with Pillow's message, but without the path, which the report says already."""
    try:
        if not file.stat().st_size:
            raise Fault(file, "empty file", "the file has no bytes", f"Copy the {what} again.")
        yield
    except Fault:
        raise
    except Exception as error:
        raise Fault(file, f"unreadable {what}", *trouble(error, what, str(file), cure)) from error
