"""Your own pictures: splits that say what they are, lists, class names, and options that contradict each other."""

import numpy as np
import pytest
from core_tools import SIZE
from folder_tree import class_folders, images_masks, label_map
from voc_tree import quietly

from fsslib import Protocol
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.errors import DatasetError
from fsslib.evaluation import episode_lists

RULES = Protocol(input_size=SIZE, episodes=4)


def test_without_novel_classes_every_class_is_in_every_split(tmp_path):
    images_masks(tmp_path)
    for split in ("train", "val", "test"):
        data = Folder(tmp_path, 0, split)
        assert data.classes == data.base_classes == (1, 2, 3) and len(data) == 12
        assert np.array_equal(data[3][1].numpy(), label_map(3))


def test_validation_classes_are_no_test_classes(tmp_path):
    images_masks(tmp_path)
    for split in ("train", "val", "test"):
        for wanted in (1, ["dog"]):
            with pytest.raises(DatasetError, match="needs novel_classes or folds"):
                Folder(tmp_path, 0, split, val_classes=wanted)
    options = {"novel_classes": ["cat"], "val_classes": ["dog"]}
    held = [Folder(tmp_path, 0, split, **options) for split in ("train", "val", "test")]
    assert [data.classes for data in held] == [(3,), (2,), (1,)]
    assert not (held[0][1][1] == 2).any() and (held[2][1][1] == 2).any()


def test_novel_classes_by_name_or_id(tmp_path):
    images_masks(tmp_path)
    for wanted in (["cat"], [1], ("cat", 1), "cat"):
        train, test = (Folder(tmp_path, 0, split, novel_classes=wanted) for split in ("train", "test"))
        assert train.classes == train.base_classes == test.base_classes == (2, 3) and test.classes == (1,)
        assert train.fold_scheme == test.fold_scheme == "own classes, novel: cat"
        assert not (train[0][1] == 1).any() and (test[0][1] == 1).any()
    protocol = episode_lists(test, RULES, (1,))[2]
    assert "own classes, novel: cat" in protocol.card()
    assert (Folder(tmp_path, novel_classes=["cat"], novel="ignore")[0][1] == 255).sum() > (label_map(0) == 255).sum()
    dropped = Folder(tmp_path, novel_classes=["cat"], novel="drop")
    assert dropped.ids == [f"n{seed:02}" for seed in range(12) if not (label_map(seed) == 1).any()]
    assert test.hash() != train.hash()


def test_folds_rotate_the_classes(tmp_path):
    class_folders(tmp_path)
    tests = [Folder(tmp_path, fold, "test", folds=3) for fold in range(3)]
    assert [data.classes for data in tests] == [(1,), (2,), (3,)]
    assert tests[0].fold_scheme == "own classes, 3 folds, every n-th class"
    assert Folder(tmp_path, 1, "train", folds=3).classes == (1, 3)
    blocks = [Folder(tmp_path, fold, "test", folds=2, fold_scheme="contiguous").classes for fold in range(2)]
    assert blocks == [(1, 2), (3,)]


def test_lists_keep_images_apart(tmp_path):
    images_masks(tmp_path)
    (tmp_path / "mine.txt").write_text("n00\nn01.jpg\n/images/n02.jpg masks/n02.png\n\nimages/n03\nn04\n")
    lists = {"train": "mine.txt", "test": [f"n{seed:02}" for seed in range(5, 12)]}
    train, test = (Folder(tmp_path, 0, split, lists=lists) for split in ("train", "test"))
    assert train.ids == [f"n{seed:02}" for seed in range(5)] and test.ids == lists["test"]
    for more in ({}, {"val": "mine.txt"}):
        assert Folder(tmp_path, 0, "val", lists=lists | more).ids == train.ids
    assert len({data.list_hash() for data in (train, test)}) == 2
    with pytest.warns(UserWarning, match="1 problem: 1 listed but absent"):
        assert len(Folder(tmp_path, 0, "test", lists={**lists, "test": [*lists["test"], "gone"]})) == 7
    report = check_folder(tmp_path, lists={"train": ["gone"]})
    assert "gone is not there" in report.of("listed but absent")[0].message
    for bad, words in (
        ({"train": "mine.txt", "test": ["n11", "n01"]}, r"1 images are on the lists of both.*n01"),
        ({"train": "none.txt"}, r"cannot read the list .*none\.txt"),
        ({"train": ["n00"], "val": ["n04", "n05"], "test": ["n05"]}, "both val and test.*n05"),
        ({"train": ["n00", "n01"], "val": ["n01", "n02"]}, "both train and val.*n01"),
        ({"test": ["n00"]}, "no list for split 'train'"),
        ({"train": ["n00"], "testing": ["n01"]}, "lists="),
        ({"train": ["x"]}, "no usable image"),
    ):
        with pytest.raises(DatasetError, match=words):
            quietly(Folder, tmp_path, lists=bad)


def test_class_names(tmp_path):
    images_masks(tmp_path)
    wanted, file = {1: "cat", 2: "dog", 3: "owl"}, tmp_path / "classes.json"
    file.write_text('["cat", "dog", "owl"]')
    for names in (None, wanted, ["background", "cat", "dog", "owl"], file, "classes.json"):
        assert Folder(tmp_path, names=names).names == wanted
    file.unlink()
    (tmp_path / "classes.txt").unlink()
    assert Folder(tmp_path).names == {c: f"class {c}" for c in wanted}
    with pytest.warns(UserWarning, match="unknown class id"):
        assert Folder(tmp_path, names=["cat", "dog"]).classes == (1, 2)


def test_options_that_cannot_be(tmp_path):
    images_masks(tmp_path / "a")
    class_folders(tmp_path / "b")
    for options, words in (
        ({"fold": 1}, "fold 1 does not exist"), ({"split": "all"}, "split 'all'"), ({"folds": 0}, "folds=0"),
        ({"folds": 4}, "the number of classes"), ({"folds": 2, "novel_classes": [1]}, "exclude each other"),
        ({"novel_classes": ["cow"]}, r"'cow' is no class.*1 cat, 2 dog"),
        ({"novel_classes": [1, 2, 3]}, "all 3 classes"),
        ({"min_area": -1}, "min_area"), ({"novel": "hide"}, "novel='hide'"), ({"val_classes": 9}, "val_classes"),
        ({"layout": "class_folders"}, "no data set is recognised"), ({"fold_scheme": "x", "folds": 2}, "fold_scheme"),
        ({"fold_scheme": "x"}, "fold_scheme='x' is unknown"),
        ({"split": "val", "novel_classes": [1]}, "val_classes"), ({"root": None}, "root=PATH"),
        ({"root": tmp_path / "b", "names": ["x"]}, "names= is for images_masks"),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=words):
            Folder(**{"root": tmp_path / "a", **options})
