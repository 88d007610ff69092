"""PASCAL-5i: the twenty VOC classes in four folds of five, on VOC 2012 photographs with VOC and SBD masks.

First where the files are and which images belong to it, then reading masks, then the data set.
"""

import os
import re
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...arguments import choose
from ...episode import IGNORE
from ...errors import DatasetError
from ...files import comparable, composed, read_lines
from ..base import few
from ..folds import SCHEMES, fold_classes
from ..pictures import open_picture, picture_size, read_image
from .base import Photographs, find_root, pixel_counts, same_size
from .label_index import LabelIndex

_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
)
NAMES = dict(enumerate(_NAMES.split(), start=1))
IMAGE_LISTS = ("auto", "pascal5i", "trainaug", "voc")


def find_voc(root: str | Path) -> Path:
    """The folder that holds `JPEGImages`: `root`, `root/VOC2012` or `root/VOCdevkit/VOC2012`. Raises DatasetError."""
    expected = (
        f"PASCAL VOC folder at {root}: neither it nor VOC2012 nor VOCdevkit/VOC2012 in it holds a folder JPEGImages. "
        "Unpack VOCtrainval_11-May-2012.tar and pass root=PATH of VOCdevkit/VOC2012 (or of its parent)."
    )
    return find_root(root, ("", "VOC2012", "VOCdevkit/VOC2012"), "JPEGImages/", expected)


def find_sbd(voc: Path, sbd: str | Path | None = None) -> Path | None:
    """SBD's folder with `cls/*.mat` and `train.txt`, or None where there is none.

    `sbd` may name `benchmark_RELEASE`, its `dataset` or a folder with the same content. Without it, `SBD` and
    `benchmark_RELEASE` are looked for in the VOC folder and up to two folders above. Raises DatasetError when an
    explicit `sbd` is no such folder.
    """
    below = ("dataset", "", "benchmark_RELEASE/dataset")
    if sbd is not None:
        expected = f"SBD folder at sbd={sbd}: expected cls/ID.mat in it or in its subfolder dataset. "
        return find_root(sbd, below, "cls/", f"{expected}Unpack benchmark.tgz, pass sbd=PATH of benchmark_RELEASE.")
    roots = [place / name for place in (voc, *voc.absolute().parents[:2]) for name in ("benchmark_RELEASE", "SBD")]
    places = (root / name for root in roots for name in below)
    return next((place for place in places if (place / "cls").is_dir()), None)


def read_list(file: str | Path) -> dict[str, str | None]:
    """A list file as id -> mask path (None where the list does not name one), duplicates merged.

    Each line is an id (`2007_000033`) or an image and mask pair (`JPEGImages/x.jpg SegmentationClassAug/x.png`), as
    the field's published lists have it; empty lines and comments behind # are skipped. Raises DatasetError, also for
    an id with two masks.
    """
    lines = read_lines(file, "list file", "Pass the path of a text file with one image id a line.")
    entries: dict[str, str | None] = {}
    first: dict[str, int] = {}
    for number, line in lines.items():
        parts = line.replace("\\", "/").split()
        name = re.sub("[.]jpg$", "", composed(Path(parts[0]).name), flags=re.IGNORECASE)
        if len(parts) > 2 or name.strip(".") == "":
            raise DatasetError(
                f"{file}, line {number}: {line!r} has {len(parts)} columns; "
                "expected an id, or an image and a mask path without spaces."
            )
        mask = parts[1] if len(parts) == 2 else None
        if entries.setdefault(name, mask) != mask:
            raise DatasetError(
                f"{file}, line {number}: {name} has another mask than in line {first[name]}. Leave one of them."
            )
        first.setdefault(name, number)
    if not entries:
        raise DatasetError(f"list file {file} names no image: put one image id on each line.")
    return entries


def _named(folder: Path) -> dict[str, str]:
    """The files of a folder by name: .JPG and .PNG too."""
    return {comparable(name): name for name in sorted(os.listdir(folder))}


def _ids(file: Path) -> set[str]:
    return set(read_list(file)) if file.is_file() else set()


def _segmentation_ids(voc: Path, part: str) -> set[str]:
    file = voc / "ImageSets" / "Segmentation" / f"{part}.txt"
    if not file.is_file():
        raise DatasetError(
            f"{file} is missing: it lists VOC's {part} images. Unpack ImageSets/ too, or pass images=LIST FILE."
        )
    return set(read_list(file))


def test_ids(voc: Path) -> list[str]:
    """Sorted ids of the test images: the VOC 2012 segmentation val list (1,449 in the full set)."""
    return sorted(_segmentation_ids(voc, "val"))


