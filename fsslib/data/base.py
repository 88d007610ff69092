"""What every data set of the library offers: classes, the images of a class, and (image, mask) pairs."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from ..episode import IGNORE
from ..errors import DatasetError
from ..files import read_text  # noqa: F401  (its former place)

SPLITS = ("train", "val", "test")
NOVEL = ("background", "ignore", "drop")  # what hidden classes become in training images


class SegmentationDataset(ABC):
    """Images with one label map each, restricted to the classes of one split of one fold.
    "train" and "val" classes are disjoint parts of the base classes; "test" holds the fold's novel classes."""

    name: str  # of the data set, e.g. "shapes"
    fold: int  # which is held out
    split: str  # which part of it this is: "train", "val" or "test"
    names: dict[int, str]  # class id -> readable name, for all classes of the data set (ids start at 1)
    classes: tuple[int, ...]  # sorted ids of the classes that episodes of this split may target
    base_classes: tuple[int, ...]  # sorted ids of all classes that are not novel in this fold
    augmentation: str = "photo"  # which random changes keep the classes what they are, see `transforms.augment`

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 RGB and mask (H, W) uint8: class ids, 0 background, 255 ignored (int16 in data sets
        with more classes; none has the id 255)."""

    @abstractmethod
    def images_of(self, cls: int) -> list[int]:
        """Sorted indices of the images that can serve as support or query of class `cls`; never raises for a known
        class without images (returns an empty list). Raises DatasetError for a class this split does not target."""

    def supports_of(self, cls: int) -> list[int]:
        """The images of `cls` that may be supports: all of them, unless some are listed without showing the class."""
        return self.images_of(cls)

    def queries_of(self, cls: int) -> list[int]:
        """The images of `cls` that may be queries: all of them, unless some are kept for supports."""
        return self.images_of(cls)

    def copies(self) -> dict[int, int]:
        """Image -> number of the picture that it shows, for pictures that are there more than once: a query and its
        supports must never be the same one."""
        return {}

    def different(self, images: Sequence[int]) -> Sequence[int]:
        """`images` without those that show the picture of one before them."""
        copies, first = self.copies(), {}
        return [i for i in images if i not in copies or first.setdefault(copies[i], i) == i] if copies else images

    def shows(self, index: int, cls: int) -> bool:
        """Whether image `index` holds a pixel of `cls`, however few."""
        return bool((self[index][1] == cls).any())

    @abstractmethod
    def signature(self) -> str:
        """A text that changes whenever the images or masks would: options and seed, or the sorted image ids."""

    def check_class(self, cls: int) -> None:
        """Raise DatasetError unless `cls` is one of this split's classes."""
        if cls not in self.classes:
            known = ", ".join(f"{c} {self.names[c]}" for c in self.classes)
            raise DatasetError(
                f"{self.name} fold {self.fold} split {self.split!r} has no class {cls!r}. Its classes are: {known}."
            )

    def hash(self) -> str:
        """Twelve hexadecimal digits that identify the data behind an episode list."""
        return hashlib.sha256(self.signature().encode()).hexdigest()[:12]


def check_fold(fold: int, folds: int, whose: str = "folds") -> None:
    """Raise DatasetError unless `fold` is in 0..folds-1; `whose` is what the message calls the folds."""
    if type(fold) is not int or not 0 <= fold < folds:
        raise DatasetError(f"fold {fold!r} does not exist: {whose} are numbered 0 to {folds - 1}.")


def check_seed(seed: int) -> None:
    """Raise DatasetError unless `seed` is a whole number, of Python or NumPy."""
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise DatasetError(f"seed={seed!r}: expected a whole number, the same one gives the same picture.")


def few(things: Iterable[object], shown: int = 10) -> str:
    """The first of many things, and how many more there are: `"a, b and 3 more"`."""
    texts = list(map(str, things))
    return ", ".join(texts[:shown]) + (f" and {len(texts) - shown} more" if len(texts) > shown else "")


def positions(count: int) -> Tensor:
    """(count,) long: 1, 2, ... without 255, which means ignored."""
    numbers = torch.arange(1, count + 1)
    return numbers + (numbers >= IGNORE)


def base_table(base_classes: Sequence[int], all_classes: Iterable[int] = ()) -> Tensor:
    """(256 or more,) long: class id -> position among the sorted base classes from 1, leaving out 255; 0 for every
    other id, and 255 stays 255. Raises DatasetError for 255 as a class id."""
    if IGNORE in base_classes:
        raise DatasetError(f"class id {IGNORE} means ignored pixels in label maps: give the class another id.")
    table = torch.zeros(max(IGNORE, *base_classes, *all_classes) + 1, dtype=torch.long)
    table[torch.tensor(base_classes, dtype=torch.long)] = positions(len(base_classes))
    table[IGNORE] = IGNORE
    return table
