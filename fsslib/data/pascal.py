"""PASCAL-5i: the twenty VOC classes in four folds of five, on VOC 2012 photographs with VOC and SBD masks."""

import os
import warnings
from pathlib import Path

import numpy as np

from ..errors import DatasetError
from . import voc_lists
from .base import check_split
from .folds import SCHEMES, fold_classes
from .index import LabelIndex
from .photographs import Photographs, few
from .pictures import read_image
from .voc_files import mask_counts, read_mask


class Pascal5i(Photographs):
    """PASCAL-5i (Shaban et al., "One-Shot Learning for Semantic Segmentation", BMVC 2017): fold f tests classes
    5f+1 .. 5f+5 of the VOC order.

    Args:
        root: the VOC folder (it holds `JPEGImages`), or a parent with `VOC2012` or `VOCdevkit/VOC2012`.
        fold, split: `"train"` base classes on the training list; `"val"` the held-back base classes on the same list;
            `"test"` the five novel classes on VOC val.
        images: `"auto"`, `"pascal5i"` (5,953 images), `"trainaug"` (10,582), `"voc"` (1,464), see
            `voc_lists.training_ids` (all four mean VOC val for `"test"`), or the path of a list file.
        min_area: images count for a class from this many of its pixels in the original image on; the PFENet family
            uses 2*32*32 = 2048, PANet 0 (one pixel is enough).
        novel: what hidden classes become in "train" and "val": `"background"`, `"ignore"` (255), or `"drop"`
            (images that show one are left out, as BAM and HDMNet do). Hidden are the novel classes, and in "train" the
            validation classes too. "test" labels are untouched.
        val_classes: how many base classes are held back for validation (the last ones in class order), or their ids.
        fold_scheme: `"contiguous"`, or `"interleaved"` (fold f tests f+1, f+5, ...), see `folds.fold_classes`.
        sbd: folder of SBD; without it the usual places are tried. Masks are taken from `SegmentationClassAug`, else
            `SegmentationClass`, else SBD's `cls/ID.mat`.
        cache: keep up to 512 MiB of decoded images and masks in memory.
        download: fetch VOC 2012 and SBD (3 GB) into `root` unless they are there.

    Attributes besides those of Photographs: `image_list` (which one). Raises DatasetError for whatever is missing,
    broken or contradictory, DownloadError for what cannot be fetched.
    """

    name = "pascal"
    title = "PASCAL-5i"

    def __init__(
        self, root: str | Path | None = None, fold: int = 0, split: str = "train", *, images: str | Path = "auto",
        min_area: int = 0, novel: str = "background", val_classes: int | tuple[int, ...] = 3,
        fold_scheme: str = "contiguous", sbd: str | Path | None = None, cache: bool = True, download: bool = False,
    ) -> None:  # fmt: skip
        check_split(fold, split)
        if root is None:
            raise DatasetError("PASCAL-5i needs photographs: pass root=PATH of VOCdevkit/VOC2012.")
        self.fold, self.split, self.names = fold, split, voc_lists.NAMES
        novel_classes = fold_classes(tuple(self.names), fold, scheme=fold_scheme)
        self.fold_scheme = {"contiguous": "VOC order, 5 a fold"}.get(fold_scheme, SCHEMES[fold_scheme])
        targets, unwanted = self._divide(novel_classes, val_classes, novel, min_area, cache)
        if download:
            from .sources import download as fetch

            fetch("pascal", root)
        self.voc = voc_lists.find_voc(root)
        self._sbd = voc_lists.find_sbd(self.voc, sbd)
        entries, self.image_list = self._list(images)
        files = self._locate(entries)
        areas = LabelIndex("voc", self.voc, mask_counts).counts(files)
        self._warn_of_test_images(entries)
        self._take(sorted(entries), files, areas, targets, unwanted, where=f", list: {self.image_list}")

    def _warn_of_test_images(self, entries: dict[str, str | None]) -> None:
        file = self.voc / "ImageSets" / "Segmentation" / "val.txt"
        shared = set(entries) & set(voc_lists.read_list(file)) if file.is_file() and self.split != "test" else ()
        if shared:
            warnings.warn(
                f"{len(shared)} of {len(entries)} training images are VOC val images, on which PASCAL-5i is tested: "
                "scores of a model trained on them are not comparable.",
                stacklevel=3,
            )

    def _list(self, images: str | Path) -> tuple[dict[str, str | None], str]:
        if str(images) not in voc_lists.IMAGE_LISTS:
            return voc_lists.read_list(images), f"file {Path(images).name}"
        if self.split == "test":
            return dict.fromkeys(voc_lists.test_ids(self.voc)), "VOC val"
        ids, image_list = voc_lists.training_ids(self.voc, self._sbd, str(images))
        return dict.fromkeys(ids), image_list

    def _locate(self, entries: dict[str, str | None]) -> list[tuple[Path, Path]]:
        """Image and mask file of every id; one directory listing per folder instead of a look-up per file."""
        places = [(self.voc / name, ".png") for name in ("SegmentationClassAug", "SegmentationClass")]
        places += [(self._sbd / "cls", ".mat")] if self._sbd else []
        listed = [(folder, end, set(os.listdir(folder))) for folder, end in places if folder.is_dir()]
        photographs = set(os.listdir(self.voc / "JPEGImages"))
        files, lost_images, lost_masks = [], [], []
        for name, mask in sorted(entries.items()):
            here = [folder / f"{name}{end}" for folder, end, names in listed if f"{name}{end}" in names]
            named = self.voc / mask.lstrip("/") if mask else None
            here = [named] if named and named.is_file() else here
            if f"{name}.jpg" not in photographs:
                lost_images.append(name)
            elif not here:
                lost_masks.append(name)
            else:
                files.append((self.voc / "JPEGImages" / f"{name}.jpg", here[0]))
        for lost, what, cure in (
            (lost_images, "image in JPEGImages", "complete JPEGImages"),
            (lost_masks, "mask", "complete SegmentationClass, add SegmentationClassAug, pass sbd=PATH"),
        ):
            if lost:
                raise DatasetError(
                    f"{len(lost)} of {len(entries)} listed ids have no {what} under {self.voc}: "
                    f"{few(lost, 3)}. To cure it, {cure}, "
                    "or pass images=PATH of a list of what you have."
                )
        return files

    def _read(self, image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
        return read_image(image), read_mask(mask)
