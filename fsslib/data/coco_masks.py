"""Label maps from a file in COCO's annotation format, rasterised once into the user's cache folder."""

import contextlib
import hashlib
import json
import os
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import paths
from ..errors import DatasetError
from ..files import atomic
from ..progress import bar
from .base import IGNORE
from .coco_shapes import fault, rasterise
from .index import LabelIndex
from .photographs import pixel_counts
from .pictures import open_picture, picture_size

FORMAT = 1
# Seconds after which a temporary file belongs to a killed build, not to one that is running.
ABANDONED = 3600
_FIRST = threading.Lock()  # of the module: a data set with a lock of its own could not be sent to workers
_OPEN: dict[Path, "CocoMasks"] = {}


class Listed(NamedTuple):
    """One image of an annotation file: its file name, and its size in pixels."""

    file: str
    height: int
    width: int


class CocoMasks:
    """The label maps of the images in a COCO-format file: (H, W) class ids, 0 background, 255 ignored.

    Classes are numbered from 1 in the order of their category ids, leaving out 255. Overlapping objects and crowds:
    see `coco_shapes.rasterise`. Maps are files `ID.png` in a folder that belongs to path, size and time of the
    annotation file. Each is written beside its name and renamed, so a killed build goes on where it was; one that
    cannot be decoded or has the wrong size is made again. Where the cache cannot be written, a warning says so and
    maps are made whenever they are asked for.

    Use `open_masks`: it makes one object per file, however many folds and splits ask.

    Attributes:
        names: class id -> name. images: image id -> Listed. skipped: why annotations were left out -> how many.
        folder: where the maps are.
    Raises DatasetError for a file that is broken or not in this format.
    """

    def __init__(self, file: Path, folder: Path):
        self.file, self.folder = file, folder
        # Per image the (class id or 255, is it a crowd, segmentation) of its objects; in memory only while needed.
        self._objects: dict[int, list[tuple[int, bool, list | dict]]] | None = None
        # Pixel counts, once the cache turned out not to be writable.
        self._unkept: dict[int, dict[int, int]] | None = None
        head = self._load_head() or self._read_annotations()
        self.names: dict[int, str] = dict(map(tuple, head["names"]))
        self.images = {number: Listed(*rest) for number, *rest in head["images"]}
        self.skipped: dict[str, int] = head["skipped"]
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

        Args:
            images: image ids with their photographs, whose sizes have to be those of the annotation file.
        Raises DatasetError for the first photograph that does not fit.
        """
        self._make_missing([number for number, _ in images])
        columns = max(*self.names, IGNORE) + 1
        if self._unkept is None:
            pairs = [(photograph, self.file_of(number)) for number, photograph in images]
            table = LabelIndex("coco", self.folder, self._counts).counts(pairs, columns)
        else:
            table = np.zeros((len(images), columns), np.int64)
            for row, (number, photograph) in zip(table, images):
                if number not in self._unkept:
                    self._unkept[number] = self._counts(photograph, self.file_of(number))
                row[list(self._unkept[number])] = list(self._unkept[number].values())
        return table[:, : max(self.names) + 1].astype(np.int32)

    def read_photograph(self, file: Path, image: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB in the position that was annotated: turned upright by its EXIF note, unless only the
        stored position has the annotated size. Raises DatasetError when neither has."""
        from PIL import Image

        upright = open_picture(file)
        height, width = self.images[image][1:]
        if upright.size == (width, height):
            return np.array(upright.convert("RGB"))
        self._check_size(file, image)
        with Image.open(file) as stored:
            return np.array(stored.convert("RGB"))

    def _check_size(self, file: Path, image: int) -> None:
        from PIL import Image

        height, width = self.images[image][1:]
        size = picture_size(file)
        if size == (width, height):
            return
        with Image.open(file) as stored:
            if stored.size == (width, height):
                return
        raise DatasetError(
            f"image {file} is {size[0]}x{size[1]} pixels, but {self.file.name} says {width}x{height}. Annotations fit "
            "the original photographs only: copy the file from the archive again."
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
        if self._unkept is None:
            try:
                with atomic(self.file_of(image)) as part:
                    Image.fromarray(mask).save(part, format="PNG")
            except OSError as error:
                with _FIRST:  # several threads find out at once, one says so
                    if self._unkept is not None:
                        return mask
                    self._unkept = {}
                warnings.warn(
                    f"label maps cannot be kept in {self.folder} ({error.strerror}), so each is made whenever it is "
                    "needed. Set FSSLIB_CACHE to a folder that can be written.",
                    stacklevel=2,
                )
        return mask

    def _make_missing(self, images: Sequence[int]) -> None:
        kept = {entry.name: entry for entry in os.scandir(self.folder)} if self.folder.is_dir() else {}
        missing = [number for number in images if f"{number}.png" not in kept]
        for name, entry in kept.items():
            with contextlib.suppress(OSError):
                if name.endswith(".part") and time.time() - entry.stat().st_mtime > ABANDONED:
                    os.unlink(entry)
        if missing and self._unkept is None:
            if self._objects is None:
                self._read_annotations()
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                made = pool.map(lambda number: self._unkept is None and self._make(number) is None, missing)
                shown = bar(made, desc="drawing labels", total=len(missing), show=len(missing) > 1000)
                try:
                    for _ in shown:
                        pass
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        if self._unkept is None:
            self._objects = None  # gigabytes in COCO, and needed no more

    def _load_head(self) -> dict | None:
        with contextlib.suppress(OSError, ValueError):  # not there, cut short or not ours
            first, text, *_ = (self.folder / "head.json").read_text(encoding="utf-8").split("\n")
            if first == hashlib.sha256(text.encode()).hexdigest():
                return json.loads(text)
        return None

    def _read_annotations(self) -> dict:
        """Fill `_objects`, and return (and try to keep) what is needed without them."""
        images, categories, annotations = _parse(self.file)
        numbers = [number for number in range(1, len(categories) + 2) if number != IGNORE]
        labels = dict(zip(sorted(categories), numbers))
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
        text = json.dumps(head, separators=(",", ":"))
        with contextlib.suppress(OSError), atomic(self.folder / "head.json") as part:
            part.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n", encoding="utf-8")
        return head


def open_masks(file: str | Path) -> CocoMasks:
    """The label maps of an annotation file. Raises DatasetError for one missing, broken or in another format."""
    try:
        resolved = Path(file).expanduser().resolve(strict=True)
        status = resolved.stat()
    except OSError as error:
        raise DatasetError(f"there is no annotation file {file}: pass the path of an instances_*.json.") from error
    key = f"{FORMAT} {resolved} {status.st_size} {status.st_mtime_ns}"
    folder = paths.cache() / "coco" / hashlib.sha256(key.encode()).hexdigest()[:16]
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
