"""Which images PASCAL-5i consists of: finds the VOC and SBD folders and derives the id lists from their own files."""

from pathlib import Path

from ..errors import DatasetError
from .photographs import find_root

_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
NAMES = dict(enumerate(_NAMES, start=1))
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
    if sbd is not None:
        roots = [Path(sbd).expanduser()]
    else:
        above = [voc, *list(voc.absolute().parents)[:2]]
        roots = [folder / name for folder in above for name in ("benchmark_RELEASE", "SBD")]
    for folder in roots:
        for place in (folder / "dataset", folder, folder / "benchmark_RELEASE" / "dataset"):
            if (place / "cls").is_dir():
                return place
    if sbd is not None:
        raise DatasetError(
            f"sbd={sbd!s} is no SBD folder: expected cls/ID.mat in it or in its subfolder dataset. "
            "Unpack SBD's benchmark.tgz and pass sbd=PATH of benchmark_RELEASE."
        )
    return None


def _lines(file: Path, what: str) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{what} {file} is not a text file: expected one image id a line.") from error
    except OSError as error:
        raise DatasetError(f"cannot read {what} {file}: {error.strerror}. Pass the path of a text file.") from error
    return [line.strip() for line in text.splitlines()]


def read_list(file: str | Path) -> dict[str, str | None]:
    """A list file as id -> mask path (None where the list does not name one), duplicates merged.

    Each line is an id (`2007_000033`) or an image and mask pair (`JPEGImages/x.jpg SegmentationClassAug/x.png`), as
    the field's published lists have it; empty lines and lines starting with # are skipped. Raises DatasetError.
    """
    file, entries = Path(file).expanduser(), {}
    for number, line in enumerate(_lines(file, "list file"), start=1):
        if not line or line.startswith("#"):
            continue
        parts = line.split()
        if len(parts) > 2:
            raise DatasetError(
                f"{file}, line {number}: {line!r} has {len(parts)} columns; "
                "expected an id, or an image and a mask path without spaces."
            )
        entries[Path(parts[0]).name.removesuffix(".jpg")] = parts[1] if len(parts) == 2 else None
    if not entries:
        raise DatasetError(f"list file {file} names no image: put one image id on each line.")
    return entries


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
    if image_list not in IMAGE_LISTS:
        raise DatasetError(f"image list {image_list!r} is unknown: use one of {', '.join(IMAGE_LISTS)}, or a file.")
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
