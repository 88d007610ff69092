"""YOLO's segmentation labels: a text file for each picture, a line for each object.

Source: Ultralytics' documentation, "Instance Segmentation Datasets Overview". A line is `class x1 y1 x2 y2 …`: a class
number from 0, then the corners of an outline as parts of the picture's width and height, after its EXIF note has turned
it. Several outlines of one object stand in one line, joined by a bridge there and back, which has no area. A picture
without a file, or with an empty one, is background. `data.yaml` names the classes, and the folders of the splits.
"""

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...arguments import whole
from ...episode import IGNORE
from ...errors import DatasetError
from ...files import parse_yaml, read_json, read_lines, read_text, text_or_reason
from ..base import SPLITS, few
from ..photographs.coco_label_maps import rasterise
from .label_maps import FILES
from .layouts import Entry, Pairing, begins_with_numbers, by_stem, descriptions, label_text
from .names_and_lists import listed, name_table, named_file
from .pairs import Draw, Size
from .problems import Fault

FORMAT = "Expected a line for each outline: class x1 y1 x2 y2 x3 y3 …, x and y from 0 to 1."
DESCRIPTION = "Expected YAML as Ultralytics documents it: `names:` with the classes in order, or by number from 0."
SLIP = 0.01  # how far numbers may lie outside of 0 to 1, as Ultralytics has it: rounding, cut off by the picture's edge
WRITTEN = 5.1e-7  # how exact numbers of six digits are, as most converters write them (and those of 32 bits)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def yolo(source: Path, names: object) -> tuple[Pairing, Draw, list[Path]]:
    """The labelled pictures of a folder (or of a `data.yaml`), `label_map` with the classes it has to know, and which
    files say what they are. Class k of the texts, counted from 0, has the id k + 1.

    Args: names: instead of those in a file: a list, a dict k -> name, or the path of a file with either.
    Raises DatasetError for names that contradict themselves, and for a broken `data.yaml`.
    """
    files = [source] if source.is_file() else descriptions(source)
    if len(files) > 1:
        several = few(file.name for file in files)
        raise DatasetError(f"{source} holds several descriptions ({several}): pass the one you mean as root.")
    file = next(iter(files), None)
    said = _described(file) if file else {}
    base = source if source.is_dir() else _base(file, said)
    pairing, labels = Pairing("yolo", base, names={}), {}
    for stem, images in by_stem(base).items():
        labels |= {label_text(image): image for image in images}
        label = label_text(images[0])
        if not label.is_file() or not _holds_something(label):
            pairing.background += images
        elif len(images) > 1:
            message = f"shares its name, and so the label {label.name}, with {few(image.name for image in images[:-1])}"
            pairing.blame(images[-1], "duplicate name", message, "Remove one of them, or give it another name.")
        else:
            name = "/".join(part for part in stem.split("/") if part != "images")
            pairing.entries.append(Entry(name, images[0], label))
    for stray in _strays(labels):
        pairing.blame(stray, "mask without image", f"there is no picture named {stray.stem}", "Add it, or remove this.")
    pairing.total = len(pairing.entries) + len(pairing.problems)
    places = list(dict.fromkeys([base, *(label.parent for label in labels)]))
    pairing.names, used = _classes(names, base, places, file, said)
    pairing.listed = _splits(said, [base, file.parent], pairing) if file else {}
    known = {cls - 1: cls for cls in pairing.names or range(1, IGNORE)}
    return pairing, partial(label_map, known=known), [*used, *([file] if {"names", "nc"} & {*said} else [])]


def label_map(file: Path, upright: Size, stored: Size, known: Mapping[int, int]) -> np.ndarray:
    """(H, W) uint8: class ids where objects are, 0 elsewhere; overlaps as of `rasterise`.

    Args: upright, stored: see `pairs.Draw`; numbers are parts of the upright sides. known: class number -> class id.
    Raises Fault for the first line that is wrong: what is not drawn would count as background.
    """
    text, reason = text_or_reason(file)
    if reason:
        raise Fault(file, "broken label", f"cannot be read: {reason}", FORMAT)
    lines = {at: words for at, line in enumerate(text.split("\n"), 1) if (words := line.split())}
    faults = {at: fault for at, words in lines.items() if (fault := _fault(words, known))}
    for at, (kind, message, cure) in faults.items():
        others = f"; wrong too: line {few([*faults][1:], 3)}" if len(faults) > 1 else ""
        raise Fault(file, kind, f"line {at} {message}{others}", cure)
    objects = [(known[float(words[0])], False, [_in_pixels(words[1:], upright)]) for words in lines.values()]
    return rasterise(objects, *upright[::-1])


def _fault(words: Sequence[str], known: Mapping[int, int]) -> tuple[str, str, str] | None:
    """Kind, message (after "line 3") and cure of a line that is no outline; None for one that is."""
    odd = next((word for word in words if not _NUMBER.fullmatch(word)), None)
    if odd is not None:
        point = "Write numbers with a point, and blanks between them." if "," in odd else FORMAT
        return "broken label", f"holds {odd[:40]!r}, which is no number", point
    number, *numbers = map(float, words)
    if number % 1 or number < 0:
        return "broken label", f"begins with {words[0][:40]}, and classes are whole numbers from 0", FORMAT
    if len(numbers) == 4:
        cure = "Export outlines (YOLO segmentation). Expected three points or more."
        return "no polygon", "is a box (class, centre, width and height), and boxes are no masks", cure
    if len(numbers) % 2:
        return "broken label", f"has {len(numbers)} numbers behind the class, and x and y make pairs", FORMAT
    if len(numbers) < 6:
        return "broken label", f"has {len(numbers) // 2} points, and an outline has three or more", FORMAT
    low, high = min(numbers), max(numbers)
    if high > 2 and low > -SLIP:
        cure = "Expected numbers from 0 to 1: divide x by the picture's width and y by its height."
        return "broken label", f"goes up to {high:g}, as pixels do", cure
    if not -SLIP <= low <= high <= 1 + SLIP:
        return "broken label", f"holds {low if low < -SLIP else high:g}, which lies outside the picture", FORMAT
    if number not in known:
        cure = "Give `names:` in data.yaml a name for it, or the line another class."
        return "unknown class id", f"is of class {number:g}, which has no name", cure
    return None


