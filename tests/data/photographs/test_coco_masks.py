"""Label maps from COCO's annotations: what is drawn, and what is kept."""

import json
import sys

import numpy as np
import pytest
import torch
from coco_tree import TRAIN, H, W, box, masks_of, photograph, quiet, thing
from PIL import Image
from pycocotools import mask as coder

from fsslib.data.photographs import coco_label_maps as coco_masks
from fsslib.data.photographs.coco import Coco20i
from fsslib.errors import DatasetError

# pycocotools under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def test_overlaps_crowds_and_borders(tmp_path):
    """The smaller object is on top, whatever the order in the file; crowds give way to everything."""
    small, large = thing(1, 3, box(4, 4, 8, 8)), thing(1, 2, box(2, 2, 14, 12))
    runs = coder.encode(np.asfortranarray(np.arange(H * W).reshape(H, W) % W >= 12).astype(np.uint8))
    for order in ([small, large], [large, small]):
        mask = masks_of(tmp_path, order).read(1)
        assert (mask[4:8, 4:8] == 3).all() and (mask == 3).sum() == 16 and (mask == 2).sum() == 120 - 16
    unpacked = {"size": [H, W], "counts": [12 * H, 12 * H]}
    for code in ({"size": [H, W], "counts": runs["counts"].decode()}, unpacked):
        mask = masks_of(tmp_path, [thing(1, 5, code, iscrowd=1), large, small]).read(1)
        assert (mask[:, 14:] == 255).all() and (mask[:2, 12:] == 255).all() and (mask == 2).sum() == 120 - 16
        assert (masks_of(tmp_path, [thing(1, 5, code)]).read(1)[:, 12:] == 5).all()
    outside = masks_of(tmp_path, [thing(1, 7, box(-30, -9, 6, 900 / 6)), thing(1, 8, box(30, 2, 40, 9))])
    mask = outside.read(1)
    assert (mask[:, :6] == 7).all() and not mask[:, 6:].any() and not outside.skipped


def test_compressed_codes(tmp_path):
    """Our reading of COCO's run-length strings against pycocotools', on noise with long and short runs."""
    generator = np.random.default_rng(0)
    for height, width in ((7, 5), (40, 90), (300, 200)):
        noise = (generator.random((height, width)) < generator.random((height, 1)) ** 3).astype(np.uint8)
        counts = coder.encode(np.asfortranarray(noise))["counts"].decode()
        entry = thing(1, 1, {"size": [height, width], "counts": counts})
        assert (masks_of(tmp_path, [entry], (height, width)).read(1) == noise).all()


FAULTS = {
    "without a segmentation": [[], None], "of an image or category that is not listed": [],
    "without a polygon of three points": [
        [[1, 1, 5, 5]], [[1, 1, 5]], [[1, 1, 5, 1, 5]], [[0, 0, 1e9, 0, 1e9, 9]], [[0, 0, float("nan"), 0, 3, 9]],
        "abc", [None],
    ],
    "with a run-length code that does not fill its image": [
        {"size": [H, W], "counts": [3, 9999]}, {"size": [W, H], "counts": [9, H * W - 9]},
        {"size": [H, W], "counts": []}, {"size": [H, W], "counts": "PPPP"}, {"size": [H, W], "counts": [-4, H * W + 4]},
        {"size": [H, W], "counts": [4.0, H * W - 4.0]},
    ],
    "that is no COCO annotation": [7, {"size": [H, W]}, {"counts": [1]}, [["a"] * 6]],
}  # fmt: skip


def test_faulty_annotations_are_left_out_and_counted(tmp_path):
    entries = [thing(1, 4, shape) for shapes in FAULTS.values() for shape in shapes]
    entries += [thing(2, 4, box(0, 0, 4, 4)), thing(1, 8, box(0, 0, 4, 4)) | {"category_id": 8}]
    good = thing(1, 6, [[1, 1, 5, 5], *box(2, 2, 6, 8)])
    masks = masks_of(tmp_path, [*entries, good, thing(1, 9, box(8, 8, 12, 10)[0])])
    wanted = {reason: len(shapes) for reason, shapes in FAULTS.items()} | {list(FAULTS)[1]: 2}
    assert masks.skipped == wanted
    mask = masks.read(1)
    assert (mask == 6).sum() == 24 and (mask[8:10, 8:12] == 9).all() and (mask == 9).sum() == 8 and mask.max() == 9


