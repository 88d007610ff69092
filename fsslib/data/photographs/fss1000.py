"""FSS-1000: a thousand classes of ten photographs, each with one object mask."""

import hashlib
import os
import re
import warnings
from importlib import resources
from pathlib import Path

import numpy as np

from ...errors import DatasetError
from ...files import comparable, composed, read_lines
from ..base import few, positions
from ..pictures import decoding, open_picture, picture_size, read_image
from .base import Photographs, check_min_area, find_root, pixel_counts, same_size
from .label_index import LabelIndex

CLASSES, IMAGES = 1000, 10
VAL_SHARE = 240 / 760
_PLACES = ("", "fewshot_data", "FSS-1000", "FSS-1000/fewshot_data", "fewshot_data/fewshot_data")
OBJECT = 128  # masks have soft edges: object is what is more than half white


class Fss1000(Photographs):
    """FSS-1000 (Li et al., "FSS-1000: A 1000-Class Dataset for Few-Shot Segmentation", CVPR 2020, arXiv 1907.12347).

    The authors published their 240 test classes, and leave it open how the other 760 are divided into 520 training and
    240 validation classes. Here validation are the classes with the smallest sha256 of their name, unless `val_list`
    says otherwise. Of a part of the data set the same share (24 of 76) of the classes that are no test classes.

    Class ids are alphabetical positions among the class folders from 1 on, leaving out 255, so masks are int16 (uint8
    up to 254 classes); they differ between the whole data set and a part of it, names do not. A mask's object is what
    is brighter than 127; every image shows its own class only.

    Known flaws of the published archive are no obstacle, and reported: pairs whose mask has another size than its
    image (peregine_falcon/8) or no object are left out. A class folder is matched to the test list also when only
    case, spaces or punctuation differ; every other unknown name counts as one of the 760. A warning names the test
    classes without a folder, since one under another spelling would be trained on.

    Args:
        root: folder with one folder per class (`1.jpg` to `10.jpg`, `1.png` to `10.png`), or a parent of it
            (`fewshot_data`, `FSS-1000`).
        fold, split: only fold 0 exists; `"train"`, `"val"` or `"test"` classes and their images.
        val_list: path of a list of validation classes, one name a line, instead of the rule above.
        min_area, cache: see `Photographs`. download: fetch the data set into `root` unless it is there.

    Attributes besides those of Photographs: `incomplete` (class name -> number of pairs, where not ten), `unusable`
    (image ids that were left out -> why).
    """

    name = "fss1000"
    title = "FSS-1000"
    root_holds = "the folder with its class folders"

    def __init__(
        self, root: str | Path | None = None, fold: int = 0, split: str = "train", *,
        val_list: str | Path | None = None, min_area: int = 0, cache: bool = True, download: bool = False,
    ) -> None:  # fmt: skip
        self._begin(root, fold, split, folds=1, cache=cache, download=download)
        check_min_area(min_area)
        if download:
            from ..download.sources import download as fetch

            fetch("fss1000", root)
        expected = (
            f"FSS-1000 folder at {root}: expected one folder per class, with 1.jpg and 1.png to 10.jpg and 10.png. "
            "Unpack fewshot_data.zip there, or pass download=True."
        )
        self.root = find_root(root, _PLACES, "*/1.[jJ][pP][gG]", expected).absolute()
        pairs = _pairs(self.root)
        self.names = dict(zip(positions(len(pairs)).tolist(), sorted(pairs)))
        self._number = {name: number for number, name in self.names.items()}
        self.incomplete = {name: len(stems) for name, stems in sorted(pairs.items()) if len(stems) != IMAGES}
        test, val, lost = self._split(val_list)
        self._report(len(pairs), lost)
        wanted = {"train": set(pairs) - test - val, "val": val, "test": test}[split]
        if not wanted:
            raise DatasetError(f"no class of split {split!r} is among the {len(pairs)} in {self.root}: complete it.")
        test_ids, val_ids = ([c for c, name in self.names.items() if name in part] for part in (test, val))
        targets, _ = self._divide(test_ids, val_ids or 0, "background", min_area, cache)
        rule = "240 by sha256" if val_list is None else f"list {Path(val_list).name}"
        self.fold_scheme = f"240 published test classes; validation: {rule}"
        listed = sorted((f"{self.names[c]}/{stem}", c, stem) for c in targets for stem in pairs[self.names[c]])
        files = [tuple(self.root / file for file in pairs[self.names[c]][stem]) for _, c, stem in listed]
        areas = np.zeros((len(listed), max(self.names) + 1), np.int32)
        counts = LabelIndex("fss1000", self.root, _counts).counts(files, 2)
        areas[np.arange(len(listed)), [c for _, c, _ in listed]] = counts[:, 1]
        self.unusable = {
            name: "no object pixel" if pixels.any() else "mask of another size"
            for (name, _, _), pixels in zip(listed, counts) if not pixels[1]
        }  # fmt: skip
        if self.unusable:
            shown = few(f"{name} ({why})" for name, why in self.unusable.items())
            warnings.warn(f"FSS-1000 {split!r} leaves out {len(self.unusable)} images: {shown}.", stacklevel=2)
        good = [i for i, (name, _, _) in enumerate(listed) if name not in self.unusable]
        self._take([listed[i][0] for i in good], [files[i] for i in good], areas[good], targets)

    def _split(self, val_list: str | Path | None) -> tuple[set[str], set[str], list[str]]:
        """Test and validation classes by the names of their folders, and the test classes that have none."""
        published = official_test_classes()
        there = set(self.names.values())
        other: dict[str, set[str]] = {}  # several folders may be one class in several spellings
        for name in there.difference(published):
            other.setdefault(_plain(name), set()).add(name)
        spelt = {name: {name} if name in there else other.get(_plain(name), set()) for name in published}
        test = set().union(*spelt.values())
        lost = [name for name, folders in spelt.items() if not folders]
        rest = there - test
        if val_list is None:
            ranked = sorted(rest, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
            return test, set(ranked[: round(len(rest) * VAL_SHARE)]), lost
        wanted = set(read_lines(val_list, "the list", "Pass val_list=PATH of a text file.").values())
        if wanted & (test | set(published)):
            raise DatasetError(
                f"{val_list} holds test classes: {few(sorted(wanted & (test | set(published))))}. Classes that scores "
                "are reported on must not choose a checkpoint."
            )
        if not wanted & rest or not rest - wanted:
            raise DatasetError(f"{val_list} holds none, or all, of the base classes in {self.root}: name some of them.")
        if wanted - rest:
            warnings.warn(
                f"{len(wanted - rest)} of {len(wanted)} classes in {val_list} have no folder in {self.root}: "
                f"{few(sorted(wanted - rest))}.",
                stacklevel=3,
            )
        return test, wanted & rest, lost

    def _report(self, count: int, lost: list[str]) -> None:
        notes = [f"{count} of {CLASSES} class folders are there"] if count != CLASSES else []
        if lost:
            notes.append(
                f"{len(lost)} published test classes have no folder (under another name it would count as a class to "
                f"train on): {few(lost)}"
            )
        if self.incomplete:
            shown = few(f"{name} ({pairs})" for name, pairs in self.incomplete.items())
            notes.append(f"{len(self.incomplete)} classes have other than {IMAGES} pairs of image and mask: {shown}")
        if notes:
            warnings.warn(f"FSS-1000 in {self.root}: {'; '.join(notes)}.", stacklevel=3)

    def _read(self, image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
        photograph, seen = read_image(image), _object(mask)
        same_size(seen, (photograph.shape[1], photograph.shape[0]), (mask, image.name))
        return photograph, np.where(seen, self._number[composed(mask.parent.name)], 0)


def official_test_classes() -> list[str]:
    """The 240 test classes that the authors published, sorted."""
    text = resources.files(__package__).joinpath("fss1000_test.txt").read_text(encoding="utf-8")
    return text.partition("\n")[2].split()


def _object(mask: Path) -> np.ndarray:
    """(H, W) bool: the object's pixels, of a grey or colour PNG. Raises DatasetError naming one that is neither."""
    picture = open_picture(mask, "mask")
    if picture.mode == "F" or picture.mode.startswith("I"):
        raise DatasetError(
            f"mask {mask} has one {picture.mode} number a pixel, not 8 bit: copy it from the archive again."
        )
    with decoding(f"mask {mask}"):
        return np.array(picture.convert("L")) >= OBJECT


def _counts(image: Path, mask: Path) -> dict[int, int]:
    """0 and 1 -> pixels; nothing for a mask of another size than its image."""
    seen = _object(mask)
    return pixel_counts(seen.view(np.uint8)) if seen.shape[::-1] == picture_size(image) else {}


def _pairs(root: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """Class name (composed) -> stem -> image and mask below `root`, for every folder that is not hidden."""
    pairs = {}
    for entry in os.scandir(root):
        if entry.is_dir() and not entry.name.startswith((".", "__")):
            files = {comparable(name): name for name in sorted(os.listdir(entry))}  # .JPG and .PNG too
            stems = sorted(name[:-4] for name in files if name.endswith(".jpg"))
            stems = [stem for stem in stems if stem.isdecimal() and f"{stem}.png" in files]
            name = composed(entry.name)
            if name in pairs:
                raise DatasetError(f"two folders of {root} are called {name}, in two forms of Unicode: make them one.")
            ends = (".jpg", ".png")
            pairs[name] = {stem: tuple(f"{entry.name}/{files[stem + end]}" for end in ends) for stem in stems}
    return pairs


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
