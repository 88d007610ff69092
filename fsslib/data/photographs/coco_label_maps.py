"""Label maps from a file in COCO's annotation format, rasterised once into the user's cache folder.

`CocoMasks` keeps them; the second half of the file goes from polygons and run-length codes to one label map, for other
formats too.
"""

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import files
from ...arguments import whole
from ...episode import IGNORE
from ...errors import DatasetError
from ...files import atomic, clear_abandoned, comparable, composed, read_json
from ..base import few, positions
from ..pictures import decoding, open_picture, picture_sizes, rgb
from .base import pixel_counts
from .label_index import LabelIndex, in_threads, load_checked, save_checked

FORMAT = 2
# Coordinates further out than this many image sides are no drawing: the rasteriser's memory grows with them.
OUTSIDE = 10
UNLISTED = "of an image or category that is not listed"
EXPECTED = (
    "Expected COCO's format: one JSON object with 'images' (id, file_name, height, width), 'categories' (id, name) and "
    "'annotations'. Copy it from the archive again."
)
RENUMBER = "Where files were put together, give all that the second brings new ids, in its annotations too."
LARGEST = 2**29  # pixels of an image: more is a slip, and would fill the memory
_OPEN: dict[Path, "CocoMasks"] = {}


class Listed(NamedTuple):
    """One image of an annotation file: its file name, and its size in pixels."""

    file: str
    height: int
    width: int


class Annotations(NamedTuple):
    """What an annotation file says, its ids as whole numbers."""

    images: dict[int, Listed]  # by image id; a file that has several ids stands under the first
    categories: dict[int, str]  # category id -> name
    headings: set[str]  # the supercategories of categories with another name
    annotations: list[dict]
    again: dict[int, int]  # further id of a file -> its first one, which its annotations have now


