"""What every label map holds, read once: pixels per class, kept as checked JSON in the user's cache folder."""

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ... import files
from ...files import atomic, clear_abandoned
from ...progress import bar

FORMAT = 1  # of checked JSON
SAVE_SECONDS = 10
# What this process has read or loaded: four folds and three splits ask for the same labels.
_KNOWN: dict[Path, dict[str, list]] = {}

Reader = Callable[[Path, Path], dict[int, int]]


class LabelIndex:
    """Pixels of every class in every label map below one folder.

    An entry counts only while times, inode and size of its image and mask file are those it was read at; the file as a
    whole only while its checksum is right. What is missing, stale or broken is read again, never trusted. The file is
    written beside its name and renamed, every ten seconds and at the end: a killed build goes on where it was saved.

    Args:
        name: which reader made the entries; another one has another file.
        root: folder of the data set; entries are kept relative to it.
        read: image file, mask file -> class id -> pixels (255 included); raises DatasetError for broken files.
    """

    def __init__(self, name: str, root: Path, read: Reader):
        self.name, self.root, self.read = name, root.absolute(), read
        key = hashlib.sha256(f"{name} {self.root}".encode()).hexdigest()[:16]
        self.file = files.cache_folder() / "index" / f"{name}-{key}.json"
        if self.file not in _KNOWN:
            clear_abandoned(self.file.parent, re.escape(self.file.name))
            _KNOWN[self.file] = load_checked(self.file) or {}
        self._entries = _KNOWN[self.file]

    def counts(self, pairs: Sequence[tuple[Path, Path]], classes: int = 256) -> np.ndarray:
        """(len(pairs), classes) int64 pixels of each class id in the masks of (image file, mask file) `pairs`.
        Raises DatasetError for the first broken file; what was read before it is kept."""
        keys = [os.path.relpath(mask.absolute(), self.root) for _, mask in pairs]
        stamps = [_stamp(*pair) for pair in pairs]
        stale = [i for i, (key, stamp) in enumerate(zip(keys, stamps)) if self._entries.get(key, (None,))[0] != stamp]
        if stale:
            self._build([(keys[i], stamps[i], pairs[i]) for i in stale])
        table = np.zeros((len(pairs), classes), np.int64)
        for row, key in zip(table, keys):
            _, ids, pixels = self._entries[key]
            row[ids] = pixels
        return table

    def _build(self, work: list[tuple[str, list[int], tuple[Path, Path]]]) -> None:
        saved, pixels = time.monotonic(), in_threads(lambda item: self.read(*item[2]), work, "reading labels")
        try:
            for (key, stamp, _), counts in zip(work, pixels):
                self._entries[key] = [stamp, list(counts), list(counts.values())]
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
        finally:
            self._save()

    def _save(self) -> None:
        try:
            save_checked(self.file, self._entries)
        except OSError as error:
            text = f"the index of {self.root} cannot be kept in {self.file.parent} ({error.strerror}), so every "
            text += "process reads all labels. Set FSSLIB_CACHE to a folder that can be written."
            warnings.warn(text, stacklevel=6)


def in_threads(work: Callable, items: Sequence, what: str) -> Iterator:
    """`work` of every item, in order; with a bar where it takes long, which says `what` it is."""
    # Decoders let go of Python's lock, so that threads help; more of them than this only wait for the disk.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from bar(pool.map(work, items), desc=what, total=len(items), show=len(items) > 1000)
    finally:
        pool.shutdown(cancel_futures=True)


def save_checked(file: Path, content: dict) -> None:
    """Keep `content` as JSON behind a checksum; OSError where that cannot be."""
    text = json.dumps(content, separators=(",", ":"))
    with atomic(file) as part:
        part.write_text(f"{json.dumps(_record(text))}\n{text}\n", encoding="utf-8")


def load_checked(file: Path) -> dict | None:
    """What `save_checked` has kept; None of a file that is missing, cut short or not ours."""
    with contextlib.suppress(OSError, ValueError):
        head, text, *_ = file.read_text(encoding="utf-8").split("\n")
        if json.loads(head) == _record(text):
            return json.loads(text)
    return None


def _record(text: str) -> dict:
    return {"format": FORMAT, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _stamp(image: Path, mask: Path) -> list[int]:
    # A label map that the cache folder does not take belongs to a photograph alone.
    stats = [os.stat(file) for file in (image, mask) if file is image or file.exists()]
    # Archives may give other files the same time and size; not the same inode and time of change.
    return [value for stat in stats for value in (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size)]
