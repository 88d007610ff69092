"""Lists of image names that keep the images of training and test apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DatasetError
from .base import SPLITS
from .folder_layouts import Entry


def read_list(lists: Mapping, split: str, base: Path) -> tuple[Path, list[str]]:
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
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot read the list {file} of split {split!r}: {error}. Pass the path of a text file, one name a line."
        ) from error
    return file, [line.strip() for line in lines if line.strip()]


def listed(names: Sequence[str], entries: Sequence[Entry], base: Path) -> tuple[list[int], list[str]]:
    """Sorted positions of the entries that a list names, and the names that fit none.

    A name is an image's id or its path below `base`, each with or without its ending.
    """
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
