"""Label maps from a file in COCO's annotation format, rasterised once into the user's cache folder.

`CocoMasks` keeps them; the second half of the file goes from polygons and run-length codes to one label map.
"""

import contextlib
import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ... import files
from ...episode import IGNORE
from ...errors import DatasetError
from ...files import atomic
from ..base import positions
from ..pictures import open_picture, picture_sizes, rgb
from .base import pixel_counts
from .label_index import LabelIndex, in_threads, load_checked, save_checked

FORMAT = 1
# Seconds after which a temporary file belongs to a killed build, not to one that is running.
ABANDONED = 3600
# Coordinates further out than this many image sides are no drawing: the rasteriser's memory grows with them.
OUTSIDE = 10
UNLISTED = "of an image or category that is not listed"
_OPEN: dict[Path, "CocoMasks"] = {}


class Listed(NamedTuple):
    """One image of an annotation file: its file name, and its size in pixels."""

    file: str
    height: int
    width: int


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
        """(H, W, 3) uint8 RGB in the position that was annotated: turned upright by its EXIF note, unless only the
        stored position has the annotated size. Raises DatasetError when neither has."""
        from PIL import Image

        upright = open_picture(file)
        if upright.size == self.images[image][:0:-1]:
            return rgb(upright)
        self._check_size(file, image)
        with Image.open(file) as stored:
            return rgb(stored)

    def _check_size(self, file: Path, image: int) -> None:
        height, width = self.images[image][1:]
        upright, stored = picture_sizes(file)
        if (width, height) not in (upright, stored):
            raise DatasetError(
                f"image {file} is {upright[0]}x{upright[1]} pixels, but {self.file.name} says {width}x{height}. "
                "Annotations fit the original photographs only: copy the file from the archive again."
            )

    def _counts(self, photograph: Path, mask: Path) -> dict[int, int]:
        self._check_size(photograph, int(mask.stem))
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
        kept = {entry.name: entry for entry in os.scandir(self.folder)} if self.folder.is_dir() else {}
        missing = [number for number in images if f"{number}.png" not in kept]
        for name, entry in kept.items():
            with contextlib.suppress(OSError):
                if name.endswith(".part") and time.time() - entry.stat().st_mtime > ABANDONED:
                    os.unlink(entry)
        if missing and self._kept:
            if self._objects is None:
                self._read_annotations()
            for _ in in_threads(lambda number: self._kept and self._make(number) is None, missing, "drawing labels"):
                pass
        if self._kept:
            self._objects = None  # gigabytes in COCO, and needed no more

    def _read_annotations(self) -> dict:
        """Fill `_objects`, and return (and try to keep) what is needed without them."""
        images, categories, annotations = _parse(self.file)
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
        resolved = Path(file).expanduser().resolve(strict=True)
        status = resolved.stat()
    except OSError as error:
        raise DatasetError(f"there is no annotation file {file}: pass the path of an instances_*.json.") from error
    key = f"{FORMAT} {resolved} {status.st_size} {status.st_mtime_ns}"
    folder = files.cache_folder() / "coco" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if folder not in _OPEN:
        _OPEN[folder] = CocoMasks(resolved, folder)
    return _OPEN[folder]


def _parse(file: Path) -> tuple[dict[int, Listed], dict[int, str], list[dict]]:
    """Images, category names and annotations of a file; whatever is no such file is a DatasetError."""
    try:
        document = json.loads(file.read_bytes(), parse_constant=float)
        images = {
            entry["id"]: Listed(entry["file_name"], entry["height"], entry["width"]) for entry in document["images"]
        }
        categories = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
        annotations = document["annotations"]
        if not categories or not all(type(number) is int for number in (*images, *categories)):
            raise ValueError("no categories, or ids that are no whole numbers")
        if not all(type(side) is int and side > 0 for listed in images.values() for side in listed[1:]):
            raise ValueError("an image without a size in whole pixels")
        if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
            raise ValueError("annotations that are no list of objects")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise DatasetError(
            f"cannot read annotations {file}: {what}. Expected COCO's format: one JSON object with 'images' (id, "
            "file_name, height, width), 'categories' (id, name) and 'annotations'. Copy it from the archive again."
        ) from error
    return images, categories, annotations


# From COCO's polygons and run-length codes to one label map.


def rasterise(
    objects: Sequence[tuple[int, bool, list | dict]], height: int, width: int, dtype: type = np.uint8
) -> np.ndarray:
    """One label map (height, width) of all objects in an image.

    Objects are drawn from the one with most pixels to the one with fewest (equally large ones in the order given), so
    that where two overlap the smaller is seen. PFENet's ready-made PNGs, which most papers use, do not say their order:
    single pixels may differ. Crowds become 255 where no object is drawn.

    Args: objects: (class id, whether it is a crowd, segmentation) each, the latter polygons or a run-length code that
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
    Nothing goes to pycocotools unseen: it takes four numbers for a box, and a wrong run-length code can crash it."""
    image, category, shape = (annotation.get(name) for name in ("image_id", "category_id", "segmentation"))
    try:
        if image not in images or category not in categories:
            return UNLISTED
        _, height, width = images[image]
        if not shape:
            return "without a segmentation"
        if isinstance(shape, dict):
            return None if _runs(shape, height, width) else "with a run-length code that does not fill its image"
        return None if _polygons(shape, height, width) else "without a polygon of three points"
    except (TypeError, KeyError, AttributeError):
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
