"""Everything that is wrong with a folder of somebody's own pictures, and what is left to work with."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...episode import IGNORE
from ...errors import DatasetError
from ...files import located
from ..base import few
from ..photographs.base import check_min_area
from ..photographs.label_index import LabelIndex
from .coco import coco_json
from .layouts import Entry, Pairing, class_masks, find_layout, images_masks
from .names_and_lists import check_lists, class_names, listed, split_list
from .pairs import counted, examined, first_copies
from .problems import PROBLEM_KINDS, FolderReport

LEAST = 2
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


def check_folder(
    root: str | Path, *, layout: str = "auto", names: Mapping | Sequence[str] | str | Path | None = None,
    lists: Mapping | None = None, min_area: int = 0, **others: object,
) -> FolderReport:  # fmt: skip
    """Look through a folder of your own pictures and list every problem with its file and its cure.

    `print(check_folder(root))` is the place to start with new data; `Folder` uses what this calls sound.

    Args: as for `Folder`; `others` are its further options, which change nothing here.
    Raises DatasetError only for a root that does not exist, a layout that is not recognised, or options that mean
    nothing; never for what the files hold.
    """
    if set(others) - _OTHERS:
        raise TypeError(f"check_folder() got an unexpected keyword argument {min(set(others) - _OTHERS)!r}")
    return survey(root, layout, names, lists, min_area).report


def survey(root: str | Path, layout: str, names: object, lists: Mapping | None, min_area: int) -> Survey:
    """All pairs of a folder, checked; see `check_folder`."""
    check_min_area(min_area)
    if lists is not None:
        check_lists(lists)
    layout, source = find_layout(root, layout)
    if names is not None and layout != "images_masks":
        raise DatasetError(f"names= is for images_masks; in {layout} the classes have names already.")
    single = None
    if layout == "coco_json":
        pairing, areas = coco_json(source)
        entries = pairing.entries
    elif layout == "images_masks":
        pairing = images_masks(source)
        known = class_names(names, source)
        entries, counts = _sound(pairing, "ids")
        pairing.names, areas, single = _name(counts, known)
        entries, areas = _known(pairing, entries, areas)
    else:
        pairing = class_masks(source)
        entries, counts = _sound(pairing, "binary")
        areas = np.zeros((len(entries), max(pairing.names, default=0) + 1), np.int64)
        areas[np.arange(len(entries)), [entry.cls for entry in entries]] = counts[:, 1]
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
    report = FolderReport(
        located(root, "root", DatasetError), layout, pairing.total, len(entries), shown, tuple(problems)
    )
    return Survey(source, pairing.base, pairing.names, entries, areas, first, single, report)


def _sound(pairing: Pairing, kind: str) -> tuple[list[Entry], np.ndarray]:
    """The pairs that can be read, and (pairs, 256) how often each value occurs; the others become problems."""
    pairs = [(entry.image, entry.mask) for entry in pairing.entries]
    # A sound pair is read again only when time or size of its files change; any other one is looked at every time.
    counts = LabelIndex(f"folder-{kind}-pixels", pairing.base, partial(counted, kind=kind)).counts(pairs)
    broken = ~counts.any(1)
    for at in np.flatnonzero(broken):
        pixels, faults = examined(*pairs[at], kind)
        pairing.problems += [fault.problem for fault in faults]
        counts[at, list(pixels)] = list(pixels.values())
        broken[at] = bool(faults)
    return [entry for entry, lost in zip(pairing.entries, broken) if not lost], counts[~broken]


def _name(counts: np.ndarray, names: dict[int, str] | None) -> tuple[dict[int, str], np.ndarray, int | None]:
    """Class names, pixels of every class, and the class of 255 if 255 is the only thing that is drawn."""
    drawn = (np.flatnonzero(counts[:, 1:IGNORE].any(0)) + 1).tolist()
    if not drawn and counts[:, IGNORE].any() and (names is None or len(names) == 1):
        names = names or {1: "class 1"}
        (single,) = names
        counts[:, [single, IGNORE]] = counts[:, [IGNORE, single]]
        return names, counts, single
    return {c: f"class {c}" for c in drawn} if names is None else names, counts, None


def _known(pairing: Pairing, entries: list[Entry], areas: np.ndarray) -> tuple[list[Entry], np.ndarray]:
    """What is left without masks that hold ids without a name."""
    names, strange = pairing.names, areas > 0
    strange[:, [0, IGNORE, *names]] = False
    classes = few((f"{c} {name}" for c, name in names.items()), 8)
    for at in np.flatnonzero(strange.any(1)):
        file, ids = entries[at].mask, np.flatnonzero(strange[at]).tolist()
        message = f"holds the ids {few(ids, 6)}; the classes are {classes}"
        cure = f"Name them in names=, or renumber: `from PIL import Image; Image.open({str(file)!r})"
        cure += f".point(lambda v: {dict.fromkeys(ids[:6], min(names))}.get(v, v)).save({str(file)!r})`"
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
            cure = f"Save the object as its class id, e.g. 1: `from PIL import Image; Image.open({str(file)!r})"
            cure += f".point(lambda v: v and 1).save({str(file)!r})`"
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
        number = "" if name == f"class {cls}" else f"class {cls} "
        message = f"{number}{name}: {len(shown)} usable image{'' if len(shown) == 1 else 's'}{large}"
        cure = f"Add images until there are {LEAST} (more for several shots), or drop the class."
        pairing.blame(file, "class with too few images", message, cure)
