"""labelme's label files: JSON for each picture, with the outlines that somebody has clicked.

Source: the repository wkentaro/labelme (`label_file.py`, `utils/shape.py`, its examples). `shapes` have a `label`,
`points` in pixels of the upright picture and a `shape_type`; shapes of one label and one `group_id` are parts of one
object. `__ignore__` means 255 and `_background_` 0. labelme's own converter shows what was drawn last; here the smaller
object is seen, as in all formats of outlines. Flags are not read.
"""

import base64
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...arguments import near, whole
from ...episode import IGNORE
from ...errors import DatasetError
from ...files import composed, parse_json, text_or_reason
from ..base import few
from ..photographs.coco_label_maps import OUTSIDE, rasterise
from .advice import code
from .label_maps import FILES
from .layouts import PICTURES, Entry, Pairing, by_stem, is_labelme, json_files, named_picture, pictures
from .names_and_lists import class_names, named_file
from .pairs import Draw, Size
from .problems import Fault, Problem

FORMAT = "Expected labelme's format: 'shapes', a list of objects with 'label', 'points' and 'shape_type'."
_IGNORED, _BACKGROUND = "__ignore__", "_background_"
_CORNERS = 180  # of a circle: within a fifth of a pixel, the grid of `rasterise`, up to radii of a thousand


class Head(NamedTuple):
    """What a label file says besides its outlines."""

    labels: tuple[str, ...]
    picture: str  # `imagePath`, or nothing
    holds_picture: bool  # as `imageData`


def labelme(base: Path, names: object) -> tuple[Pairing, Draw, list[Path]]:
    """The labelled pictures below a folder, `label_map` with the class ids of the labels, and the file of class names.

    Args: names: see `class_names`; without any, in a file neither, the labels count from 1 in alphabetical order.
    Raises DatasetError for names that contradict themselves, and for more than 254 labels.
    """
    pairing, photographs, stems = Pairing("labelme", base, names={}), pictures(base), by_stem(base)
    documents, labels, shown = json_files(base), set(), set()
    files: dict[Path, list[Path]] = defaultdict(list)
    for file in documents:
        beside = next(iter(stems.get(_id(file, base), ())), None)
        if not beside and not is_labelme(file):
            continue
        stat = file.stat()
        head = _head(file, stat.st_mtime_ns, stat.st_size)
        if isinstance(head, Problem):
            pairing.total += 1
            pairing.problems.append(head)
            shown.add(beside)
        elif head.labels:
            labels |= {*head.labels}
            if image := _picture(file, head.picture, beside, photographs, base):
                files[image].append(file)
            else:
                pairing.total += 1
                shown.add(beside)
                _blame_absent(pairing, file, head, beside)
    for image, several in files.items():
        pairing.total += 1
        if len(several) == 1:
            pairing.entries.append(Entry(_id(several[0], base), image, several[0]))
            continue
        message = f"outlines {image.name}, as {few(file.name for file in several[:-1])} does"
        pairing.blame(several[-1], "duplicate name", message, "Put all outlines into one file, and remove the other.")
    shown |= {*files}
    pairing.background = [file for images in stems.values() for file in images if file not in shown]
    pairing.names, used = _classes(names, base, [base, *(file.parent for file in documents)], labels)
    known = {name: cls for cls, name in pairing.names.items()} | {_IGNORED: IGNORE, _BACKGROUND: 0}
    return pairing, partial(label_map, known=known), used


def label_map(file: Path, upright: Size, stored: Size, known: Mapping[str, int]) -> np.ndarray:
    """(H, W) uint8: class ids where objects are, 0 elsewhere, 255 where nobody shall look; overlaps as of `rasterise`.

    Args: upright, stored: see `pairs.Draw`; the one that the file says is taken. known: label -> class id.
    Raises Fault for the first shape that is wrong: what is not drawn would count as background.
    """
    document = _document(file)
    size = tuple(whole(document.get(side)) for side in ("imageWidth", "imageHeight"))
    size = upright if None in size else size
    if size not in (upright, stored):
        message = f"is drawn on {size[0]}x{size[1]} pixels, and the picture has {upright[0]}x{upright[1]}"
        cure = "Use the picture that was annotated, or open both in labelme and save the outlines again."
        raise Fault(file, "size mismatch", message, cure)
    objects: dict[tuple, tuple[int, bool, list | np.ndarray]] = {}
    for at, shape in enumerate(document["shapes"], 1):
        label, group = shape["label"], shape.get("group_id")
        if label not in known:
            message = f"shape {at} has the label {label!r:.60}, which is no class{near(label, known)}"
            raise Fault(file, "unknown class id", message.rstrip("?"), "Give it a label of the list, or add it there.")
        outline = _outline(file, f"shape {at} ({label:.60})", shape, *size)
        if group is None or isinstance(outline, np.ndarray):
            objects[label, at] = known[label], False, outline
        else:
            objects.setdefault((label, repr(group)), (known[label], False, []))[2].extend(outline)
    return rasterise([*objects.values()], *size[::-1])


