"""PASCAL-5i on a made-up VOC tree, and on the real photographs where they are; broken VOC and SBD files are named,
image lists are the published ones."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from voc_tree import TRAIN, VAL, H, W, label, list_of, quiet, save_mask

from fsslib import Protocol
from fsslib.data.photographs import pascal as voc_lists
from fsslib.data.photographs.pascal import Pascal5i, read_mask, voc_palette
from fsslib.errors import DatasetError
from fsslib.evaluation import episode_lists


def test_folds_splits_and_classes(voc):
    data = quiet(voc, 0, "train")
    assert data.base_classes == tuple(range(6, 21)) and data.classes == (6, 7, 19, 20)
    assert data.ids == sorted(TRAIN) and len(data) == 7
    assert [data.ids[i] for i in data.images_of(7)] == ["2008_000003", "2008_000004"]
    assert data.missing == dict.fromkeys([*range(8, 19)], 0)
    test = quiet(voc, 0, "test")
    assert test.classes == (1, 2) and test.missing == {3: 1, 4: 0, 5: 0} and len(test) == 5
    assert len(test.images_of(3)) == 1 and test.images_of(4) == []
    assert quiet(voc, 1, "test", images=list_of(voc, TRAIN)).classes == (6, 7)
    with pytest.raises(DatasetError, match="no class 6"):
        test.images_of(6)
    assert quiet(voc.parent.parent).ids == quiet(voc.parent).ids == quiet(str(voc)).ids
    test = quiet(voc, 1, "test", fold_scheme="interleaved")
    assert test.base_classes == tuple(c for c in range(1, 21) if c not in (2, 6, 10, 14, 18))
    assert test.fold_scheme == "every n-th class" and data.fold_scheme == "VOC order, 5 a fold"


def test_hidden_classes_are_hidden_everywhere(voc):
    """In no label of training and validation, and in no base annotation, does a novel class appear."""
    for fold in range(4):
        for split in ("train", "val"):
            for novel in ("background", "ignore", "drop"):
                try:
                    data = quiet(voc, fold, split, novel=novel, val_classes=2)
                except DatasetError:
                    continue  # the little tree has no image for it
                shown = {int(v) for i in range(len(data)) for v in data[i][1].unique()} - {0, 255}
                assert shown <= set(data.base_classes)
                assert split == "val" or shown <= set(data.classes) | set(data.missing)


def test_images_and_masks(voc):
    data = quiet(voc, 0, "test")
    image, mask = data[data.ids.index("2008_000012")]
    assert image.shape == (3, H, W) and image.dtype == torch.uint8 and image.is_contiguous()
    assert mask.dtype == torch.uint8 and torch.equal(mask, torch.from_numpy(label(VAL["2008_000012"])))
    mask.zero_()  # the cache hands out copies
    assert data[data.ids.index("2008_000012")][1].any() and torch.equal(data[-1][0], data[len(data) - 1][0])
    assert len(list(data)) == 5  # iteration ends by IndexError
    uncached = quiet(voc, 0, "test", cache=False)
    assert all(torch.equal(a, b) for i in range(5) for a, b in zip(data[i], uncached[i])) and not uncached._cache


def test_novel_pixels(voc):
    at = sorted(TRAIN).index("2008_000002")
    novel = torch.from_numpy(label(TRAIN["2008_000002"])) == 1
    assert (quiet(voc)[at][1][novel] == 0).all() and (quiet(voc, novel="ignore")[at][1][novel] == 255).all()
    dropped = quiet(voc, novel="drop")
    assert dropped.ids == [i for i in sorted(TRAIN) if i not in ("2008_000002", "2008_000007")]
    # Class 6 and 19 lose one of two images each.
    assert dropped.classes == (7, 20) and dropped.missing[6] == 1
    assert len({quiet(voc, novel=choice).hash() for choice in ("background", "ignore", "drop")}) == 3
    assert dropped.list_hash() == quiet(voc).list_hash()
    test = quiet(voc, 0, "test", novel="drop")
    assert len(test) == 5 and (test[1][1] == 6).any()  # labels of the test split are untouched


def test_validation_classes(voc):
    train, val = quiet(voc, val_classes=2), quiet(voc, split="val", val_classes=2)
    assert train.classes == (6, 7) and val.classes == (19, 20) and train.base_classes == val.base_classes
    at = sorted(TRAIN).index("2008_000004")
    assert set(train[at][1].unique().tolist()) == {0, 7, 255}  # class 20 is held back
    assert set(val[at][1].unique().tolist()) == {0, 7, 20, 255}
    assert quiet(voc, split="val", val_classes=(6, 20)).classes == (6, 20)
    with pytest.raises(DatasetError, match="pass val_classes=3"):
        quiet(voc, split="val")


def test_minimum_area_counts_pixels_of_the_file(voc):
    rows = H - 4
    assert quiet(voc, 0, "test", min_area=2 * rows).classes == (1, 2)
    data = quiet(voc, 0, "test", min_area=2 * rows + 1)  # 2008_000012 shows class 1 on two columns
    assert data.classes == (2,) and data.missing[1] == 1
    with pytest.raises(DatasetError, match=r"no usable class.*Lower min_area"):
        quiet(voc, 0, "test", min_area=H * W)


def test_missing_classes_are_named_once(voc):
    with pytest.warns(UserWarning, match=r"goes on with 2 of 5 classes.*3 bird \(1\), 4 boat \(0\), 5 bottle") as seen:
        Pascal5i(voc, 0, "test")
    assert len(seen) == 1 and seen[0].filename == __file__


def test_real_photographs(shared):
    root = shared / "data" / "voc-subset"
    counts = {}
    for fold in (1, 2, 3):
        data = quiet(root, fold, "test")
        assert len(data) == 693
        counts |= {data.names[c]: len(data.images_of(c)) for c in data.classes}
    assert counts == {
        "car": 27, "cat": 120, "chair": 43, "cow": 95, "diningtable": 6, "dog": 186, "horse": 187, "motorbike": 3,
        "person": 253, "pottedplant": 25, "sheep": 114, "sofa": 37, "tvmonitor": 18,
    }  # fmt: skip
    with pytest.warns(UserWarning, match=r"1 aeroplane \(0\)"):
        scarce = Pascal5i(root, 0, "test")
    assert scarce.classes == (2, 3, 4, 5) and len(scarce.images_of(5)) == 13
    image, mask = data[data.images_of(17)[0]]
    assert image.shape[1:] == mask.shape and max(mask.shape) == 336 and (mask == 17).any()
    assert image.float().std() > 10
    train = quiet(root, 3, "train")
    assert len(train) == 1109 and not any((train[i][1] == 17).any() for i in range(0, 1109, 50))


def test_training_on_test_images_is_said_aloud(voc):
    mixed = list_of(voc, [*TRAIN, "2008_000011"])
    with pytest.warns(UserWarning, match=r"1 of 8 training images are VOC val images.*not comparable"):
        data = Pascal5i(voc, 0, "train", images=mixed, val_classes=0)
    assert data.image_list == "file list.txt"
    _, _, protocol = episode_lists(data, Protocol(episodes=2), (1,))
    assert protocol.images == "file list.txt" and "file list.txt" in protocol.card()


def test_list_files(voc):
    pairs = [f"/JPEGImages/{i}.jpg SegmentationClass/{i}.png" for i in TRAIN]
    data = quiet(voc, images=list_of(voc, ["# comment", "", *pairs, pairs[0]]))
    assert data.ids == sorted(TRAIN) and data.image_list == "file list.txt"
    assert data.list_hash() == quiet(voc).list_hash()
    assert data.list_hash() == hashlib.sha256("\n".join(sorted(TRAIN)).encode()).hexdigest()
    shutil.copytree(voc / "SegmentationClass", voc / "Other")
    save_mask(label({8: 6}), voc / "Other" / "2008_000001.png")
    other = [line.replace("SegmentationClass", "Other") for line in pairs]
    data = quiet(voc, images=list_of(voc, other))
    assert (data[0][1] == 8).any()


def test_mask_folders_and_sbd(voc):
    from scipy.io import savemat

    (voc / "SegmentationClassAug").mkdir()
    save_mask(label({8: 6}), voc / "SegmentationClassAug" / "2008_000001.png")
    assert (quiet(voc, images="voc")[0][1] == 8).any()  # Aug first, the others from SegmentationClass

    sbd = voc.parent.parent / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    record = np.zeros((1, 1), [("Segmentation", object)])
    record[0, 0]["Segmentation"] = label({9: 5})
    for name in ("2009_000001", "2009_000002", "2008_000011"):
        shutil.copy(voc / "JPEGImages" / "2008_000001.jpg", voc / "JPEGImages" / f"{name}.jpg")
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": record})
    (sbd / "train.txt").write_text("2009_000001\n2008_000011\n")
    (sbd / "val.txt").write_text("2009_000002\n2008_000001\n")
    data = quiet(voc)
    assert data.image_list == "trainaug" and data.ids == sorted([*TRAIN, "2009_000001", "2009_000002"])
    assert data.classes == (7, 9, 19, 20) and data.missing[6] == 1  # the Aug mask turned one bus into a cat
    assert (data[data.ids.index("2009_000002")][1] == 9).sum() == 5 * (H - 4)
    (sbd / "train_noval.txt").write_text("2009_000001\n")
    assert quiet(voc).image_list == "pascal5i" and len(quiet(voc)) == 8
    assert len(quiet(voc, images="trainaug", sbd=sbd.parent)) == 9 and len(quiet(voc, images="voc")) == 7
    (sbd / "cls" / "2009_000001.mat").write_bytes(b"not a mat file")
    with pytest.raises(DatasetError, match=r"cannot read SBD mask .*2009_000001\.mat"):
        quiet(voc)
    with pytest.raises(DatasetError, match="no SBD folder at sbd="):
        quiet(voc, sbd=voc / "JPEGImages")


def reindexed(file):
    palette = voc_palette().copy()
    palette[[1, 2]] = palette[[2, 1]]
    save_mask(label({1: 8}), file, palette)


MASK, PHOTO, IDS = "SegmentationClass/2008_000011.png", "JPEGImages/2008_000011.jpg", "ImageSets/Segmentation/val.txt"
BROKEN = [
    (MASK, lambda f: f.write_bytes(f.read_bytes()[:90]), r"cannot decode mask .*2008_000011\.png"),
    (MASK, lambda f: f.write_bytes(b""), "cannot decode mask .*Copy the file"),
    (MASK, lambda f: Image.new("RGB", (W, H)).save(f), r"000011\.png is a picture of mode RGB.*Convert"),
    (MASK, lambda f: Image.fromarray(label({1: 8}).astype(np.uint16)).save(f), "mode I"),
    (MASK, lambda f: save_mask(label({21: 8, 99: 2}), f), r"values \[21, 99\]; expected class ids 0 to 20"),
    (MASK, lambda f: save_mask(label({1: 8})[:-1], f), "is 40x31 pixels but image .* is 40x32.*nearest"),
    (MASK, reindexed, "re-indexed palette: index 1 .* class 2"),
    (MASK, Path.unlink, "1 of 5 listed ids have no mask .*2008_000011.*sbd=PATH"),
    (PHOTO, Path.unlink, "1 of 5 .* no image in JPEGImages.*complete JPEGImages"),
    (PHOTO, lambda f: f.write_bytes(b"GIF89a"), r"decode image .*011\.jpg.*Copy"),
    (IDS, Path.unlink, r"val\.txt is missing: it lists VOC's val images"),
    (IDS, lambda f: f.write_text("\n"), "names no image"),
    (IDS, lambda f: f.write_text("a b c\n"), "line 1: .* has 3 columns"),
    (IDS, lambda f: f.write_bytes(b"\xff\xfe\x00"), "list file .* not a text file"),
    ("JPEGImages", shutil.rmtree, r"no PASCAL VOC folder at .*JPEGImages.*Unpack.*root=PATH"),
]


@pytest.mark.parametrize("file, change, message", BROKEN)
def test_broken_files_are_named(voc, file, change, message):
    change(voc / file)
    with pytest.raises(DatasetError, match=message):
        quiet(voc, 0, "test")


@pytest.mark.parametrize("images, message", [
    ("no/such/list.txt", "cannot read list file .*Pass the path"), ("trainaug", "needs SBD"),
    ("pascal5i", r"train_noval\.txt, or ImageSets/Main"),
])  # fmt: skip
def test_lists_that_cannot_be(voc, images, message):
    with pytest.raises(DatasetError, match=message):
        Pascal5i(voc, images=images)


def test_greyscale_masks_and_grey_palettes(tmp_path):
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    save_mask(label({7: 3}), tmp_path / "p.png", grey)
    Image.fromarray(label({7: 3})).save(tmp_path / "l.png")
    assert np.array_equal(read_mask(tmp_path / "p.png"), read_mask(tmp_path / "l.png"))
    assert voc_palette()[[0, 1, 7, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [128, 128, 128], [192, 128, 128], [0, 64, 128], [224, 224, 192]
    ]  # fmt: skip


def test_published_lists(shared, tmp_path):
    """The lists hold exactly the ids the field publishes, from lists laid out as VOC and SBD lay out theirs."""
    lists = {file.stem: file.read_text().split() for file in (shared / "lists").glob("*.txt")}
    train, val = lists["voc2012_train_1464"], lists["voc2012_val_1449"]
    noval, wanted = lists["sbd_ids"], lists["pascal5i_train_5953"]
    voc, sbd = tmp_path / "VOC2012", tmp_path / "SBD"
    for folder in (voc / "JPEGImages", voc / "ImageSets/Segmentation", voc / "ImageSets/Main", sbd / "cls"):
        folder.mkdir(parents=True)
    (voc / "ImageSets/Segmentation/train.txt").write_text("\n".join(train))
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n".join(val))
    assert voc_lists.find_sbd(voc) == sbd and voc_lists.test_ids(voc) == val

    def check():
        ids, image_list = voc_lists.training_ids(voc, sbd)
        assert len(ids) == 5953 and ids == wanted and image_list == "pascal5i"
        known = "677f4a7eaef19497f8c70f34168a39ee0f71ca8fc03e9525b0609f409b9fd247"
        assert hashlib.sha256("\n".join(ids).encode()).hexdigest() == known

    (sbd / "train_noval.txt").write_text("\n".join(noval))
    check()
    # Without train_noval.txt: all of SBD, of which VOC's Main train list keeps the same images.
    (sbd / "train_noval.txt").unlink()
    (sbd / "train.txt").write_text("\n".join(noval[::2] + val[::3]))
    (sbd / "val.txt").write_text("\n".join([*noval[1::2], "2010_999999"]))
    (voc / "ImageSets/Main/train.txt").write_text("\n".join(sorted({*noval, *train[311:]})))
    check()
    ids, _ = voc_lists.training_ids(voc, sbd, "trainaug")
    assert ids == sorted({*wanted, "2010_999999"}) and not set(ids) & set(val)
    assert voc_lists.training_ids(voc, None, "voc") == (train, "voc")
