"""Evaluation: the score never depends on the batch, labels keep their size, and the model comes back as it was."""

import os
import signal
import tempfile
from concurrent.futures import Executor, Future

import numpy as np
import pytest
import torch
from core_tools import SIZE, panet, shapes
from torch import nn

from fsslib import EpisodeSampler, Prediction, Protocol, evaluate
from fsslib.data.base import SegmentationDataset
from fsslib.errors import DatasetError, ProtocolError, TrainingError
from fsslib.evaluation import Evaluation, examples
from fsslib.models.base import FewShotModel
from fsslib.nn.backbones.cached import MemoryStore

RULES = Protocol.shapes5i(input_size=SIZE, episodes=12)


def scored(model, protocol=RULES, data=None, **how):
    return evaluate(model, data or shapes("test"), protocol, progress=False, **how)


class Oracle(FewShotModel):
    """Knows the answer; without a single parameter. `wrong` turns foreground and background round."""

    def __init__(self, wrong: bool = False):
        nn.Module.__init__(self)
        self.wrong = wrong

    def forward(self, episode):
        labels = episode.query_masks.where(episode.query_masks != 255, 0)
        logits = nn.functional.one_hot(labels, 1 + episode.way).permute(0, 3, 1, 2).float()
        return Prediction(logits.flip(1) if self.wrong else logits)

    def losses(self, episode):
        raise NotImplementedError


