"""PASCAL-5i: the twenty VOC classes in four folds of five, on VOC 2012 photographs with VOC and SBD masks."""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from . import voc_lists
from .base import IGNORE, SegmentationDataset, check_split
from .voc_files import mask_counts, read_image, read_mask

NOVEL = ("background", "ignore", "drop")
CACHE_BYTES = 512 * 2**20


class Pascal5i(SegmentationDataset):
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
        sbd: folder of SBD; without it the usual places are tried. Masks are taken from `SegmentationClassAug`, else
            `SegmentationClass`, else SBD's `cls/ID.mat`.
        cache: keep up to 512 MiB of decoded images and masks in memory.

    Attributes besides those of SegmentationDataset: `ids` (image ids, sorted), `recipe` (which list), `missing` (class
    id -> number of images, for targeted classes with fewer than two; a warning names them and they are no part of
    `classes`). Raises DatasetError for whatever is missing, broken or contradictory.
    """

    name = "pascal"
    fold_scheme = "VOC order, 5 a fold"

    def __init__(
        self, root: str | Path | None = None, fold: int = 0, split: str = "train", *, images: str | Path = "auto",
        min_area: int = 0, novel: str = "background", val_classes: int | tuple[int, ...] = 3,
        sbd: str | Path | None = None, cache: bool = True,
    ) -> None:  # fmt: skip
        check_split(fold, split)
        if root is None:
            raise DatasetError("PASCAL-5i needs photographs: pass root=PATH of VOCdevkit/VOC2012.")
        if novel not in NOVEL:
            raise DatasetError(f"novel={novel!r} is unknown: use one of {', '.join(NOVEL)}.")
        if isinstance(min_area, bool) or not isinstance(min_area, int) or min_area < 0:
            raise DatasetError(f"min_area={min_area!r}: expected a number of pixels, 0 or more (2048 in PFENet).")
        self.fold, self.split, self.novel, self.names = fold, split, novel, voc_lists.NAMES
        self.area_filter = min_area
        novel_classes = tuple(range(5 * fold + 1, 5 * fold + 6))
        self.base_classes = tuple(c for c in self.names if c not in novel_classes)
        held_back = _validation_classes(val_classes, self.base_classes)
        if split == "val" and not held_back:
            raise DatasetError("split 'val' holds no class: pass val_classes=3 (to both splits) to hold some back.")
        train = tuple(c for c in self.base_classes if c not in held_back)
        targets = {"train": train, "val": held_back, "test": novel_classes}[split]
        hidden = {"train": novel_classes + held_back, "val": novel_classes, "test": ()}[split]
        self._relabel = np.arange(256, dtype=np.uint8)
        self._relabel[list(hidden)] = IGNORE if novel == "ignore" else 0
        self.voc = voc_lists.find_voc(root)
        self._sbd = voc_lists.find_sbd(self.voc, sbd)
        entries, self.recipe = self._list(images)
        self._list_ids = tuple(sorted(entries))
        self.ids, self._files = self._locate(entries)
        self._areas = self._scan(hidden if novel == "drop" else ())
        self._choose_classes(targets)
        self._cache, self._room = {}, CACHE_BYTES if cache else 0

    def _list(self, images: str | Path) -> tuple[dict[str, str | None], str]:
        if str(images) not in voc_lists.RECIPES:
            return voc_lists.read_list(images), f"file {Path(images).name}"
        if self.split == "test":
            return dict.fromkeys(voc_lists.test_ids(self.voc)), "VOC val"
        ids, recipe = voc_lists.training_ids(self.voc, self._sbd, str(images))
        return dict.fromkeys(ids), recipe

    def _locate(self, entries: dict[str, str | None]) -> tuple[list[str], list[tuple[Path, Path]]]:
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
                    f"{', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''}. To cure it, {cure}, "
                    "or pass images=PATH of a list of what you have."
                )
        return sorted(entries), files

    def _scan(self, unwanted: tuple[int, ...]) -> np.ndarray:
        """(images, 22) pixels of 0..20 and of 255 in the file; images that show an `unwanted` class are left out."""
        areas = np.zeros((len(self._files), 22), np.int64)
        for row, files in zip(areas, self._files):
            stats = [file.stat() for file in files]
            counts, void = mask_counts(*files[::-1], tuple(n for s in stats for n in (s.st_mtime_ns, s.st_size)))
            row[:21], row[21] = counts, void
        keep = ~areas[:, list(unwanted)].any(1)
        self.ids = [name for name, kept in zip(self.ids, keep) if kept]
        self._files = [files for files, kept in zip(self._files, keep) if kept]
        return areas[keep]

    def _choose_classes(self, targets: tuple[int, ...]) -> None:
        usable = self._areas >= max(1, self.area_filter)
        self._images = {c: np.flatnonzero(usable[:, c]).tolist() for c in targets}
        self.classes = tuple(c for c in targets if len(self._images[c]) >= 2)
        self.missing = {c: len(self._images[c]) for c in targets if c not in self.classes}
        if not self.missing:
            return
        where = f"PASCAL-5i fold {self.fold} split {self.split!r} ({len(self)} images, list: {self.recipe})"
        lacking = ", ".join(f"{c} {self.names[c]} ({count})" for c, count in self.missing.items())
        reason = f"fewer than 2 images with at least {max(1, self.area_filter)} pixels of the class: {lacking}"
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

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        index = range(len(self))[index]
        if index in self._cache:
            return tuple(part.clone() for part in self._cache[index])
        image_file, mask_file = self._files[index]
        image = torch.from_numpy(read_image(image_file)).permute(2, 0, 1).contiguous()
        mask = torch.from_numpy(self._relabel[read_mask(mask_file)])
        if image.nbytes + mask.nbytes <= self._room:
            self._room -= image.nbytes + mask.nbytes
            self._cache[index] = image.clone(), mask.clone()
        return image, mask

    def list_hash(self) -> str:
        """sha256 (hexadecimal) of the sorted ids of the list, joined by newlines, before `novel="drop"`."""
        return hashlib.sha256("\n".join(self._list_ids).encode()).hexdigest()

    def signature(self) -> str:
        settings = (self.fold, self.split, self.classes, self.area_filter, self.novel, self._relabel[:21].tolist())
        pixels = hashlib.sha256(self._areas.tobytes()).hexdigest()
        return "\n".join([f"{self.name} {settings} {pixels}", *self.ids])


def _validation_classes(wanted: int | tuple[int, ...], base: tuple[int, ...]) -> tuple[int, ...]:
    """The held-back classes: the last `wanted` base classes, or the ids given. At least one class stays to train on."""
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(base):
        return base[len(base) - wanted :]
    if isinstance(wanted, (tuple, list)) and set(wanted) < set(base):
        return tuple(sorted(set(wanted)))
    raise DatasetError(
        f"val_classes={wanted!r}: expected a number from 0 to {len(base) - 1}, or ids of some base classes of this "
        f"fold ({', '.join(map(str, base))})."
    )
