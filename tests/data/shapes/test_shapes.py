"""Shapes-5i: every image is a pure function of its options, folds and splits are disjoint, bad options are refused."""

import pickle
from itertools import chain, islice

import pytest
import torch

from fsslib.data.base import SPLITS
from fsslib.data.shapes.dataset import ENDLESS, Shapes5i
from fsslib.data.shapes.knobs import ShapesKnobs
from fsslib.data.shapes.plan import FOLD_SCHEMES, NAMES, class_table, shape_texture
from fsslib.errors import DatasetError

COUNT = 200


def shapes(split="test", fold=0, **options):
    """On the fly, so that every call draws anew; plain keywords that are knobs become knobs."""
    knobs = {k: options.pop(k) for k in list(options) if k in ShapesKnobs.__dataclass_fields__}
    return Shapes5i(fold, split, pool=options.pop("pool", None), knobs=ShapesKnobs(**knobs), **options)


@pytest.fixture(scope="module")
def standard():
    """The first images of the test split with their ground truth."""
    data = shapes()
    images, masks = data.render(range(COUNT))
    return data, images, masks, [data.truth(i) for i in range(COUNT)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


def test_items_are_uint8_images_with_class_ids(standard):
    data, _, masks, _ = standard
    image, mask = data[3]
    assert image.shape == (3, 97, 97) and mask.shape == (97, 97)
    assert image.dtype == mask.dtype == torch.uint8
    assert set(masks.unique().tolist()) == {0, *NAMES}
    assert image.float().std() > 20  # a picture, not a plain surface


def test_pooled_on_the_fly_batched_and_single_are_identical():
    options = {"pool": 40, "parts": 2, "gap": 0.5, "label_noise": 0.3, "occlusion": 0.2, "absent": 0.2}
    pooled, fly = shapes(**options), shapes(**{**options, "pool": None})
    images, masks = pooled.render(range(12, 24))
    for row, i in enumerate(range(12, 24)):
        assert same(fly[i], (images[row], masks[row]))
        assert same(pooled[i], fly[i])  # from the cache
    stream = fly.batches(8, start=12)
    first = next(stream)
    assert same(first, (images[:8], masks[:8]))
    assert torch.equal(next(stream)[0][:4], images[8:])
    assert sum(len(m) for _, m in pooled.batches(16)) == 40


def test_order_of_access_does_not_matter():
    a, b = shapes(), shapes()
    forward = [a[i] for i in (0, 5, 900_000)]
    backward = [b[i] for i in (900_000, 5, 0)][::-1]
    assert all(same(x, y) for x, y in zip(forward, backward))


def test_cached_images_cannot_be_spoilt_by_the_caller():
    data = shapes(pool=5)
    kept = data[2][0].clone()
    data[2][0].zero_()
    data[2][1].zero_()
    assert torch.equal(data[2][0], kept) and data[2][1].any()


def test_pickling_drops_the_cache_and_keeps_the_images():
    data = shapes(pool=5)
    data.render(range(5))
    copy = pickle.loads(pickle.dumps(data))
    assert copy._store == {} and len(pickle.dumps(data)) < 10_000
    assert same(copy[4], data[4])


def test_splits_folds_seeds_and_schemes_share_no_images():
    seen = [shapes("train")[0], shapes("val")[0], shapes("test")[0], shapes("test", fold=1)[0]]
    seen += [shapes("test", seed=1)[0], shapes("test", fold_scheme="held_out_texture")[0], shapes("test")[1]]
    assert len({image.numpy().tobytes() for image, _ in seen}) == len(seen)


def test_any_size_and_the_same_scene():
    small, large = shapes(size=49, pool=1)[0], shapes(size=97, pool=1)[0]
    assert small[0].shape == (3, 49, 49)
    assert (small[1] == large[1][::2, ::2]).float().mean() > 0.95


def test_length_and_iteration():
    data = shapes(pool=4, size=33)
    assert len(list(data)) == 4 and len(shapes()) == ENDLESS
    for index in (4, -1):
        with pytest.raises(DatasetError, match="numbered 0 to 3"):
            data[index]


def test_signature_tells_every_option_apart():
    variants = [{}, {"fold": 1}, {"split": "val"}, {"fold_scheme": "held_out_shape"}, {"size": 65}, {"pool": 10}]
    variants += [{"seed": 1}, {"split": "train", "val_classes": 2}]
    variants += [{"gap": 0.5}, {"parts": 2}, {"co_occurrence": 0.5}, {"area": 0.5}, {"thinness": 0.5}]
    variants += [{"backgrounds": 2}, {"occlusion": 0.5}, {"label_noise": 0.5}, {"absent": 0.5}, {"swap": "shape"}]
    assert len({shapes(**v).hash() for v in variants}) == len(variants)
    assert shapes(pool=9, cache=False).hash() == shapes(pool=9).hash()


def test_batches_run_on_without_a_pool():
    total = sum(len(masks) for _, masks in islice(shapes(size=33).batches(5), 8))
    assert total == 40


@pytest.mark.parametrize("scheme", FOLD_SCHEMES)
def test_folds_partition_the_classes(scheme):
    tables = [class_table(f, scheme, 3) for f in range(FOLD_SCHEMES[scheme])]
    assert sorted(c for t in tables for c in t.novel) == list(range(1, 21))
    for table in tables:
        assert sorted(table.novel + table.base) == list(range(1, 21))
        assert tuple(sorted(table.train + table.val)) == table.base and len(table.val) == 3
        # Validation classes take no shape and no texture away from training.
        assert {shape_texture(c)[0] for c in table.train} == {shape_texture(c)[0] for c in table.base}
        assert {shape_texture(c)[1] for c in table.train} == {shape_texture(c)[1] for c in table.base}


def test_what_the_schemes_hold_out():
    names = lambda scheme, fold: [NAMES[c] for c in class_table(fold, scheme, 0).novel]  # noqa: E731
    assert names("crossed", 0) == ["disc/stripes", "square/checker", "triangle/dots", "star/marble", "ring/stripes"]
    assert names("crossed", 1)[:2] == ["disc/checker", "square/dots"]
    assert {n.split("/")[0] for n in names("held_out_shape", 4)} == {"ring"}
    assert {n.split("/")[1] for n in names("held_out_texture", 2)} == {"dots"}


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_shows_only_its_classes(split):
    data = shapes(split)
    table = class_table(0, "crossed", 3)
    shown = {"train": table.train, "val": table.base, "test": tuple(NAMES)}[split]
    found = {c for i in range(600) for c in data.plan(i).classes} - {0}
    assert found == set(shown)
    masks = data.render(range(20))[1]
    assert set(masks.unique().tolist()) <= {0, *shown}
    assert data.base_classes == table.base


def test_without_val_classes_training_has_all_base_classes():
    data = shapes("train", val_classes=0)
    assert data.classes == data.base_classes and len(data.classes) == 15
    with pytest.raises(DatasetError, match="val_classes=0"):
        shapes("val", val_classes=0)


def test_every_class_has_images_and_they_show_it(standard):
    _, _, masks, truths = standard
    data = shapes(pool=COUNT)
    listed = [data.images_of(c) for c in data.classes]
    assert sorted(chain(*listed)) == list(range(COUNT)) and min(map(len, listed)) >= COUNT // 5
    for c, indices in zip(data.classes, listed):
        for i in indices:
            assert truths[i].target == c == data.plan(i).target and (masks[i] == c).sum() >= 12
    with pytest.raises(DatasetError, match="has no class"):
        data.images_of(data.base_classes[0])


def test_domains_halve_each_class():
    data = shapes(pool=100, gap=0.6)
    for c in data.classes:
        halves = data.images_of(c, domain=0), data.images_of(c, domain=1)
        assert sorted(chain(*halves)) == data.images_of(c) and len(halves[0]) == len(halves[1]) == 10
    assert data.truth(0).shift == pytest.approx(-0.3) and data.truth(5).shift == pytest.approx(0.3)
    with pytest.raises(DatasetError, match="domain 2"):
        data.images_of(data.classes[0], domain=2)


BAD_KNOBS = [
    ("gap", 1.5, "from 0 to 1"),
    ("gap", float("nan"), "from 0 to 1"),
    ("gap", True, "from 0 to 1"),
    ("parts", 0, "from 1 to 4"),
    ("parts", 2.0, "whole number from 1 to 4"),
    ("co_occurrence", -0.1, "from 0 to 1"),
    ("area", 0, "from 0.25 to 1.5"),
    ("thinness", "thin", "from 0 to 1"),
    ("backgrounds", 5, "from 1 to 4"),
    ("occlusion", None, "from 0 to 1"),
    ("label_noise", 2, "from 0 to 1"),
    ("absent", -1, "from 0 to 1"),
    ("swap", "colour", "'texture' or 'shape'"),
]


@pytest.mark.parametrize(("knob", "value", "allowed"), BAD_KNOBS)
def test_bad_knobs_name_knob_value_and_range(knob, value, allowed):
    with pytest.raises(DatasetError) as error:
        ShapesKnobs(**{knob: value})
    assert all(text in str(error.value) for text in (knob, repr(value), allowed))


BAD_OPTIONS = [
    ({"fold": 4}, "folds of fold_scheme 'crossed' are numbered 0 to 3"),
    ({"fold": "0"}, "fold '0'"),
    ({"split": "dev"}, "split 'dev'"),
    ({"fold_scheme": "latin"}, "'crossed', 'held_out_shape'"),
    ({"size": 16}, "33 to 1025"),
    ({"pool": 0}, "option pool"),
    ({"seed": -1}, "option seed"),
    ({"val_classes": 15}, "0 to 14"),
    ({"knobs": {"hue": 1}}, "no knob 'hue'"),
    ({"knobs": 3}, "option knobs"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options(options, message):
    with pytest.raises(DatasetError, match=message):
        Shapes5i(**options)


def test_knobs_from_a_mapping():
    assert Shapes5i(knobs={"parts": 2}).knobs == ShapesKnobs(parts=2)


def test_the_signature_changes_with_the_images_and_only_with_them():
    one, other = (shapes("test", val_classes=n, size=33, co_occurrence=1.0) for n in (0, 3))
    assert all(same(one[i], other[i]) for i in range(20))
    assert one.hash() == other.hash()
    assert shapes("train", val_classes=0).hash() != shapes("train", val_classes=3).hash()
