"""Small files beside the pictures that explain them: label maps (class names with colours or ids), and all others.

Where exporters put them: `labelmap.txt` (CVAT: `cat:250,50,83::`), `class_dict.csv` (`cat,250,50,83`),
`label_colors.txt` (`250 50 83 cat`), `_classes.csv` (`1, cat`) in each split.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...episode import IGNORE
from ...errors import DatasetError
from ...files import read_lines

# Of class names, with colours or without; and of both.
FILES = ("classes.json", "classes.txt", "names.txt", "labels.txt", "class_names.txt", "names.json")
LABEL_MAPS = (
    "labelmap.txt", "label_map.txt", "labelmaps.txt", "label_colors.txt", "class_dict.csv", "class_colors.txt",
    "_classes.csv", "classes.csv", "colors.txt", "colormap.txt", "color_map.txt",
)  # fmt: skip
_NOTES = {".txt", ".csv", ".tsv", ".json", ".yaml", ".yml", ".xml", ".md", ".names", ".pbtxt", ".rtf", ".toml", ".ini"}
_EMPTY, _VOID = ("background", "bg"), ("ignore", "void")
_BLACK = (0, 0, 0)


class LabelMap(NamedTuple):
    """A label map: class id -> name, and colour -> class id (0 background, 255 ignored) where it has colours."""

    file: Path
    names: dict[int, str]
    colours: dict[tuple[int, int, int], int]


def find_label_map(places: Iterable[Path]) -> LabelMap | None:
    """The first label map in one of the folders that can be understood; plain lists of names are none.
    Raises DatasetError for one that contradicts itself."""
    for file in (place / name for place in places for name in (*LABEL_MAPS, *FILES)):
        if file.is_file() and (rows := _rows(file)):
            found = _numbered(file, rows)
            if found.colours or file.name in LABEL_MAPS:
                return found
    return None


def coloured_names(file: Path) -> dict[int, str]:
    """Class id -> name, of a list of classes with their colours; empty for any other file."""
    rows = _rows(file)
    found = _numbered(file, rows) if rows and all(colour for _, colour, _ in rows) else None
    return found.names if found else {}


def renamed(found: LabelMap, names: Mapping[int, str]) -> LabelMap:
    """A label map with the ids of names that are given elsewhere; without colours, if these are other names."""
    if all(name == f"class {cls}" and cls in names for cls, name in found.names.items()):
        return LabelMap(found.file, dict(names), found.colours)  # as `cures.recolour` writes it down
    ids = {name: number for number, name in names.items()}
    if not set(found.names.values()) <= set(ids):
        return LabelMap(found.file, dict(names), {})
    new = {cls: ids[name] for cls, name in found.names.items()}
    return LabelMap(found.file, dict(names), {colour: new.get(cls, cls) for colour, cls in found.colours.items()})


def unread(places: Sequence[Path], used: Iterable[Path], stems: Iterable[str]) -> list[Path]:
    """Files with words beside the pictures that nothing was taken from; `stems` are the names of pictures, which may
    have a file of their own."""
    used, stems = {file.resolve() for file in used}, set(stems)
    found = [file for place in dict.fromkeys(places) if place.is_dir() for file in sorted(place.iterdir())]
    return [
        file for file in found
        if (file.suffix.lower() in _NOTES or file.stem.upper() in ("README", "NOTES")) and file.name[0] != "."
        and file.is_file() and file.resolve() not in used and file.stem not in stems
    ]  # fmt: skip


def _rows(file: Path) -> list[tuple[str, tuple | None, int | None]] | None:
    """(name, colour, id) of every line; None where it is no label map."""
    try:
        lines = read_lines(file, "the label map", "").values()
    except DatasetError:
        return None
    rows = [_row(line) for line in lines]
    if rows and rows[0] is None:  # the names of the columns
        rows = rows[1:]
    return rows if rows and None not in rows else None


def _row(line: str) -> tuple[str, tuple | None, int | None] | None:
    if found := re.fullmatch(r"([^:]+):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::[^:]*:\s*(\d*).*)?", line):
        name, *colour, number = found.groups()
        return _checked(name, colour, number or None)
    try:
        parts = next(csv.reader([line], skipinitialspace=True)) if "," in line else line.split("\t")
    except csv.Error:
        return None
    parts = [part.strip() for part in parts if part.strip()]
    if len(parts) == 1 or (len(parts) == 2 and not parts[0].isdecimal()):
        parts = line.split(None, 3)
    digits = [part.isdecimal() for part in parts]
    if digits == [False, True, True, True]:
        return _checked(parts[0], parts[1:], None)
    if digits == [True, True, True, False]:
        return _checked(parts[3], parts[:3], None)
    if digits == [True, False, True, True, True]:
        return _checked(parts[1], parts[2:], parts[0])
    return _checked(parts[1], None, parts[0]) if digits == [True, False] else None


def _checked(name: str, colour: Sequence[str] | None, number: str | None) -> tuple | None:
    colour = None if colour is None else tuple(map(int, colour))
    number = None if number is None else int(number)
    fits = max(*(colour or (0,)), number or 0, 0) <= IGNORE
    return (name.strip(), colour, number) if fits and name.strip() else None


def _numbered(file: Path, rows: list[tuple]) -> LabelMap:
    """Ids as listed, or counted from 1 in the order of the file; background is 0 and what is ignored 255.
    A name may have several colours; nothing else may stand twice."""
    names, colours, numbers = {}, {}, {}
    given = all(number is not None for *_, number in rows)
    for name, colour, number in rows:
        plain = name.strip("_ ").lower()
        if given:
            cls = number
        elif plain in _EMPTY or colour == _BLACK:
            cls = 0
        else:
            cls = IGNORE if plain in _VOID else numbers.setdefault(name, len(numbers) + 1)
        pairs = [(colour, colours, cls)] if colour is not None else []
        pairs += [(cls, names, name)] if 0 < cls < IGNORE else []
        for key, table, value in pairs:
            if table.setdefault(key, value) != value:
                raise DatasetError(
                    f"{file}: {key} stands for both {table[key]} and {value}, and can mean one class only. "
                    "Remove one of the two lines."
                )
    if len(numbers) >= IGNORE:
        raise DatasetError(f"{file}: {len(numbers)} classes; label maps of 8 bit have room for {IGNORE - 1}.")
    return LabelMap(file, names, colours)
