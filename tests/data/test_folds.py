"""Which classes are novel in a fold."""

import pytest

from fsslib.data.folds import fold_classes, held_back
from fsslib.errors import DatasetError

VOC, COCO = tuple(range(1, 21)), tuple(range(1, 81))


def test_published_folds():
    """Shaban et al., table 1: five classes in VOC order a fold; COCO's as PANet and PFENet have them."""
    assert [fold_classes(VOC, f) for f in range(4)] == [tuple(range(5 * f + 1, 5 * f + 6)) for f in range(4)]
    assert fold_classes(VOC, 1, scheme="interleaved") == (2, 6, 10, 14, 18)
    assert fold_classes(COCO, 0, scheme="interleaved") == tuple(range(1, 81, 4))
    assert fold_classes(COCO, 3, scheme="interleaved") == tuple(range(4, 81, 4))
    assert fold_classes(COCO, 2) == tuple(range(41, 61))


@pytest.mark.parametrize("count, folds", [(20, 4), (80, 4), (7, 3), (5, 5), (3, 1)])
@pytest.mark.parametrize("scheme", ["contiguous", "interleaved"])
def test_every_class_is_novel_once(count, folds, scheme):
    classes = tuple(range(3, 3 + count))
    parts = [fold_classes(classes, f, folds, scheme) for f in range(folds)]
    assert sorted(c for part in parts for c in part) == list(classes)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1 and all(part == tuple(sorted(part)) for part in parts)


def test_bad_folds():
    for how, message in (
        ((VOC, 4), "fold 4 does not exist: folds are numbered 0 to 3"), ((VOC, True), "fold True"),
        ((VOC, 0, 21), "folds=21: expected a whole number from 1 to 20"),
        ((VOC, 0, 4, "random"), "'random' is unknown. Valid: 'contiguous', 'interleaved'"),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=message):
            fold_classes(*how)


def test_validation_classes():
    assert held_back(3, VOC) == (18, 19, 20) and held_back(0, VOC) == () and held_back((4, 2), VOC) == (2, 4)
    assert held_back(0, ()) == ()
    for bad in (20, -1, True, "3", VOC, (1, 99), 1.0):
        with pytest.raises(DatasetError, match="val_classes"):
            held_back(bad, VOC)
