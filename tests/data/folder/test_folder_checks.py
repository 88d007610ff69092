"""The checker of somebody's own folder: every planted fault is found, nothing sound is accused, cures cure; what it
says and where it is called from; which masks it calls soft."""

import io
import re

import folder_tree as tree
import numpy as np
import pytest
from folder_tree import H, W, class_folders, coco, disc, images_masks, label_map, photograph, spoil_images_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsslib.data.__main__ import main
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.folder.problems import PROBLEM_KINDS
from fsslib.data.pictures import soft as _soft
from fsslib.errors import DatasetError


def files_and_kinds(report, root):
    return sorted((problem.file.relative_to(root).as_posix(), problem.kind) for problem in report.problems)


FOUND = {
    "n08.jpg": "N08.png differs in capital letters only",
    "n11.png": "24x16 pixels but the image n11.jpg is 48x32",
    "n12.png": "sides are swapped",
    "n13.png": "EXIF note turns it, and the mask was drawn on the unturned",
    "n15.png": "(255, 0, 0)",
    "n18.png": "255 only, which means ignored",
    "n20.png": "the ids 37; the classes are 1 cat, 2 dog, 3 owl",
    "n26.png": "uint16 numbers from 0 to 65535",
    "n28.tif": "float32 numbers from 0 to 1",
}


def test_thirty_faults_of_ten_kinds_are_found_and_nothing_else(tmp_path):
    planted = spoil_images_masks(tmp_path)
    assert len(planted) == 30 and len({kind for _, kind in planted}) == 10
    report = check_folder(tmp_path)
    assert files_and_kinds(report, tmp_path) == sorted(planted)
    assert all(len(problem.cure) > 15 and len(problem.message) > 15 for problem in report.problems)
    texts = {problem.file.name: f"{problem.message} {problem.cure}" for problem in report.problems}
    for file, words in FOUND.items():
        assert words in texts[file], file
    assert (report.sound, report.pairs, report.layout) == (11, 41, "images_masks")
    assert report.kinds == dict.fromkeys((kind for kind in PROBLEM_KINDS if kind in dict(map(reversed, planted))), 3)
    with pytest.warns(UserWarning, match="11 of 41 pairs are usable; 30 problems: 3 unreadable image") as seen:
        data = Folder(tmp_path)
    assert len(seen) == 1 and data.ids == [f"n{seed}" for seed in range(29, 40)]
    for index, seed in enumerate(range(29, 40)):
        assert np.array_equal(data[index][1].numpy(), label_map(seed))
    with pytest.raises(DatasetError, match=r"30 problems.*The first: .*n00\.jpg: cannot be decoded.*check_folder"):
        Folder(tmp_path, strict=True)


CLEAN = [(class_folders, style, (4, 4, 4), ["cat"]) for style in ("beside", "suffix")]
CLEAN += [(class_folders, "folders", (4, 4, 4), ["cat", "dog/masks"])]
CLEAN += [
    (lambda root, names: images_masks(root, 12, *names), names, (4, 8, 4), names)
    for names in (("images", "masks"), ("JPEGImages", "SegmentationClass"), ("Imgs", "LABELS"))
]
CLEAN += [(lambda root, place: coco(root, 8, place), "annotations", (4, 4), ["images", "annotations"])]


@pytest.mark.parametrize(("make", "how", "shown", "littered"), CLEAN)
def test_clean_folders(tmp_path, make, how, shown, littered):
    make(tmp_path, how)
    litter(tmp_path, *(tmp_path / name for name in littered))
    report = check_folder(tmp_path)
    layout = "class_folders" if make is class_folders else "images_masks" if len(shown) == 3 else "coco_json"
    assert not report.problems and report.layout == layout and report.classes == dict(zip(("cat", "dog", "owl"), shown))
    assert report.sound == report.pairs == (8 if layout == "coco_json" else 12)


def litter(*folders):
    """What systems and archives leave behind."""
    for folder in folders:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._n00.jpg", ".n00.png"):
            (folder / name).write_bytes(b"")
    (folders[0] / "__MACOSX").mkdir()
    (folders[0] / "__MACOSX" / "n00.jpg").write_bytes(b"")
    (folders[0] / "readme.txt").write_text("my data")


