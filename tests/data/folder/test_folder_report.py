"""What the checker says and where it is called from; which masks it calls soft."""

import io

import folder_tree as tree
import numpy as np
import pytest
from folder_tree import NAMES, H, W, class_folders, coco, disc, images_masks, label_map, spoil_images_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsslib.data.__main__ import main
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.problems import PROBLEM_KINDS
from fsslib.data.pictures import soft as _soft
from fsslib.errors import DatasetError


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


def test_names_of_kinds_are_kept(tmp_path):
    tree.spoil_class_folders(tmp_path)
    for problem in check_folder(tmp_path).problems:
        assert problem.kind in PROBLEM_KINDS
        with pytest.raises(AttributeError):
            problem.kind = "other"
    assert set(NAMES.values()) <= set(check_folder(tmp_path).classes)