class CocoMasks:
    """The label maps of the images in a COCO-format file: (H, W) class ids, 0 background, 255 ignored.

    Classes are numbered from 1 in the order of their category ids, leaving out 255. Overlapping objects and crowds:
    see `rasterise`. Maps are files `ID.png` in a folder that belongs to path, size and time of the
    annotation file. Each is written beside its name and renamed, so a killed build goes on where it was; one that
    cannot be decoded or has the wrong size is made again. Where the cache cannot be written, the index of their pixels
    says so, and maps are made whenever they are asked for.

    Use `open_masks`: it makes one object per file, however many folds and splits ask. Raises DatasetError for a file
    that is broken or not in this format.
    """

    def __init__(self, file: Path, folder: Path):
        self.file, self.folder = file, folder
        # Per image the (class id or 255, is it a crowd, segmentation) of its objects; in memory only while needed.
        self._objects: dict[int, list[tuple[int, bool, list | dict]]] | None = None
        self._kept = True  # until the cache turns out not to be writable
        head = load_checked(folder / "head.json") or self._read_annotations()
        self.names: dict[int, str] = dict(map(tuple, head["names"]))  # of every class id
        self.images = {number: Listed(*rest) for number, *rest in head["images"]}  # by image id
        self.skipped: dict[str, int] = head["skipped"]  # why annotations were left out -> how many
        self._dtype = np.uint8 if max(self.names) < IGNORE else np.uint16

    def file_of(self, image: int) -> Path:
        """Where the label map of image id `image` is kept."""
        return self.folder / f"{image}.png"

    def read(self, image: int) -> np.ndarray:
        """The label map (H, W) of image id `image`, uint8 (uint16 with more than 254 classes)."""
        with contextlib.suppress(DatasetError):  # not there, or broken: made again
            mask = np.array(open_picture(self.file_of(image), "label map"))
            if mask.dtype == self._dtype and mask.shape == self.images[image][1:]:
                return mask
        return self._make(image)

    def areas(self, images: Sequence[tuple[int, Path]]) -> np.ndarray:
        """(len(images), last class + 1) int32: pixels of each class id at the original size. Makes all maps first.
        `images` are ids with their photographs. Raises DatasetError for the first that has not its annotated size."""
        self._make_missing([number for number, _ in images])
        pairs = [(photograph, self.file_of(number)) for number, photograph in images]
        table = LabelIndex("coco", self.folder, self._counts).counts(pairs, max(*self.names, IGNORE) + 1)
        return table[:, : max(self.names) + 1].astype(np.int32)

    def read_photograph(self, file: Path, image: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a file that shows image id `image`, see `annotated_photograph`."""
        return annotated_photograph(file, *self.images[image][1:], self.file)

    def _counts(self, photograph: Path, mask: Path) -> dict[int, int]:
        _check_size(photograph, *self.images[int(mask.stem)][1:], self.file)
        return pixel_counts(self.read(int(mask.stem)))

    def _make(self, image: int) -> np.ndarray:
        from PIL import Image

        if self._objects is None:
            self._read_annotations()
        _, height, width = self.images[image]
        mask = rasterise(self._objects.get(image, ()), height, width, self._dtype)
        try:
            if self._kept:
                with atomic(self.file_of(image)) as part:
                    Image.fromarray(mask).save(part, format="PNG")
        except OSError:
            self._kept = False
        return mask

    def _make_missing(self, images: Sequence[int]) -> None:
        kept = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        missing = [number for number in images if f"{number}.png" not in kept]
        clear_abandoned(self.folder, r"\d+\.png|head\.json")
        if missing and self._kept:
            if self._objects is None:
                self._read_annotations()
            for _ in in_threads(lambda number: self._kept and self._make(number) is None, missing, "drawing labels"):
                pass
        if self._kept:
            self._objects = None  # gigabytes in COCO, and needed no more

    def _read_annotations(self) -> dict:
        """Fill `_objects`, and return (and try to keep) what is needed without them."""
        images, categories, _, annotations, _ = read_annotations(self.file)
        labels = dict(zip(sorted(categories), positions(len(categories)).tolist()))
        self._objects, skipped = defaultdict(list), Counter()
        for annotation in annotations:
            reason = fault(annotation, images, labels)
            if reason:
                skipped[reason] += 1
                continue
            entry = labels[annotation["category_id"]], bool(annotation.get("iscrowd")), annotation["segmentation"]
            self._objects[annotation["image_id"]].append(entry)
        head = {
            "names": [[labels[category], categories[category]] for category in labels],
            "images": [[number, *listed] for number, listed in images.items()],
            "skipped": dict(skipped),
        }
        with contextlib.suppress(OSError):
            save_checked(self.folder / "head.json", head)
        return head


def open_masks(file: str | Path) -> CocoMasks:
    """The label maps of an annotation file. Raises DatasetError for one missing, broken or in another format."""
    try:
        resolved = files.located(file, "annotations", DatasetError).resolve(strict=True)
        status = resolved.stat()
    except OSError as error:
        raise DatasetError(f"there is no annotation file {file}: pass the path of an instances_*.json.") from error
    key = f"{FORMAT} {resolved} {status.st_size} {status.st_mtime_ns}"
    folder = files.cache_folder() / "coco" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if folder not in _OPEN:
        _OPEN[folder] = CocoMasks(resolved, folder)
    return _OPEN[folder]


def read_annotations(file: Path) -> Annotations:
    """Everything in an annotation file. Raises DatasetError, ending in `EXPECTED` or `RENUMBER`, for one that is broken
    or in another format, and for an id that stands for two things."""
    document = read_json(file, "annotations", EXPECTED)
    try:
        if not isinstance(document, dict):
            raise ValueError(f"it holds a {type(document).__name__}")
        images = _by_id(document, "images", _listed)
        categories = _by_id(document, "categories", _category)
        annotations = document["annotations"]
        if not categories:
            raise ValueError("it lists no categories")
        if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
            raise ValueError("annotations that are no list of objects")
        again = _again(images)
    except _Ambiguous as error:
        raise DatasetError(f"cannot read annotations {file}: {error}. {RENUMBER}") from error
    except (ValueError, KeyError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise DatasetError(f"cannot read annotations {file}: {what}. {EXPECTED}") from error
    for entry in annotations:
        for key in ("image_id", "category_id", "iscrowd"):
            value = entry.get(key)
            if value is not None and type(value) is not int and (number := whole(value)) is not None:
                entry[key] = number
        if again and type(image := entry.get("image_id")) is int:
            entry["image_id"] = again.get(image, image)
    for number in again:
        del images[number]
    pairs = ((entry["name"], entry.get("supercategory")) for entry in document["categories"])
    headings = {heading for name, heading in pairs if isinstance(heading, str) and heading != name}
    return Annotations(images, categories, headings, annotations, again)


def annotated_photograph(file: Path, height: int, width: int, annotations: Path) -> np.ndarray:
    """(height, width, 3) uint8 RGB in the position that was annotated: turned upright by its EXIF note, unless only the
    stored position has the annotated size. Raises DatasetError when neither has."""
    from PIL import Image

    upright = open_picture(file)
    if upright.size == (width, height):
        with decoding(f"image {file}"):
            return rgb(upright)
    _check_size(file, height, width, annotations)
    with decoding(f"image {file}"), Image.open(file) as stored:
        return rgb(stored)


def _check_size(file: Path, height: int, width: int, annotations: Path) -> None:
    upright, stored = picture_sizes(file)
    if (width, height) not in (upright, stored):
        raise DatasetError(
            f"image {file} is {upright[0]}x{upright[1]} pixels, but {annotations.name} says {width}x{height}. "
            "Annotations fit the original photographs only: copy the file from the archive again."
        )


class _Ambiguous(ValueError):
    """An id or a file that means two things."""


def _by_id(document: dict, key: str, read: Callable[[dict], Any]) -> dict[int, Any]:
    """Id -> what `read` makes of each entry of a list. The same entry may stand there twice, another one may not."""
    if not isinstance(document[key], list):
        raise ValueError(f"{key!r} is no list")
    table, clashes = {}, {}
    for at, entry in enumerate(document[key], 1):
        if not isinstance(entry, dict):
            raise ValueError(f"entry {at} of {key!r} is no object")
        number = whole(entry.get("id"))
        if number is None or abs(number) >= 2**63:
            raise ValueError(f"entry {at} of {key!r} has the id {entry.get('id')!r}, and ids are whole numbers")
        try:
            value = read(entry)
        except (KeyError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"entry {at} of {key!r} (id {number}) has {what}") from error
        if table.setdefault(number, value) != value:
            clashes.setdefault(number, value)
    if clashes:
        words = (f"{n} for {_title(table[n])} and for {_title(other)}" for n, other in clashes.items())
        raise _Ambiguous(f"{len(clashes)} ids of {key!r} occur twice: {few(words, 3)}")
    return table


def _title(value: Listed | str) -> str:
    return value.file if isinstance(value, Listed) else value


def _listed(entry: dict) -> Listed:
    name, sides = entry["file_name"], [entry[side] for side in ("height", "width")]
    sides = [None if isinstance(side, str) else whole(side) for side in sides]
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the file_name {name!r}, and a text is expected")
    if None in sides or min(sides) < 1 or sides[0] * sides[1] > LARGEST:
        raise ValueError(f"the height {entry['height']!r} and the width {entry['width']!r}, no size in whole pixels")
    return Listed(composed(name), *sides)


def _category(entry: dict) -> str:
    name = entry["name"]
    name = str(name) if type(name) in (int, float) else name
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the name {name!r}, and a text is expected")
    return composed(name)


def _again(images: Mapping[int, Listed]) -> dict[int, int]:
    """Further id of a file -> its first id."""
    first: dict[str, int] = {}
    again = {}
    for number, listed in images.items():
        key = comparable(os.path.normpath(listed.file.replace("\\", "/")))  # as exporters on Windows write it
        one = first.setdefault(key, number)
        if images[one][1:] != listed[1:]:
            raise ValueError(f"{listed.file} has the ids {one} and {number}, of different sizes: one of them is wrong")
        if one != number:
            again[number] = one
    return again


# From polygons and run-length codes to one label map.

Outline = list | dict | np.ndarray  # polygons, a run-length code, or a mask (height, width) bool


def rasterise(
    objects: Sequence[tuple[int, bool, Outline]], height: int, width: int, dtype: type = np.uint8
) -> np.ndarray:
    """One label map (height, width) of all objects in an image, whatever format their outlines are from.

    Objects are drawn from the one with most pixels to the one with fewest (equally large ones in the order given), so
    that where two overlap the smaller is seen. PFENet's ready-made PNGs, which most papers use, do not say their order:
    single pixels may differ. Crowds become 255 where no object is drawn.

    Args: objects: (class id, whether it is a crowd, outline) each, the latter polygons or a run-length code that
        `fault` has nothing against, or a mask.
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
    Nothing goes to pycocotools unseen: it takes four numbers for a box, and a wrong run-length code can crash it."""
    image, category, shape = (annotation.get(name) for name in ("image_id", "category_id", "segmentation"))
    try:
        if type(image) is not int or image not in images or category not in categories or category is True:
            return UNLISTED
        if annotation.get("iscrowd") not in (None, 0, 1):
            return "with an iscrowd that is neither 0 nor 1"
        _, height, width = images[image]
        if not shape:
            return "without a segmentation"
        if isinstance(shape, dict):
            return None if _runs(shape, height, width) else "with a run-length code that does not fill its image"
        return None if _polygons(shape, height, width) else "without a polygon of three points"
    except (TypeError, KeyError, AttributeError, OverflowError, ValueError):
        return "that is no COCO annotation"


def _polygons(shape: list, height: int, width: int) -> list[list[float]]:
    limit, good = OUTSIDE * max(height, width), []
    for part in shape if isinstance(shape[0], list) else [shape]:
        # sum() is not finite as soon as one number is not; min() and max() may overlook it.
        if len(part) >= 6 and len(part) % 2 == 0 and abs(sum(part)) < np.inf:
            good += [part] if -limit <= min(part) <= max(part) <= limit else []
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


def _pixels(shape: Outline, height: int, width: int) -> np.ndarray:
    """(width, height) bool: the pixels of one segmentation, first column first."""
    if isinstance(shape, np.ndarray):
        return shape.T
    if isinstance(shape, dict):
        runs = _runs(shape, height, width)
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    try:
        from pycocotools import mask as coder
    except ImportError as error:
        raise DatasetError("drawing COCO's polygons needs pycocotools: pip install pycocotools") from error
    whole = coder.merge(coder.frPyObjects(_polygons(shape, height, width), height, width))
    return coder.decode(whole).T.view(bool)
