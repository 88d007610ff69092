"""Class names for label maps, and lists of image names that keep training and test apart: given, or in small files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...episode import IGNORE
from ...errors import DatasetError
from ..base import SPLITS, few, read_text
from .layouts import Entry

FILES = ("classes.json", "classes.txt", "names.txt", "labels.txt", "class_names.txt", "names.json")


def class_names(names: Mapping | Sequence[str] | str | Path | None, base: Path) -> dict[int, str] | None:
    """Class id -> name; None when nothing is known.

    Args: names: id -> name (or name -> id); a list of names; or the path of a text file (one name a line) or JSON file
        with either. None looks for one of `FILES` in `base`. A list counts from 1, or from 0 if it starts with
        "background"; a first "__ignore__", as labelme writes it, stands for 255.
    Raises DatasetError for a missing or broken file, and for ids outside 1 to 254.
    """
    source = "names"
    if names is None:
        file = next((base / name for name in FILES if (base / name).is_file()), None)
        if file is None:
            return None
        names = file
    if isinstance(names, (str, Path)):
        file = Path(names).expanduser()
        file = file if file.is_file() else base / file
        source = str(file)
        names = _read(file)
    if isinstance(names, Mapping):
        pairs = [(value, key) if isinstance(value, int) else (key, value) for key, value in names.items()]
        try:
            table = {int(number): str(name) for number, name in pairs}
        except (TypeError, ValueError) as error:
            raise DatasetError(
                f"{source}: expected whole numbers as class ids, e.g. {{1: 'cat'}}; found {pairs[0]}."
            ) from error
    elif isinstance(names, Sequence) and all(isinstance(name, str) for name in names):
        names = [name.strip() for name in names]
        names = names[1:] if names and _plain(names[0]) == "ignore" else names
        table = dict(enumerate(names, 0 if names and _plain(names[0]) == "background" else 1))
    else:
        raise DatasetError(f"names={names!r}: expected a dict of id -> name, a list of names, or the path of a file.")
    table.pop(0, None)
    table.pop(IGNORE, None)
    if not table or not all(0 < number < IGNORE for number in table):
        raise DatasetError(f"{source}: {len(table)} names; expected at least one, with ids from 1 to {IGNORE - 1}.")
    if len(set(table.values())) < len(table):
        raise DatasetError(f"{source}: two classes have the same name; names must differ.")
    return dict(sorted(table.items()))


def class_ids(wanted: Sequence[int | str], names: Mapping[int, str], option: str) -> tuple[int, ...]:
    """The sorted ids of classes given by id or name. Raises DatasetError naming `option` for unknown ones."""
    wanted = (wanted,) if isinstance(wanted, (int, str)) else tuple(wanted)
    by_name = {name: number for number, name in names.items()}
    ids = [number if number in names else by_name.get(number) for number in wanted]
    lost = [item for item, number in zip(wanted, ids) if number is None]
    if lost:
        known = few((f"{number} {name}" for number, name in names.items()), 20)
        raise DatasetError(f"{option}: {', '.join(map(repr, lost))} is no class of this folder. Its classes: {known}.")
    return tuple(sorted(set(ids)))


def _plain(name: str) -> str:
    return name.strip("_ ").lower()


def _read(file: Path) -> Mapping | list[str]:
    expected = 'Expected one name a line, or JSON such as {"1": "cat"}.'
    text = read_text(file, "class names from", expected)
    if file.suffix.lower() != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return json.loads(text)
    except ValueError as error:
        raise DatasetError(f"cannot read class names from {file}: {error}. {expected}") from error


def split_list(lists: Mapping, split: str, base: Path) -> tuple[Path, list[str]]:
    """The list file of a split (or `base`, if the names were given themselves) and the image names in it.

    A line may go on after the name, as in VOC's lists of image and mask. Raises DatasetError for an unknown split and
    for a file that cannot be read.
    """
    if not isinstance(lists, Mapping) or set(lists) - {*SPLITS} or split not in lists:
        raise DatasetError(
            f"lists={lists!r} has no list for split {split!r}: expected {{'train': PATH, 'test': PATH}}; "
            "'val' classes are looked for on the training list unless there is one of their own."
        )
    if not isinstance(lists[split], (str, Path)):
        return base, [str(name) for name in lists[split]]
    file = Path(lists[split]).expanduser()
    file = file if file.is_file() else base / file
    cure = f"It is the list of split {split!r}: pass the path of a text file, one name a line."
    lines = read_text(file, "the list", cure).splitlines()
    return file, [line.strip() for line in lines if line.strip()]


def listed(names: Sequence[str], entries: Sequence[Entry], base: Path) -> tuple[list[int], list[str]]:
    """Sorted positions of the entries that a list names, and the names that fit none.
    A name is an image's id or its path below `base`, each with or without its ending."""
    known: dict[str, int] = {}
    for at, entry in enumerate(entries):
        path = entry.image.relative_to(base).as_posix() if entry.image.is_relative_to(base) else entry.image.as_posix()
        ending = entry.image.suffix
        for form in (entry.id, entry.id + ending, path, entry.image.as_posix()):
            known.setdefault(form, at)
            known.setdefault(form.removesuffix(ending), at)
    hits = {name: known.get(name, known.get(_first(name))) for name in names}
    return sorted({at for at in hits.values() if at is not None}), [name for name, at in hits.items() if at is None]


def _first(line: str) -> str:
    """The first word: images come before masks in VOC's lists, with a slash in front."""
    return line.split()[0].lstrip("/").removeprefix("./") if line.split() else ""
