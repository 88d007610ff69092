"""EpisodeSampler: draws are pure, supports and queries are apart, lists nest and have telling hashes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from core_tools import SIZE, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib import EpisodeSampler, Protocol, load_dataset
from fsslib.data.base import SegmentationDataset
from fsslib.data.episodes import EpisodeSpec, _pick
from fsslib.data.transforms import denormalise, normalise
from fsslib.errors import DatasetError

RULES = Protocol(input_size=SIZE)


def sampler(way=1, shot=1, data=None, augment=False, seed=0, **rules) -> EpisodeSampler:
    changed = RULES.replace(way=way, **rules)
    return EpisodeSampler(data or shapes("test"), changed, shot=shot, seed=seed, augment=augment)


class Flags(SegmentationDataset):
    """Seven grey pictures with three classes in columns 0-2, 3-5 and 6-8, and void in the last row."""

    name, fold, split, augmentation = "flags", 0, "test", "none"
    classes = base_classes = (1, 2, 3)

    def __init__(self, shown=((1, 2, 3), (1, 2), (1, 3), (2, 3), (1, 2, 3), (1, 2), (2, 3))):
        self.shown, self.names = shown, {1: "left", 2: "middle", 3: "right"}

    def __len__(self):
        return len(self.shown)

    def __getitem__(self, index):
        mask = torch.zeros(18, 18, dtype=torch.uint8)
        for cls in self.shown[index]:
            mask[:, 6 * (cls - 1) : 6 * cls] = cls
        mask[-2:] = 255
        return torch.full((3, 18, 18), 30 * index, dtype=torch.uint8), mask

    def images_of(self, cls):
        return [i for i, shown in enumerate(self.shown) if cls in shown]

    def signature(self):
        return repr(self.shown)


@settings(max_examples=40, deadline=None)
@given(
    way=st.integers(1, 3), shot=st.integers(1, 5), seed=st.integers(0, 2**31), index=st.integers(0, 10**6),
    every=st.booleans(),
)  # fmt: skip
def test_draws(way, shot, seed, index, every):
    queries = "every_image" if every else "uniform_class"
    drawer = sampler(way, shot, queries=queries)
    spec = drawer.draw(seed, index)
    drawer.draw(seed + 1, index)
    assert spec == sampler(way, shot, queries=queries, seed=99).draw(seed, index)
    assert len(set(spec.classes)) == len(spec.classes) == way and set(spec.classes) <= set(drawer.dataset.classes)
    for cls, pool in zip(spec.classes, spec.supports):
        assert len(set(pool)) == len(pool) == shot
        assert spec.query not in pool and set(pool) <= set(drawer.dataset.images_of(cls))
    assert any(spec.query in drawer.dataset.images_of(cls) for cls in spec.classes)
    # Shapes owns every image to one class, so no image can serve two ways.
    assert len({image for pool in spec.supports for image in pool}) == way * shot


def test_a_pick_is_a_choice_of_numpys():
    """So that lists drawn by earlier versions stay what they are."""
    for seed in range(50):
        things = list(range(seed, 3 * seed + 1))
        generators = [np.random.default_rng([seed, 1]) for _ in range(2)]
        assert _pick(things, generators[0]) == int(generators[1].choice(things))
        assert generators[0].random() == generators[1].random()


def test_every_epoch_of_a_training_has_an_order_of_its_own():
    data = shapes("test", 20)
    drawer, again = (sampler(data=data, queries="every_image", seed=s) for s in (5, 5))
    asked = []
    drawer.build = lambda specs, *_, **__: asked.append([spec.query for spec in specs])
    for step in range(10):
        drawer.batch(step, 4)
    epochs = [[query for batch in part for query in batch] for part in (asked[:5], asked[5:])]
    assert all(sorted(epoch) == sorted(drawer.images) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] and list(range(20)) not in epochs
    again.build, first = drawer.build, asked[7]
    again.batch(7, 4)
    assert asked[-1] == first, "also when nothing was drawn before"


def test_the_kind_of_augmentation_is_the_protocols():
    data = Flags()
    data.augmentation = "none"
    spec = [EpisodeSpec((1,), ((0,),), 4)]
    own, asked = (EpisodeSampler(data, Protocol(input_size=18, **rules)) for rules in ({}, {"augmentation": "flip"}))
    plain = own.build(spec).query_masks
    assert all(torch.equal(own.build(spec, seed).query_masks, plain) for seed in range(8))
    assert any(torch.equal(asked.build(spec, seed).query_masks, plain.flip(2)) for seed in range(8))


def test_the_class_of_the_query_is_not_always_way_one():
    drawer = sampler(way=3)
    specs = [drawer.draw(0, i) for i in range(60)]
    slots = {next(w for w, c in enumerate(s.classes) if s.query in drawer.dataset.images_of(c)) for s in specs}
    assert slots == {0, 1, 2}


@settings(max_examples=12, deadline=None)
@given(way=st.integers(1, 3), shot=st.integers(1, 5), seed=st.integers(0, 1000), count=st.integers(1, 6))
def test_fixed_lists_nest_and_hash(way, shot, seed, count):
    drawer = sampler(way, shot)
    entry = drawer.fixed(count, seed)
    assert entry == sampler(way, shot).fixed(count, seed)
    assert entry.specs == tuple(drawer.draw(seed, i) for i in range(count))
    for k in range(1, shot + 1):
        small = entry.shots(k)
        assert [s.query for s in small.specs] == [s.query for s in entry.specs]
        assert [s.classes for s in small.specs] == [s.classes for s in entry.specs]
        assert all(a.supports == tuple(w[:k] for w in b.supports) for a, b in zip(small.specs, entry.specs))
        assert small.specs == sampler(way, k).fixed(count, seed).specs
    others = [
        drawer.fixed(count + 1, seed),
        drawer.fixed(count, seed + 1),
        sampler(way, shot, data=shapes("test", seed=5)).fixed(count, seed),
        sampler(way, shot, data=shapes("test", 41)).fixed(count, seed),
    ]
    assert entry.hash not in {other.hash for other in others}


@pytest.mark.parametrize("way", [1, 2])
def test_batches_are_pure_and_legal(way):
    first, second = (sampler(way, 2, data=shapes(pool=60), augment=True, seed=4) for _ in range(2))
    torch.manual_seed(1)
    a = first.batch(7, 3).validate()
    torch.manual_seed(2)
    second.batch(8, 3)
    b = second.batch(7, 3)
    assert torch.equal(a.query_images, b.query_images) and torch.equal(a.support_masks, b.support_masks)
    assert not torch.equal(a.query_images, first.batch(8, 3).query_images)
    assert a.batch == 3 and a.way == way and a.shot == 2


def test_augmentation_depends_on_the_seed_and_differs_between_the_ways():
    data = Flags(shown=((1,), (1,), (1,), (2,), (2,), (3,), (3,)))
    data.augmentation = "symmetry"
    plain, augmented = (sampler(2, data=data, augment=flag) for flag in (False, True))
    built = [augmented.build([EpisodeSpec((1, 2), ((2,), (3,)), 1)], augment_seed=s) for s in range(12)]
    grey = [denormalise(e.support_images[0, :, 0]).float().mean((1, 2, 3)) for e in built]
    ratio = [float(first / second) for first, second in grey]
    assert max(ratio) - min(ratio) > 0.1, "both ways were made lighter or darker by the same factor"
    one, two = (sampler(data=data, augment=True, seed=s) for s in (0, 1))
    two.draw = lambda _, index: one.draw(0, index)
    assert not torch.equal(one.batch(0, 4).query_images, two.batch(0, 4).query_images)
    specs = [plain.draw(0, 0)]
    assert not torch.equal(plain.build(specs).query_images, augmented.build(specs, augment_seed=3).query_images)


def test_masks_of_two_ways():
    data = Flags()
    for void, border in (("ignore", 255), ("background", 0)):
        rules = Protocol(input_size=18, way=2, void=void)
        episode = EpisodeSampler(data, rules).build([EpisodeSpec((3, 1), ((0,), (4,)), 0)]).validate()
        first, second = episode.support_masks[0, :, 0]
        assert (first[:-2, 12:] == 1).all() and (second[:-2, :6] == 1).all()
        assert (first[:-2, :6] == 255).all() and (second[:-2, 12:] == 255).all(), "the other way is neither"
        assert (first[:-2, 6:12] == 0).all() and (second[:-2, 6:12] == 0).all()
        assert (episode.support_masks[0, :, 0, -2:] == border).all()
        query = episode.query_masks[0]
        assert (query[:-2, 12:] == 1).all() and (query[:-2, :6] == 2).all() and (query[:-2, 6:12] == 0).all()
        assert (query[-2:] == 255).all(), "void never counts in a query"
    assert torch.equal(episode.query_images[0], normalise(data[0][0])) and episode.classes.tolist() == [[3, 1]]


def test_labels_at_original_size():
    drawer = EpisodeSampler(Flags(), Protocol(input_size=33, way=2))
    label = drawer.label(EpisodeSpec((2, 3), ((0,), (4,)), 3))
    assert label.shape == (18, 18) and label.dtype == torch.long
    assert label.unique().tolist() == [0, 1, 2, 255] and (label[:-2, 6:12] == 1).all()


@pytest.mark.parametrize("annotation", ["box", "scribble"])
def test_weak_annotation_reaches_the_supports_only(annotation):
    drawer = sampler(annotation=annotation)
    specs = drawer.fixed(2).specs
    weak, full = drawer.build(specs).validate(), sampler().build(specs)
    assert torch.equal(weak.query_masks, full.query_masks) and not torch.equal(weak.support_masks, full.support_masks)
    assert torch.equal(weak.support_masks, drawer.build(specs).support_masks)
    if annotation == "scribble":
        assert (full.support_masks[weak.support_masks == 1] == 1).all()


def test_classes_with_too_few_images_are_left_out_with_a_warning():
    data = Flags(shown=((1,), (1,), (1,), (2,), (2,), (2,), (3,)))
    with pytest.warns(UserWarning, match=r"left out: right \(1\)"):
        drawer = EpisodeSampler(data, Protocol(input_size=18), shot=2)
    assert {drawer.draw(0, i).classes for i in range(30)} == {(1,), (2,)}
    with pytest.raises(DatasetError, match="3-way"):
        EpisodeSampler(data, Protocol(input_size=18, way=3))


def test_a_support_without_its_class_is_refused():
    drawer = EpisodeSampler(Flags(), Protocol(input_size=18))
    spec = EpisodeSpec((3,), ((1,),), 0)
    with pytest.raises(DatasetError, match=r"image 1 .*class 3 \(right\).*holds no pixel.*images_of\(3\)"):
        drawer.build([spec])
    drawer.build([replace(spec, supports=((2,),))])


def test_images_emptied_by_absent_are_queries_only():
    """Every episode of a data set with absent targets can be built; some of its queries show no target."""
    data = load_dataset("shapes", split="test", size=33, pool=60, knobs={"absent": 0.5})
    sampler = EpisodeSampler(data, Protocol(input_size=33), shot=2)
    specs = sampler.fixed(40).specs
    masks = [sampler.build([spec]).validate().query_masks for spec in specs]
    assert any(not (mask == 1).any() for mask in masks)
    assert not any(data.plan(i).absent for spec in specs for pool in spec.supports for i in pool)


def test_across_domains_supports_are_of_domain_0_and_queries_of_domain_1():
    options = {"split": "test", "size": 33, "pool": 60, "knobs": {"gap": 1.0}}
    plain, across = (load_dataset("shapes", across_domains=x, **options) for x in (False, True))
    specs = EpisodeSampler(across, shot=2).fixed(40).specs
    assert {across.domain(spec.query) for spec in specs} == {1}
    assert {across.domain(i) for spec in specs for i in spec.supports[0]} == {0}
    assert all(across.plan(i).target == spec.classes[0] for spec in specs for i in (spec.query, *spec.supports[0]))
    assert all(torch.equal(plain[i][0], across[i][0]) for i in range(6)), "the pictures are the same"
    assert {plain.domain(spec.query) for spec in EpisodeSampler(plain, shot=2).fixed(40).specs} == {0, 1}


def test_what_cannot_be_built_is_refused_in_words():
    data = load_dataset("shapes", split="test", size=33, pool=60)
    sampler = EpisodeSampler(data, Protocol(input_size=33), shot=2)
    with pytest.raises(DatasetError, match="at least one spec"):
        sampler.build([])
    with pytest.raises(DatasetError, match="1 to 2"):
        sampler.fixed(3).shots(3)
    one, two = sampler.fixed(1).shots(1).specs[0], sampler.fixed(1).specs[0]
    with pytest.raises(DatasetError, match="same number of ways and shots"):
        sampler.build([one, two])
    for count in (0, -1, 2.0, True):
        with pytest.raises(DatasetError, match="whole number of episodes"):
            sampler.fixed(count)
