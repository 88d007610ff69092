"""What the cures of a report do to files. Each writes one file whole and leaves no second one of the same name.

Masks become 8-bit PNG, whatever they were; a photograph that is changed is kept as `NAME.original`. Nothing is guessed:
what a file holds and the call does not name is a DatasetError, and the file stays as it is.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...episode import IGNORE
from ...errors import DatasetError
from ...files import atomic, located, read_json, write_text
from ..base import few
from ..pictures import ORIENTATION, decoding

if TYPE_CHECKING:
    from PIL.Image import Image

_WAYS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
         8: "ROTATE_90"}  # fmt: skip


def recolour(file: str | Path, table: Mapping[tuple[int, int, int], int], labelmap: str | Path | None = None) -> Path:
    """A mask of colours becomes one of class ids. What is transparent is background.

    Args: table: colour -> class id, for every colour of the folder. labelmap: where to write this table down, so that
        whoever checks the folder again finds the same ids; a file that is there already stays.
    """
    file = _place(file)
    colours = packed(_loaded(file))
    values, places = np.unique(colours, return_inverse=True)
    ids = {pack(colour): number for colour, number in table.items()}
    strange = [unpack(int(value)) for value in values if int(value) not in ids]
    if strange:
        raise DatasetError(f"{file}: the colours {few(strange, 4)} have no class id: add them to the table.")
    new = np.array([ids[int(value)] for value in values], np.uint8)[places].reshape(colours.shape)
    if labelmap is not None and not _place(labelmap).exists():
        lines = [f"{'background' if not n else 'ignore' if n == IGNORE else f'class {n}'}:{c[0]},{c[1]},{c[2]}::{n}"
                 for c, n in sorted(table.items(), key=lambda item: item[1])]  # fmt: skip
        write_text(labelmap, "\n".join(["# label:color_rgb:parts:id", *lines, ""]))
    return _replace(file, new)


def renumber(
    file: str | Path, table: Mapping[float, int] | None = None, *, scale: float = 1, original: bool = False
) -> Path:
    """A mask of any numbers becomes one of class ids from 0 to 255.

    Args: table: number -> class id; None: each number is an id once it was multiplied by `scale`.
        original: leave the old file where it is: the new one names it, and the checker passes over it.
    """
    file = _place(file)
    values, places = np.unique(np.array(_loaded(file)), return_inverse=True)
    ids = scaled(values, scale) if table is None else [table.get(value.item()) for value in values]
    if ids is None or None in ids:
        odd = [value for value in values.tolist() if table is not None and value not in table] or values.tolist()
        raise DatasetError(f"{file}: the numbers {few(odd, 4)} are no class ids: add them to the table.")
    return _replace(file, np.array(ids, np.uint8)[places].reshape(places.shape), original)


def scaled(values: np.ndarray, scale: float) -> list[int] | None:
    """Numbers times `scale` as whole numbers from 0 to 255; None if that would round something away."""
    exact = values.astype(np.float64) * scale
    if not np.isfinite(exact).all():
        return None
    whole = exact.round()
    fits = whole.min() >= 0 and whole.max() <= IGNORE and np.abs(exact - whole).max() < 1e-3
    return whole.astype(int).tolist() if fits else None


def name_ids(folder: str | Path, names: Mapping[int, str]) -> Path:
    """Write the names of all class ids to `classes.json`, which is read before any other file."""
    text = json.dumps({str(number): name for number, name in sorted(names.items())}, ensure_ascii=False, indent=1)
    return write_text(_place(folder) / "classes.json", text + "\n")


def harden(file: str | Path, threshold: float) -> Path:
    """A mask of one object with soft edges: 255 above `threshold`, else 0."""
    picture = _loaded(_place(file))
    picture = picture.convert("L") if picture.mode not in ("L", "F") and picture.mode[0] != "I" else picture
    return _replace(_place(file), 255 * (np.array(picture) > threshold).astype(np.uint8))


def drawn(file: str | Path) -> Path:
    """A mask of one object: 1 for whatever is not black (or 0)."""
    return _changed(file, lambda picture: _marked(picture).astype(np.uint8))


def visible(file: str | Path) -> Path:
    """A mask whose shape is in its transparency: 1 for what can be seen."""
    return _changed(file, lambda picture: (np.array(picture.convert("RGBA"))[..., 3] > 127).astype(np.uint8))


def greys(file: str | Path) -> Path:
    """A label map whose ids are the grey values of its palette."""
    return _changed(file, lambda picture: np.array(picture.convert("L")))


def turn_like(mask: str | Path, image: str | Path) -> Path:
    """A mask that was drawn on the stored picture, turned as the image's EXIF note turns that."""
    from PIL import Image

    with decoding(f"image {image}"), Image.open(image) as picture:
        way = picture.getexif().get(ORIENTATION)
    return _changed(mask, lambda picture: picture.transpose(Image.Transpose[_WAYS[way]]) if way in _WAYS else picture)


def turn(mask: str | Path, way: str) -> Path:
    """A mask whose sides are swapped, turned by a quarter to the `"left"` or to the `"right"`."""
    from PIL import Image

    name = {"left": "ROTATE_90", "right": "ROTATE_270"}[way]
    return _changed(mask, lambda picture: picture.transpose(Image.Transpose[name]))


