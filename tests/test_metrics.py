"""FewShotIoU and Scores against a plain re-implementation with loops, and the laws of the intervals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.errors import ProtocolError
from fsslib.metrics import FewShotIoU, over_trainings


def random_counts(episodes=12, way=1, size=9, seed=0, ids=(3, 5, 8), right=0.6):
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, way + 2, (episodes, size, size), generator=g)
    target[target == way + 1] = 255
    # Some episodes show no object at all, or not every way.
    target[0] = torch.where(target[0] == 255, 255, 0)
    target[1][target[1] == way] = 0
    noise = torch.randint(0, way + 1, target.shape, generator=g)
    keep = torch.rand(target.shape, generator=g) < right
    predicted = torch.where(keep & (target != 255), target, noise)
    classes = torch.stack([torch.tensor(ids)[torch.randperm(len(ids), generator=g)[:way]] for _ in range(episodes)])
    return predicted, target, classes


def plain(predicted, target, classes, counting="all"):
    """Per class {id: [tp, fp, fn]} (0 background) and [tp, fp, fn] of all foreground, pixel by pixel."""
    table: dict[int, list[int]] = {}
    for p, t, ids in zip(predicted.tolist(), target.tolist(), classes.tolist()):
        pixels = [(a, b) for row_p, row_t in zip(p, t) for a, b in zip(row_p, row_t) if b != 255]
        for channel, name in enumerate([0, *ids]):
            if counting == "present" and not any(b == channel for _, b in pixels):
                continue
            entry = table.setdefault(name, [0, 0, 0])
            for a, b in pixels:
                entry[0] += a == channel and b == channel
                entry[1] += a == channel and b != channel
                entry[2] += a != channel and b == channel
    foreground = [sum(v[i] for c, v in table.items() if c) for i in range(3)]
    return table, foreground


def iou(counts):
    return counts[0] / sum(counts)


def scores_of(*parts, counting="all", batch=5):
    meter = FewShotIoU(counting)
    for start in range(0, len(parts[0]), batch):
        meter.update(*(part[start : start + batch] for part in parts))
    return meter.compute()


@settings(max_examples=12, deadline=None)
@given(way=st.integers(1, 3), seed=st.integers(0, 10**6), counting=st.sampled_from(["all", "present"]))
def test_equals_the_plain_loops(way, seed, counting):
    parts = random_counts(way=way, seed=seed)
    scores = scores_of(*parts, counting=counting, batch=1 + seed % 7)
    table, foreground = plain(*parts, counting)
    per_class = {c: iou(v) for c, v in table.items() if c and sum(v)}
    counted = {c: value for c, value in scores.per_class.items() if not np.isnan(value)}
    assert counted == pytest.approx(per_class) and scores.miou == pytest.approx(np.mean(list(per_class.values())))
    assert scores.fb_iou == pytest.approx((iou(table[0]) + iou(foreground)) / 2)
    for e in range(len(parts[0])):
        own = plain(*(part[e : e + 1] for part in parts), counting)[1]
        assert scores.episode_iou()[e] == pytest.approx(iou(own) if sum(own) else 0)


def test_lists_are_averaged_after_their_own_scores():
    first, second = random_counts(seed=1), random_counts(episodes=5, seed=2)
    meter = FewShotIoU()
    meter.update(*first, run=0)
    meter.update(*second, run=1)
    scores = meter.compute()
    alone = [scores_of(*first).miou, scores_of(*second).miou]
    assert scores.miou == pytest.approx(np.mean(alone))
    assert scores.fb_iou == pytest.approx(np.mean([scores_of(*first).fb_iou, scores_of(*second).fb_iou]))


@settings(max_examples=10, deadline=None)
@given(way=st.integers(1, 2), seed=st.integers(0, 10**6))
def test_intervals(way, seed):
    parts = random_counts(episodes=40, way=way, seed=seed)
    scores = scores_of(*parts)
    low, high = scores.interval(draws=300)
    assert low <= scores.miou <= high and low < high
    assert scores.interval(draws=300) == (low, high) and scores.interval(draws=300, seed=1) != (low, high)
    for cls, (low, high) in scores.class_intervals(draws=300).items():
        assert low <= scores.per_class[cls] <= high


def test_more_episodes_narrow_the_interval():
    wide, narrow = (scores_of(*random_counts(episodes=n, seed=3)).interval() for n in (20, 320))
    assert 2 < (wide[1] - wide[0]) / (narrow[1] - narrow[0]) < 8, "about √16 = 4"


def test_paired_differences():
    predicted, target, classes = random_counts(episodes=60)
    scores = scores_of(predicted, target, classes)
    assert scores.difference(scores) == (0, 0, 0)
    assert scores.difference(scores_of(predicted.clone(), target, classes)) == (0, 0, 0)
    # One wrong pixel less in every episode: a tiny gain that pairing still sees.
    better = predicted.clone()
    for p, t in zip(better, target):
        at = ((p != t) & (t != 255)).nonzero()[0]
        p[tuple(at)] = t[tuple(at)]
    gain, low, high = scores_of(better, target, classes).difference(scores)
    assert 0 < low <= gain <= high
    unpaired = scores.interval()
    assert high - low < (unpaired[1] - unpaired[0]) / 2
    with pytest.raises(ProtocolError, match="same episodes"):
        scores.difference(scores_of(*random_counts(episodes=60, seed=9)))


def test_a_class_without_a_pixel_is_left_out():
    predicted = target = torch.zeros(2, 3, 3, dtype=torch.long)
    target = target.clone()
    target[0, 0] = 1
    predicted = target.clone()
    scores = scores_of(predicted, target, torch.tensor([[1], [2]]))
    assert scores.miou == 1 and np.isnan(scores.per_class[2])


def test_wrong_use():
    with pytest.raises(ProtocolError, match="never called"):
        FewShotIoU().compute()
    with pytest.raises(ProtocolError, match=r"'present'"):
        FewShotIoU("presnt")
    with pytest.raises(ProtocolError, match=r"\(2, 3, 3\).*\(2, 4, 3\)"):
        FewShotIoU().update(torch.zeros(2, 3, 3).long(), torch.zeros(2, 4, 3).long(), torch.ones(2, 1).long())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_matter():
    parts = random_counts(way=2)
    there = scores_of(*(part.to("cuda") for part in parts))
    assert np.array_equal(there.table, scores_of(*parts).table)


def test_counts_are_made_where_the_predictions_are(monkeypatch):
    """One synchronisation at the end: update() must not bring anything to the CPU."""
    moved = []
    for name in ("cpu", "numpy", "item", "tolist"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *a, name=name, call=original, **k: (moved.append(name), call(self))[1]
        )
    meter, parts = FewShotIoU(), random_counts(way=2)
    moved.clear()
    meter.update(*parts)
    assert not moved
    meter.compute()
    assert moved


def trained(seed, right):
    """Scores of one training on the episodes that all trainings of `test_several_trainings_…` share."""
    _, target, classes = random_counts(40, seed=7)
    g = torch.Generator().manual_seed(seed)
    keep = (torch.rand(target.shape, generator=g) < right) & (target != 255)
    predicted = torch.where(keep, target, torch.randint(0, 2, target.shape, generator=g))
    return scores_of(predicted, target, classes)


def test_several_trainings_are_averaged_on_shared_episodes():
    good, poor = [trained(s, 0.8) for s in range(3)], [trained(s + 10, 0.5) for s in range(3)]
    mean, low, high = over_trainings(good)
    assert mean == pytest.approx(np.mean([s.miou for s in good])) and low < mean < high
    gain, low, high = over_trainings(good, poor)
    assert gain == pytest.approx(np.mean([a.miou - b.miou for a, b in zip(good, poor)])) and 0 < low < gain < high
    # One training: nothing but the ordinary paired difference.
    assert over_trainings(good[:1], poor[:1]) == pytest.approx(good[0].difference(poor[0]))
    assert over_trainings(good, good) == (0, 0, 0)
    # Trainings share the episodes, so three equal ones know no more than one.
    assert over_trainings([good[0]] * 3) == pytest.approx((good[0].miou, *good[0].interval()))


@pytest.mark.parametrize("wrong", [([], None), ([trained(0, 0.5)], [])])
def test_several_trainings_need_the_same_number_and_the_same_episodes(wrong):
    with pytest.raises(ProtocolError, match="over_trainings"):
        over_trainings(*wrong)
    with pytest.raises(ProtocolError, match="same episodes"):
        over_trainings([trained(0, 0.5)], [scores_of(*random_counts(40, seed=8))])


def test_image_iou_counts_every_episode_alike():
    """A large object found and a small one missed: pixels summed per class hide the miss, single episodes do not."""
    target = torch.zeros(2, 10, 10, dtype=torch.long)
    target[0, :, :9], target[1, 0, 0] = 1, 1
    predicted = target.clone()
    predicted[1] = 0
    scores = scores_of(predicted, target, torch.tensor([[4], [4]]))
    assert scores.miou == pytest.approx(90 / 91) and scores.image_iou == pytest.approx(0.5)
    low, high = scores.image_interval()
    assert (low, high) == (0, 1) and not scores.absent.any() and np.isnan(scores.false_alarm)


def test_false_alarms_where_nothing_is():
    target = torch.zeros(3, 4, 5, dtype=torch.long)
    target[0, 0, 0], target[1, :, 0] = 1, 255
    predicted = torch.zeros_like(target)
    predicted[:, :2] = 1  # 10 of 20 pixels; in episode 1 eight of the 16 that are not ignored
    scores = scores_of(predicted, target, torch.tensor([[4], [4], [7]]))
    assert scores.absent.tolist() == [False, True, True]
    assert scores.false_alarm == pytest.approx((8 / 16 + 10 / 20) / 2)
    assert scores.image_iou == pytest.approx(1 / 10), "episodes without target have no IoU"
    assert scores.per_class[4] == pytest.approx(1 / 18), "but their false positives count in their class's union"


@pytest.mark.parametrize("wrong", [2, -1])
def test_channels_that_do_not_exist(wrong):
    predicted = torch.zeros(1, 3, 3, dtype=torch.long)
    predicted[0, 0] = wrong
    with pytest.raises(ProtocolError, match="3 predicted pixels name a channel outside"):
        scores_of(predicted, torch.ones(1, 3, 3, dtype=torch.long), torch.tensor([[4]]))