def _outline(file: Path, which: str, shape: dict, width: int, height: int) -> list[list[float]] | np.ndarray:
    """The outline of a shape as a polygon in a list; a mask (height, width) bool of a shape that is one."""
    kind = shape.get("shape_type") or "polygon"
    try:
        points = np.array(shape.get("points"), np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    pairs = points.ndim == 2 and points.shape[1] == 2 and len(points) > 0
    if not pairs or not np.abs(points).max() <= OUTSIDE * max(width, height):
        raise Fault(file, "broken label", f"{which} has points that are no pairs of numbers in the picture", FORMAT)
    if kind == "mask":
        return _mask(file, which, shape.get("mask"), points, width, height)
    if kind == "circle" and len(points) == 2:
        angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        points = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(angle), np.sin(angle)], 1)
    elif kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif kind not in ("polygon", "rectangle", "oriented_rectangle"):
        cure = "Expected a polygon, a rectangle, a circle of two points or a mask: draw it so, or remove it."
        raise Fault(file, "no polygon", f"{which} is of the type {kind!r:.40} and has no area", cure)
    if len(points) < 3:
        message = f"{which} has {len(points)} points, and an outline has three or more"
        raise Fault(file, "no polygon", message, "Expected an outline: draw it again, or remove it.")
    return [points.ravel().tolist()]


def _mask(file: Path, which: str, code: object, points: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width) bool of a mask that lies, as PNG in base64, with its first pixel at the first of two points."""
    from PIL import Image

    whole_mask = Image.new("L", (width, height))
    try:
        with Image.open(io.BytesIO(base64.b64decode(code))) as picture:
            if picture.width > width or picture.height > height:
                raise ValueError("it is larger than the picture")
            whole_mask.paste(picture.convert("L"), tuple(points.min(0).round().astype(int).tolist()))
    except Exception as error:  # of Pillow's decoders there are a dozen types
        message = f"{which} has a mask that cannot be decoded ({error})"
        raise Fault(file, "broken label", message, "Draw it again. Expected a PNG in base64.") from error
    return np.array(whole_mask) > 0


# Reading the files, and finding their pictures and classes.


def _document(file: Path) -> dict:
    """What a label file says, its labels as texts. Raises Fault."""
    text, reason = text_or_reason(file)
    if not reason and not text.strip():
        raise Fault(file, "empty file", "holds nothing", "Save it again in labelme, or remove it.")
    try:
        document = None if reason else parse_json(text, "cannot be read", FORMAT)
    except DatasetError as error:
        reason = str(error).removesuffix(f". {FORMAT}").removeprefix("cannot be read: ")
    if reason:
        raise Fault(file, "broken JSON", f"cannot be read: {reason}", FORMAT)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise Fault(file, "broken label", "has no list of 'shapes'", FORMAT)
    for at, shape in enumerate(shapes, 1):
        label = shape.get("label")
        label = str(label) if type(label) in (int, float) else label
        if not isinstance(label, str) or not label.strip():
            raise Fault(file, "broken label", f"shape {at} has the label {label!r:.40}", "Give it the name of a class.")
        shape["label"] = composed(label.strip())
    return document


@lru_cache(2**14)
def _head(file: Path, time: int, size: int) -> Head | Problem:
    """Read once for its `time` and `size`: with the picture within, a file is large."""
    try:
        document = _document(file)
    except Fault as fault:
        return fault.problem
    picture = document.get("imagePath")
    picture = picture.strip().replace("\\", "/") if isinstance(picture, str) else ""  # as Windows writes it
    labels = dict.fromkeys(shape["label"] for shape in document["shapes"])
    return Head((*labels,), picture, bool(document.get("imageData")))


def _id(file: Path, base: Path) -> str:
    return composed(os.path.splitext(os.path.relpath(file, base))[0].replace(os.sep, "/"))


def _picture(file: Path, name: str, beside: Path | None, photographs: Mapping, base: Path) -> Path | None:
    """The picture that a label file names, from its folder or anywhere below `base`; else the one beside it."""
    if not name:
        return beside
    there = file.parent / name
    there = Path(os.path.normpath(there)) if ".." in there.parts else there
    return there if os.path.isfile(there) else named_picture(photographs, base, name)


def _blame_absent(pairing: Pairing, file: Path, head: Head, beside: Path | None) -> None:
    name = Path(head.picture).name
    message = f"names the picture {name:.60}, which is not there" if name else "names no picture, and none is called so"
    cure = f"Copy it there, or correct 'imagePath'{f': {beside.name} lies beside it' if beside else ''}."
    if head.holds_picture and not beside:
        fits = Path(name).suffix.lower() in PICTURES and len(name) < 100
        name = name if fits else f"{file.stem}.png"
        cure = f"The file holds it: {code('unpack_image', file, name)} lays it beside."
    pairing.blame(file, "image file missing", message, cure)


def _classes(names: object, base: Path, places: Sequence[Path], labels: set[str]) -> tuple[dict[int, str], list[Path]]:
    """Class id -> name, and the file that says so."""
    if names is None:
        listed = (place / name for place in dict.fromkeys(places) for name in FILES)
        names = next((file for file in listed if file.is_file() and not is_labelme(file)), None)
    if names is not None:
        return class_names(names, base), [named_file(names, base)] if isinstance(names, (str, Path)) else []
    own = sorted(labels - {_IGNORED, _BACKGROUND})
    if len(own) >= IGNORE:
        raise DatasetError(
            f"{base}: {len(own)} labels ({few(own, 4)}), and label maps of 8 bit have room for {IGNORE - 1} classes. "
            "Expected a label for each class, not for each object; datumaro makes a COCO file of more."
        )
    return dict(enumerate(own, 1)), []
