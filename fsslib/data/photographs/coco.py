"""COCO-20i: the eighty COCO classes in four folds of twenty, on COCO 2014 or 2017."""

import os
import re
import warnings
from pathlib import Path

import numpy as np

from ...errors import DatasetError
from ...files import comparable, located
from ..folds import fold_classes
from .base import Photographs, find_root
from .coco_label_maps import open_masks

CLASSES = 80
YEARS = (2014, 2017)
_CARD = {"interleaved": "interleaved: i, i+4, …", "contiguous": "category order, 20 a fold"}


class Coco20i(Photographs):
    """COCO-20i (Nguyen & Todorovic, "Feature Weighting and Boosting for Few-Shot Segmentation", ICCV 2019): twenty
    classes are novel in each of four folds; classes are numbered 1 to 80 in the order of COCO's category ids.

    The first use draws every annotation into label maps (`coco_label_maps.CocoMasks`) of the user's cache folder; later
    ones read those. Extrapolated from 128 images to the 118,287 of train2017, that is 12 minutes of one core at first
    (longer on a crowded machine), 0.5 GB on disk and 2.5 GB of memory while annotations are drawn; afterwards some
    seconds.

    Args:
        root: folder with `annotations/instances_{train,val}{2014,2017}.json` and the images in `train2014`, ... or
            `images/train2014`, ...; or a parent of it named `coco`.
        fold, split: `"train"` base classes on the training images; `"val"` the held-back base classes on the same
            images; `"test"` the twenty novel classes on the val images.
        images: `"auto"` takes 2014 if both its sets are there, as papers do, else 2017 if both are, else the year of
            which one is. The two years divide the same photographs differently, so they are never mixed.
            `"train2017"` and the like name one image set, for every split.
        fold_scheme: `"interleaved"` (fold f: f+1, f+5, ...; since PFENet), or `"contiguous"` (20 in a row; PANet), see
            `folds.fold_classes`.
        min_area, novel, val_classes, cache: see `Photographs`.
        download: fetch this split's images and annotations into `root` unless they are there (training images: 18 GB
            for 2017, 13 GB for 2014; val images: 1 and 6 GB).

    Attributes besides those of Photographs: `image_list` (which image set), `absent` (how many listed images are not on
    disk: a part of COCO is enough, a warning counts them).
    """

    name = "coco"
    title = "COCO-20i"
    root_holds = "the folder with COCO's annotations/"

    def __init__(
        self, root: str | Path | None = None, fold: int = 0, split: str = "train", *, images: str = "auto",
        fold_scheme: str = "interleaved", min_area: int = 0, novel: str = "background",
        val_classes: int | tuple[int, ...] = 12, cache: bool = True, download: bool = False,
    ) -> None:  # fmt: skip
        self._begin(root, fold, split, cache=cache, download=download)
        # Before gigabytes are read: what can be refused without them.
        self.names = dict.fromkeys(range(1, CLASSES + 1), "")
        novel_classes = fold_classes(tuple(self.names), fold, scheme=fold_scheme)
        targets, unwanted = self._divide(novel_classes, val_classes, novel, min_area, cache)
        self.fold_scheme = _CARD[fold_scheme]
        if images != "auto" and not re.fullmatch("(train|val)(2014|2017)", str(images)):
            raise DatasetError(f"images={images!r} is unknown: use 'auto' or an image set like 'train2017'.")
        if download:
            _fetch(root, images, split)
        expected = (
            f"COCO folder at {root}: expected annotations/instances_train2014.json (or 2017) and images in train2014. "
            "Unpack COCO's annotations and images there, or pass download=True."
        )
        self.root = find_root(root, ("", "coco", "COCO"), "annotations/", expected).absolute()
        self.image_list = self._choose(images)
        self._masks = open_masks(self.root / "annotations" / f"instances_{self.image_list}.json")
        self.names, file = self._masks.names, self._masks.file
        if len(self.names) != CLASSES:
            raise DatasetError(f"{file} lists {len(self.names)} categories, not {CLASSES}: this is another data set.")
        numbers, photographs = self._locate()
        areas = self._masks.areas(list(zip(numbers, photographs)))
        files = [(photograph, self._masks.file_of(number)) for number, photograph in zip(numbers, photographs)]
        ids = [photograph.stem for photograph in photographs]
        self._take(ids, files, areas, targets, unwanted, where=f", image set: {self.image_list}")

    def _choose(self, images: str) -> str:
        """The image set of this split."""
        there = _sets(self.root)
        if images == "auto":
            year = max(YEARS, key=lambda year: len({f"train{year}", f"val{year}"} & there.keys()))
            images = f"{'val' if self.split == 'test' else 'train'}{year}"
        if images in there:
            return images
        if not there:
            raise DatasetError(
                f"{self.root} holds no image set: expected annotations/instances_NAME.json with a folder NAME or "
                "images/NAME of photographs, NAME being train2014, val2014, train2017 or val2017."
            )
        other = next(iter(there))
        raise DatasetError(
            f"{self.root} holds no {images} for split {self.split!r}: annotations/instances_{images}.json and the "
            f'folder {images} are needed. There are: {", ".join(there)}; images="{other}" uses that one.'
        )

    def _locate(self) -> tuple[list[int], list[Path]]:
        """Image ids and photographs that are on disk, in the order of their names: one listing of the folder."""
        folder = _sets(self.root)[self.image_list]
        on_disk = {comparable(name): name for name in sorted(os.listdir(folder))}
        listed = sorted((comparable(Path(image.file).name), number) for number, image in self._masks.images.items())
        here = [(number, folder / on_disk[name]) for name, number in listed if name in on_disk]
        self.absent = len(listed) - len(here)
        if not here:
            raise DatasetError(
                f"none of the {len(listed)} images that {self._masks.file.name} lists is in {folder}, such as "
                f"{listed[0][0] if listed else 'any'}: unpack COCO's {self.image_list}.zip there."
            )
        notes = [f"{self.absent} of {len(listed)} listed images are not in {folder}"] if self.absent else []
        notes += [f"{count} annotations {reason} are left out" for reason, count in self._masks.skipped.items()]
        if notes:
            warnings.warn(
                f"{self.title} goes on with {len(here)} images of {self.image_list}: {'; '.join(notes)}.", stacklevel=3
            )
        return [number for number, _ in here], [file for _, file in here]

    def _read(self, image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
        number = int(mask.stem)
        return self._masks.read_photograph(image, number), self._masks.read(number)


def _fetch(root: str | Path, images: str, split: str) -> None:
    """The image set of `split` and its year's annotations: of 2014 where that has been begun, else of 2017."""
    from ..download.sources import download

    if images == "auto":
        part = "val" if split == "test" else "train"
        begun = (located(root, "root", DatasetError) / "annotations" / f"instances_{part}2014.json").is_file()
        images = f"{part}{2014 if begun else 2017}"
    download("coco", root, parts=(images, f"annotations{images[-4:]}"))


def _sets(root: Path) -> dict[str, Path]:
    """Image sets that have annotations and a folder of images, with that folder."""
    folders = {}
    for name in (f"{part}{year}" for year in YEARS for part in ("train", "val")):
        places = [place for place in (root / name, root / "images" / name) if place.is_dir()]
        if places and (root / "annotations" / f"instances_{name}.json").is_file():
            folders[name] = places[0]
    return folders
