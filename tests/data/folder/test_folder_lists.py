"""What people write into lists: ids and names that stand twice, numbers as texts, and one picture under two names."""

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from folder_tree import class_folders, coco, images_masks, photograph, write
from PIL import Image

from fsslib import EpisodeSampler, Protocol
from fsslib.data import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.folder.layouts import Entry
from fsslib.data.folder.names_and_lists import class_ids, class_names, listed
from fsslib.data.folder.pairs import first_copies
from fsslib.data.folds import fold_classes, held_back
from fsslib.data.photographs import coco_label_maps
from fsslib.data.photographs.pascal import read_list
from fsslib.errors import DatasetError

CATS = {1: "cat", 2: "dog"}


@pytest.mark.parametrize("text", [
    "cat\ndog", "# two\ncat\n\ndog # barks", "1 cat\n2 dog", "1: cat\n2: dog", "2. dog\n1. cat", "1) cat\n2) dog",
    "1,cat\n2,dog", "cat: 1\ndog: 2", "cat\t1\ndog\t2", "0 background\n1 cat\n2 dog", "0: _background_\n1:cat\n2:dog",
    "1=cat\n2=dog\n255=void", "background\ncat\ndog", "_background_\ncat\ndog",
    "__ignore__\n_background_\n cat\ndog \n", "cat,255,0,0\ndog,0,0,255", "255 0 0 cat\n0 0 255 dog",
    "_background_:0,0,0::\ncat:255,0,0::\ndog:0,255,0:part:", "1,cat,255,0,0\n2,dog,0,255,0", "cat 9 0 0\ndog 0 9 0",
])  # fmt: skip
def test_class_lists_with_numbers_and_comments(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    assert class_names(None, tmp_path) == CATS


def test_names_that_only_look_like_numbers(tmp_path):
    for text, wanted in (
        ("2 wheels\ncat", {1: "2 wheels", 2: "cat"}), ("item #3\nitem #4", {1: "item #3", 2: "item #4"}),
        ("class 1\nclass 2", {1: "class 1", 2: "class 2"}), ("1: 7\n2: 9", {1: "7", 2: "9"}),
        ("7\n9", {1: "7", 2: "9"}), ("cat 255 x\ndog 0 x", {1: "cat 255 x", 2: "dog 0 x"}),
    ):  # fmt: skip
        (tmp_path / "classes.txt").write_text(text)
        assert class_names(None, tmp_path) == wanted


@pytest.mark.parametrize(("names", "words"), [
    ("1: cat\n1: dog", "id 1 stands twice, in line 1 and line 2"), ("cat\n# x\ncat", "'cat' in line 1 and line 3"),
    ("cafe\u0301\ncaf\u00e9", "same name"), ("cat\n2. dog", r"line 2 \('2. dog'\) begins with a number and line 1"),
    ("0 cat\n1 dog", "line 1: 0 means the background"), ("1: cat\n255: dog", "line 2: 255 means ignored"),
    ("1: cat\n300: dog", "ids from 1 to 254"), ("\n".join(f"class {n}" for n in range(255)), "ids from 1 to 254"),
    ("cat:1,2,3::\ndog:1,2,3::", r"\(1, 2, 3\) stands for both"),
    ({1: "cat", "1": "dog"}, "id 1 stands twice"), ({"01": "cat", "1": "dog"}, "id 1 stands twice"),
    ({"cat": 1, "dog": 1.0}, "id 1 stands twice, in entry 'cat' and entry 'dog'"), ({1.5: "cat"}, "whole numbers"),
    ({True: "cat"}, "whole numbers"), ({"cat": True}, "whole numbers"), ({1: 7}, "both numbers"),
    ({"7": 1}, "both numbers"), ({1: None}, "class 1 has the name None"), ({1: True}, "class 1 has the name True"),
    ({1: ["cat"]}, "expected a text"), ({1: " "}, "expected a text"), (["cat", 5], "all of them texts"),
    ([True, False], "all of them texts"), ({0: "sky", 1: "cat"}, "0 means the background"),
    ({}, "0 names"), ([], "0 names"), ({"a": "b"}, "whole numbers"), (7, "names=7"),
    (Path("missing.txt"), "cannot read class names"), (["a", "a"], "same name"), ({300: "x"}, "ids from 1 to 254"),
])  # fmt: skip
def test_class_names_that_mean_two_things(tmp_path, names, words):
    if isinstance(names, str):
        (tmp_path / "classes.txt").write_text(names)
        names = "classes.txt"
    with pytest.raises(DatasetError, match=words):
        class_names(names, tmp_path)


def test_ids_however_they_arrive(tmp_path):
    for text in ('{"2": "dog", "1": "cat", "0": "background"}', '{"cat": 1, "dog": 2}', '["cat", "dog"]'):
        (tmp_path / "classes.json").write_text(text)
        assert class_names(None, tmp_path) == CATS
    for names in ({"1": "cat", "2": "dog"}, {1.0: "cat", np.int64(2): "dog"}, {"cat": "1", "dog": 2.0}):
        assert class_names(names, tmp_path) == CATS
    for wanted in ([1, "dog"], ["1", 2.0], np.array([1, 2]), (" cat", "2"), {1, 2}):
        assert class_ids(wanted, CATS, "novel_classes") == (1, 2)
    assert class_ids("2", {1: "2", 2: "1"}, "x") == (1,) and class_ids("cafe\u0301", {3: "caf\u00e9"}, "x") == (3,)
    for bad in (True, [True], 1.5, [None], [[1]], "3", [np.bool_(True)]):
        with pytest.raises(DatasetError, match=r"novel_classes: .* is no class .* 1 cat, 2 dog"):
            class_ids(bad, CATS, "novel_classes")
    assert held_back([1.0, "2"], (1, 2, 3)) == held_back((np.int64(2), 1), (1, 2, 3)) == (1, 2)
    for bad in (True, [True], [1.5], "1", [1, 2, 3], [9]):
        with pytest.raises(DatasetError, match="val_classes="):
            held_back(bad, (1, 2, 3))
    with pytest.raises(DatasetError, match="stands twice"):
        fold_classes((1, 2, 2, 3), 0, 3)


def test_lines_of_a_list_mean_one_image(tmp_path):
    def entry(name: str) -> Entry:
        return Entry(name.rpartition(".")[0], tmp_path / "images" / name, tmp_path)

    twice = ("d.jpg", "d.jpg.png")
    entries = [entry(name) for name in ("1.jpg", "3.JPG", "b.png", "caf\u00e9.jpg", *twice)]
    for line, at in (
        ("1", 0), ("1.JPG", 0), ("3.jpg", 1), ("./images/3.jpg", 1), ("images\\b.png", 2), ("/images/b.png m/b.png", 2),
        ("cafe\u0301", 3), ("7. b.png", 2), ("2 b", 2), ("images/1.jpg masks/1.png", 0), ("d.jpg", 4), ("d.jpg.png", 5),
    ):  # fmt: skip
        assert listed([line], entries, tmp_path) == ([at], [])
    assert listed(["1", "1.jpg", "1"], entries, tmp_path) == ([0], [])
    assert listed(["1 3.jpg"], entries, tmp_path) == ([], ["1 3.jpg (it may mean 1.jpg, 3.JPG)"])
    twins = [Entry(name, tmp_path / name, tmp_path) for name in ("a.jpg", "a.png")]
    assert listed(["a", "a.png"], twins, tmp_path) == ([1], ["a (it may mean a.jpg, a.png)"])
    for lists in ({"train": 5}, {"train": [True]}, {"train": None}, {"train": [1.5]}, "train", 7, {"all": []}):
        images_masks(tmp_path / "own", 3)
        for door in (check_folder, Folder):
            with pytest.raises(DatasetError, match=r"lists.*expected"):
                door(tmp_path / "own", lists=lists)


def test_voc_lists_name_one_mask(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("a m/a.png\nb\na m/a.png\n")
    assert read_list(file) == {"a": "m/a.png", "b": None}
    file.write_text("# x\na m/a.png\na n/a.png\n")
    with pytest.raises(DatasetError, match="line 3: a has another mask than in line 2"):
        read_list(file)
    file.write_text("a\n.. m/a.png\n")
    with pytest.raises(DatasetError, match="line 2"):
        read_list(file)


@pytest.mark.parametrize(("key", "change", "words"), [
    ("images", {"file_name": "other.jpg"}, r"1 ids of 'images' occur twice: 100 for .* and for other.jpg.* new ids"),
    ("images", {"id": 77, "height": 5}, r"has the ids 100 and 77, of different sizes"),
    ("images", {"id": True}, "has the id True"), ("images", {"id": 1.5}, r"has the id 1.5"),
    ("images", {"id": 77, "file_name": 12}, "entry 9 of 'images'.*file_name 12"), ("images", {"id": None}, "id None"),
    ("images", {"id": 77, "height": 10**6, "width": 10**6}, "no size in whole pixels"),
    ("categories", {"name": "horse"}, r"1 ids of 'categories' occur twice: .* and for horse.* new ids"),
    ("categories", {"id": 77, "name": None}, "the name None"), ("categories", {"id": [1]}, r"the id \[1\]"),
    ("categories", {"id": 77, "name": True}, "the name True"),
])  # fmt: skip
def test_coco_entries_that_mean_two_things(tmp_path, key, change, words):
    file, document = coco(tmp_path)
    first = min(document[key], key=lambda entry: entry["id"])
    document[key].append(first | change)
    with pytest.raises(DatasetError, match=words):
        coco_label_maps.open_masks(write(file, document))
    report = check_folder(file)
    assert [problem.kind for problem in report.problems] == ["broken JSON"] and report.sound == 0
    assert ("new ids" in words) == ("new ids" in report.problems[0].cure)


def test_coco_numbers_however_they_arrive(tmp_path):
    file, document = coco(tmp_path)
    wanted = [mask for _, mask in Folder(file)]
    for number in (str, float):
        changed = json.loads(json.dumps(document))
        changed["images"].append(dict(changed["images"][0]))  # the same again is no other picture
        for entry in (*changed["images"], *changed["categories"]):
            entry["id"] = number(entry["id"])
        for entry in changed["annotations"]:
            entry |= {key: number(entry[key]) for key in ("image_id", "category_id")} | {"iscrowd": number(0)}
        data = Folder(write(file, changed))
        assert not data.report.problems and all((a == b[1]).all() for a, b in zip(wanted, data, strict=True))
    changed["annotations"][0]["image_id"], changed["annotations"][1]["iscrowd"] = True, "no"
    messages = " ".join(problem.message for problem in check_folder(write(file, changed)).problems)
    assert "image True" in messages and "iscrowd that is neither 0 nor 1" in messages


def test_one_file_with_two_ids_has_one_label_map(tmp_path):
    file, document = coco(tmp_path)
    names = [mask for _, mask in Folder(file)]
    first = document["images"][0]
    document["images"].append(first | {"id": 500, "file_name": "./" + first["file_name"]})
    moved = next(entry for entry in document["annotations"] if entry["image_id"] == first["id"])
    moved["image_id"] = 500
    report = check_folder(write(file, document))
    assert report.kinds == {"same picture twice": 1} and f"ids {first['id']} and 500" in report.problems[0].message
    with pytest.warns(UserWarning, match="same picture twice"):
        data = Folder(file)
    assert len(data) == len(names) and all((a == b[1]).all() for a, b in zip(names, data))


def copied(tmp_path, layout: str):
    """A folder in which a photograph lies twice, under two names."""
    if layout == "coco_json":
        file, document = coco(tmp_path)
        one, other = (entry["file_name"] for entry in document["images"][:2])
        places = [next(tmp_path.rglob(name)) for name in (one, other)]
        shutil.copy(*places)
        return file
    root = (images_masks if layout == "images_masks" else class_folders)(tmp_path)
    places = sorted(root.rglob("*.[jJ]*"))
    shutil.copy(places[0], places[3 if layout == "images_masks" else 1])
    return root


@pytest.mark.parametrize("layout", ["images_masks", "class_folders", "coco_json"])
def test_query_and_support_are_never_the_same_picture(tmp_path, layout):
    root = copied(tmp_path, layout)
    report = check_folder(root)
    assert report.kinds == {"same picture twice": 1} and report.sound == report.pairs
    with pytest.warns(UserWarning, match="same picture twice"):
        data = Folder(root, 0, "test")
    pictures = [data[index][0].numpy().tobytes() for index in range(len(data))]
    assert len(set(pictures)) == len(pictures) - 1 and len(data.copies()) == 2
    sampler = EpisodeSampler(data, Protocol(input_size=33), shot=2)
    for spec in sampler.fixed(120).specs:
        shown = [pictures[index] for index in (spec.query, *spec.supports[0])]
        assert len(set(shown)) == 3
    with pytest.raises(DatasetError, match="Remove one of the two"):
        Folder(root, strict=True)


def test_a_photograph_in_two_class_folders(tmp_path):
    class_folders(tmp_path)
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    photographs = [sorted(folder.glob("*.JPG"))[0] for folder in folders]
    for other in photographs[1:]:
        shutil.copy(photographs[0], other)
    data = Folder(tmp_path, 0, "test")
    assert not data.report.problems, "so its objects of two classes are labelled"
    pictures = [data[index][0].numpy().tobytes() for index in range(len(data))]
    for spec in EpisodeSampler(data, Protocol(input_size=33, way=3), shot=2).fixed(60).specs:
        assert pictures[spec.query] not in [pictures[index] for ways in spec.supports for index in ways]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_copy_on_the_other_list_is_said(tmp_path, swapped):
    root = copied(tmp_path, "images_masks")
    lists = dict(zip(("test", "train") if swapped else ("train", "test"), (["n00", "n01"], ["n03", "n04"])))
    said = r"1 pictures are on the lists of both .* \(n00.jpg\): take the copies off"
    with pytest.warns(UserWarning, match=said), pytest.raises(DatasetError, match="no usable class"):
        Folder(root, lists=lists, min_area=400)
    assert check_folder(root, lists=lists).kinds == {"same picture twice": 1}


def test_copies_alone_make_no_class(tmp_path):
    class_folders(tmp_path, count=2)
    one, other = sorted(next(p for p in sorted(tmp_path.iterdir()) if p.is_dir()).glob("*.JPG"))
    shutil.copy(one, other)
    assert "1 usable image" in check_folder(tmp_path).of("class with too few images")[0].message
    same_size = [tmp_path / f"{n}.bin" for n in "abc"]
    for file, text in zip(same_size, ("x" * 9000, "y" + "x" * 8999, "x" * 9000)):
        file.write_text(text)
    assert first_copies([*same_size, tmp_path / "none"]) == {same_size[2]: same_size[0]}


@pytest.mark.parametrize("layout", ["images_masks", "class_folders", "coco_json"])
def test_two_forms_of_an_umlaut_and_capital_endings(tmp_path, layout):
    if layout == "coco_json":
        file, document = coco(tmp_path)
        for at, entry in enumerate(document["images"]):
            place = next(tmp_path.rglob(entry["file_name"]))
            place.rename(place.with_name(f"cafe\u0301{at}.JPG"))
            entry["file_name"] = f"caf\u00e9{at}.jpg"
        write(file, document)
    else:
        (images_masks if layout == "images_masks" else class_folders)(tmp_path)
        for place in sorted(tmp_path.rglob("*.*[gG]")):
            form, ending = ("NFD", ".JPG") if place.suffix.lower() == ".jpg" else ("NFC", ".PNG")
            place.rename(place.with_name(unicodedata.normalize(form, f"caf\u00e9 {place.stem}{ending}")))
    report = check_folder(tmp_path)
    assert report.sound == report.pairs and not report.problems


def test_class_folders_in_two_forms(tmp_path):
    class_folders(tmp_path)
    for form in ("NFC", "NFD"):
        folder = tmp_path / unicodedata.normalize(form, "caf\u00e9")
        folder.mkdir()
        photograph(ord(form[2])).save(folder / "x.jpg")
        Image.fromarray(np.eye(32, 48, dtype=np.uint8) * 255).save(folder / "x.png")
    problem = check_folder(tmp_path).of("duplicate name")[0]
    assert "another form of Unicode" in problem.message and "Move its files" in problem.cure
