"""The checker of somebody's own folder: every planted fault is found, nothing sound is accused, and cures cure."""

import os
import re

import folder_tree as tree
import numpy as np
import pytest
from folder_tree import (
    H,
    W,
    class_folders,
    coco,
    images_masks,
    label_map,
    photograph,
    spoil_class_folders,
    spoil_images_masks,
)

from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.folder.problems import PROBLEM_KINDS
from fsslib.errors import DatasetError


def found(report, root):
    return sorted(
        (os.path.relpath(problem.file, root).replace(os.sep, "/"), problem.kind) for problem in report.problems
    )


def test_thirty_faults_of_ten_kinds_are_found_and_nothing_else(tmp_path):
    planted = spoil_images_masks(tmp_path)
    assert len(planted) == 30 and len({kind for _, kind in planted}) == 10
    report = check_folder(tmp_path)
    assert found(report, tmp_path) == sorted(planted)
    assert all(len(problem.cure) > 15 and len(problem.message) > 15 for problem in report.problems)
    assert (report.sound, report.pairs, report.layout) == (11, 41, "images_masks")
    assert report.kinds == dict.fromkeys((kind for kind in PROBLEM_KINDS if kind in dict(map(reversed, planted))), 3)
    with pytest.warns(UserWarning, match="11 of 41 pairs are usable; 30 problems: 3 unreadable image") as seen:
        data = Folder(tmp_path)
    assert len(seen) == 1 and data.ids == [f"n{seed}" for seed in range(29, 40)]
    for index, seed in enumerate(range(29, 40)):
        assert np.array_equal(data[index][1].numpy(), label_map(seed))
    with pytest.raises(DatasetError, match=r"30 problems.*The first: .*n00\.jpg: cannot be decoded.*check_folder"):
        Folder(tmp_path, strict=True)


def test_messages_name_what_was_found(tmp_path):
    spoil_images_masks(tmp_path)
    said = {problem.file.name: f"{problem.message} {problem.cure}" for problem in check_folder(tmp_path).problems}
    for file, words in {
        "n08.jpg": "N08.png differs in capital letters only",
        "n11.png": "24x16 pixels but the image n11.jpg is 48x32",
        "n12.png": "sides are swapped",
        "n13.png": "EXIF note turns it, and the mask was drawn on the unturned",
        "n15.png": "(255, 0, 0)",
        "n18.png": "255 only, which means ignored",
        "n20.png": "the ids 37; the classes are 1 cat, 2 dog, 3 owl",
        "n26.png": "uint16 numbers from 0 to 65535",
        "n28.tif": "float32 numbers from 0 to 1",
    }.items():
        assert words in said[file], file


@pytest.mark.parametrize("style", ["beside", "suffix", "folders"])
def test_clean_class_folders(tmp_path, style):
    class_folders(tmp_path, style)
    litter(tmp_path, tmp_path / "cat", *([tmp_path / "dog" / "masks"] if style == "folders" else []))
    report = check_folder(tmp_path)
    assert not report.problems and report.layout == "class_folders" and report.sound == report.pairs == 12
    assert report.classes == {"cat": 4, "dog": 4, "owl": 4}


@pytest.mark.parametrize(
    ("images", "masks"), [("images", "masks"), ("JPEGImages", "SegmentationClass"), ("Imgs", "LABELS")]
)
def test_clean_images_and_masks(tmp_path, images, masks):
    images_masks(tmp_path, images=images, masks=masks)
    litter(tmp_path, tmp_path / images, tmp_path / masks)
    report = check_folder(tmp_path)
    assert not report.problems and report.layout == "images_masks" and report.sound == 12
    assert report.classes == {"cat": 4, "dog": 8, "owl": 4}


def test_clean_coco_file(tmp_path):
    file, _ = coco(tmp_path)
    litter(tmp_path, tmp_path / "images", tmp_path / "annotations")
    for root in (tmp_path, file):
        report = check_folder(root)
        assert not report.problems and report.layout == "coco_json" and report.sound == 8
        assert report.classes == {"cat": 4, "dog": 4}


def litter(*folders):
    """What systems and archives leave behind."""
    for folder in folders:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._n00.jpg", ".n00.png"):
            (folder / name).write_bytes(b"")
    (folders[0] / "__MACOSX").mkdir()
    (folders[0] / "__MACOSX" / "n00.jpg").write_bytes(b"")
    (folders[0] / "readme.txt").write_text("my data")