class Photographs(SegmentationDataset):
    """Pictures of several sizes with rectangles, as a folder of photographs would hold; void along one edge."""

    name, fold, split, augmentation = "photographs", 0, "test", "photo"
    classes = base_classes = (1, 2)
    sizes = ((64, 96), (96, 64), (64, 64), (32, 64), (96, 48), (96, 96))

    def __init__(self, factor: int = 1):
        self.factor, self.names = factor, {1: "left", 2: "right"}

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = (self.factor * side for side in self.sizes[index])
        mask = torch.zeros(height, width, dtype=torch.uint8)
        third = self.factor * 12
        mask[third : 2 * third, third : 2 * third] = 1
        mask[third // 2 : third, 2 * third : 3 * third] = 2
        mask[-third // 2 :, : width // 2] = 255
        return torch.full((3, height, width), 40 * index, dtype=torch.uint8), mask

    def images_of(self, cls):
        self.check_class(cls)
        return list(range(len(self)))

    def signature(self):
        return f"photographs {self.factor}"


@pytest.mark.parametrize("way", [1, 2])
def test_the_batch_changes_nothing(way):
    """Integer counts: no arg-max of these episodes is close enough to a tie for the batch to turn it."""
    model = panet()
    protocol = RULES.replace(way=way)
    found = [scored(model, protocol, shots=(1, 2), batch=size) for size in (1, 3, 8)]
    assert found[0].scores[1].table.sum() > 0
    for other in found[1:]:
        for shot in (1, 2):
            assert np.array_equal(found[0].scores[shot].table, other.scores[shot].table)
            assert np.array_equal(found[0].scores[shot].classes, other.scores[shot].classes)
        assert found[0].protocol == other.protocol


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("side", [96, 48])
@pytest.mark.parametrize("way", [1, 2])
def test_the_oracle_is_perfect_at_original_size(resize, side, way):
    """48 pixels halve every longest side of 96: straight edges on even pixels survive the way down and up again."""
    data = Photographs()
    data.sizes = ((64, 96), (96, 64), (32, 96), (96, 96)) if resize == "pad" else ((96, 96),) * 4
    protocol = Protocol(input_size=side, resize=resize, label_size="original", episodes=16, way=way)
    result = scored(Oracle(), protocol, data)
    assert result.scores[1].miou == 1 and result.scores[1].fb_iou == 1
    sampler = EpisodeSampler(data, protocol)
    counted = [int((sampler.label(spec) != 255).sum()) for spec in result.lists[0].specs]
    assert result.scores[1].table[:, :, [0, 2]].sum((1, 2)).tolist() == counted, "every original pixel counts once"
    assert scored(Oracle(wrong=True), protocol, data).scores[1].miou < 0.2


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_odd_sizes_come_back_to_the_label(resize):
    data = Photographs()
    data.sizes = ((67, 91), (50, 37), (101, 90), (61, 130))
    protocol = Protocol(input_size=97, resize=resize, label_size="original", episodes=12)
    assert scored(Oracle(), protocol, data).scores[1].miou > 0.9


def test_padding_never_counts_at_input_size():
    protocol = Protocol(input_size=48, resize="pad", episodes=10)
    result = scored(Oracle(), protocol, Photographs())
    assert result.scores[1].miou == 1
    counted = result.scores[1].table[:, :, [0, 2]].sum((1, 2))
    masks = EpisodeSampler(Photographs(), protocol).build(result.lists[0].specs).query_masks
    assert counted.tolist() == (masks != 255).sum((1, 2)).tolist()


def test_the_mode_of_every_module_is_restored():
    model = panet(bn="batch", width=8).train()
    model.project.eval()
    before = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    scored(model)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    class Broken(Oracle):
        def forward(self, episode):
            raise RuntimeError("broken")

    broken = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        scored(broken)
    assert broken.training


def test_shots_are_nested_and_paired():
    result = scored(panet(), RULES.replace(seeds=(0, 1)), shots=(1, 3))
    assert len(result.lists) == 2 and len(result.lists[0].specs[0].supports[0]) == 3
    one, three = result.scores[1], result.scores[3]
    assert np.array_equal(one.classes, three.classes) and np.array_equal(one.runs, three.runs)
    gain, low, high = three.difference(one)
    assert low <= gain <= high and gain == pytest.approx(three.miou - one.miou)
    # A one-shot evaluation by itself draws the same queries and first supports.
    alone = scored(panet(), RULES.replace(seeds=(0, 1)), shots=(1,))
    assert np.array_equal(alone.scores[1].table, one.table) and result.protocol.list_hash.count("+") == 1


def test_summary_save_and_load(tmp_path):
    result = scored(panet(), shots=(1, 2))
    row = result.summary()[2]
    assert set(row) == {"miou", "low", "high", "fb_iou", "seconds"}
    assert 0 < row["low"] <= row["miou"] <= row["high"] < 100 and row["seconds"] > 0
    back = Evaluation.load(result.save(tmp_path / "deep" / "scores.npz"))
    assert back.protocol == result.protocol and back.seconds == result.seconds and back.lists == ()
    for shot, scores in result.scores.items():
        assert np.array_equal(back.scores[shot].table, scores.table)
        assert back.scores[shot].difference(scores) == (0, 0, 0)
    assert back.summary() == result.summary() and [p.name for p in (tmp_path / "deep").iterdir()] == ["scores.npz"]


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "other"])
def test_broken_result_files(tmp_path, damage):
    file = scored(panet()).save(tmp_path / "scores.npz")
    if damage == "missing":
        file.unlink()
    elif damage == "other":
        np.savez(file, table=np.zeros(3))
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == "empty" else 300])
    with pytest.raises(ProtocolError, match=r"scores\.npz.*run the evaluation again"):
        Evaluation.load(file)


def test_examples_are_ranked():
    result = scored(panet())
    episode, notes = examples(result, shapes("test"), shot=1, each=2)
    assert episode.validate().batch == 6 and [n.split(":")[0] for n in notes[::2]] == ["best", "median", "worst"]
    with torch.no_grad():
        predicted = panet()(episode).masks()
    inter = ((predicted == 1) & (episode.query_masks == 1)).sum((1, 2))
    ious = (inter / ((predicted == 1) | (episode.query_masks == 1)).sum((1, 2))).tolist()
    assert ious == sorted(ious, reverse=True)
    assert all(f"{100 * value:.0f} %" in note for value, note in zip(ious, notes))


def test_present_counting_reaches_the_metric():
    protocol = RULES.replace(way=2)
    every, present = (scored(panet(), protocol.replace(counting=c)).scores[1] for c in ("all", "present"))
    assert present.table.sum() < every.table.sum()


