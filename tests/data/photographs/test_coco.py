"""COCO-20i on made-up folders of both layouts, and on 128 real photographs where they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_tree import CATEGORY, TRAIN, VAL, H, W, label, make_coco, make_set, photograph, quiet, thing
from PIL import Image
from pycocotools.coco import COCO

from fsslib import EpisodeSampler, Protocol
from fsslib.data.photographs.coco import Coco20i
from fsslib.errors import DatasetError

# pycocotools under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def test_folds_splits_and_classes(coco):
    data = quiet(coco, 0, "train")
    assert data.names[1] == "class 1" and data.names[80] == "class 80" and list(data.names) == list(range(1, 81))
    assert data.base_classes == tuple(c for c in range(1, 81) if c % 4 != 1) and len(data.base_classes) == 60
    assert data.classes == (2, 3, 30, 78, 79) and data.image_list == "train2017" and len(data) == len(TRAIN)
    assert [data.ids[i] for i in data.images_of(30)] == ["000000000011", "000000000012"]
    test = quiet(coco, 0, "test")
    assert test.classes == (1, 5, 13) and test.missing[9] == 1 and test.image_list == "val2017"
    assert len(test) == len(VAL)
    row = quiet(coco, 0, "test", fold_scheme="contiguous")
    assert row.classes == (1, 2, 5, 13) and row.base_classes == tuple(range(21, 81))
    assert quiet(coco, 3, "train", fold_scheme="contiguous").classes == (2, 3, 30)
    assert data.fold_scheme == Protocol.coco20i().fold_scheme != row.fold_scheme
    assert quiet(coco.parent).ids == data.ids  # the folder above
    val = quiet(coco, 0, "val", val_classes=3)
    assert val.classes == (78, 79) and val.ids == data.ids and quiet(coco, val_classes=3).classes == (2, 3, 30)
    for wrong in ({"fold": 4}, {"fold_scheme": "odd"}, {"images": "val2012"}, {"val_classes": 60}, {"split": "all"}):
        with pytest.raises(DatasetError, match=str(next(iter(wrong.values())))):
            Coco20i(coco, **wrong)


def test_images_and_masks(coco):
    for split, images in (("train", TRAIN), ("test", VAL)):
        data = quiet(coco, 1, split, novel="ignore")  # fold 1 tests 2, 6, ..., 78
        for number, (image, mask) in zip(sorted(images), data):
            expected = label(images[number])
            if split == "train":
                expected[(expected % 4 == 2) & (expected > 0)] = 255
            assert image.shape == (3, H, W) and image.dtype == torch.uint8 and mask.dtype == torch.uint8
            assert torch.equal(mask, torch.from_numpy(expected)), number
    data = quiet(coco, 0, "test", min_area=14 * 4)
    assert data.classes == (5,) and data.missing[1] == 1  # four columns of 14 pixels, in two images
    dropped = quiet(coco, 0, "train", novel="drop")
    assert [int(i) for i in dropped.ids] == [i for i in TRAIN if 5 not in TRAIN[i]]
    episode = EpisodeSampler(quiet(coco, 0, "train"), Protocol(input_size=33)).batch(0, 3).validate()
    assert (episode.support_masks == 1).flatten(1).any(1).all()


@pytest.mark.parametrize("inside", ["", "images"])
def test_both_years_and_places(tmp_path, inside):
    make_coco(tmp_path, 2014, inside)
    assert quiet(tmp_path).ids[0] == "COCO_train2014_000000000002"
    make_coco(tmp_path, 2017, inside)
    assert quiet(tmp_path).image_list == "train2014" and quiet(tmp_path, split="test").image_list == "val2014"
    assert quiet(tmp_path, images="train2017").image_list == "train2017"
    assert quiet(tmp_path, 0, "test", images="val2017").ids[0] == "000000000021"


def test_years_are_not_mixed(tmp_path):
    make_set(tmp_path, "train2017", TRAIN)
    make_set(tmp_path, "val2014", VAL)  # its images are in train2017, were it real
    with pytest.raises(DatasetError, match=r'no train2014 .* There are: val2014, train2017; images="val2014" uses'):
        quiet(tmp_path)
    make_set(tmp_path, "val2017", VAL)
    assert quiet(tmp_path).image_list == "train2017" and quiet(tmp_path, split="test").image_list == "val2017"


def test_left_out_annotations_are_said(coco):
    file = coco / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"].append({**thing(2, 2, [[1, 2, 3, 4]]), "id": 99})
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="1 annotations without a polygon of three points are left out"):
        Coco20i(coco)


def test_images_that_are_not_there(coco):
    (coco / "train2017" / "000000000013.jpg").unlink()
    with pytest.warns(UserWarning, match="goes on with 6 images of train2017: 1 of 7 listed images are not in"):
        data = Coco20i(coco, val_classes=0)
    assert data.absent == 1 and len(data) == 6 and data.missing[79] == 1
    for file in (coco / "train2017").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match=r"none of the 7 images .* such as 000000000002.jpg: unpack"):
        quiet(coco)
    with pytest.raises(DatasetError, match=r"no COCO folder at .*download=True"):
        quiet(coco / "val2017")
    with pytest.raises(DatasetError, match="root=PATH"):
        Coco20i()
    (coco / "empty" / "annotations").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no image set"):
        quiet(coco / "empty")


def test_download(tmp_path, monkeypatch):
    asked = []

    def fetch(name, root, *, parts):
        asked.append((name, *parts))
        make_coco(Path(root), int(parts[0][-4:])) if not (Path(root) / parts[0]).is_dir() else None

    monkeypatch.setattr("fsslib.data.download.sources.download", fetch)
    assert quiet(tmp_path / "new", 0, "test", download=True).image_list == "val2017"
    assert quiet(tmp_path / "new", images="train2014", download=True).image_list == "train2014"
    assert quiet(tmp_path / "new", download=True).image_list == "train2014"
    with pytest.raises(DatasetError, match="images='train'"):
        quiet(tmp_path / "new", images="train", download=True)
    assert [parts for _, *parts in asked] == [
        ["val2017", "annotations2017"], ["train2014", "annotations2014"], ["train2014", "annotations2014"],
    ]  # fmt: skip


def test_photographs_of_another_size(coco):
    file = coco / "train2017" / "000000000002.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    photograph(file, (W, H), exif=turned)  # annotated as stored
    assert quiet(coco)[0][0].shape == (3, H, W)
    photograph(file, (H, W), exif=turned)  # annotated upright
    assert quiet(coco)[0][0].shape == (3, H, W)
    photograph(file, (H, W))
    with pytest.raises(DatasetError, match=r"000000000002.jpg is 16x24 pixels, but .* says 24x16"):
        quiet(coco)
    data = quiet(coco, images="val2017", split="test")
    (coco / "val2017" / "000000000021.jpg").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"cannot decode image .*21.jpg"):
        data[0]


def test_real_photographs(shared: Path):
    """Images of COCO train2017: every class's pixels against pycocotools' own masks."""
    root = shared / "data" / "coco128"
    with pytest.raises(DatasetError, match=r"no val2017 for split 'test'.*images=\"train2017\""):
        Coco20i(root, split="test")
    sizes = [
        len(quiet(root, f, s, images="train2017", val_classes=12).classes) for f in range(4) for s in ("train", "test")
    ]
    assert sizes == [38, 17, 40, 16, 40, 13, 38, 18]
    data = quiet(root, 0, "test", images="train2017", cache=False)
    reference = COCO(root / "annotations" / "instances_train2017.json")
    assert len(data) == 128 and data.absent == 0 and len(reference.anns) == 939 and not data._masks.skipped
    assert [data.names[c] for c in (1, 5, 9, 13, 17)] == ["person", "airplane", "boat", "parking meter", "dog"]
    numbers = {category: n for n, category in enumerate(sorted(reference.cats), 1)}
    for index, image in list(enumerate(sorted(reference.imgs)))[::3]:
        drawn = data[index][1].numpy()
        covered = np.zeros(drawn.shape, bool)
        seen = {}
        for entry in reference.imgToAnns[image]:
            mask = reference.annToMask(entry).astype(bool)
            covered |= mask
            name = 255 if entry["iscrowd"] else numbers[entry["category_id"]]
            seen.setdefault(name, np.zeros(drawn.shape, bool))
            seen[name] |= mask
        assert ((drawn > 0) == covered).all() and set(np.unique(drawn)) - {0} <= set(seen)
        for name, mask in seen.items():
            assert not (drawn == name)[~mask].any()
            overlapped = np.logical_or.reduce([m for n, m in seen.items() if n != name] or [np.zeros_like(mask)])
            assert name == 255 or (drawn == name)[mask & ~overlapped].all()
    assert CATEGORY[80] == 90
