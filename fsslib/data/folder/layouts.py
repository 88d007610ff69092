"""Which files of somebody's own folder belong together: class folders, images beside masks, or files of outlines.

`find_layout` comes first, then the pairs of either kind of folder, then looking through folders and at other files.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ...arguments import choose
from ...errors import DatasetError
from ...files import comparable, composed, located
from ..base import few
from ..pictures import LOSSY
from . import LAYOUTS
from .problems import Problem

# .heic cannot be decoded by Pillow alone: listed, so that the checker names those files.
PICTURES = {*LOSSY, ".png", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
_IMAGES = ("images", "jpegimages", "imgs", "img", "image", "photos", "pictures")
_MASKS = (
    "masks", "mask", "segmentationclass", "labels", "label", "annotations", "annotation", "segmentations",
    "segmentation", "labelmaps", "gt", "groundtruth", "ground_truth", "seg",
)  # fmt: skip
_ENDINGS = tuple(sign + word for word in ("mask", "label", "labels", "seg", "gt") for sign in "_-.")
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
_SIGN = r"[-_. ]?"
# Folders that part a data set; what they are called says nothing of classes.
_SPLITS = {
    "train": "train|training|trn|trainval",
    "val": "val|valid|validation|dev|eval",
    "test": "test|testing|tst|holdout",
}
_SPLITS = {name: re.compile(f"({words})({_SIGN}(set|data|split|images|imgs|\\d+))*") for name, words in _SPLITS.items()}
_PARTS = re.compile(rf"(split|fold|set|part|batch|chunk|subset|shard|group|job|task|session){_SIGN}(\d+|[a-d])")
KEYS = ("images", "annotations", "categories")  # the lists of a COCO file
# How a text file of YOLO begins: a class and some numbers, right or wrong.
_NUMBERS = re.compile(rb"[\s\xef\xbb\xbf\xff\xfe]*[\d.]+(?:[\s,;]+[-+]?\d[\d.,eE+-]*){2}")
_DESCRIBES = re.compile(rb"""^\s*["']?(?:names|nc)["']?\s*:""", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """An image and what labels it; `cls` is the class of a mask of one object, None for a label map."""

    id: str
    image: Path
    mask: Path
    cls: int | None = None


@dataclass
class Pairing:
    """The files of one layout: pairs by id, class names where the layout knows them, what does not fit, how many images
    there are with or without what they need (`total`), and the splits that a file names (`listed`: split -> ids).
    `background` are images that nothing is outlined in."""

    layout: str
    base: Path
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    names: dict[int, str] | None = None
    total: int = 0
    listed: dict[str, list[str]] = field(default_factory=dict)
    background: list[Path] = field(default_factory=list)

    @property
    def splits(self) -> dict[str, list[str]]:
        """Split -> ids of its pairs, where a file, or folders named train, valid, test and the like, part them; else
        nothing."""
        if len(self.listed) > 1:
            return self.listed
        parts: dict[str | None, list[str]] = {}
        for entry in self.entries if self.layout in ("images_masks", "yolo", "labelme") else ():
            parts.setdefault(split_of(entry.id.split("/")[0]) if "/" in entry.id else None, []).append(entry.id)
        return {} if None in parts or len(parts) < 2 else {name: parts[name] for name in _SPLITS if name in parts}

    def blame(self, file: Path, kind: str, message: str, cure: str) -> None:
        """One more problem."""
        self.problems.append(Problem(file, kind, message, cure))


def find_layout(root: str | Path, layout: str = "auto") -> tuple[str, Path]:
    """The layout of `root` and the folder that has it: `root` itself, or its one subfolder that does.

    For `"coco_json"` the annotation file stands for the folder, and for `"yolo"` its YAML file may. Raises DatasetError
    when `root` does not exist, or when nothing, or more than one thing, is recognised.
    """
    root = located(root, "root", DatasetError)
    choose(layout, ("auto", *LAYOUTS), "layout=", DatasetError)
    if not root.exists():
        raise DatasetError(f"there is no folder {root}: pass root=PATH of the folder with your pictures.")
    if root.is_file():
        kind = {".json": "coco_json", ".yaml": "yolo", ".yml": "yolo"}.get(root.suffix.lower())
        if kind is None or layout not in ("auto", kind):
            raise DatasetError(
                f"{root} is a file: pass the folder with your pictures, a COCO file (.json), or the data.yaml of a "
                "YOLO data set."
            )
        if kind == "coco_json" and not mentions(root) and is_labelme(root):
            raise DatasetError(f"{root} is labelme's file of one picture: pass the folder with all of them.")
        return kind, root
    if layout == "auto" and _is_yolo(root):
        layout = "yolo"
    wanted = LAYOUTS if layout == "auto" else (layout,)
    inside = [folder for folder in _folders(root) if by_stem(folder)]
    places = [root, *inside] if len(inside) == 1 else [root]
    # A single subfolder with images/ and masks/ is an unpacked archive rather than the only class.
    order = [(place, name) for name in ("images_masks", "coco_json", "class_folders") for place in places]
    chosen = next((hit for place, name in order if name in wanted and (hit := _match_layout(place, name))), None)
    if not chosen and "images_masks" in wanted and label_parts(root, layout != "auto"):
        chosen = ("images_masks", root)
    if not chosen:  # outlines may lie beside all other kinds of masks, which somebody may have made from them
        outlines = (name for name in ("yolo", "labelme") if name in wanted)
        chosen = next((hit for name in outlines if (hit := _match_layout(root, name, layout != "auto"))), None)
    if not chosen:
        hits = [hit for place in inside for name in wanted if (hit := _match_layout(place, name))]
        if len(hits) > 1:
            several = ", ".join(sorted({os.path.relpath(place, root) for _, place in hits}))
            raise DatasetError(f"{root} holds several data sets ({several}): pass one of them as root.")
        chosen = hits[0] if hits else None
    if not chosen and "coco_json" in wanted:  # then a broken one is more than nothing: the report says what is wrong
        broken = [file for place in places for file in _documents(place) if mentions(file)]
        chosen = ("coco_json", broken[0]) if len(broken) == 1 else None
    if chosen:
        return chosen
    here = few(sorted(path.name + "/" * path.is_dir() for path in _visible(root)), 8) or "nothing"
    looked = {
        "images_masks": "images_masks (images/NAME.jpg with masks/NAME.png; or JPEGImages, imgs, SegmentationClass, …; "
        "or NAME.jpg with NAME_mask.png; either in train/, valid/ and test/ too)",
        "coco_json": "coco_json (a COCO instances file *.json here or in annotations/, with the images)",
        "class_folders": "class_folders (CLASS/NAME.jpg with NAME.png or NAME_mask.png, or CLASS/images, CLASS/masks)",
        "yolo": "yolo (images/NAME.jpg with labels/NAME.txt, or NAME.jpg with NAME.txt, and data.yaml)",
        "labelme": "labelme (NAME.jpg with labelme's NAME.json)",
    }  # fmt: skip
    raise DatasetError(
        f"no data set is recognised in {root}. Looked, here and one level deeper, for "
        f"{'; '.join(looked[name] for name in wanted)}. Found: {here}. Rename the folders, or pass another root. "
        "Of another format (CVAT, Supervisely, …) datumaro makes a COCO file: `datum convert`, -f coco_instances."
    )


def _match_layout(place: Path, layout: str, sure: bool = False) -> tuple[str, Path] | None:
    """The layout and where it begins, if `place` has it; `sure`: somebody said so, whatever its files look like."""
    if layout in ("yolo", "labelme"):
        place = _unwrapped(place)
        drawn = layout == "labelme" and any(sure or is_labelme(file) for file in json_files(place))
        return (layout, place) if drawn or (layout == "yolo" and _has_texts(place, sure)) else None
    if layout != "coco_json":
        hit = _parted(place) if layout == "images_masks" else class_folders(place)
        return (layout, place) if hit else None
    files = [file for file in _documents(place) if _is_coco(file)]  # known by its lists
    if len(files) > 1:
        several = few((os.path.relpath(file, place) for file in files), 6)
        raise DatasetError(f"{place} holds {len(files)} annotation files ({several}): pass the one you mean as root.")
    return (layout, files[0]) if files else None


def images_masks(base: Path) -> Pairing:
    """Label maps in a folder beside the images, any depth (`images/a/1.jpg` belongs to `masks/a/1.png`), or in one with
    them; in `base` or in each of the folders that part it, see `label_parts`."""
    pairing = Pairing("images_masks", base)
    for folder in label_parts(base, anyway=True):
        _pair(pairing, *_pictures_of(folder), "" if folder == base else f"{composed(folder.name)}/", None)
    return pairing


def split_of(name: str) -> str | None:
    """The split that a folder's name means: `valid`, `Test_set` or `train2017`; None for any other name."""
    return next((split for split, words in _SPLITS.items() if words.fullmatch(name.lower())), None)


def label_parts(base: Path, anyway: bool = False) -> list[Path]:
    """The folders with images and label maps: `base` with its images/ and masks/; or train/, valid/, fold_1/ and the
    like, as long as all are called so; or `base` with everything in it. `anyway`: whatever the folders are called."""
    flat = [base] if _pairs_in(base) else []
    return _parted(base) or (class_folders(base) if anyway else []) or flat


def _parted(base: Path) -> list[Path]:
    """`base` if it has folders of images and of masks; else its folders, if each is called after a part of the data."""
    if _image_folders(base):
        return [base]
    folders = class_folders(base)
    if len(folders) == 1 and _image_folders(folders[0]):
        return []  # an unpacked archive, one folder deeper
    named = all(split_of(folder.name) or _PARTS.fullmatch(folder.name.lower()) for folder in folders)
    return folders if named else []


def _pairs_in(folder: Path) -> bool:
    images, masks, _ = _pictures_of(folder)
    return any(_key(stem, images) in images for stem in masks)


def class_masks(base: Path) -> Pairing:
    """One folder a class, with masks of one object. Class ids count from 1 in alphabetical order and skip 255."""
    pairing = Pairing("class_folders", base, names={})
    for at, folder in enumerate(class_folders(base), 1):
        cls, name = at + (at >= 255), composed(folder.name)
        if name in pairing.names.values():
            message = "is another class folder's name, in another form of Unicode"
            pairing.blame(folder, "duplicate name", message, "Move its files into the other folder.")
            continue
        pairing.names[cls] = name
        _pair(pairing, *_pictures_of(folder), f"{name}/", cls)
    return pairing


def class_folders(base: Path) -> list[Path]:
    """The class folders in alphabetical order; none unless one holds a pair. Folders of other things are left out."""
    folders = [folder for folder in _folders(base) if any(_pictures_of(folder)[:2])]
    return folders if any(map(_pairs_in, folders)) else []


def _pictures_of(folder: Path) -> tuple[Mapping, Mapping, Path]:
    """Images and masks of a class by stem, and the folder of the masks."""
    parts = _image_folders(folder)
    return (*map(by_stem, parts), parts[1]) if parts else (*_split(folder), folder)


def _split(folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Images and masks that lie in one folder, told apart by `_mask` in the name or by PNG beside JPEG."""
    stems = by_stem(folder, deep=False)
    masks = {stem: stems[stem] for stem in stems if _key(stem, stems) != stem}
    images = {stem: files for stem, files in stems.items() if stem not in masks}
    named, suffixed = {_key(stem, stems) for stem in masks}, bool(masks)
    for stem, files in stems.items():
        if stem not in images or stem in named or (suffixed and len(files) == 1):
            continue
        drawn = [file for file in files if file.suffix.lower() not in LOSSY]
        png = [file for file in drawn if file.suffix.lower() == ".png"]
        chosen = drawn if len(drawn) == 1 else png if len(png) == 1 and len(files) == 2 else []
        if chosen:
            masks[stem] = chosen
            images[stem] = [file for file in files if file not in chosen]
    return {stem: files for stem, files in images.items() if files}, masks


def _pair(pairing: Pairing, images: Mapping, masks: Mapping, place: Path, prefix: str, cls: int | None) -> None:
    """Add the pairs of equal stems to `pairing`, and a problem for every file left over; `place` is where masks are."""
    matched: dict[str, list[Path]] = {}
    for stem, files in masks.items():
        matched.setdefault(_key(stem, images), []).extend(files)
    small = {stem.casefold(): files[0].name for stem, files in matched.items()}
    pairing.total += len({*images, *matched})
    for stem in sorted({*images, *matched}):
        mine, theirs = images.get(stem, []), _without_originals(matched.get(stem, []))
        if not theirs:
            alike = small.get(stem.casefold())
            cure = "Draw the mask, or remove the image."
            cure = f"{alike} differs in capital letters only: rename it." if alike else cure
            for file in mine:
                message = f"there is no mask {stem}.png (nor {Path(stem).name}_mask.png) in {place.name}/"
                pairing.blame(file, "image without mask", message, cure)
        elif not mine:
            for file in theirs:
                cure = "Add the image, or remove the mask."
                pairing.blame(file, "mask without image", f"there is no image named {stem}", cure)
        elif len(mine) > 1 or len(theirs) > 1:
            several = sorted(mine if len(mine) > 1 else theirs)
            message = f"shares its name with {', '.join(file.name for file in several[:-1])}, and only one can be meant"
            cure = f"Remove one of {' and '.join(file.name for file in several)}, or give it another name."
            pairing.blame(several[-1], "duplicate name", message, cure)
        else:
            pairing.entries.append(Entry(prefix + stem, mine[0], theirs[0], cls))


def _without_originals(masks: list[Path]) -> list[Path]:
    """Masks without the files that one of them was made from, as `cures.renumber` notes it."""
    if len(masks) < 2:
        return masks
    from PIL import Image

    made = set()
    for file in masks:
        with contextlib.suppress(Exception), Image.open(file) as picture:  # broken ones are judged later
            made.add(picture.info.get("Source"))
    return [file for file in masks if file.name not in made] or masks


def _key(stem: str, images: Mapping) -> str:
    """The image that a mask's name means: itself, or without `_mask` and the like."""
    if stem in images and not stem.lower().endswith(_ENDINGS):
        return stem
    for ending in _ENDINGS:
        if stem.lower().endswith(ending) and stem[: -len(ending)] in images:
            return stem[: -len(ending)]
    return stem


def spare_folders(base: Path, used: Iterable[str]) -> list[Path]:
    """The folders of `base` with pictures, besides those called as in `used`."""
    used = set(used)
    return [folder for folder in _folders(base) if folder.name not in used and by_stem(folder)]


def pictures(base: Path) -> dict[str, list[Path]]:
    """File name (`comparable`) -> where below `base` it is."""
    named: dict[str, list[Path]] = {}
    for files in by_stem(base).values():
        for file in files:
            named.setdefault(comparable(file.name), []).append(file)
    return named


def named_picture(photographs: Mapping[str, list[Path]], base: Path, name: str) -> Path | None:
    """Of `pictures(base)` the one with the right last name whose path ends as `name`, or the only one there is."""
    files = photographs.get(comparable(Path(name).name), [])
    paths = {file: comparable(f"/{os.path.relpath(file, base)}".replace(os.sep, "/")) for file in files}
    fitting = [file for file, path in paths.items() if path.endswith(comparable(f"/{name}"))]
    fitting = fitting or (files if len(files) == 1 else [])
    return min(fitting, key=lambda file: len(file.parts), default=None)


def _shown(name: str) -> bool:
    return name[0] != "." and name.lower() not in _IGNORED


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if _shown(path.name))


def _files(base: Path, deep: bool = True) -> Iterator[Path]:
    """The files below `base`, folder by folder; or only those in it."""
    for at, folders, names in os.walk(base):
        folders[:] = sorted(filter(_shown, folders)) if deep else []
        yield from (Path(at, name) for name in sorted(filter(_shown, names)))


def _folders(base: Path) -> list[Path]:
    return sorted((path for path in _visible(base) if path.is_dir()), key=lambda path: composed(path.name))


def by_stem(folder: Path, deep: bool = True) -> dict[str, list[Path]]:
    """Path below `folder` without its ending (`composed`) -> the pictures of that name."""
    stems: dict[str, list[Path]] = {}
    for file in _files(folder, deep):
        if file.suffix.lower() in PICTURES:
            stems.setdefault(composed(file.relative_to(folder).with_suffix("").as_posix()), []).append(file)
    return stems


def _image_folders(base: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks, by their usual names in small or capital letters."""
    named = {path.name.lower(): path for path in _folders(base)}
    pair = [[named[name] for name in names if name in named and by_stem(named[name])] for names in (_IMAGES, _MASKS)]
    return (pair[0][0], pair[1][0]) if all(pair) else None


def _unwrapped(place: Path) -> Path:
    """The folder that an archive was unpacked into: `place`, or the only thing in it."""
    while len(inside := [*_visible(place)]) == 1 and inside[0].is_dir() and inside[0].name.lower() not in _IMAGES:
        place = inside[0]
    return place


def label_text(image: Path) -> Path:
    """YOLO's label of an image: in `labels`, where its path has `images` (the last of several), else beside it."""
    *folders, _ = image.parts
    if "images" in folders:
        at = len(folders) - 1 - folders[::-1].index("images")
        there = Path(*folders[:at], "labels", *folders[at + 1 :], f"{image.stem}.txt")
        if there.is_file():
            return there
    return image.with_name(f"{image.stem}.txt")


def descriptions(place: Path) -> list[Path]:
    """The YAML files in a folder that name YOLO's classes; the one called as usual alone, where there is one."""
    files = [path for path in sorted(_visible(place)) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    files = [file for file in files if _DESCRIBES.search(_beginning(file, 2**20))]
    usual = [file for file in files if file.stem.lower() in ("data", "dataset")]
    return usual if len(usual) == 1 else files


def _is_yolo(place: Path) -> bool:
    """Whether a folder says so itself, and nothing else: two pictures of one name in it are no image and mask."""
    place = _unwrapped(place)
    said = descriptions(place) or any(folder.name == "labels" and not by_stem(folder) for folder in _folders(place))
    other = _image_folders(place) or any(map(_is_coco, _documents(place)))
    return bool(said) and not other and _has_texts(place, False)


def _has_texts(place: Path, sure: bool) -> bool:
    """Whether pictures below `place` have texts that look like YOLO's, and are one data set."""
    if not descriptions(place) and any(map(descriptions, _folders(place))):
        return False
    labels = {label_text(image) for files in by_stem(place).values() for image in files}
    return any(label.is_file() and (sure or begins_with_numbers(label)) for label in labels)


def begins_with_numbers(file: Path) -> bool:
    """Whether a text file may be one of YOLO's."""
    return bool(_NUMBERS.match(_beginning(file)))


def json_files(base: Path) -> list[Path]:
    """The JSON files below `base`."""
    return [file for file in _files(base) if file.suffix.lower() == ".json"]


def is_labelme(file: Path) -> bool:
    """Whether a file has the words of labelme's format, however broken it is."""
    return _has_words(file, ("shapes",))


def _beginning(file: Path, length: int | None = 256) -> bytes:
    """The first bytes of a file, letters of 16 bits as letters of 8; none of one that cannot be read."""
    with contextlib.suppress(OSError), open(file, "rb") as stream:
        return stream.read(length).replace(b"\0", b"")
    return b""


def _documents(base: Path) -> list[Path]:
    """The JSON files where a COCO file may lie."""
    places: Sequence[Path] = [base, *(path for path in _folders(base) if path.name.lower() == "annotations")]
    return [file for place in places for file in sorted(_visible(place)) if file.suffix.lower() == ".json"]


def mentions(file: Path) -> bool:
    """Whether a file has the words of a COCO file, however broken it is."""
    return _has_words(file, KEYS[:2])


def _has_words(file: Path, keys: Sequence[str]) -> bool:
    text = _beginning(file, None)
    return all(f'"{key}"'.encode() in text for key in keys)


def _is_coco(file: Path) -> bool:
    try:
        stat = file.stat()
        return _parses(file, stat.st_mtime_ns, stat.st_size)
    except OSError:  # a folder, or not to be read just now: nothing to remember
        return False


@lru_cache(64)
def _parses(file: Path, time: int, size: int) -> bool:
    """Whether a file is JSON with COCO's lists; read once for its `time` and `size`, as it may hold half a gigabyte."""
    try:
        document = json.loads(file.read_bytes()) if _has_words(file, KEYS) else None
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and all(isinstance(document.get(key), list) for key in KEYS)
