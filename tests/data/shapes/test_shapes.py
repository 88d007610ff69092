"""Shapes-5i: every image is a pure function of its options, folds and splits are disjoint, bad options are refused;
the statistics its difficulty rests on, what each knob changes and what it leaves alone, ground truth."""

import pickle
from collections import Counter
from itertools import chain

import pytest
import torch
from torch.nn.functional import max_pool2d

from fsslib.data.base import SPLITS
from fsslib.data.shapes.dataset import ENDLESS, Shapes5i
from fsslib.data.shapes.drawing import grid, texture, turned
from fsslib.data.shapes.knobs import ShapesKnobs
from fsslib.data.shapes.plan import FOLD_SCHEMES, NAMES, class_table, shape_texture
from fsslib.errors import DatasetError

COUNT = 100


def shapes(split="test", fold=0, **options):
    """On the fly, so that every call draws anew; plain keywords that are knobs become knobs."""
    knobs = {k: options.pop(k) for k in list(options) if k in ShapesKnobs.__dataclass_fields__}
    return Shapes5i(fold, split, pool=options.pop("pool", None), knobs=ShapesKnobs(**knobs), **options)


def render(data, indices):
    return [torch.stack(parts) for parts in zip(*(data[i] for i in indices))]


@pytest.fixture(scope="module")
def standard():
    """The first images of the test split with their ground truth."""
    data = shapes()
    images, masks = render(data, range(COUNT))
    return data, images, masks, [data.truth(i) for i in range(COUNT)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


def test_items_are_uint8_images_with_class_ids(standard):
    data, _, masks, _ = standard
    image, mask = data[3]
    assert image.shape == (3, 97, 97) and mask.shape == (97, 97)
    assert image.dtype == mask.dtype == torch.uint8 and set(masks.unique().tolist()) == {0, *NAMES}
    assert image.float().std() > 20  # a picture, not a plain surface


def test_pooled_and_on_the_fly_are_identical():
    options = {"pool": 40, "parts": 2, "gap": 0.5, "label_noise": 0.3, "occlusion": 0.2, "absent": 0.2}
    pooled, fly = shapes(**options), shapes(**{**options, "pool": None})
    images, masks = render(pooled, range(12, 24))
    for row, i in reversed(list(enumerate(range(12, 24)))):
        assert same(fly[i], (images[row], masks[row]))
        assert same(pooled[i], fly[i])  # from the cache


def test_callers_cannot_spoil_cached_images_and_pickles_leave_them_out():
    data = shapes(pool=5)
    kept = render(data, range(5))[0][2]
    for part in data[2]:
        part.zero_()
    assert torch.equal(data[2][0], kept) and data[2][1].any()
    copy = pickle.loads(pickle.dumps(data))
    assert copy._store == {} and len(pickle.dumps(data)) < 10_000 and same(copy[4], data[4])


def test_splits_folds_seeds_and_schemes_share_no_images():
    seen = [shapes("train")[0], shapes("val")[0], shapes("test")[0], shapes("test", fold=1)[0]]
    seen += [shapes("test", seed=1)[0], shapes("test", fold_scheme="held_out_texture")[0], shapes("test")[1]]
    assert len({image.numpy().tobytes() for image, _ in seen}) == len(seen)


def test_any_size_and_the_same_scene():
    small, large = shapes(size=49, pool=1)[0], shapes(size=97, pool=1)[0]
    assert small[0].shape == (3, 49, 49) and (small[1] == large[1][::2, ::2]).float().mean() > 0.95


def test_length_and_iteration():
    data = shapes(pool=4, size=33)
    assert len(list(data)) == 4 and len(shapes()) == ENDLESS
    for index in (4, -1):
        with pytest.raises(DatasetError, match="numbered 0 to 3"):
            data[index]


def test_signature_tells_every_option_apart():
    variants = [{}, {"fold": 1}, {"split": "val"}, {"fold_scheme": "held_out_shape"}, {"size": 65}, {"pool": 10}]
    variants += [{"seed": 1}, {"split": "train", "val_classes": 2}, {"across_domains": True}]
    variants += [{"gap": 0.5}, {"parts": 2}, {"co_occurrence": 0.5}, {"area": 0.5}, {"thinness": 0.5}]
    variants += [{"backgrounds": 2}, {"occlusion": 0.5}, {"label_noise": 0.5}, {"absent": 0.5}, {"swap": "shape"}]
    assert len({shapes(**v).hash() for v in variants}) == len(variants)
    assert shapes(pool=9, cache=False).hash() == shapes(pool=9).hash()
    assert Shapes5i(knobs={"parts": 2, "area": 1}).hash() == Shapes5i(knobs=ShapesKnobs(parts=2, area=1.0)).hash()


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
    masks = render(data, range(20))[1]
    assert set(masks.unique().tolist()) <= {0, *shown} and data.base_classes == table.base


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
    with pytest.raises(DatasetError, match=r"has no class.*Its classes"):
        data.images_of(data.base_classes[0])


def test_domains_halve_each_class():
    data = shapes(pool=100, gap=0.6)
    for c in data.classes:
        halves = data.images_of(c, domain=0), data.images_of(c, domain=1)
        assert sorted(chain(*halves)) == data.images_of(c) and len(halves[0]) == len(halves[1]) == 10
    assert data.truth(0).shift == pytest.approx(-0.3) and data.truth(5).shift == pytest.approx(0.3)
    with pytest.raises(DatasetError, match="domain 2"):
        data.images_of(data.classes[0], domain=2)


@pytest.mark.parametrize(("knob", "value", "allowed"), [
    ("gap", 1.5, "from 0 to 1"), ("gap", float("nan"), "from 0 to 1"), ("gap", True, "from 0 to 1"),
    ("parts", 0, "from 1 to 4"), ("parts", 2.0, "whole number from 1 to 4"), ("co_occurrence", -0.1, "from 0 to 1"),
    ("area", 0, "from 0.25 to 1.5"), ("thinness", "thin", "from 0 to 1"), ("backgrounds", 5, "from 1 to 4"),
    ("occlusion", None, "from 0 to 1"), ("label_noise", 2, "from 0 to 1"), ("absent", -1, "from 0 to 1"),
    ("swap", "colour", "'texture' or 'shape'"),
])  # fmt: skip
def test_bad_knobs_name_knob_value_and_range(knob, value, allowed):
    with pytest.raises(DatasetError) as error:
        ShapesKnobs(**{knob: value})
    assert all(text in str(error.value) for text in (knob, repr(value), allowed))


@pytest.mark.parametrize(("options", "message"), [
    ({"fold": 4}, "folds of fold_scheme 'crossed' are numbered 0 to 3"), ({"fold": "0"}, "fold '0'"),
    ({"split": "dev"}, "split 'dev'.*'train', 'val', 'test'"), ({"size": 16}, "33 to 1025"),
    ({"fold_scheme": "latin"}, "'crossed', 'held_out_shape'"), ({"pool": 0}, "option pool.*whole number from 1"),
    ({"seed": -1}, "option seed"), ({"val_classes": 15}, "0 to 14"), ({"knobs": {"hue": 1}}, "no knob 'hue'.*gap"),
    ({"knobs": 3}, "option knobs"), ({"across_domains": 1}, "across_domains=1.*True or False"),
])  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(DatasetError, match=message):
        Shapes5i(**options)


def test_the_signature_changes_with_the_images_and_only_with_them():
    one, other = (shapes("test", val_classes=n, size=33, co_occurrence=1.0) for n in (0, 3))
    assert all(same(one[i], other[i]) for i in range(20)) and one.hash() == other.hash()
    assert shapes("train", val_classes=0).hash() != shapes("train", val_classes=3).hash()


def near(region, pixels):
    """Pixels within `pixels` of a (N, H, W) region."""
    return max_pool2d(region.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0


def test_areas_and_trivial_baselines(standard):
    data, _, masks, truths = standard
    objects = (masks > 0).float().mean().item()
    assert 0.06 < sum(t.area for t in truths) / COUNT < 0.10 and 0.23 < objects < 0.32
    oracle = []
    for c in data.classes:
        rows = [i for i in range(COUNT) if truths[i].target == c]
        oracle.append(((masks[rows] == c).sum() / (masks[rows] > 0).sum()).item())
    assert 0.25 < sum(oracle) / len(oracle) < 0.33


def test_distractors_are_other_classes_and_a_fifth_is_missing():
    data = shapes()
    plans = [data.plan(i) for i in range(2000)]
    assert all(p.classes[0] == p.target and p.target not in p.classes[1:] for p in plans)
    slots = Counter(c for p in plans for c in p.classes[1:])
    assert 0.17 < slots[0] / 6000 < 0.23
    # All twenty about equally often (0.04 of the slots each).
    assert all(0.03 < slots[c] / 6000 < 0.05 for c in NAMES)


def test_colour_carries_no_class_information():
    """The mean colour of an object must not tell its class: between-class variance as chance alone makes it."""
    data = shapes("train", val_classes=0, size=33)
    images, masks = render(data, range(750))
    labels = [data.plan(i).target for i in range(750)]
    means = [x[:, m == c].float().mean(1) / 255 for x, m, c in zip(images, masks, labels)]
    means, labels = torch.stack(means), torch.tensor(labels)
    groups = [means[labels == c] for c in data.classes]
    between = torch.stack([g.mean(0) for g in groups]).var(0) * 50
    within = torch.stack([g.var(0) for g in groups]).mean(0)
    # F statistics with 14 and 735 degrees of freedom: 99.99 % lie below 3.1. A colour per class would give hundreds.
    assert (between / within < 3.1).all()
    assert (within.sqrt() > 0.1).all()  # and objects do differ in colour


def test_a_class_keeps_its_texture_statistics_apart():
    """Textures must be visible: dots and stripes differ in how the two colours share the object."""
    x, y = grid(97)
    u, v = turned(x, y, 0.1, 0.5, 97)
    maps = [torch.from_numpy(texture(k, u, v, 0.3, 1.0)) for k in range(4)]
    assert all(m.min() == 0 and m.max() == 1 for m in maps)
    correlation = torch.corrcoef(torch.stack([m.flatten() for m in maps])).fill_diagonal_(0)
    assert correlation.abs().max() < 0.5
    half = [texture(k, u, v, 0.3 + torch.pi, 1.0) for k in range(4)]
    assert all(abs(torch.from_numpy(h) - m).mean() > 0.3 for h, m in zip(half[:2], maps[:2]))


def changed(standard, count=20, **knobs):
    """Per image: share of pixels whose colour changed by more than noise, and whether the clean mask is the same."""
    _, images, masks, _ = standard
    data = shapes(**knobs)
    new, _ = render(data, range(count))
    truths = [data.truth(i) for i in range(count)]
    moved = (new.int() - images[:count].int()).abs().amax(1) > 8
    return moved, torch.stack([t.clean_mask for t in truths]), truths, masks[:count]


def test_gap_shifts_light_size_and_turn_between_domains():
    data = shapes(gap=1.0)
    images, _ = render(data, range(60))
    truths = [data.truth(i) for i in range(60)]
    sides = [[i for i in range(60) if data.domain(i) == d] for d in (0, 1)]
    warmth = [(images[s, 0].float().mean() - images[s, 2].float().mean()).item() for s in sides]
    area = [sum(truths[i].area for i in s) / len(s) for s in sides]
    assert warmth[1] - warmth[0] > 60  # grey levels
    assert area[1] > 1.7 * area[0]
    plans = [p.classes for p in map(data.plan, range(100))]
    assert plans == [shapes().plan(i).classes for i in range(100)]


def test_backgrounds_change_only_the_background(standard):
    moved, clean, _, masks = changed(standard, backgrounds=1)
    assert torch.equal(clean, masks)
    # Soft borders mix some background in (also where two objects leave less than a pixel between them).
    assert moved[~near(masks == 0, 2)].float().mean() < 1e-3 and moved[masks == 0].float().mean() > 0.2


def test_parts_cut_objects_into_bands(standard):
    moved, clean, truths, masks = changed(standard, parts=3)
    assert torch.equal(clean, masks) and not moved[~near(masks > 0, 2)].any()
    parts = torch.stack([t.parts for t in truths])
    assert set(parts.unique().tolist()) == {0, 1, 2, 3}
    assert not moved[(parts == 1) & ~near(parts > 1, 2)].any() and moved[parts > 1].float().mean() > 0.5
    assert (parts == 1).sum() > 1.3 * (parts == 2).sum()


@pytest.mark.parametrize("knob", [{"area": 0.5}, {"thinness": 1.0}, {"occlusion": 1.0}])
def test_smaller_thinner_occluded_objects(standard, knob):
    truths = standard[3]
    data = shapes(**knob)
    new = [data.truth(i) for i in range(40)]
    ratio = sum(t.area for t in new) / sum(t.area for t in truths[:40])
    low, high = {"area": (0.22, 0.29), "thinness": (0.15, 0.3), "occlusion": (0.25, 0.6)}[next(iter(knob))]
    assert low < ratio < high and all(t.classes == old.classes for t, old in zip(new, truths))


def test_occlusion_only_takes_away(standard):
    moved, clean, _, masks = changed(standard, occlusion=0.7)
    # A hidden object can uncover nothing: what shows keeps its class.
    assert ((clean == masks) | (clean == 0)).float().mean() > 0.995 and moved.any()


def test_target_stays_visible_at_the_extremes():
    data = shapes(area=0.25, thinness=1.0, occlusion=1.0)
    assert all((data.truth(i).clean_mask == data.plan(i).target).sum() >= 12 for i in range(60))


def test_label_noise_moves_borders_of_the_given_mask_only(standard):
    _, images, masks, _ = standard
    noisy = shapes(label_noise=1.0)
    new, given = render(noisy, range(20))
    assert torch.equal(new, images[:20])
    assert torch.equal(torch.stack([noisy.truth(i).clean_mask for i in range(20)]), masks[:20])
    wrong = (given != masks[:20]).float().mean()
    assert 0.03 < wrong < 0.25 and set(given.unique().tolist()) <= set(masks[:20].unique().tolist())
    inside = ~near(masks[:20] == 0, 9)
    assert inside.any() and (given[inside] > 0).all()
    small = render(shapes(label_noise=0.2), range(20))[1]
    assert (small != masks[:20]).float().mean() < wrong / 2


def test_absent_targets_are_listed_but_not_shown(standard):
    data = shapes(absent=1.0, pool=20)
    assert sorted(i for c in data.classes for i in data.images_of(c)) == list(range(20))
    for i in range(20):
        truth = data.truth(i)
        assert truth.absent and truth.area == 0 and (data[i][1] != truth.target).all()
        assert truth.classes[0] not in (0, truth.target) and (truth.instances == 1).any()
    part = shapes(absent=0.3)
    kept = [i for i in range(500) if not part.plan(i).absent]
    assert 0.6 < len(kept) / 500 < 0.8 and same(part[kept[0]], (standard[1][kept[0]], standard[2][kept[0]]))


def test_co_occurrence_favours_base_classes():
    def share(data, classes):
        slots = [c for i in range(400) for c in data.plan(i).classes[1:] if c]
        return sum(c in classes for c in slots) / len(slots)

    base = shapes().base_classes
    assert 0.7 < share(shapes(), base) < 0.87  # 15 of the 19 other classes
    assert share(shapes(co_occurrence=1.0), base) == 1 and 0.85 < share(shapes(co_occurrence=0.5), base) < 0.95
    train = shapes("train").classes
    assert share(shapes("val"), train) < 0.95 and share(shapes("val", co_occurrence=1.0), train) == 1


@pytest.mark.parametrize("swap", ["texture", "shape"])
def test_swap_keeps_one_cue(standard, swap):
    moved, _, truths, masks = changed(standard, swap=swap)
    for truth in truths:
        for cls, drawn in zip(truth.classes, truth.drawn):
            if cls:
                shape, texture = shape_texture(cls)
                assert (drawn[0] == shape) == (swap == "texture") and (drawn[1] == texture) == (swap == "shape")
    if swap == "texture":
        assert torch.equal(torch.stack([t.clean_mask for t in truths]), masks)
        assert not moved[~near(masks > 0, 2)].any()
    assert all(t.drawn[0] == shape_texture(t.target) for t in standard[3])


def test_truth_is_consistent(standard):
    _, _, masks, truths = standard
    for mask, truth in zip(masks, truths):
        assert torch.equal(truth.clean_mask, mask)
        ids = torch.tensor([0, *truth.classes], dtype=torch.uint8)
        assert torch.equal(ids[truth.instances.long()], mask) and torch.equal(truth.parts > 0, truth.instances > 0)
        assert truth.area == pytest.approx((mask == truth.target).float().mean().item())
        assert [d is None for d in truth.drawn] == [c == 0 for c in truth.classes]
        assert truth.shift == 0 and not truth.absent


@pytest.mark.parametrize("novel, label", [("background", 0), ("ignore", 255)])
def test_novel_classes_in_training_images(novel, label):
    """As in PASCAL-5i they stand around, and the masks do not tell; those held back for validation count as novel."""
    hidden = shapes("train", novel=novel)
    plans = [hidden.plan(i) for i in range(COUNT)]
    strangers = [i for i, plan in enumerate(plans) if not set(plan.classes) <= {0, *hidden.classes}]
    assert len(strangers) > COUNT / 2 and {p.target for p in plans} == set(hidden.classes)
    _, masks = render(hidden, strangers[:20])
    assert set(masks.unique().tolist()) <= {0, label, *hidden.classes}
    seen = torch.stack([hidden.truth(i).clean_mask for i in strangers[:20]])
    unknown = (seen > 0) & ~torch.isin(seen, torch.tensor(hidden.classes))
    assert unknown.any() and (masks[unknown] == label).all() and torch.equal(masks[~unknown], seen[~unknown])
    assert len({shapes("train", novel=n).hash() for n in ("drop", "background", "ignore")}) == 3
    assert shapes("test", novel=novel).hash() == shapes("test").hash()