def test_faults_in_class_folders(tmp_path):
    planted = tree.spoil_class_folders(tmp_path)
    report = check_folder(tmp_path)
    assert files_and_kinds(report, tmp_path) == planted
    assert report.classes == {"cat": 2, "dog": 3, "one": 1, "owl": 7} and report.sound == 13
    assert check_folder(tmp_path, min_area=10_000).kinds["class with too few images"] == 4


def test_code_in_cures_cures(tmp_path):
    """Every cure that is code runs, and what it was for is no problem any more."""
    ran = 0
    for root, plant in ((tmp_path / "a", spoil_images_masks), (tmp_path / "b", tree.spoil_class_folders)):
        plant(root)
        cured = set()
        for problem in check_folder(root).problems:
            for code in re.findall("`(.*?)`", problem.cure):
                exec(code, {})
                cured.add((problem.file.stem, problem.kind))
        left = {(problem.file.stem, problem.kind) for problem in check_folder(root).problems}
        assert not cured & left
        ran += len(cured)
    assert ran == 17


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
        (tmp_path / "c0.jpg", "image file missing"), (at / "c1.jpg", "unreadable image"), (at / "c2.jpg", "empty file"),
        (at / "c3.jpg", "size mismatch"), (file, "no polygon"), (file, "unknown image or category"),
        (at / "c8.jpg", "empty mask"),
    }  # fmt: skip
    assert report.kinds["no polygon"] == 2 and report.kinds["unknown image or category"] == 3
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


def every(pattern, change):
    """Three images with label maps, and what `change` does to each file of a pattern."""
    return lambda root: [change(file) for file in images_masks(root, 3).glob(pattern)]


def maps(change):
    return every("masks/*", lambda file: Image.fromarray(change(np.array(Image.open(file)))).save(file))


def notes(lost=(), **changed):
    """Three annotated images; which of them are lost, and what every annotation says instead."""

    def make(root):
        file, document = coco(root, 3)
        for entry in document["annotations"]:
            entry |= changed
        tree.write(file, document)
        for name in lost:
            (root / "images" / name).unlink()

    return make


CAUSES = {
    "image file missing": notes(["c0.jpg", "c1.jpg", "c2.jpg"]), "no polygon": notes(segmentation=[[]]),
    "unknown image or category": notes(category_id=55),
    "unreadable image": every("images/*", lambda file: file.write_bytes(b"no picture")),
    "size mismatch": maps(lambda ids: ids.repeat(2, 0)), "empty mask": maps(lambda ids: 0 * ids),
    "unknown class id": maps(lambda ids: np.where(ids % 255, ids + 9, ids)),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_the_one_problem_that_an_error_quotes_is_a_cause(tmp_path, cause):
    """Never what follows from it, which comes last."""
    CAUSES[cause](tmp_path)
    report = check_folder(tmp_path)
    assert report.problems[0].kind == cause and report.kinds.get(cause) == 3, report
    assert any(line.startswith(cause) for line in str(report).splitlines())
    with pytest.raises(DatasetError, match="The first: ") as refused:
        Folder(tmp_path, split="test")
    first = str(refused.value).split("The first")[1]
    assert report.problems[0].message in first and "usable image" not in first
    assert set(PROBLEM_KINDS[-2:]) == {"class with too few images", "listed but absent"}


def test_two_ways_of_naming_masks_in_one_folder(tmp_path):
    class_folders(tmp_path, "suffix")
    photograph(9).save(tmp_path / "dog" / "q.jpg")
    Image.fromarray(disc(9, 255)).save(tmp_path / "dog" / "q.png")
    photograph(9).save(tmp_path / "dog" / "r.jpg")
    report = check_folder(tmp_path)
    assert report.sound == 13 and files_and_kinds(report, tmp_path) == [("dog/r.jpg", "image without mask")]


def soft(mask, kind):
    return _soft(mask, np.setdiff1d(mask, 0), kind, False)


def line(value, offset):
    return value * np.eye(40, 60, offset, dtype=np.uint8)


THIN = {
    "thin lines of four classes": sum(line(value, 9 * value) for value in (1, 2, 3, 4)),
    "twelve small squares": np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((4, 4), np.uint8)),
    "an outline class": np.pad(np.pad(np.full((9, 9), 2, np.uint8), 1, constant_values=1), 4),
    "outlines of two classes": np.hstack(
        [np.pad(np.pad(np.full((9, 9), v + 1, np.uint8), 1, constant_values=v), 4) for v in (1, 3)]
    ),
    "void around an object": label_map(1),
}  # fmt: skip


