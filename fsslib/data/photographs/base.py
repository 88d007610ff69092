"""What the data sets on disk have in common: image and label files, and the classes of a split."""

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...arguments import check_count, check_switch, choose
from ...episode import IGNORE
from ...errors import DatasetError
from ...files import located
from ..base import NOVEL, SPLITS, SegmentationDataset, check_fold, few
from ..folds import held_back

CACHE_BYTES = 512 * 2**20
NAMED = 20  # classes in one warning
LEAST = 2  # images that make an episode


class Photographs(SegmentationDataset):
    """Images with one label file each.

    A subclass calls `_begin`, `_divide` (which classes this split targets and hides) and `_take` (which files there are
    and what they show), and reads one file pair in `_read`. What the data sets' options mean, where they have them:

    Args:
        min_area: images count for a class from this many of its pixels in the original image on; the PFENet family
            uses 2*32*32 = 2048, PANet 0 (one pixel is enough).
        novel: what hidden classes become in "train" and "val": `"background"`, `"ignore"` (255), or `"drop"`
            (images that show one are left out, as BAM and HDMNet do). Hidden are the novel classes, and in "train" the
            validation classes too. "test" labels are untouched.
        val_classes: how many base classes are held back for validation (the last ones in class order), or their ids.
        cache: keep up to 512 MiB of decoded images and masks in memory.
        download: fetch what `root` lacks; the class says how much that is.
    Raises DatasetError for whatever is missing, broken or contradictory, DownloadError for what cannot be fetched.
    """

    title: str  # for messages
    root_holds: str  # what the folder is called when it is missing
    fold_scheme: str  # for the protocol's card, as is `area_filter`
    area_filter: int
    ids: list[str]  # of the images, sorted
    missing: dict[int, int]  # targeted class with fewer than two images (no part of `classes`) -> how many it has

    @abstractmethod
    def _read(self, image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) class ids of one file pair."""

    def _begin(self, root: str | Path | None, fold: int, split: str, folds: int = 4, **switches: bool) -> None:
        """Check what needs no file; `switches` are options by name that must be True or False."""
        for name, value in switches.items():
            check_switch(value, name, DatasetError)
        choose(split, SPLITS, "split", DatasetError)
        check_fold(fold, folds)
        if root is None:
            raise DatasetError(f"{self.title} needs photographs: pass root=PATH of {self.root_holds}.")
        self.fold, self.split = fold, split

    def _divide(
        self, novel_classes: Sequence[int], val_classes: int | Sequence[int], novel: str, min_area: int, cache: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The classes that this split targets, and the unwanted ones (whose images `novel="drop"` leaves out).
        Hidden are in "train" the novel and the validation classes, in "val" the novel ones, in "test" none."""
        choose(novel, NOVEL, "novel=", DatasetError)
        check_min_area(min_area)
        self.novel, self.area_filter = novel, min_area
        novel_classes = tuple(novel_classes)
        self.base_classes = tuple(c for c in self.names if c not in novel_classes)
        validation = held_back(val_classes, self.base_classes)
        if self.split == "val" and not validation:
            raise DatasetError("split 'val' holds no class: pass val_classes=3 (to both splits) to hold some back.")
        train = tuple(c for c in self.base_classes if c not in validation)
        hidden = {"train": novel_classes + validation, "val": novel_classes, "test": ()}[self.split]
        top = max(IGNORE, *self.names)
        self._relabel = np.arange(top + 1, dtype=np.uint8 if top == IGNORE else np.int16)
        self._relabel[list(hidden)] = IGNORE if novel == "ignore" else 0
        self._room, self._cache = CACHE_BYTES if cache else 0, {}
        targets = {"train": train, "val": validation, "test": novel_classes}[self.split]
        return targets, hidden if novel == "drop" else ()

    def _take(
        self, ids: Sequence[str], files: Sequence[tuple[Path, Path]], areas: np.ndarray, targets: Sequence[int],
        unwanted: Sequence[int] = (), where: str = "",
    ) -> None:  # fmt: skip
        """Keep the images without `unwanted` classes, and of `targets` those with at least two images.

        Args:
            ids: sorted image ids. files: their image and mask files. areas: (images, classes) pixels of every class id.
            where: said in messages, e.g. which list of images it was.
        """
        self._list_ids = tuple(ids)
        keep = np.flatnonzero(~areas[:, list(unwanted)].any(1))
        self.ids, self._files, self._areas = [ids[i] for i in keep], [files[i] for i in keep], areas[keep]
        usable = self._areas >= max(1, self.area_filter)
        self._images = {c: np.flatnonzero(usable[:, c]).tolist() for c in targets}
        self.classes = tuple(c for c in targets if len(self._images[c]) >= LEAST)
        self.missing = {c: len(self._images[c]) for c in targets if c not in self.classes}
        if not self.missing:
            return
        where = f"{self.title} fold {self.fold} split {self.split!r} ({len(self)} images{where})"
        lacking = few((f"{c} {self.names[c]} ({count})" for c, count in self.missing.items()), NAMED)
        lacking += " (see .missing)" if len(self.missing) > NAMED else ""
        reason = f"fewer than {LEAST} images with at least {max(1, self.area_filter)} pixels of the class: {lacking}"
        if not self.classes:
            raise DatasetError(
                f"{where} has no usable class; {reason}. Lower min_area, use another fold, or a list with more images."
            )
        warnings.warn(f"{where} goes on with {len(self.classes)} of {len(targets)} classes; {reason}.", stacklevel=3)

    def __len__(self) -> int:
        return len(self.ids)

    def images_of(self, cls: int) -> list[int]:
        if cls not in self._images:
            self.check_class(cls)
        return list(self._images[cls])

    def shows(self, index: int, cls: int) -> bool:
        return bool(self._areas[index, cls])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        index = range(len(self))[index]
        if index in self._cache:
            return tuple(part.clone() for part in self._cache[index])
        image, mask = self._read(*self._files[index])
        image = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        mask = torch.from_numpy(self._relabel.take(mask))
        if image.nbytes + mask.nbytes <= self._room:
            self._room -= image.nbytes + mask.nbytes
            self._cache[index] = image.clone(), mask.clone()
        return image, mask

    def list_hash(self) -> str:
        """sha256 (hexadecimal) of the sorted ids of the list, joined by newlines, before `novel="drop"`."""
        return hashlib.sha256("\n".join(self._list_ids).encode()).hexdigest()

    def signature(self) -> str:
        relabelled = self._relabel[list(self.names)].tolist()
        settings = (self.fold, self.split, self.classes, self.area_filter, self.novel, relabelled)
        pixels = hashlib.sha256(np.ascontiguousarray(self._areas).tobytes()).hexdigest()
        return "\n".join([f"{self.name} {settings} {pixels}", *self.ids])