def _in_pixels(words: Sequence[str], size: Size) -> list[float]:
    """x1, y1, x2, … in pixels. Corners in the middle of a pixel would fall to either side, as six digits fall: tenths
    of a pixel are taken for exact where the text leaves that open, so that outlines give the masks that they had."""
    pixels = np.array(words, np.float64).reshape(-1, 2) * size
    tenths = pixels.round(1)
    return np.where(np.abs(pixels - tenths) <= np.multiply(size, WRITTEN), tenths, pixels).ravel().tolist()


def _holds_something(label: Path) -> bool:
    if label.stat().st_size > 64:
        return True
    text, reason = text_or_reason(label)
    return bool(reason or text.strip())


def _strays(labels: Mapping[Path, Path]) -> list[Path]:
    """Labels, beside others, of pictures that are not there."""
    folders = dict.fromkeys(label.parent for label in labels if label.is_file())
    texts = (text for folder in folders for text in sorted(folder.glob("*.txt")) if text not in labels)
    return [text for text in texts if text.name not in FILES and begins_with_numbers(text)]


# What data.yaml says.


def _described(file: Path) -> dict:
    where = f"cannot read the description {file}"
    said = parse_yaml(read_text(file, "the description", DESCRIPTION), where, DESCRIPTION)
    if not isinstance(said, dict):
        raise DatasetError(f"{where}: it holds a {type(said).__name__}. {DESCRIPTION}")
    return said


def _base(file: Path, said: Mapping) -> Path:
    """The folder with the pictures: `path`, as far as it is on this machine, else the one of the file."""
    there = os.path.join(file.parent, said["path"].replace("\\", "/")) if isinstance(said.get("path"), str) else ""
    return Path(there) if os.path.isdir(there) else file.parent


def _splits(said: Mapping, places: Sequence[Path], pairing: Pairing) -> dict[str, list[str]]:
    """Split -> ids of its pairs: those in the folders, or on the lists, that `train`, `val` and `test` name."""
    splits, real = {}, {entry.id: entry.image.resolve() for entry in pairing.entries}
    for split in SPLITS:
        wanted = said.get(split)
        spots = [_spot(one, places) for one in (wanted if isinstance(wanted, list) else [wanted])]
        ids = {name for name, image in real.items() if any(image.is_relative_to(spot) for spot in spots if spot)}
        for spot in spots:
            if spot and spot.is_file():
                lines = read_lines(spot, f"the list of {split!r}", "Expected the path of one picture a line.")
                ids |= {pairing.entries[at].id for at in listed([*lines.values()], pairing.entries, pairing.base)[0]}
        splits |= {split: sorted(ids)} if ids else {}
    if splits.get("val") == splits.get("train"):
        splits.pop("val", None)  # as small examples have it; there is nothing to keep apart
    return splits


def _spot(wanted: object, places: Sequence[Path]) -> Path | None:
    """A file or folder that data.yaml means; Roboflow's `../train/images` leads out of the folder it lies in."""
    if not isinstance(wanted, str) or not wanted.strip():
        return None
    name = wanted.strip().replace("\\", "/")
    spots = (place / one for one in (re.sub(r"^(\.\./)+", "", name), name) for place in places)
    return next((spot.resolve() for spot in spots if os.path.exists(spot)), None)


def _classes(
    names: object, base: Path, places: Sequence[Path], file: Path | None, said: Mapping
) -> tuple[dict[int, str], list[Path]]:
    """Class id -> name (nothing where no file says it), and the list that was read."""
    if names is None and said.get("names") is not None:
        return _table(said["names"], str(file)), []
    if names is None and (count := whole(said.get("nc"))) is not None:
        return _table([f"class {k}" for k in range(min(max(count, 0), IGNORE))], str(file)), []
    if names is None:
        names = next((place / name for place in places for name in FILES if (place / name).is_file()), None)
    if names is None or not isinstance(names, (str, Path)):
        return {} if names is None else _table(names, "names"), []
    used = named_file(names, base)
    ending = used.suffix.lower()
    if ending in (".yaml", ".yml"):
        found = _described(used).get("names")
    elif ending == ".json":
        found = read_json(used, "class names from", DESCRIPTION)
    else:
        found = [*read_lines(used, "class names from", DESCRIPTION).values()]
    return _table(found, str(used)), [used]


def _table(names: object, source: str) -> dict[int, str]:
    """Class id -> name, of a list or of a dict by YOLO's numbers."""
    if not isinstance(names, (Mapping, list, tuple)):
        raise DatasetError(f"{source}: found {names!r:.200} for the names of the classes. {DESCRIPTION}")
    pairs = [(whole(k), name) for k, name in (names.items() if isinstance(names, Mapping) else enumerate(names))]
    for number, name in pairs:
        if number is None or not 0 <= number < IGNORE - 1:
            raise DatasetError(
                f"{source}: the class {name!r:.80} has no number from 0 to {IGNORE - 2}, and label maps of 8 bit have "
                f"room for {IGNORE - 1} classes. Expected `names:` from 0; datumaro makes a COCO file of more."
            )
    texts = ((number, str(name) if type(name) in (int, float) else name) for number, name in pairs)
    return name_table([(number + 1, name, f"class {number} of YOLO's") for number, name in texts], source)
