"""Your own pictures as a data set: class folders, images beside masks, or files of outlines (COCO, YOLO, labelme)."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from ...arguments import check_count, choose
from ...episode import IGNORE
from ...errors import DatasetError
from ..base import SPLITS, few
from ..folds import SCHEMES, fold_classes
from ..photographs.base import Photographs, same_size
from ..photographs.coco_label_maps import annotated_photograph, open_masks
from ..pictures import picture_sizes, read_image
from .check import survey
from .names_and_lists import class_ids, listed, split_list
from .pairs import read_binary, read_ids


class Folder(Photographs):
    """Your own pictures. `check_folder(root)` lists whatever is wrong with them; this goes on with the sound rest.

    Layouts, found by themselves unless `layout` says which, in `root` or one folder deeper:

    * `"class_folders"`: `root/CLASS/NAME.jpg` with a mask of one object, `NAME.png` or `NAME_mask.png`, beside it; or
      `root/CLASS/images` and `root/CLASS/masks`. Classes count from 1 in alphabetical order; what is not 0 is object.
      Where masks hold several ids, folders may part the images as well: then `layout` has to say what they are.
    * `"images_masks"`: `root/images/NAME.jpg` and `root/masks/NAME.png` (or JPEGImages, imgs, SegmentationClass,
      labels, annotations, …), masks of class ids as grey values or palette indices; 255 is ignored. Where no mask holds
      anything but 0 and 255, 255 is the object of one class. Masks may lie beside their images as `NAME_mask.png` too,
      and all of it in `train/`, `valid/` and `test/`: these are the splits then, as if `lists` had named their images.
    * `"coco_json"`: one COCO instances file in `root` or `root/annotations`, or its path as `root`; the images below.
    * `"yolo"`: `root/images/NAME.jpg` and `root/labels/NAME.txt` (or `NAME.txt` beside its image), in any folders of
      splits, with `data.yaml`, which may be `root` itself, or `classes.txt`. Outlines only: boxes are no masks.
    * `"labelme"`: `NAME.jpg` and labelme's `NAME.json`, anywhere below `root`, with `labels.txt` or in alphabetical
      order. `__ignore__` becomes 255.

    In the last three the smaller object is seen where two overlap, whatever the order of the file; see `rasterise`.
    Of other formats (CVAT, Supervisely, …) datumaro makes a COCO file.

    Args:
        root: the folder. fold, split: as everywhere; folds exist with `folds` only.
        names: class names of `"images_masks"`, `"yolo"` and `"labelme"`: a dict id -> name, a list, or a file; None
            looks for `classes.txt`, `names.txt`, `labels.txt`, `classes.json` or a label map (`labelmap.txt`,
            `class_dict.csv`, `_classes.csv`, …) in the folder, else classes are called "class 3". YOLO's numbers count
            from 0, and class k has the id k + 1.
        novel_classes: names or ids of the classes that "test" targets; "train" (and "val") targets the others.
        folds, fold_scheme: instead of naming them, make every class novel in one of `folds` folds, see
            `folds.fold_classes`. With neither, every class belongs to every split: no score of such a data set says
            anything about classes that training has not seen, and the protocol's card says so.
        val_classes: how many of the other classes are held back for "val" (the last ones), or their names or ids;
            with `novel_classes` or `folds` only.
        novel, min_area, cache: see `Photographs`.
        lists: `{"train": PATH, "test": PATH}`, text files with one image name a line (or the names themselves), which
            keep the images of training and test apart. Without it every split has all images: a photograph that "test"
            asks about may have been seen in training, its novel classes hidden as `novel` says.
        strict: raise DatasetError for the first problem instead of going on without the file.

    Attributes besides those of Photographs: `report` (a FolderReport).
    Raises DatasetError when nothing usable is left, and for options that contradict each other or the folder.
    """

    name = "folder"
    title = "folder"
    root_holds = "the folder"

    def __init__(
        self, root: str | Path | None = None, fold: int = 0, split: str = "train", *, layout: str = "auto",
        names: Mapping | Sequence[str] | str | Path | None = None, folds: int = 1, fold_scheme: str = "interleaved",
        novel_classes: Sequence[int | str] | None = None, val_classes: int | Sequence[int | str] = 0,
        novel: str = "background", lists: Mapping[str, str | Path | Sequence[str]] | None = None, min_area: int = 0,
        strict: bool = False, cache: bool = True,
    ) -> None:  # fmt: skip
        check_count(folds, "folds", error=DatasetError)
        self._begin(root, fold, split, folds, cache=cache, strict=strict)
        choose(fold_scheme, tuple(SCHEMES), "fold_scheme=", DatasetError)
        if novel_classes is not None and folds > 1:
            raise DatasetError("novel_classes and folds exclude each other: name the novel classes, or rotate them.")
        known = survey(root, layout, names, lists, min_area)
        self.names, self.report = known.names, known.report
        self._judge(strict)
        targets, unwanted = self._targets(novel_classes, folds, fold_scheme, val_classes, novel, min_area, cache)
        self._single = known.single
        self._coco = open_masks(known.source) if known.report.layout == "coco_json" else None
        self._draw = known.draw
        self._class = {entry.mask: entry.cls for entry in known.entries}
        lists = self._parted(known.splits) if lists is None else lists
        keep, where = self._listed(lists, known) if lists is not None else (range(len(known.entries)), "")
        entries = [known.entries[at] for at in keep]
        files = [(entry.image, entry.mask) for entry in entries]
        self._first = known.first
        self._take([e.id for e in entries], files, known.areas[list(keep)], targets, unwanted, where=where)

    def _judge(self, strict: bool) -> None:
        """Refuse what cannot be used; warn of files that are left out (classes that are: see `_take`)."""
        report = self.report
        spoilt = [problem for problem in report.problems if problem.kind != "class with too few images"]
        if not report.sound or (strict and report.problems):
            first = report.problems[0] if report.problems else None
            first = f" The first: {first.file}: {first.message}. {first.cure}" if first else ""
            raise DatasetError(
                f"{report.root} ({report.layout}): {report.summary()}.{first} All of them: print(check_folder(root))."
            )
        if spoilt:
            warnings.warn(f"{report.root}: {report.summary()}; see check_folder(root).", stacklevel=3)

    def _targets(self, novel_classes, folds, fold_scheme, val_classes, novel, min_area, cache) -> tuple[tuple, tuple]:
        """Who is targeted and who unwanted (see `Photographs._divide`), and the words for the protocol's card."""
        if folds > 1:
            held = fold_classes(tuple(self.names), self.fold, folds, fold_scheme)
            self.fold_scheme = f"own classes, {folds} folds, {SCHEMES[fold_scheme]}"
        else:
            held = class_ids(() if novel_classes is None else novel_classes, self.names, "novel_classes")
            novel_names = ", ".join(self.names[c] for c in held)
            self.fold_scheme = f"own classes, novel: {novel_names}" if held else "own classes, none held out"
        if len(held) == len(self.names):
            raise DatasetError(f"all {len(held)} classes are novel: leave at least one to train on.")
        if not isinstance(val_classes, int):
            val_classes = class_ids(val_classes, self.names, "val_classes")
        if held:
            return self._divide(held, val_classes, novel, min_area, cache)
        if val_classes:
            raise DatasetError(
                "selection on validation classes needs novel_classes or folds, or the validation classes are test "
                f"classes too: pass one of them, or leave val_classes={val_classes!r} out."
            )
        split, self.split = self.split, "test"  # whose labels are never hidden
        self._divide(held, val_classes, novel, min_area, cache)
        self.split = split
        return tuple(self.names), ()

    def _parted(self, splits: dict[str, list[str]]) -> dict[str, list[str]] | None:
        """The lists that folders named train, valid and test stand for; None where there are none."""
        if splits and self.split not in splits and not (self.split == "val" and "train" in splits):
            raise DatasetError(
                f"{self.report.root} has folders for {' and '.join(splits)}, and none for {self.split!r}: ask for one "
                f"of those, pass lists={{{self.split!r}: …}}, or one of the folders as root for all of its images."
            )
        return splits or None

    def copies(self) -> dict[int, int]:
        images = [self._first.get(image, image) for image, _ in self._files]
        often = {image: number for number, (image, count) in enumerate(Counter(images).items()) if count > 1}
        return {index: often[image] for index, image in enumerate(images) if image in often}

    def _listed(self, lists: Mapping, known) -> tuple[list[int], str]:
        """Positions of this split's images, and how messages call the list."""
        split = "train" if self.split == "val" and "val" not in lists else self.split
        chosen = {name: listed(split_list(lists, name, known.base)[1], known.entries, known.base)[0] for name in lists}
        file, _ = split_list(lists, split, known.base)
        for one, other in combinations([name for name in SPLITS if name in chosen], 2):
            both = sorted(set(chosen[one]) & set(chosen[other]))
            # Validation on all the training images is what happens without a list of its own.
            if both and not (other == "val" and chosen[one] == chosen[other]):
                raise DatasetError(
                    f"{len(both)} images are on the lists of both {one} and {other} "
                    f"({few((known.entries[at].id for at in both), 3)}): take them off one."
                )
            shown = [{known.entries[at].image for at in chosen[name]} for name in (one, other)]
            pictures = [{known.first.get(image, image) for image in images} for images in shown]
            copies = (pictures[0] & pictures[1]) - (shown[0] & shown[1])
            if copies:
                warnings.warn(
                    f"{len(copies)} pictures are on the lists of both {one} and {other}, under two names "
                    f"({few(sorted(file.name for file in copies), 3)}): take the copies off one.",
                    stacklevel=3,
                )
        if not chosen[split]:
            raise DatasetError(f"the list of split {split!r} ({file}) names no usable image of {known.base}.")
        return chosen[split], f", list: {file.name if file != known.base else split}"

    def _read(self, image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
        if self._coco:
            number = int(mask.stem)
            return self._coco.read_photograph(image, number), self._coco.read(number)
        if self._draw:
            label = self._draw(mask, *picture_sizes(image))
            return annotated_photograph(image, *label.shape, mask), label
        photograph, cls = read_image(image), self._class[mask]
        table = np.arange(256, dtype=self._relabel.dtype)
        if cls is None:
            label = read_ids(mask)
            table[IGNORE] = self._single or IGNORE
        else:
            label = read_binary(mask)
            table[1] = cls
        # Somebody may have edited the files since they were checked.
        same_size(label, photograph.shape[1::-1], (str(mask), str(image)))
        return photograph, table[label]