def training_ids(voc: Path, sbd: Path | None = None, image_list: str = "auto") -> tuple[list[str], str]:
    """Sorted training ids and the name of their list. VOC val images are never among them.

    With V = VOC segmentation train, T = VOC segmentation val, S = SBD train + SBD val (where SBD's lists are absent:
    every mask in `SegmentationClassAug`) and N = SBD's `train_noval.txt`:

    * `"pascal5i"`: (V + N) - T. The list that the PFENet family publishes: 1,464 + 5,623 with 1,134 in both = 5,953.
      Where `train_noval.txt` is absent N is S restricted to VOC's `ImageSets/Main/train.txt`; the counts say that this
      is how N was made (5,623 + 5,732 on the Main val side = all 11,355 SBD images).
    * `"trainaug"`: (V + S) - T, 10,582 images in the full sets. Never 5,953: SBD's own split is not VOC's.
    * `"voc"`: V alone, 1,464 images.
    * `"auto"`: the first of pascal5i, trainaug, voc for which the files are there.

    Raises DatasetError for an unknown list or one whose files are missing.
    """
    choose(image_list, IMAGE_LISTS, "image list", DatasetError)
    voc_train, held_out = _segmentation_ids(voc, "train"), _segmentation_ids(voc, "val")
    noval = _ids(sbd / "train_noval.txt") if sbd else set()
    pool = _ids(sbd / "train.txt") | _ids(sbd / "val.txt") if sbd else set()
    pool = pool or {mask.stem for mask in (voc / "SegmentationClassAug").glob("*.png")}
    main = _ids(voc / "ImageSets" / "Main" / "train.txt")
    extra = {"pascal5i": noval or (pool & main), "trainaug": pool, "voc": set()}
    if image_list == "auto":
        image_list = next(name for name in ("pascal5i", "trainaug", "voc") if extra[name] or name == "voc")
    if image_list != "voc" and not extra[image_list]:
        needs = "SBD (sbd=PATH) or a folder SegmentationClassAug"
        if image_list == "pascal5i":
            needs = f"SBD's train_noval.txt, or ImageSets/Main/train.txt together with {needs}"
        cure = "Add it, or pass images='voc' or a list file."
        raise DatasetError(f"the {image_list!r} list of {voc} needs {needs}. {cure}")
    return sorted((voc_train | extra[image_list]) - held_out), image_list


# Reading VOC and SBD masks, palette PNG and .mat, with an error that names whatever is broken.


def voc_palette() -> np.ndarray:
    """VOC's colour map (256, 3) uint8: the bits of the class id, dealt to red, green and blue from the top bit down."""
    bits = np.arange(256)[:, None, None] >> np.arange(24).reshape(8, 3) & 1
    return np.packbits(bits, axis=1)[:, 0]


def read_mask(file: Path) -> np.ndarray:
    """Label map (H, W) uint8 from a PNG (palette indices or grey values) or SBD .mat: 0..20 and 255, nothing else.
    Raises DatasetError for a broken file, a colour picture, a re-indexed palette or an unknown class id."""
    mask = _read_mat(file) if file.suffix.lower() == ".mat" else _read_png(file)
    unknown = (mask > len(NAMES)) & (mask != IGNORE)
    if unknown.any():
        wrong = np.unique(mask[unknown]).tolist()
        raise DatasetError(
            f"mask {file} has the values {wrong[:5]}; expected class ids 0 to 20, or 255 for ignored pixels. "
            "Map your ids to VOC's, or use the 'folder' data set for other classes."
        )
    return mask


