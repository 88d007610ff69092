"""Everything that is wrong with a folder of somebody's own pictures, and what is left to work with."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...episode import IGNORE
from ...errors import DatasetError
from ...files import located
from ..base import few
from ..photographs.base import LEAST, check_min_area
from ..photographs.label_index import LabelIndex
from .advice import BLACK, COLOUR, DEEP, RENUMBERED, WHITE, advise, code
from .coco import coco_json
from .label_maps import find_label_map, renamed, unread
from .labelme import labelme
from .layouts import Entry, Pairing, class_masks, find_layout, images_masks, spare_folders
from .names_and_lists import FILES, check_lists, class_names, listed, named_file, split_list
from .pairs import Draw, counted, examined, first_copies, objects
from .problems import PROBLEM_KINDS, Fault, FolderReport
from .yolo import yolo

MANY = 64  # values of a mask from which on nobody has drawn them as ids
FEW = 16  # folders that are looked through for files with words
# Options of Folder that say nothing about the files.
_OTHERS = {"fold", "split", "folds", "fold_scheme", "novel_classes", "val_classes", "novel", "strict", "cache"}


class Survey(NamedTuple):
    """What `Folder` and `check_folder` know of a folder."""

    source: Path  # the annotation file, or `base`
    base: Path  # where the data set begins (`root`, or one folder deeper)
    names: dict[int, str]  # class id -> name
    entries: list[Entry]  # the sound pairs, sorted by id
    areas: np.ndarray  # (entries, class ids) pixels of every class id in their masks
    first: dict[Path, Path]  # image -> the first image with the same content, where there are several
    single: int | None  # the class id that 255 stands for, where masks hold nothing but 0 and 255
    report: FolderReport  # the problems
    splits: dict[str, list[str]]  # split -> ids of its images, where folders or a file say so
    draw: Draw | None = None  # makes label maps of files of outlines


def check_folder(
    root: str | Path, *, layout: str = "auto", names: Mapping | Sequence[str] | str | Path | None = None,
    lists: Mapping | None = None, min_area: int = 0, **others: object,
) -> FolderReport:  # fmt: skip
    """Look through a folder of your own pictures and list every problem with its file and its cure.

    `print(check_folder(root))` is the place to start with new data; `Folder` uses what this calls sound.

    Takes what `Folder` takes; its further options (`others`) change nothing here.
    Raises DatasetError only for a root that does not exist, a layout that is not recognised or that the masks speak
    against, or options that mean nothing; never for what is wrong with a file.
    """
    if set(others) - _OTHERS:
        raise TypeError(f"check_folder() got an unexpected keyword argument {min(set(others) - _OTHERS)!r}")
    return survey(root, layout, names, lists, min_area).report


def survey(root: str | Path, layout: str, names: object, lists: Mapping | None, min_area: int) -> Survey:
    """All pairs of a folder, checked; see `check_folder`."""
    check_min_area(min_area)
    if lists is not None:
        check_lists(lists)
    guessed, (layout, source) = layout == "auto", find_layout(root, layout)
    if names is not None and layout in ("coco_json", "class_folders"):
        raise DatasetError(f"names= is for images_masks, yolo and labelme; in {layout} the classes have names already.")
    single, draw, place = None, None, located(root, "root", DatasetError)
    if layout == "coco_json":
        pairing, areas = coco_json(source)
        entries, notes = pairing.entries, _notes(pairing, place, [source])
    elif layout == "images_masks":
        pairing, entries, areas, single, notes = _label_maps(source, names, place)
    elif layout in ("yolo", "labelme"):
        pairing, entries, areas, draw, notes = _outlines(layout, source, names, place)
    else:
        pairing, entries, areas = _class_masks(source, guessed)
        notes = _notes(pairing, place, [])
    entries, areas = _filled(pairing, entries, areas)
    order = sorted(range(len(entries)), key=lambda at: entries[at].id)
    entries, areas = [entries[at] for at in order], areas[order]
    first = _copied(pairing, entries)
    _scarce(pairing, entries, areas, min_area, source, first)
    for split in lists or {}:
        file, wanted = split_list(lists, split, pairing.base)
        for name in listed(wanted, entries, pairing.base)[1]:
            message = f"{split}: {name} is not there, or cannot be used for another reason given here"
            pairing.blame(file, "listed but absent", message, "Take it off the list, or add it.")
    usable = areas >= max(1, min_area)
    shown = {name: int(usable[:, cls].sum()) if entries else 0 for cls, name in pairing.names.items()}
    problems = sorted(pairing.problems, key=lambda problem: (PROBLEM_KINDS.index(problem.kind), problem.file))
    report = FolderReport(place, layout, pairing.total, len(entries), shown, tuple(problems), tuple(notes))
    return Survey(source, pairing.base, pairing.names, entries, areas, first, single, report, pairing.splits, draw)


def _label_maps(
    base: Path, names: object, root: Path
) -> tuple[Pairing, list[Entry], np.ndarray, int | None, list[str]]:
    """Images beside masks of class ids: the sound pairs, pixels of every class, what 255 stands for, and notes."""
    pairing = images_masks(base)
    known, colours, used = _explained(pairing, names, root)
    entries, counts, faults = _sound(pairing, "ids")
    pairing.problems += advise(faults, "ids", base, colours, known)
    pairing.names, areas, single = _name(counts, known)
    entries, areas = _known(pairing, entries, areas, names is None)
    return pairing, entries, areas, single, _notes(pairing, root, used)


def _outlines(
    layout: str, source: Path, names: object, root: Path
) -> tuple[Pairing, list[Entry], np.ndarray, Draw, list[str]]:
    """Images with a file of outlines each: the sound pairs, pixels of every class, what draws them, and notes."""
    pairing, draw, used = (yolo if layout == "yolo" else labelme)(source, names)
    classes = repr(sorted(draw.keywords["known"].items()))  # with other ones, maps are others
    mark = hashlib.sha256(classes.encode()).hexdigest()[:8]
    entries, counts, faults = _sound(pairing, draw, f"{layout}-{mark}")
    pairing.problems += [fault.problem for fault in faults]
    if not pairing.names:  # as the texts number them
        drawn = np.flatnonzero(counts[:, 1:IGNORE].any(0)) + 1
        pairing.names = {cls: f"class {cls - 1}" for cls in drawn.tolist()}
    return pairing, entries, counts, draw, _notes(pairing, root, used)


def _class_masks(base: Path, guessed: bool) -> tuple[Pairing, list[Entry], np.ndarray]:
    """A folder a class: the sound pairs, and pixels of every class; `guessed`: nobody said that these are classes."""
    pairing = class_masks(base)
    entries, counts, faults = _sound(pairing, "binary")
    if guessed:
        _test_guess(pairing, entries, counts, faults)
    pairing.problems += advise(faults, "binary", base, None, None)
    areas = np.zeros((len(entries), max(pairing.names, default=0) + 1), np.int64)
    areas[np.arange(len(entries)), [entry.cls for entry in entries]] = objects(counts)
    return pairing, entries, areas


def _places(pairing: Pairing, root: Path) -> list[Path]:
    """Where files with words about the pictures may lie: beside them, and in every folder above them up to `root`."""
    base = pairing.base
    files = (file for entry in pairing.entries for file in (entry.image, entry.mask) if base in file.parents)
    folders = {file.parent for file in files}
    folders = folders if len(folders) <= FEW else set()
    above = {part for folder in folders for part in folder.parents if base in part.parents}
    return list(dict.fromkeys([base, *([root] if root.is_dir() else []), *sorted(folders | above)]))


def _explained(pairing: Pairing, names: object, root: Path) -> tuple[dict | None, dict | None, list[Path]]:
    """What the small files beside the pictures say: class names and colours (None: nothing), and which files it was."""
    base, places = pairing.base, _places(pairing, root)
    found = find_label_map(places)
    if names is None:
        names = next((base / name for name in FILES if (base / name).is_file()), None)
    if found and str(found.file) == str(names):  # names with colours
        return found.names, found.colours, [found.file]
    known = class_names(names, base)
    used = [named_file(names, base)] if isinstance(names, (str, Path)) else []
    if found and known is not None:
        found = renamed(found, known)
    if found is None or (known is not None and not found.colours):
        return known, None, used
    return known or found.names or None, found.colours or None, [*used, found.file]


def _notes(pairing: Pairing, root: Path, used: list[Path]) -> list[str]:
    """What says what the classes are (`used`) and which images are whose, and what nothing was taken from."""
    base, notes = pairing.base, []
    if pairing.background:
        shown = few((file.name for file in pairing.background), 3)
        notes.append(f"{len(pairing.background)} pictures without an outline, thus background, are not used: {shown}.")
    if used and pairing.layout != "coco_json":
        notes.append(f"{few(map(str, (_below(file, base) for file in used)))} says what the classes are.")
    if pairing.splits:
        shown = few(f"{split} {len(ids)}" for split, ids in pairing.splits.items())
        notes.append(f"{'files' if pairing.listed else 'folders'} part the images into splits: {shown}.")
    paths = [_below(file, base) for entry in pairing.entries for file in (entry.image, entry.mask)]
    named = [*paths, *pairing.background, *(problem.file for problem in pairing.problems)]
    ignored = unread(_places(pairing, root), used, {path.stem for path in named})
    blamed = {_below(problem.file, base).parts[0] for problem in pairing.problems}
    others = spare_folders(base, {path.parts[0] for path in paths} | blamed)
    shown = [*(str(_below(file, base)) for file in ignored), *(f"{folder.name}/" for folder in others)]
    if shown:
        notes.append(f"not read: {few(shown, 6)}. names= and lists= take class names and lists of images from files.")
    return notes


def _below(file: Path, base: Path) -> Path:
    return file.relative_to(base) if file.is_relative_to(base) else file


def _test_guess(pairing: Pairing, entries: list[Entry], counts: np.ndarray, faults: list[Fault]) -> None:
    """Raise DatasetError where masks that were taken for those of one object hold several ids or colours: then folders
    may be parts of one data set as well as classes."""
    drawn = counts[:, 1:IGNORE] > 0
    held = {entry.mask: (np.flatnonzero(row) + 1).tolist() for entry, row in zip(entries, drawn)}
    for fault in faults:
        if fault.problem.kind in (COLOUR, DEEP, RENUMBERED):
            empty = BLACK if BLACK in fault.values else WHITE
            held[fault.problem.file] = [value for value in fault.values if np.any(value) and value != empty]
    several = [file for file, values in held.items() if 1 < len(values) < MANY]
    folders: dict[Path, set] = {}
    for file, values in held.items():
        part = pairing.base / file.relative_to(pairing.base).parts[0]
        folders.setdefault(part, set()).update(values if len(values) < MANY else ())
    shared = [
        part for part, values in folders.items() if sum(len(values & other) > 1 for other in folders.values()) > 1
    ]
    if not several and not shared:
        return
    if several:
        found = f"{several[0].relative_to(pairing.base)} holds {few(held[several[0]], 4)}"
    else:
        found = f"those of {shared[0].name} hold {few(sorted(folders[shared[0]]), 4)}, and so do others"
    raise DatasetError(
        f"{pairing.base}: its folders ({few(pairing.names.values(), 4)}) may be classes, but masks hold several ids: "
        f"{found}. Pass layout='images_masks' if these are class ids and the folders only part the images; or "
        "layout='class_folders' if each folder is a class and whatever is not 0 is its object."
    )


def _sound(pairing: Pairing, kind: str | Draw, mark: str = "") -> tuple[list[Entry], np.ndarray, list[Fault]]:
    """The pairs that can be read, (pairs, 256) how often each value occurs, and what is wrong with the others.
    `mark` tells apart what draws (else `kind`)."""
    pairs = [(entry.image, entry.mask) for entry in pairing.entries]
    # A sound pair is read again only when time or size of its files change; any other one is looked at every time.
    counts = LabelIndex(f"folder-{mark or kind}-values", pairing.base, partial(counted, kind=kind)).counts(pairs)
    broken, faults = ~counts.any(1), []
    for at in np.flatnonzero(broken):
        pixels, wrong = examined(*pairs[at], kind)
        faults += wrong
        counts[at, list(pixels)] = list(pixels.values())
        broken[at] = bool(wrong)
    return [entry for entry, lost in zip(pairing.entries, broken) if not lost], counts[~broken], faults


def _name(counts: np.ndarray, names: dict[int, str] | None) -> tuple[dict[int, str], np.ndarray, int | None]:
    """Class names, pixels of every class, and the class of 255 if 255 is the only thing that is drawn."""
    drawn = (np.flatnonzero(counts[:, 1:IGNORE].any(0)) + 1).tolist()
    if not drawn and counts[:, IGNORE].any() and (names is None or len(names) == 1):
        names = names or {1: "class 1"}
        (single,) = names
        counts[:, [single, IGNORE]] = counts[:, [IGNORE, single]]
        return names, counts, single
    return {c: f"class {c}" for c in drawn} if names is None else names, counts, None


def _known(pairing: Pairing, entries: list[Entry], areas: np.ndarray, filed: bool) -> tuple[list[Entry], np.ndarray]:
    """What is left without masks that hold ids without a name; `filed`: names are from a file in the folder."""
    names, strange = pairing.names, areas > 0
    strange[:, [0, IGNORE, *names]] = False
    classes = few((f"{c} {name}" for c, name in names.items()), 8)
    lost = (np.flatnonzero(strange.any(0))).tolist()
    cure = f"Name them in names=, or draw them as one of the classes; all masks together have the ids {few(lost, 6)}."
    if filed:
        cure = f"Name them: {code('name_ids', pairing.base, {**names, **{n: f'class {n}' for n in lost}})}. "
        cure += "Or draw them as one of the classes."
    for at in np.flatnonzero(strange.any(1)):
        file, ids = entries[at].mask, np.flatnonzero(strange[at]).tolist()
        message = f"holds the ids {few(ids, 6)}; the classes are {classes}"
        pairing.blame(file, "unknown class id", message, cure)
    sound = ~strange.any(1)
    return [entries[at] for at in np.flatnonzero(sound)], areas[sound]


def _filled(pairing: Pairing, entries: list[Entry], areas: np.ndarray) -> tuple[list[Entry], np.ndarray]:
    """What is left without masks that show no class."""
    shown = areas[:, [*pairing.names]].any(1) if len(entries) and pairing.names else np.zeros(len(entries), bool)
    for at in np.flatnonzero(~shown):
        # The label maps of a COCO file lie in the cache: nobody can mend them there.
        file = entries[at].image if pairing.layout == "coco_json" else entries[at].mask
        message, cure = "no pixel belongs to a class", "Draw the object, or remove image and mask."
        if pairing.layout == "images_masks" and areas[at, IGNORE]:
            message = "holds 255 only, which means ignored pixels in label maps"
            cure = "Save the object as its class id: renumber(FILE, {0: 0, 255: ID}) of fsslib.data.folder.cures."
            if len(pairing.names) == 1:
                cure = f"If it is the object: {code('renumber', file, {0: 0, IGNORE: min(pairing.names)})}"
        pairing.blame(file, "empty mask", message, cure)
    return [entries[at] for at in np.flatnonzero(shown)], areas[shown]


def _copied(pairing: Pairing, entries: list[Entry]) -> dict[Path, Path]:
    """The images that are copies of others (see `first_copies`), and a problem for each that its class has already.
    A photograph in two class folders is how two of its objects are labelled."""
    first = first_copies(entry.image for entry in entries)
    seen: dict[tuple[Path, int | None], Entry] = {}
    for entry in entries:
        other = seen.setdefault((first.get(entry.image, entry.image), entry.cls), entry)
        if other is not entry:
            same = "listed" if other.image == entry.image else "in the folder"
            message = f"is the same picture as {other.id}, {same} under two names"
            cure = "Remove one of the two, with its mask. Until then both are used, but never as query and support of "
            pairing.blame(entry.image, "same picture twice", message, f"{cure}one episode.")
    return first


def _scarce(
    pairing: Pairing, entries: list[Entry], areas: np.ndarray, min_area: int, source: Path, first: dict[Path, Path]
) -> None:
    """A problem for every class that cannot make an episode: support and query, two pictures, are the least."""
    for cls, name in pairing.names.items():
        hits = np.flatnonzero(areas[:, cls] >= max(1, min_area)) if len(entries) else ()
        shown = {first.get(entries[at].image, entries[at].image) for at in hits}
        if len(shown) >= LEAST:
            continue
        file = pairing.base / name if pairing.layout == "class_folders" else source
        if len(hits) and pairing.layout != "class_folders":
            file = entries[hits[0]].image if pairing.layout == "coco_json" else entries[hits[0]].mask
        large = f" with {min_area} of its pixels or more" if min_area > 1 else ""
        number = "" if name.startswith("class ") else f"class {cls} "
        message = f"{number}{name}: {len(shown)} usable image{'' if len(shown) == 1 else 's'}{large}"
        cure = f"Add images until there are {LEAST} (more for several shots), or drop the class."
        pairing.blame(file, "class with too few images", message, cure)
