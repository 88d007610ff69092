"""Class names for label maps, and lists of image names that keep training and test apart: given, or in small files."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...arguments import whole
from ...episode import IGNORE
from ...errors import DatasetError
from ...files import comparable, composed, located, read_json, read_lines
from ..base import SPLITS, few
from .label_maps import FILES, coloured_names
from .layouts import Entry

EXPECTED = 'Expected one name a line, or JSON such as {"1": "cat"}.'
Named = tuple[int, str, str]  # class id, name, and where it stands
_BEFORE = r"([0-9]{1,9})(?:\s*[:)=]\s*(?=\S)|\s*[.,;\s]\s*(?=[^\s0-9]))(.*)"
_BEHIND = r"([^:,;=\t]*[^:,;=\s])\s*[:,;=\t]\s*([0-9]{1,9})"
# What 0 and 255 may be called: they are no classes.
_NO_CLASS = {
    "background", "bg", "void", "none", "nothing", "null", "empty", "other", "others", "unknown", "unlabeled",
    "unlabelled", "no label", "nolabel", "no data", "nodata", "ignore", "ignored", "border", "boundary", "edge",
    "edges", "outline", "contour", "uncertain", "difficult", "clutter", "hintergrund", "fond", "fondo", "sfondo",
    "achtergrond", "fundo", "tło", "фон", "背景", "배경",
}  # fmt: skip


def class_names(names: Mapping | Sequence[str] | str | Path | None, base: Path) -> dict[int, str] | None:
    """Class id -> name; None when nothing is known.

    Args: names: id -> name (or name -> id); a list of names; or the path of a text file (one name a line, numbered or
        not; # begins a comment) or JSON file with either. None looks for one of `FILES` in `base`. A list counts from
        1, or from 0 if it starts with "background"; a first "__ignore__", as labelme writes it, stands for 255. Names
        of 0 and of 255 must be words for that.
    Raises DatasetError for a missing or broken file, for ids outside 1 to 254, and for an id or a name that stands
    twice; it says in which line.
    """
    source = "names"
    if names is None:
        file = next((base / name for name in FILES if (base / name).is_file()), None)
        if file is None:
            return None
        names = file
    if isinstance(names, (str, Path)):
        file = named_file(names, base)
        source = str(file)
        if file.suffix.lower() == ".json":
            names = read_json(file, "class names from", EXPECTED)
        elif coloured := coloured_names(file):
            return coloured
        else:
            names = read_lines(file, "class names from", EXPECTED)
            numbered = _numbered(names, source)
            return name_table(numbered or _counted(list(names.values()), [f"line {at}" for at in names]), source)
    if isinstance(names, Mapping):
        return name_table(_by_id(names, source), source)
    if isinstance(names, Sequence) and all(isinstance(name, str) for name in names):
        return name_table(_counted(names, [f"entry {at}" for at in range(1, len(names) + 1)]), source)
    raise DatasetError(
        f"{source}={names!r:.200}: expected a dict of id -> name, a list of names (all of them texts), or the path of "
        "a file."
    )


def named_file(named: str | Path, base: Path) -> Path:
    """A file given by its path, from here or below `base`."""
    file = located(named, "list", DatasetError)
    return file if os.path.isfile(file) else base / file


def _counted(names: Sequence[str], places: Sequence[str]) -> list[Named]:
    """The names of a list that has no numbers."""
    pairs = list(zip(map(str.strip, names), places))
    pairs = pairs[1:] if pairs and _plain(pairs[0][0]) == "ignore" else pairs
    first = 0 if pairs and _plain(pairs[0][0]) == "background" else 1
    # Beyond 254 an id has no place in masks of 8 bits, and 255 is none that a list could mean.
    return [(at if at < IGNORE else at + IGNORE, name, place) for at, (name, place) in enumerate(pairs, first)]


def _numbered(lines: Mapping[int, str], source: str) -> list[Named]:
    """The names of a list with a number before each ("1 cat", "1: cat") or behind it ("cat: 1"); empty for one of names
    alone. Raises DatasetError for a mixed one."""
    for pattern, number, name in ((_BEFORE, 1, 2), (_BEHIND, 2, 1)):
        hits = {at: re.fullmatch(pattern, line) for at, line in lines.items()}
        if all(hits.values()):
            return [(int(hit[number]), hit[name], f"line {at}") for at, hit in hits.items()]
    odd = next((at for at, line in lines.items() if re.match(r"[0-9]+\s*[.:)]\s", line)), None)
    if odd:
        other = next((at for at, line in lines.items() if not re.match(r"[0-9]+\s*[.:)]\s", line)), odd)
        raise DatasetError(
            f"{source}: line {odd} ({lines[odd]!r}) begins with a number and line {other} ({lines[other]!r}) does not. "
            "Number every line with its class id, or none."
        )
    return []


def _by_id(names: Mapping, source: str) -> list[Named]:
    """The names of a dict in either direction."""
    keys, values = (all(whole(side) is not None for side in sides) for sides in (names.keys(), names.values()))
    if keys and values and not all(isinstance(value, str) for value in names.values()):
        raise DatasetError(
            f"{source}: ids and names are both numbers, so it is open which is which; write names as texts: {{1: '7'}}."
        )
    if not keys and not values:
        wrong = next(pair for pair in names.items() if whole(pair[0]) is None)
        raise DatasetError(f"{source}: expected whole numbers as class ids, e.g. {{1: 'cat'}}; found {wrong}.")
    pairs = ((key, value, key) if keys else (value, key, key) for key, value in names.items())
    return [(whole(number), name, f"entry {key!r}") for number, name, key in pairs]


def name_table(named: list[Named], source: str) -> dict[int, str]:
    """Id -> name, sorted, without 0 and 255; every id and name once."""
    table: dict[int, str] = {}
    seen: dict[int | str, str] = {}
    for number, name, place in named:
        if not isinstance(name, str) or not name.strip():
            raise DatasetError(f"{source}, {place}: class {number} has the name {name!r}; expected a text.")
        name = composed(name.strip())
        if number in (0, IGNORE) and _plain(name) not in _NO_CLASS:
            what = "ignored pixels" if number else "the background"
            raise DatasetError(
                f"{source}, {place}: {number} means {what} in masks, and here it is called {name!r}. Class ids count "
                "from 1; leave it out if it is no class."
            )
        if number in seen:
            raise DatasetError(
                f"{source}: the id {number} stands twice, in {seen[number]} and {place}. Give each class its own."
            )
        if name in seen:
            raise DatasetError(
                f"{source}: two classes have the same name, {name!r} in {seen[name]} and {place}. Give each its own."
            )
        seen |= {number: place, name: place}
        table[number] = name
    table.pop(0, None)
    table.pop(IGNORE, None)
    if not table or not all(0 < number < IGNORE for number in table):
        raise DatasetError(f"{source}: {len(table)} names; expected at least one, with ids from 1 to {IGNORE - 1}.")
    return dict(sorted(table.items()))


def class_ids(wanted: Sequence[int | str], names: Mapping[int, str], option: str) -> tuple[int, ...]:
    """The sorted ids of classes given by id or name. Raises DatasetError naming `option` for unknown ones."""
    single = isinstance(wanted, str) or not isinstance(wanted, Iterable)
    wanted = (wanted,) if single else tuple(wanted)
    by_name = {composed(name): number for number, name in names.items()}
    # A class may be called "3": a text is a name before it is a number.
    ids = [by_name.get(composed(item.strip())) if isinstance(item, str) else None for item in wanted]
    ids = [whole(item) if number is None else number for item, number in zip(wanted, ids)]
    lost = [item for item, number in zip(wanted, ids) if number not in names]
    if lost:
        known = few((f"{number} {name}" for number, name in names.items()), 20)
        raise DatasetError(f"{option}: {', '.join(map(repr, lost))} is no class of this folder. Its classes: {known}.")
    return tuple(sorted(set(ids)))


def _plain(name: str) -> str:
    return name.strip("_ ").lower()


def check_lists(lists: Mapping, split: str | None = None) -> None:
    """Raise DatasetError unless `lists` has a list (of `split`), and none of an unknown split."""
    if not isinstance(lists, Mapping) or set(lists) - {*SPLITS} or (split and split not in lists):
        lacks = f"has no list for split {split!r}" if split else "are no lists of splits"
        raise DatasetError(
            f"lists={lists!r:.200} {lacks}: expected {{'train': PATH, 'test': PATH}}; "
            "'val' classes are looked for on the training list unless there is one of their own."
        )


def split_list(lists: Mapping, split: str, base: Path) -> tuple[Path, list[str]]:
    """The list file of a split (or `base`, if the names were given themselves) and the image names in it.

    A line may go on after the name, as in VOC's lists of image and mask. Raises DatasetError for an unknown split and
    for a file that cannot be read.
    """
    check_lists(lists, split)
    wanted = lists[split]
    if not isinstance(wanted, (str, Path)):
        names = list(wanted) if isinstance(wanted, Iterable) else [None]
        if not all(isinstance(name, str | Path) or type(name) is int for name in names):
            raise DatasetError(f"lists[{split!r}]={wanted!r:.200}: expected a path, or the names of images.")
        return base, [composed(str(name)) for name in names]
    file = named_file(wanted, base)
    cure = f"It is the list of split {split!r}: pass the path of a text file, one name a line."
    return file, list(read_lines(file, "the list", cure).values())


def listed(names: Sequence[str], entries: Sequence[Entry], base: Path) -> tuple[list[int], list[str]]:
    """Sorted positions of the entries that a list names, and the names that fit none (or more than one, in words).
    A name is an image's id or its path below `base`, each with or without its ending."""
    exact: dict[str, set[int]] = {}
    bare: dict[str, set[int]] = {}
    for at, entry in enumerate(entries):
        path = entry.image.relative_to(base).as_posix() if entry.image.is_relative_to(base) else entry.image.as_posix()
        ending = entry.image.suffix.lower()
        for form in map(_form, (entry.id, entry.id + ending, path, entry.image.as_posix())):
            (exact if form.endswith(ending) else bare).setdefault(form, set()).add(at)
            bare.setdefault(form.removesuffix(ending), set()).add(at)
    hits, lost = set(), []
    for name in dict.fromkeys(names):
        found = _hits(name, exact, bare)
        if len(found) == 1:
            hits |= found
        else:
            several = few(sorted(entries[at].image.name for at in found), 3)
            lost.append(f"{name} (it may mean {several})" if found else name)
    return sorted(hits), lost


def _hits(line: str, exact: Mapping[str, set[int]], bare: Mapping[str, set[int]]) -> set[int]:
    """The entries that a line of a list may mean: as a whole, by its first word (images come before masks in VOC's
    lists, with a slash in front), or by its second behind a number."""

    def find(name: str) -> set[int]:
        return exact.get(_form(name)) or bare.get(_form(name)) or set()

    words = re.split(r"[\s,;]+", line.strip())
    found = find(line) or find(words[0].lstrip("/"))
    if len(words) > 1 and re.fullmatch(r"[0-9]+[.:)]?", words[0]) and not find(line):
        found = found | find(words[1].lstrip("/"))
    return found


def _form(name: str) -> str:
    """How a name is looked for."""
    return comparable(name.replace("\\", "/").removeprefix("./"))
