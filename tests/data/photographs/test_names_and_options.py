"""Endings in capital letters, folders in several spellings, and options that are checked before anything is read."""

import shutil

import pytest
from coco_tree import quiet as coco_set
from test_fss1000 import PUBLISHED, tree
from test_fss1000 import quiet as fss_set
from voc_tree import quiet as voc_set

from fsslib.data.download import sources
from fsslib.data.photographs.coco import Coco20i
from fsslib.data.photographs.fss1000 import Fss1000
from fsslib.data.photographs.pascal import Pascal5i
from fsslib.errors import DatasetError


def content(data) -> tuple[list[str], list[bytes]]:
    return data.ids, [mask.numpy().tobytes() for _, mask in data]


def test_endings_in_capital_letters(voc, coco, tmp_path):
    fss = tree(tmp_path / "fss", [*PUBLISHED[:2], "other_1", "other_2", "other_3"], copy=shutil.copy2)
    doors = ((voc_set, voc), (coco_set, coco), (fss_set, fss))
    before = [content(load(root)) for load, root in doors]
    for file in [file for _, root in doors for file in sorted(root.rglob("*.*g"))]:
        file.rename(file.with_suffix(file.suffix.upper()))
    for (load, root), known in zip(doors, before):
        assert content(load(root)) == known


def test_a_test_class_in_two_spellings_is_never_trained_on(tmp_path):
    first = PUBLISHED[0]
    spelt = [first.replace("_", " ") + "!", first.upper() + "-"]
    root = tree(tmp_path / "fss", [*spelt, PUBLISHED[1], *(f"other_{n}" for n in range(4))], copy=shutil.copy2)
    data = fss_set(root)
    assert not {data.names[cls] for cls in data.base_classes} & set(spelt)


def test_a_validation_class_in_another_form_of_unicode(tmp_path):
    root = tree(tmp_path / "fss", [PUBLISHED[0], "cafe\u0301", "other"], copy=shutil.copy2)
    (tmp_path / "val.txt").write_text("caf\u00e9\n", encoding="utf-8")
    data = fss_set(root, 0, "val", val_list=tmp_path / "val.txt")
    assert [data.names[cls] for cls in data.classes] == ["caf\u00e9"] and {*data.classes} <= {
        *data[0][1].unique().tolist()
    }


@pytest.mark.parametrize("load", [Pascal5i, Coco20i, Fss1000])
@pytest.mark.parametrize(("option", "value"), [
    ("download", "no"), ("download", 1), ("min_area", "big"), ("min_area", True), ("cache", "no"),
])  # fmt: skip
def test_options_are_checked_first(tmp_path, monkeypatch, load, option, value):
    monkeypatch.setattr(sources, "download", lambda *_, **__: pytest.fail("nothing must be fetched"))
    with pytest.raises(DatasetError, match=option):
        load(tmp_path, **{"download": True} | {option: value})