def _read_mat(file: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        mask = loadmat(file)["GTcls"][0]["Segmentation"][0]
        return np.ascontiguousarray(mask, dtype=np.uint8)
    except Exception as error:  # scipy raises a dozen types on broken .mat files
        raise DatasetError(
            f"cannot read SBD mask {file}: {error!r}. Expected the field GTcls.Segmentation; unpack SBD's cls/ again."
        ) from error


def _read_png(file: Path) -> np.ndarray:
    picture = open_picture(file, "mask")
    mode, palette, mask = picture.mode, picture.getpalette(), np.array(picture)
    if mode not in ("P", "L"):
        raise DatasetError(
            f"mask {file} is a picture of mode {mode}; expected one 8-bit class id a pixel (palette or greyscale PNG). "
            "Convert: map each colour to its class id, then PIL.Image.fromarray(ids.astype('uint8')).save(FILE)."
        )
    for index, meant in _reindexed(tuple(palette)) if mode == "P" else ():
        if (mask == index).any():
            raise DatasetError(
                f"mask {file} has a re-indexed palette: index {index} is drawn in VOC's colour of class {meant}. "
                "An image editor saved it; restore the original, or renumber the pixels by their palette colour."
            )
    return mask


@lru_cache(16)
def _reindexed(palette: tuple[int, ...]) -> list[tuple[int, int]]:
    """Indices that have the colour of another VOC class, with that class: image editors renumber palettes on saving,
    and nothing else shows it. `palette`: red, green and blue of index 0, then of index 1, ..."""
    known = {tuple(colour): number for number, colour in enumerate(voc_palette().tolist()[: len(NAMES) + 1])}
    meant = [known.get(colour, index) for index, colour in enumerate(zip(*[iter(palette)] * 3))]
    return [(index, number) for index, number in enumerate(meant) if number != index]


def mask_counts(image: Path, mask: Path) -> dict[int, int]:
    """Pixels of each class id in `mask`, after its size was compared with the photograph's."""
    label = read_mask(mask)
    same_size(label, picture_size(image), (mask, image.name))
    return pixel_counts(label)


class Pascal5i(Photographs):
    """PASCAL-5i (Shaban et al., "One-Shot Learning for Semantic Segmentation", BMVC 2017): fold f tests classes
    5f+1 .. 5f+5 of the VOC order.

    Args:
        root: the VOC folder (it holds `JPEGImages`), or a parent with `VOC2012` or `VOCdevkit/VOC2012`.
        fold, split: `"train"` base classes on the training list; `"val"` the held-back base classes on the same list;
            `"test"` the five novel classes on VOC val.
        images: `"auto"`, `"pascal5i"` (5,953 images), `"trainaug"` (10,582), `"voc"` (1,464), see
            `training_ids` (all four mean VOC val for `"test"`), or the path of a list file.
        min_area, novel, val_classes, cache: see `Photographs`.
        fold_scheme: `"contiguous"`, or `"interleaved"` (fold f tests f+1, f+5, ...), see `folds.fold_classes`.
        sbd: folder of SBD; without it the usual places are tried. Masks are taken from `SegmentationClassAug`, else
            `SegmentationClass`, else SBD's `cls/ID.mat`.
        download: fetch VOC 2012 and SBD (3 GB) into `root` unless they are there.

    Attributes besides those of Photographs: `image_list` (which one).
    """

    name = "pascal"
    title = "PASCAL-5i"
    root_holds = "VOCdevkit/VOC2012"

    def __init__(
        self, root: str | Path | None = None, fold: int = 0, split: str = "train", *, images: str | Path = "auto",
        min_area: int = 0, novel: str = "background", val_classes: int | tuple[int, ...] = 3,
        fold_scheme: str = "contiguous", sbd: str | Path | None = None, cache: bool = True, download: bool = False,
    ) -> None:  # fmt: skip
        self._begin(root, fold, split, cache=cache, download=download)
        self.names = NAMES
        novel_classes = fold_classes(tuple(self.names), fold, scheme=fold_scheme)
        self.fold_scheme = {"contiguous": "VOC order, 5 a fold"}.get(fold_scheme, SCHEMES[fold_scheme])
        targets, unwanted = self._divide(novel_classes, val_classes, novel, min_area, cache)
        if download:
            from ..download.sources import download as fetch

            fetch("pascal", root)
        self.voc = find_voc(root)
        self._sbd = find_sbd(self.voc, sbd)
        entries, self.image_list = self._list(images)
        files = self._locate(entries)
        areas = LabelIndex("voc", self.voc, mask_counts).counts(files)
        self._warn_of_test_images(entries)
        self._take(sorted(entries), files, areas, targets, unwanted, where=f", list: {self.image_list}")

    def _warn_of_test_images(self, entries: dict[str, str | None]) -> None:
        file = self.voc / "ImageSets" / "Segmentation" / "val.txt"
        shared = set(entries) & set(read_list(file)) if file.is_file() and self.split != "test" else ()
        if shared:
            warnings.warn(
                f"{len(shared)} of {len(entries)} training images are VOC val images, on which PASCAL-5i is tested: "
                "scores of a model trained on them are not comparable.",
                stacklevel=3,
            )

    def _list(self, images: str | Path) -> tuple[dict[str, str | None], str]:
        if str(images) not in IMAGE_LISTS:
            return read_list(images), f"file {Path(images).name}"
        if self.split == "test":
            return dict.fromkeys(test_ids(self.voc)), "VOC val"
        ids, image_list = training_ids(self.voc, self._sbd, str(images))
        return dict.fromkeys(ids), image_list

    def _locate(self, entries: dict[str, str | None]) -> list[tuple[Path, Path]]:
        """Image and mask file of every id; one directory listing per folder instead of a look-up per file."""
        places = [(self.voc / name, ".png") for name in ("SegmentationClassAug", "SegmentationClass")]
        places += [(self._sbd / "cls", ".mat")] if self._sbd else []
        listed = [(folder, end, _named(folder)) for folder, end in places if folder.is_dir()]
        photographs = _named(self.voc / "JPEGImages")
        files, lost_images, lost_masks = [], [], []
        for name, mask in sorted(entries.items()):
            here = [folder / names[name + end] for folder, end, names in listed if name + end in names]
            named = self.voc / mask.lstrip("/") if mask else None
            here = [named] if named and named.is_file() else here
            if f"{name}.jpg" not in photographs:
                lost_images.append(name)
            elif not here:
                lost_masks.append(name)
            else:
                files.append((self.voc / "JPEGImages" / photographs[f"{name}.jpg"], here[0]))
        for lost, what, cure in (
            (lost_images, "image in JPEGImages", "complete JPEGImages"),
            (lost_masks, "mask", "complete SegmentationClass, add SegmentationClassAug, pass sbd=PATH"),
        ):
            if lost:
                raise DatasetError(
                    f"{len(lost)} of {len(entries)} listed ids have no {what} under {self.voc}: {few(lost, 3)}. "
                    f"To cure it, {cure}, or pass images=PATH of a list of what you have."
                )
        return files

    def _read(self, image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
        return read_image(image), read_mask(mask)
