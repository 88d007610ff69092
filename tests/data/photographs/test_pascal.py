"""PASCAL-5i on a made-up VOC tree, and on the real photographs where they are."""

import pytest
import torch
from voc_tree import TRAIN, VAL, H, W, label, list_of, quiet, save_mask

from fsslib import Protocol
from fsslib.data.photographs.pascal import Pascal5i
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


def test_interleaved_folds(voc):
    test = quiet(voc, 1, "test", fold_scheme="interleaved")
    assert test.base_classes == tuple(c for c in range(1, 21) if c not in (2, 6, 10, 14, 18))
    assert test.fold_scheme == "every n-th class" and quiet(voc).fold_scheme == "VOC order, 5 a fold"
    assert quiet(voc).list_hash() == quiet(voc, fold_scheme="interleaved").list_hash()
    with pytest.raises(DatasetError, match="'random' is unknown"):
        quiet(voc, fold_scheme="random")


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
    assert data[data.ids.index("2008_000012")][1].any()
    assert torch.equal(data[-1][0], data[len(data) - 1][0])
    assert len(list(data)) == 5  # iteration ends by IndexError
    uncached = quiet(voc, 0, "test", cache=False)
    assert all(torch.equal(a, b) for i in range(5) for a, b in zip(data[i], uncached[i])) and not uncached._cache


def test_parents_of_the_voc_folder_are_found(voc):
    assert quiet(voc.parent.parent).ids == quiet(voc.parent).ids == quiet(str(voc)).ids


def test_novel_pixels(voc):
    at = sorted(TRAIN).index("2008_000002")
    novel = torch.from_numpy(label(TRAIN["2008_000002"])) == 1
    assert (quiet(voc)[at][1][novel] == 0).all()
    assert (quiet(voc, novel="ignore")[at][1][novel] == 255).all()
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
    for bad in (15, -1, True, (1,), (6, 99), "3"):
        with pytest.raises(DatasetError, match="val_classes"):
            quiet(voc, val_classes=bad)
    with pytest.raises(DatasetError, match="pass val_classes=3"):
        quiet(voc, split="val")


def test_minimum_area_counts_pixels_of_the_file(voc):
    rows = H - 4
    assert quiet(voc, 0, "test", min_area=2 * rows).classes == (1, 2)
    data = quiet(voc, 0, "test", min_area=2 * rows + 1)  # 2008_000012 shows class 1 on two columns
    assert data.classes == (2,) and data.missing[1] == 1
    with pytest.raises(DatasetError, match=r"no usable class.*Lower min_area"):
        quiet(voc, 0, "test", min_area=H * W)
    for bad in (-1, 1.5, True):
        with pytest.raises(DatasetError, match="min_area"):
            Pascal5i(voc, min_area=bad)


def test_missing_classes_are_named_once(voc):
    with pytest.warns(UserWarning, match=r"goes on with 2 of 5 classes.*3 bird \(1\), 4 boat \(0\), 5 bottle") as seen:
        Pascal5i(voc, 0, "test")
    assert len(seen) == 1 and seen[0].filename == __file__


def test_a_changed_mask_is_read_again(voc):
    before = quiet(voc, 0, "test").hash()
    assert quiet(voc, 0, "test").hash() == before
    save_mask(label({1: 9}), voc / "SegmentationClass" / "2008_000011.png")
    assert quiet(voc, 0, "test").hash() != before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fold": 4}, "folds are numbered"),
        ({"split": "dev"}, "split 'dev'"),
        ({"novel": "erase"}, "'erase' is unknown. Valid: 'background', 'ignore', 'drop'"),
        ({"images": "no/such/list.txt"}, "cannot read list file .*Pass the path"),
        ({"images": "trainaug"}, "needs SBD"),
        ({"images": "pascal5i"}, r"train_noval\.txt, or ImageSets/Main"),
        ({"root": None}, "pass root=PATH"),
    ],
)
def test_bad_options(voc, options, message):
    with pytest.raises(DatasetError, match=message):
        Pascal5i(**{"root": voc, **options})


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