def find_root(root: str | Path, below: Sequence[str], holds: str, expected: str) -> Path:
    """The first folder of `root`/`below` with something by the pattern `holds`. Raises DatasetError: `expected`."""
    root = located(root, "root", DatasetError)
    for place in (root / name for name in below):
        if place.is_dir() and any(place.glob(holds)):
            return place
    raise DatasetError(f"no {expected}")


def check_min_area(min_area: int) -> None:
    """Raise DatasetError unless `min_area` is a whole number of pixels from 0."""
    check_count(min_area, "min_area", 0, unit="pixels (2048 in PFENet)", error=DatasetError)


def pixel_counts(mask: np.ndarray) -> dict[int, int]:
    """Class id -> pixels, for every value in the mask: one bincount."""
    counts = np.bincount(mask.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def same_size(mask: np.ndarray, size: tuple[int, int], names: tuple[str, str]) -> None:
    """Raise DatasetError unless a mask (H, W) and an image of `size` (width, height) belong together.
    `names` are the files of mask and image."""
    if mask.shape[::-1] != tuple(size):
        turned = " The sides are swapped, as a rotation note does it." if mask.shape == tuple(size) else ""
        raise DatasetError(
            f"mask {names[0]} is {mask.shape[1]}x{mask.shape[0]} pixels but image {names[1]} is {size[0]}x{size[1]}."
            f"{turned} Resize both alike, the mask with nearest-neighbour interpolation."
        )