@pytest.mark.parametrize("shots", [(), (0,), (1, 1), (1.0,), ("1",), (True,)])
def test_impossible_shots(shots):
    with pytest.raises(ProtocolError, match="whole numbers from 1"):
        scored(panet(), shots=shots)


def test_other_impossible_requests():
    with pytest.raises(ProtocolError, match="batch=0"):
        scored(panet(), batch=0)
    with pytest.raises(DatasetError, match="9-way"):
        scored(panet(), RULES.replace(way=9))


class Backwards(Executor):
    """Counts when it is asked for a result: the last shard first. `lost`: the shard that is another one's again."""

    def __init__(self, lost=None):
        self.calls, self.lost, self.sent = [], lost, set()

    def submit(self, function, /, *arguments):
        future = Future()
        future.result = lambda: self.finish() or Future.result(future)
        self.calls.append((future, function, arguments))
        return future

    def finish(self):
        for number, (future, function, (order, shard, piece)) in enumerate(self.calls):
            piece = self.calls[0][2][2] if number == self.lost else piece
            self.calls[number] = future, function, (order, shard, piece)
        while self.calls:
            future, function, arguments = self.calls.pop()
            self.sent.add(arguments[1:])
            future.set_result(function(*arguments))


def same(found, expected):
    assert found.protocol == expected.protocol and found.lists == expected.lists
    for shot, scores in expected.scores.items():
        for name in ("table", "classes", "runs"):
            assert np.array_equal(getattr(found.scores[shot], name), getattr(scores, name))
        assert found.seconds[shot] > 0


@pytest.fixture(scope="module")
def whole():
    return scored(panet(), RULES.replace(seeds=(0, 1)), shots=(1, 2), batch=2)


@pytest.mark.parametrize("backwards", [False, True], ids=["in their order", "backwards"])
@pytest.mark.parametrize("shards", [1, 2, 7, 50])
def test_shards_add_up_to_the_same_integers(whole, shards, backwards):
    """24 episodes in 12 batches: each is counted once, whoever counts it when."""
    model, on = panet(), Backwards() if backwards else None
    store = None if backwards else MemoryStore()
    found = scored(model, RULES.replace(seeds=(0, 1)), shots=(1, 2), batch=2, shards=shards, on=on, cache=store)
    same(found, whole)
    if backwards:
        batches = sorted(batch for _, piece in on.sent for batch in piece)
        assert batches == list(range(12)) and len(on.sent) == min(shards, 12)
    else:
        images = {i for e in whole.lists for s in e.specs for i in (s.query, *s.supports[0])}
        assert len(store) == len(images), "shards share their features"


def test_shards_in_processes(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rules = RULES.replace(seeds=(0, 1))
    same(scored(panet(), rules, shots=(1, 2), batch=2, shards=3, on="local:2", cache="memory"), whole)
    assert not list(tmp_path.iterdir()), "the features are gone"


class Deadly(Oracle):
    """Ends the process that asks it."""

    def forward(self, episode):
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_shards_cannot_be(tmp_path):
    with pytest.raises(TrainingError, match=r"counts a shard died .*__main__"):
        scored(Deadly(), on="local:1")
    with pytest.raises(ProtocolError, match=r"not the episodes of the list: check what `on` does"):
        scored(panet(), shards=3, on=Backwards(lost=1))

    class Hidden(Oracle):
        pass

    with pytest.raises(TrainingError, match=r"cannot be sent .*Hidden.*in a module.*on=None"):
        scored(Hidden(), on=Backwards())
    with pytest.raises(ProtocolError, match=r"a store in memory ends with this process"):
        scored(panet(), on=Backwards(), cache=MemoryStore())
    for bad in ("local", "local:0", "dask", 2):
        with pytest.raises(ProtocolError, match=r"on=.*local:N"):
            scored(panet(), on=bad)
    for bad in (0, 1.0, True):
        with pytest.raises(ProtocolError, match=r"shards="):
            scored(panet(), shards=bad)
