"""What is said of masks that cannot be used as they are, and code that mends them."""

from pathlib import Path

import numpy as np

from .base import IGNORE
from .folder_report import Fault

_CODE = "from PIL import Image; import numpy as np; "


def soft_fault(file: Path, values: list[int], kind: str) -> Fault:
    """A mask with soft edges: between background and object it leaves everything open."""
    found = f"{len(values)} grey values ({', '.join(map(str, values[:6]))}{' …' if len(values) > 6 else ''})"
    new = str(file.with_suffix(".png"))
    old = f" Then remove {file.name}." if new != str(file) else ""
    if kind == "binary":
        cure = f"`from PIL import Image; Image.open({str(file)!r}).convert('L')"
        cure += f".point(lambda v: 255 * (v > {max(values) // 2})).save({new!r})` makes its edges hard.{old}"
    else:
        cure = "Export the label map again as PNG, without smoothing; resize label maps with nearest-neighbour only."
    return Fault(file, "soft mask", f"holds {found}, as smoothed edges or JPEG compression leave them", cure)


def void_fault(file: Path, counts: dict[int, int]) -> Fault:
    """255 is most of what is drawn; `counts` are the pixels of every value."""
    others = sum(pixels for value, pixels in counts.items() if value not in (0, IGNORE))
    found = f"holds {counts[IGNORE]} pixels of 255 and {others} of other values, so 255 may be the object or ignored"
    cure = f"If 255 is the object: `from PIL import Image; Image.open({str(file)!r}).convert('L')"
    cure += (
        f".point(lambda v: 255 * (v > 127)).save({str(file)!r})`. If it marks ignored pixels, save them as 0, or as "
    )
    return Fault(file, "unclear 255", found, cure + "a border thinner than the object.")


def transparent_fault(file: Path) -> Fault:
    """A mask whose shape may lie in its transparency."""
    cure = f"If the object is what can be seen: `{_CODE}Image.fromarray(np.array(Image.open({str(file)!r})"
    cure += (
        f".convert('RGBA'))[..., 3] > 127).save({str(file)!r})`. If colours tell it apart, save without transparency."
    )
    return Fault(file, "transparent mask", "is transparent in places, so colours or alpha may hold the shape", cure)


def colour_fault(file: Path, picture: np.ndarray, kind: str, renumbered: bool = False) -> Fault:
    """`picture` is (H, W, 3); `renumbered`: by a palette, whose indices may be no class ids."""
    packed = picture.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    colours, counts = np.unique(packed, return_counts=True)
    ranked = [int(colours[i]) for i in np.argsort(-counts, kind="stable") if colours[i]]
    ranked = [(colour >> 16, colour >> 8 & 255, colour & 255) for colour in ranked]
    said = ", ".join(map(str, ranked[:4])) + (f" and {len(ranked) - 4} more" if len(ranked) > 4 else "")
    load = f"a = np.array(Image.open({str(file)!r}).convert('RGB'))"
    new = str(file.with_suffix(".png"))
    if kind == "ids" and renumbered and all(r == g == b for r, g, b in ranked):
        cure = f"If the grey values are the class ids: `{_CODE}Image.fromarray(np.array(Image.open({str(file)!r})"
        cure += f".convert('L'))).save({new!r})`"
    elif kind == "binary":
        cure = f"If black is the background: `{_CODE}{load}; Image.fromarray((a != 0).any(-1)).save({new!r})`"
    else:
        table = "{" + ", ".join(f"{at}: {colour}" for at, colour in enumerate(ranked[:4], 1)) + "}"
        cure = f"Give every colour its class id (here they count from 1): `{_CODE}{load}; Image.fromarray(sum("
        cure += f"i * (a == c).all(-1) for i, c in {table}.items()).astype('uint8')).save({new!r})`"
    if renumbered:
        found = f"its palette has an order of its own, as programs save few colours; colours besides black: {said}"
        return Fault(file, "renumbered palette", found, cure)
    return Fault(file, "colour mask", f"is a colour picture; its colours besides black: {said}", cure)


def deep_fault(file: Path, values: np.ndarray, kind: str) -> Fault:
    """A mask of 16 bits or of floating point numbers."""
    low, high = (float(part(values)) for part in (np.nanmin, np.nanmax))
    new = str(file.with_suffix(".png"))
    fits = kind == "ids" and low >= 0 and high <= IGNORE
    convert = "a.round().astype('uint8')" if fits else "(a > 0)"
    cure = f"`{_CODE}a = np.array(Image.open({str(file)!r})); Image.fromarray({convert}).save({new!r})` makes it 8 bit"
    cure += "." if fits or kind == "binary" else " with the one class 1; several classes need ids from 1 to 254."
    found = f"holds {values.dtype} numbers from {low:g} to {high:g}, and masks have 8 bit"
    return Fault(file, "16-bit or floating-point mask", found, cure)


def size_fault(image: Path, mask: Path, upright: tuple, stored: tuple, found: tuple) -> Fault:
    """A mask of another size than its image (`upright` as seen, `stored` as in the file)."""
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
