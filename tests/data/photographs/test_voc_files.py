"""VOC and SBD files: broken ones are named, image lists are the published ones."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image
from voc_tree import TRAIN, H, W, label, list_of, quiet, save_mask

from fsslib.data.photographs import pascal as voc_lists
from fsslib.data.photographs.pascal import read_mask, voc_palette
from fsslib.errors import DatasetError

SHA256_5953 = "677f4a7eaef19497f8c70f34168a39ee0f71ca8fc03e9525b0609f409b9fd247"


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


def broken_mask(make):
    def change(voc):
        make(voc / "SegmentationClass" / "2008_000011.png")

    return change


def reindexed(file):
    palette = voc_palette().copy()
    palette[[1, 2]] = palette[[2, 1]]
    save_mask(label({1: 8}), file, palette)


@pytest.mark.parametrize(
    "change, message",
    [
        (broken_mask(lambda f: f.write_bytes(f.read_bytes()[:90])), r"cannot decode mask .*2008_000011\.png"),
        (broken_mask(lambda f: f.write_bytes(b"")), r"cannot decode mask .*Copy the file"),
        (broken_mask(lambda f: Image.new("RGB", (W, H)).save(f)), r"000011\.png is a picture of mode RGB.*Convert"),
        (broken_mask(lambda f: Image.fromarray(label({1: 8}).astype(np.uint16)).save(f)), r"mode I"),
        (broken_mask(lambda f: save_mask(label({21: 8, 99: 2}), f)), r"values \[21, 99\]; expected class ids 0 to 20"),
        (broken_mask(lambda f: save_mask(label({1: 8})[:-1], f)), r"is 40x31 pixels but image .* is 40x32.*nearest"),
        (broken_mask(reindexed), r"re-indexed palette: index 1 .* class 2"),
        (broken_mask(lambda f: f.unlink()), r"1 of 5 listed ids have no mask .*2008_000011.*sbd=PATH"),
        (
            lambda v: (v / "JPEGImages/2008_000011.jpg").unlink(),
            r"1 of 5 .* no image in JPEGImages.*complete JPEGImages",
        ),
        (
            lambda v: (v / "JPEGImages/2008_000011.jpg").write_bytes(b"GIF89a"),
            r"decode image .*011\.jpg.*Copy",
        ),
        (lambda v: (v / "ImageSets/Segmentation/val.txt").unlink(), r"val\.txt is missing: it lists VOC's val images"),
        (lambda v: (v / "ImageSets/Segmentation/val.txt").write_text("\n"), r"names no image"),
        (lambda v: (v / "ImageSets/Segmentation/val.txt").write_text("a b c\n"), r"line 1: .* has 3 columns"),
        (
            lambda v: (v / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe\x00"),
            r"list file .* not a text file",
        ),
        (lambda v: shutil.rmtree(v / "JPEGImages"), r"no PASCAL VOC folder at .*JPEGImages.*Unpack.*root=PATH"),
    ],
)
def test_broken_files_are_named(voc, change, message):
    change(voc)
    with pytest.raises(DatasetError, match=message):
        quiet(voc, 0, "test")


def test_a_truncated_photograph_is_named_when_it_is_read(voc):
    data = quiet(voc, 0, "test")
    file = voc / "JPEGImages" / "2008_000011.jpg"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DatasetError, match=r"cannot decode image .*2008_000011\.jpg.*truncated.*archive"):
        data[0]


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
        assert hashlib.sha256("\n".join(ids).encode()).hexdigest() == SHA256_5953

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