def test_faults_in_class_folders(tmp_path):
    planted = spoil_class_folders(tmp_path)
    report = check_folder(tmp_path)
    assert found(report, tmp_path) == planted
    assert report.classes == {"cat": 2, "dog": 3, "one": 1, "owl": 7} and report.sound == 13
    assert check_folder(tmp_path, min_area=10_000).kinds["class with too few images"] == 4


def test_code_in_cures_cures(tmp_path):
    """Every cure that is code runs, and what it was for is no problem any more."""
    ran = 0
    for root, plant in ((tmp_path / "a", spoil_images_masks), (tmp_path / "b", spoil_class_folders)):
        plant(root)
        cured = set()
        for problem in check_folder(root).problems:
            for code in re.findall("`(.*?)`", problem.cure):
                exec(code, {})
                cured.add((problem.file.stem, problem.kind))
                if problem.file.suffix == ".tif" and problem.kind.endswith("mask"):
                    problem.file.unlink()  # the cure wrote a .png beside it
        left = {(problem.file.stem, problem.kind) for problem in check_folder(root).problems}
        assert not cured & left
        ran += len(cured)
    assert ran == 18


def test_faults_in_a_coco_file(tmp_path):
    file, document = coco(tmp_path, 12)
    notes = document["annotations"]
    (tmp_path / "images" / "c0.jpg").unlink()
    (tmp_path / "images" / "c1.jpg").write_bytes((tmp_path / "images" / "c1.jpg").read_bytes()[:700])
    (tmp_path / "images" / "c2.jpg").write_bytes(b"")
    photograph(3, (W, 2 * H)).save(tmp_path / "images" / "c3.jpg")
    notes[4]["segmentation"] = []
    notes[5]["segmentation"] = [[1, 2, 3, 4]]
    notes[6]["image_id"] = 999
    notes[7]["category_id"] = 55
    notes[8]["segmentation"] = [[200, 200, 220, 200, 220, 220]]
    notes.append({"id": 70, "image_id": 109, "category_id": 7, "segmentation": [tree.box(2)], "iscrowd": 0})
    notes.append({"id": 71, "image_id": None, "category_id": [], "bbox": [1, 2, 3, 4]})
    report = check_folder(tree.write(file, document))
    at = tmp_path / "images"
    assert {(problem.file, problem.kind) for problem in report.problems} == {
        (tmp_path / "c0.jpg", "image file missing"),
        (at / "c1.jpg", "unreadable image"),
        (at / "c2.jpg", "empty file"),
        (at / "c3.jpg", "size mismatch"),
        (file, "no polygon"),
        (file, "unknown image"),
        (file, "unknown category"),
        (at / "c8.jpg", "empty mask"),
    }
    assert report.kinds["no polygon"] == report.kinds["unknown image"] == 2
    assert "annotation 5 on c5.jpg" in report.of("no polygon")[1].message
    with pytest.warns(UserWarning, match="3 of 8 pairs"):
        data = Folder(tmp_path)
    assert data.ids == ["c10.jpg", "c11.jpg", "c9.jpg"] and data.classes == (2, 3)
    for text in ("{", "[]", '{"images": [], "annotations": [], "categories": []}', '{"images": [{"id": 1}]}'):
        file.write_text(text)
        report = check_folder(file)
        assert [problem.kind for problem in report.problems] == ["broken JSON"] and report.sound == 0
        with pytest.raises(DatasetError, match="broken JSON"):
            Folder(file)


def test_mended_and_spoilt_files_are_seen(tmp_path):
    spoil_images_masks(tmp_path)
    first, second = check_folder(tmp_path), check_folder(tmp_path)
    assert first == second
    photograph(0).save(tmp_path / "images" / "n00.jpg")
    assert check_folder(tmp_path).kinds["unreadable image"] == 2
    (tmp_path / "masks" / "n30.png").write_bytes(b"gone")
    assert check_folder(tmp_path).kinds["unreadable mask"] == 4


def test_two_ways_of_naming_masks_in_one_folder(tmp_path):
    class_folders(tmp_path, "suffix")
    photograph(9).save(tmp_path / "dog" / "q.jpg")
    tree.Image.fromarray(tree.disc(9, 255)).save(tmp_path / "dog" / "q.png")
    photograph(9).save(tmp_path / "dog" / "r.jpg")
    report = check_folder(tmp_path)
    assert report.sound == 13 and found(report, tmp_path) == [("dog/r.jpg", "image without mask")]