def resize(mask: str | Path, size: tuple[int, int]) -> Path:
    """A mask of another size (width, height); every pixel is one that was there."""
    from PIL import Image

    return _changed(mask, lambda picture: picture.resize(size, Image.Resampling.NEAREST))


def merge_pages(file: str | Path, cls: int | None = None) -> Path:
    """A mask of several pages becomes one: page k is the mask of class k, where no two overlap; or with `cls` every
    page is of this class."""
    from PIL import Image, ImageSequence

    with decoding(f"mask {file}"), Image.open(file) as picture:
        pages = [_marked(page) for page in ImageSequence.Iterator(picture)]
    alike = len({page.shape for page in pages}) == 1 and len(pages) < IGNORE
    if not alike or (cls is None and np.sum(pages, 0).max() > 1):
        raise DatasetError(f"{file}: its pages overlap, or differ in size: one pixel belongs to one class only.")
    ids = (np.uint8(cls or number) * page for number, page in enumerate(pages, 1))
    return _replace(_place(file), np.maximum.reduce([*ids]))


def unpack_image(file: str | Path, name: str) -> Path:
    """The picture that labelme has kept within its own `file`, as a file `name` beside that."""
    file = _place(file)
    said = read_json(file, "the outlines of", "Expected a file of labelme's.")
    new = file.with_name(name)
    if new.exists():
        raise DatasetError(f"{new} is there already, and would be lost: move it away first.")
    with decoding(f"image in {file}"):
        data = base64.b64decode(said["imageData"])
    with atomic(new) as part:
        part.write_bytes(data)
    return new


def shrink(file: str | Path, low: float | None = None, high: float | None = None) -> Path:
    """The first page of a photograph with 8 bits a channel, under its name; what it was is kept as `NAME.original`.

    Args: low, high: of one number a pixel, what becomes 0 and 255: the same for all photographs of a folder, or they
        differ in brightness. None: the least and the largest of this file.
    """
    from PIL import Image

    file = _place(file)
    picture = _loaded(file, "image")
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.array(picture).astype(np.float64)
        low, high = (np.nanmin(values) if low is None else low), (np.nanmax(values) if high is None else high)
        values = np.nan_to_num((values - low) / max(high - low, 1e-12)).clip(0, 1)
        picture = Image.fromarray((255 * values).astype(np.uint8))
    kept = file.with_name(file.name + ".original")
    if kept.exists() and kept.read_bytes() != file.read_bytes():
        raise DatasetError(f"{kept} is there already, and would be lost: move it away first.")
    known = Image.registered_extensions().get(file.suffix.lower(), "PNG")
    with atomic(file) as part:
        (picture if picture.mode in ("L", "RGB") else picture.convert("RGB")).save(part, format=known)
        if not kept.exists():
            shutil.copy2(file, kept)
    return file


# Colours as one number each; and what all cures share.


def pack(colour: tuple[int, int, int]) -> int:
    """A colour as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def unpack(number: int) -> tuple[int, int, int]:
    """The opposite of `pack`."""
    return number >> 16, number >> 8 & 255, number & 255


def packed(picture: Image) -> np.ndarray:
    """(H, W) int32: every pixel's colour as `pack` has it; black where the picture can be seen through."""
    clear = picture.mode[-1] in "Aa" or "transparency" in picture.info
    colours = np.array(picture.convert("RGBA" if clear else "RGB"))
    numbers = colours[..., :3].astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    return np.where(colours[..., 3] > 127, numbers, 0) if clear else numbers


def _marked(picture: Image) -> np.ndarray:
    """(H, W) bool: whatever is not 0, or not black where the picture has colours."""
    plain = picture.mode in ("1", "L", "F") or picture.mode[0] == "I"
    array = np.array(picture if plain else picture.convert("RGB"))
    return (array != 0).reshape(*array.shape[:2], -1).any(-1)


def _place(file: str | Path) -> Path:
    return located(file, "file", DatasetError)


def _loaded(file: Path, what: str = "mask") -> Image:
    from PIL import Image, ImageOps

    with decoding(f"{what} {file}"), Image.open(file) as picture:
        picture.load()
        return ImageOps.exif_transpose(picture)


def _changed(file: str | Path, change: Callable[[Image], np.ndarray | Image]) -> Path:
    """Write what `change` makes of a mask in its own mode, so that palettes stay."""
    file = _place(file)
    return _replace(file, change(_loaded(file)))


def _replace(file: Path, mask: np.ndarray | Image, original: bool = False) -> Path:
    """Write a mask as PNG in place of `file`."""
    from PIL import Image, PngImagePlugin

    new, note = file.with_suffix(".png"), PngImagePlugin.PngInfo()
    if new != file and new.exists():
        raise DatasetError(f"{new} is there already, and would be lost: move it away first.")
    if original:
        note.add_text("Source", file.name)
    picture = Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
    with atomic(new) as part:
        picture.save(part, format="PNG", pnginfo=note)
    if new != file and not original:
        file.unlink()
    return new