@pytest.mark.parametrize("name", THIN)
def test_drawn_label_maps_are_not_soft(name):
    assert not soft(THIN[name], "ids")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500), st.sampled_from([2, 3, 5]), st.sampled_from([255, 9, 3]))
def test_shrunken_masks_are_soft(seed, factor, top):
    mask = np.array(tree.blurred(disc(seed, 1, factor * W, factor * H)))
    mask = np.round(mask / 255 * top).astype(np.uint8)
    if len(np.unique(mask)) > 3:
        assert soft(mask, "ids")
    if top == 255 and len(np.unique(mask)) > 2:
        assert soft(mask, "binary")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500), st.integers(10, 95), st.sampled_from(["ids", "binary"]))
def test_jpeg_masks_are_soft_under_any_name(seed, quality, kind):
    stream = io.BytesIO()
    Image.fromarray(disc(seed, 255)).save(stream, "JPEG", quality=quality)
    assert soft(np.array(Image.open(stream)), kind)


def test_report_as_text_and_table(tmp_path):
    spoil_images_masks(tmp_path)
    (tmp_path / "masks" / "n30.png").write_bytes(b"<b>")
    report = check_folder(tmp_path)
    text = str(report)
    assert "10 of 41 pairs are usable; 31 problems" in text and "unreadable mask (4)" in text and "… and 1 more" in text
    assert "masks/n11.png: is 24x16" in text and "masks/n30.png" not in text and "masks/n30.png" in report.table(None)
    page = report._repr_html_()
    assert page.count("<tr>") == 31 and "<td>unreadable mask</td><td>4</td>" in page and "<html>" not in page
    clean = check_folder(images_masks(tmp_path / "clean"))
    assert "no problems" in str(clean) and "<table>" not in clean._repr_html_()


def test_command_line(tmp_path, capsys):
    images_masks(tmp_path)
    assert main(["check", str(tmp_path)]) == 0 and "12 of 12 pairs" in capsys.readouterr().out
    (tmp_path / "masks" / "n01.png").unlink()
    assert main(["check", str(tmp_path), "--layout", "images_masks", "--all"]) == 1
    assert "image without mask (1)" in capsys.readouterr().out
    (tmp_path / "my.txt").write_text("a\nb\nc")
    assert main(["check", str(tmp_path), "--names", "my.txt"]) == 1 and "a 4, b 7" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere")]) == 2 and "no folder" in capsys.readouterr().err


def test_roots_that_are_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match=r"no folder .*nowhere"):
        check_folder(tmp_path / "nowhere")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    with pytest.raises(DatasetError, match=r"no data set is recognised.*NAME_mask\.png.*masks/NAME\.png.*COCO.*notes/"):
        check_folder(tmp_path)
    with pytest.raises(DatasetError, match="is a file"):
        check_folder(tmp_path / "notes" / "a.txt")
    with pytest.raises(DatasetError, match=r"layout='voc'.*class_folders"):
        check_folder(tmp_path, layout="voc")
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test")
    with pytest.raises(DatasetError, match=r"several data sets \(test, train\)"):
        check_folder(tmp_path)
    file, document = coco(tmp_path / "two")
    tree.write(file.with_name("more.json"), document)
    with pytest.raises(
        DatasetError, match=r"2 annotation files \(annotations/instances\.json, annotations/more\.json\)"
    ):
        check_folder(tmp_path / "two")
    with pytest.raises(TypeError, match="'layuot'"):
        check_folder(file, layuot="auto")
    assert check_folder(file, fold=0, split="test", novel_classes=["cat"]).sound == 8