GOOD = {"images": [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4}], "categories": [{"id": 1, "name": "x"}]}
GOOD["annotations"] = []
BROKEN = {
    "cut": json.dumps(GOOD)[:-20], "empty": "", "list": "[]", "binary": "\x00\xff", "no images": json.dumps({"a": 1}),
    "no size": json.dumps({**GOOD, "images": [{"id": 1, "file_name": "a.jpg"}]}),
    "no categories": json.dumps({**GOOD, "categories": []}),
    "size": json.dumps({**GOOD, "images": [{"id": 1, "file_name": "a.jpg", "height": "3", "width": 4}]}),
    "id": json.dumps({**GOOD, "images": [{"id": "../1", "file_name": "a.jpg", "height": 3, "width": 4}]}),
    "annotations": json.dumps({**GOOD, "annotations": {"1": {}}}), "nested": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_annotation_files(tmp_path, text):
    file = tmp_path / "instances.json"
    file.write_text(text)
    with pytest.raises(DatasetError, match=r"cannot read annotations .*instances.json.* Expected COCO's format"):
        coco_masks.open_masks(file)
    file.write_text(json.dumps(GOOD))
    assert coco_masks.open_masks(file).names == {1: "x"}
    with pytest.raises(DatasetError, match="no annotation file"):
        coco_masks.open_masks(tmp_path / "none.json")


def test_other_numbers_of_categories(tmp_path, coco):
    masks = masks_of(
        tmp_path, [thing(1, 255, box(0, 0, 4, 4)), thing(1, 254, box(6, 0, 9, 4))], names={n: n for n in range(1, 300)}
    )
    mask = masks.read(1)
    assert masks.names[254] == "class 254" and 255 not in masks.names and masks.names[256] == "class 255"
    assert mask.dtype == np.uint16 and (mask[:4, :4] == 256).all() and (mask[:4, 6:9] == 254).all()
    photograph(tmp_path / "a.png")
    for _ in range(2):  # drawn, then read
        areas = masks.areas([(1, tmp_path / "a.png")])
        assert areas.shape == (1, 301) and areas[0, 254] == 12 and areas[0, 256] == 16 and areas[0, 0] == H * W - 28
    file = coco / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["categories"].pop()
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="lists 79 categories, not 80"):
        quiet(coco)


def refuse(*_):
    raise AssertionError("the annotations were read again")


def test_maps_are_kept_and_checked(coco, monkeypatch):
    data = quiet(coco, cache=False)
    expected = [mask.clone() for _, mask in data]
    files = [data._masks.file_of(n) for n in sorted(TRAIN)]
    assert all(file.is_file() for file in files)
    monkeypatch.setattr(coco_masks, "_OPEN", {})
    with monkeypatch.context() as patch:
        patch.setattr(coco_masks, "read_annotations", refuse)
        assert quiet(coco).hash() == data.hash()
        coco_masks._OPEN.clear()
    whole = files[0].read_bytes()
    for spoilt in (whole[: len(whole) // 2], b"", b"no"):
        files[0].write_bytes(spoilt)
        assert torch.equal(data[0][1], expected[0]) and files[0].read_bytes() == whole
        files[0].write_bytes(spoilt)
        coco_masks._OPEN.clear()
        assert quiet(coco).hash() == data.hash() and files[0].read_bytes() == whole
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(files[1])
    assert torch.equal(data[1][1], expected[1])
    (data._masks.folder / "head.json").write_text("{}")
    coco_masks._OPEN.clear()
    assert quiet(coco).hash() == data.hash()
    # Another annotation file under the same name has maps of its own.
    annotations = coco / "annotations" / "instances_train2017.json"
    annotations.write_text(annotations.read_text().replace("[[0, 2, 6, 2, 6", "[[0, 2, 7, 2, 7"))
    changed = quiet(coco)
    assert changed._masks.folder != data._masks.folder and changed.hash() != data.hash()
    assert (changed[0][1] == 2).sum() > (expected[0] == 2).sum()


def test_a_cache_that_cannot_be_written(coco, tmp_path, monkeypatch):
    expected = quiet(coco)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FSSLIB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"index of .* cannot be kept .*FSSLIB_CACHE") as said:
        data = Coco20i(coco, val_classes=0)
    assert sum("kept" in str(warning.message) for warning in said) == 1
    assert data.hash() == expected.hash() and all(torch.equal(a[1], b[1]) for a, b in zip(data, expected))
    monkeypatch.setattr(coco_masks, "read_annotations", refuse)
    assert quiet(coco, 1).classes == quiet(coco, 1).classes != data.classes


def test_without_pycocotools(coco, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(DatasetError, match="pip install pycocotools"):
        quiet(coco)
