"""LabelIndex: every label read once, stale and broken entries read again."""

import json
import os

import numpy as np
import pytest

from fsslib import files
from fsslib.data.photographs import label_index as index
from fsslib.data.photographs.label_index import LabelIndex
from fsslib.errors import DatasetError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve pairs whose "mask" is a text of numbers; a cache of its own."""
    monkeypatch.setenv("FSSLIB_CACHE", str(tmp_path / "cache"))
    index._KNOWN.clear()
    for i in range(12):
        (tmp_path / f"{i:02}.jpg").write_text("picture")
        (tmp_path / f"{i:02}.png").write_text(f"{i + 1} {2 * i}")
    return tmp_path


def pairs(folder):
    return [(mask.with_suffix(".jpg"), mask) for mask in sorted(folder.glob("*.png"))]


def reader(seen):
    def read(image, mask):
        seen.append(mask.name)
        first, second = map(int, mask.read_text().split())
        return {0: first, 7: second}

    return read


def expected(count=12):
    table = np.zeros((count, 9), np.int64)
    table[:, 0], table[:, 7] = np.arange(count) + 1, 2 * np.arange(count)
    return table


def fresh(folder, seen):
    """As a new process would see it."""
    index._KNOWN.clear()
    return LabelIndex("test", folder, reader(seen)).counts(pairs(folder), 9)


def test_every_label_is_read_once(folder):
    seen = []
    for _ in range(3):
        assert np.array_equal(fresh(folder, seen), expected())
    assert sorted(seen) == [f"{i:02}.png" for i in range(12)]
    few = LabelIndex("test", folder, reader(seen)).counts(pairs(folder)[3:5], 9)
    assert np.array_equal(few, expected()[3:5]) and len(seen) == 12
    LabelIndex("other", folder, reader(seen)).counts(pairs(folder), 9)
    assert len(seen) == 24, "another reader has an index of its own"


def test_changed_files_are_read_again(folder):
    seen = []
    fresh(folder, seen)
    (folder / "03.png").write_text("50 60")
    os.utime(folder / "05.jpg", (1, 1))
    table = fresh(folder, seen)
    assert seen[12:] == ["03.png", "05.png"] and table[3, 0] == 50 and table[3, 7] == 60


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "list", "format"])
def test_a_broken_index_is_rebuilt(folder, damage):
    seen = []
    fresh(folder, seen)
    (file,) = (files.cache_folder() / "index").glob("*.json")
    text = file.read_text()
    head, body = text.split("\n")[:2]
    file.write_text(
        {
            "cut": text[: len(text) // 2],
            "bit": text.replace("[0,7],[4,6]", "[0,7],[4,8]"),
            "empty": "",
            "list": "[1, 2]\n[]\n",
            "format": json.dumps({**json.loads(head), "format": 99}) + "\n" + body + "\n",
        }[damage]
    )
    assert file.read_text() != text and np.array_equal(fresh(folder, seen), expected()) and len(seen) == 24
    fresh(folder, seen)
    assert len(seen) == 24, "and kept again"


def test_what_was_read_before_an_error_is_kept(folder):
    def read(image, mask):
        if mask.name == "08.png":
            raise DatasetError("broken")
        return reader(seen)(image, mask)

    seen = []
    with pytest.raises(DatasetError, match="broken"):
        LabelIndex("test", folder, read).counts(pairs(folder), 9)
    before = len(set(seen))
    assert np.array_equal(fresh(folder, seen), expected()) and before >= 8 and "00.png" not in seen[before:]


def test_a_cache_that_cannot_be_written(folder, monkeypatch):
    (folder / "cache").write_text("a file where the folder should be")
    seen = []
    with pytest.warns(UserWarning, match="Set FSSLIB_CACHE"):
        assert np.array_equal(fresh(folder, seen), expected())
