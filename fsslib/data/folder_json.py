"""Which JSON file of somebody's own folder is a COCO annotation file."""

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ..errors import DatasetError

KEYS = ("images", "annotations", "categories")


def annotation_file(base: Path, files: Sequence[Path]) -> Path | None:
    """The one COCO file among `files`, known by its lists. Raises DatasetError for several."""
    files = [file for file in files if _is_coco(file)]
    if len(files) > 1:
        several = ", ".join(os.path.relpath(file, base) for file in files[:6])
        raise DatasetError(f"{base} holds {len(files)} annotation files ({several}): pass the one you mean as root.")
    return files[0] if files else None


def mentions(file: Path) -> bool:
    """Whether a file has the words of a COCO file, however broken it is."""
    try:
        return _said(file.read_bytes(), KEYS[:2])
    except OSError:
        return False


def _said(text: bytes, keys: Sequence[str]) -> bool:
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
    text = file.read_bytes()
    try:
        document = json.loads(text) if _said(text, KEYS) else None
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and all(isinstance(document.get(key), list) for key in KEYS)
