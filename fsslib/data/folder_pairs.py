"""One image and its mask from somebody's own folder: read them, or say what is wrong and how to mend it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .base import IGNORE
from .folder_report import PAIR_KINDS, Fault
from .photographs import pixel_counts

if TYPE_CHECKING:
    from PIL.Image import Image

_LOSSY = (".jpg", ".jpeg", ".jfif", ".webp", ".heic", ".avif")
_TURNING = (5, 6, 7, 8)  # EXIF orientations that swap the sides
_ENOUGH = 2**19  # pixels
_CODE = "from PIL import Image; import numpy as np; "


def read_ids(file: Path) -> np.ndarray:
    """A label map (H, W) uint8 of class ids: the indices of a palette, grey values, or 0 and 1. Raises Fault."""
    return _grey(file, _open_mask(file), "ids")


def read_binary(file: Path) -> np.ndarray:
    """A mask of one object (H, W) uint8: 1 object, 0 background, 255 neither. Raises Fault.

    As `pictures.mask_tensor` reads masks: what is not 0 is object, but 255 is neither where there are other values.
    """
    return _binary(_grey(file, _open_mask(file), "binary"))


def examine(image: Path, mask: Path, kind: str) -> dict[int, int]:
    """Pixels of every value in a mask, after both files were decoded and compared. Raises Fault for what is wrong.

    Args:
        kind: `"ids"` for label maps, `"binary"` for masks of one object.
    """
    upright, stored = image_size(image)
    label = _grey(mask, _open_mask(mask), kind)
    if label.shape[::-1] != upright:
        raise _size_fault(image, mask, upright, stored, label.shape[::-1])
    counts = pixel_counts(label)
    if _soft(label, np.array([value for value in counts if value]), kind, mask.suffix.lower() in _LOSSY):
        raise _soft_fault(mask, [*counts], kind)
    return pixel_counts(_binary(label)) if kind == "binary" else counts


def counted(image: Path, mask: Path, kind: str) -> dict[int, int]:
    """`examine` that never raises: a fault is {256 + its number in PAIR_KINDS: 1}, so that an index can keep it."""
    try:
        return examine(image, mask, kind)
    except Fault as fault:
        return {256 + PAIR_KINDS.index(fault.problem.kind): 1}


def faults(image: Path, mask: Path, kind: str) -> list[Fault]:
    """Everything that is wrong with a pair: image and mask may both be broken."""
    found = []
    for check in (lambda: image_size(image), lambda: _grey(mask, _open_mask(mask), kind)):
        try:
            check()
        except Fault as fault:
            found.append(fault)
    try:
        return found or [examine(image, mask, kind)][:0]
    except Fault as fault:
        return [fault]


def image_size(file: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) upright and as stored, after the whole file was decoded (JPEG at an eighth of its size)."""
    from PIL import Image

    _check_bytes(file, "image")
    try:
        with Image.open(file) as picture:
            stored, mode = picture.size, picture.mode
            turned = picture.getexif().get(0x0112) in _TURNING
            picture.draft(None, (max(1, stored[0] // 8), max(1, stored[1] // 8)))
            picture.load()
    except Exception as error:  # damaged files make Pillow raise a dozen types
        cure = "Copy it again, or open it in a picture program and save it as JPEG or PNG."
        raise Fault(file, "unreadable image", f"cannot be decoded ({_said(error, file)})", cure) from error
    if mode.startswith(("I", "F")):
        cure = f"`{_CODE}a = np.array(Image.open({str(file)!r})).astype(float); Image.fromarray((255 * (a - a.min()) "
        cure += f"/ max(np.ptp(a), 1)).astype('uint8')).save({str(file)!r})` stretches it to 8 bit."
        raise Fault(file, "16-bit image", f"holds one {mode} number a pixel, and photographs have 8 bit", cure)
    return stored[::-1] if turned else stored, stored


def _open_mask(file: Path) -> "Image":
    from PIL import Image, ImageOps

    _check_bytes(file, "mask")
    try:
        with Image.open(file) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except Exception as error:
        cure = "Export the mask again as PNG."
        raise Fault(file, "unreadable mask", f"cannot be decoded ({_said(error, file)})", cure) from error


def _grey(file: Path, picture: "Image", kind: str) -> np.ndarray:
    """(H, W) uint8 of a mask whose pixels are one small whole number each."""
    if picture.mode.startswith(("I", "F")):
        raise _deep_fault(file, np.array(picture), kind)
    if picture.mode in ("1", "L", "P"):
        return np.array(picture, dtype=np.uint8)
    colours = np.array(picture.convert("RGB"))
    if (colours == colours[..., :1]).all():
        return np.ascontiguousarray(colours[..., 0])
    raise _colour_fault(file, colours, kind)


def _binary(label: np.ndarray) -> np.ndarray:
    out = (label != 0).astype(np.uint8)
    if ((label != 0) & (label != IGNORE)).any():
        out[label == IGNORE] = IGNORE
    return out


def _soft(label: np.ndarray, values: np.ndarray, kind: str, lossy: bool) -> bool:
    """Whether the mask has values that no one drew: smoothed edges, or what JPEG leaves around them.

    Such values come in thin lines and specks, and most lie between the values on their two sides. `values` are those
    of the mask besides 0.
    """
    if len(values) < 2 or min(label.shape) < 3:
        return False
    if lossy and len(values) > 2:
        return True
    if label.size > _ENOUGH:  # bands of 16 rows show as much
        label = label[np.arange(len(label)) // 16 % (label.size // _ENOUGH + 1) == 0]
    inner, left, right = label[1:-1, 1:-1], label[1:-1, :-2], label[1:-1, 2:]
    above, below = label[:-2, 1:-1], label[2:, 1:-1]
    between = [(a < inner) & (inner < b) for a, b in ((left, right), (right, left), (above, below), (below, above))]
    parts = (inner.ravel(), inner[(inner == right) & (inner == below)], inner[np.logical_or.reduce(between)])
    pixels, flat, ramp = (np.bincount(part, minlength=256)[values] for part in parts)
    thin = flat < pixels / 4
    if len(values) > 8:
        return thin.sum() > len(values) / 2 or len(values) > 64
    edge = thin & (ramp > pixels / 2)
    if kind == "binary":
        # 255 would be taken for "neither" and its edge for the object.
        return values[-1] == IGNORE and bool(edge[:-1].all())
    return edge.sum() >= 2 and edge.sum() > len(values) / 2


def _soft_fault(file: Path, values: list[int], kind: str) -> Fault:
    found = f"{len(values)} grey values ({', '.join(map(str, values[:6]))}{' …' if len(values) > 6 else ''})"
    new = str(file.with_suffix(".png"))
    old = f" Then remove {file.name}." if new != str(file) else ""
    if kind == "binary":
        cure = f"`from PIL import Image; Image.open({str(file)!r}).convert('L')"
        cure += f".point(lambda v: 255 * (v > 127)).save({new!r})` makes its edges hard.{old}"
    else:
        cure = "Export the label map again as PNG, without smoothing; resize label maps with nearest-neighbour only."
    return Fault(file, "soft mask", f"holds {found}, as smoothed edges or JPEG compression leave them", cure)


def _colour_fault(file: Path, picture: np.ndarray, kind: str) -> Fault:
    packed = picture.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    colours, counts = np.unique(packed, return_counts=True)
    ranked = [int(colours[i]) for i in np.argsort(-counts, kind="stable") if colours[i]]
    ranked = [(colour >> 16, colour >> 8 & 255, colour & 255) for colour in ranked]
    said = ", ".join(map(str, ranked[:4])) + (f" and {len(ranked) - 4} more" if len(ranked) > 4 else "")
    load = f"a = np.array(Image.open({str(file)!r}).convert('RGB'))"
    new = str(file.with_suffix(".png"))
    if kind == "binary":
        cure = f"If black is the background: `{_CODE}{load}; Image.fromarray((a != 0).any(-1)).save({new!r})`"
    else:
        table = "{" + ", ".join(f"{at}: {colour}" for at, colour in enumerate(ranked[:4], 1)) + "}"
        cure = f"Give every colour its class id (here they count from 1): `{_CODE}{load}; Image.fromarray(sum("
        cure += f"i * (a == c).all(-1) for i, c in {table}.items()).astype('uint8')).save({new!r})`"
    return Fault(file, "colour mask", f"is a colour picture; its colours besides black: {said}", cure)


def _deep_fault(file: Path, values: np.ndarray, kind: str) -> Fault:
    low, high = (float(part(values)) for part in (np.nanmin, np.nanmax))
    new = str(file.with_suffix(".png"))
    fits = kind == "ids" and low >= 0 and high <= IGNORE
    convert = "a.round().astype('uint8')" if fits else "(a > 0)"
    cure = f"`{_CODE}a = np.array(Image.open({str(file)!r})); Image.fromarray({convert}).save({new!r})` makes it 8 bit"
    cure += "." if fits or kind == "binary" else " with the one class 1; several classes need ids from 1 to 254."
    found = f"holds {values.dtype} numbers from {low:g} to {high:g}, and masks have 8 bit"
    return Fault(file, "16-bit or floating-point mask", found, cure)


def _size_fault(image: Path, mask: Path, upright: tuple, stored: tuple, found: tuple) -> Fault:
    message = f"is {found[0]}x{found[1]} pixels but the image {image.name} is {upright[0]}x{upright[1]}"
    picture, label = repr(str(image)), repr(str(mask))
    if found == stored:
        message += "; the image's EXIF note turns it, and the mask was drawn on the unturned picture"
        cure = f"`{_CODE}Image.fromarray(np.array(Image.open({picture}))).save({picture})` drops the note."
    elif found == upright[::-1]:
        message += ": the sides are swapped"
        cure = f"`from PIL import Image; Image.open({label}).transpose(Image.Transpose.ROTATE_90).save({label})` "
        cure += "turns it to the left (ROTATE_270: to the right)."
    elif abs(found[0] * upright[1] - found[1] * upright[0]) <= max(found + upright):
        cure = f"`from PIL import Image; Image.open({label}).resize({upright}, Image.Resampling.NEAREST).save({label})`"
    else:
        cure = f"The shapes differ too: look for the mask that was drawn on {image.name}, or crop both alike."
    return Fault(mask, "size mismatch", message, cure)


def _check_bytes(file: Path, what: str) -> None:
    if not file.stat().st_size:
        raise Fault(file, "empty file", "the file has no bytes", f"Copy the {what} again.")


def _said(error: Exception, file: Path) -> str:
    """Pillow's message without the path, which the report says already."""
    text = str(error).replace(repr(str(file)), "").replace(str(file), "").strip(". ")
    return text or type(error).__name__
