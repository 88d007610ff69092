"""Evaluation with remembered features: the same integers as without, for every method, batch and store."""

import warnings

import numpy as np
import pytest
import torch
from core_tools import SIZE, panet, shapes

from fsslib import EpisodeSampler, Protocol, build_model, evaluate
from fsslib.errors import DatasetError, ModelError, ProtocolError
from fsslib.evaluation import examples, remembering
from fsslib.nn.backbones.cached import CachedBackbone, DiskStore, MemoryStore

RULES = Protocol(input_size=SIZE, episodes=10)
OPTIONS = {
    "panet": {}, "sdaanet": {"width": 8, "scales": (1.0, 0.5)}, "asgnet": {"width": 8, "scales": (1.0, 0.5)},
    "hdmnet": {"width": 32},
}  # fmt: skip


def table(model, cache=None, batch=4, rules=RULES, shots=(1, 3)):
    found = evaluate(model, shapes("test"), rules, shots=shots, batch=batch, cache=cache, progress=False)
    return np.concatenate([found.scores[k].table for k in shots])


def built(method):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_model(method, backbone="tiny", **OPTIONS[method]).eval()


@pytest.mark.parametrize("method", list(OPTIONS))
def test_the_same_integers(method, tmp_path):
    """Methods that mask features or images included; 65 pixels, which HDMNet's pyramid needs."""
    model, rules = built(method), RULES.replace(input_size=65, episodes=6)
    plain = table(model, rules=rules)
    own = model.backbone
    store = MemoryStore()
    for cache in (store, store, DiskStore(tmp_path / "a"), tmp_path / "a", "memory"):
        assert np.array_equal(plain, table(model, cache, rules=rules)), cache
    assert model.backbone is own, "the model comes back as it was"
    assert len(store) > 0


def test_small_stores_change_nothing_either(tmp_path):
    expected = table(panet())
    for cache in (MemoryStore(0), MemoryStore(20_000), DiskStore(tmp_path, 20_000)):
        assert np.array_equal(expected, table(panet(), cache)) and cache.stored_bytes <= cache.max_bytes


def test_every_image_is_encoded_once():
    store, sizes = MemoryStore(), []
    model = panet()
    model.backbone.layer0.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    table(model, store, shots=(3,))
    sampler = EpisodeSampler(shapes("test"), RULES, shot=3)
    used = {i for s in sampler.fixed(10).specs for i in (s.query, *s.supports[0])}
    assert sum(sizes) == len(used) == len(store)
    sizes.clear()
    table(model, store, shots=(3,))
    assert not sizes, "a warm cache never calls the backbone"


def test_a_model_with_a_cache_of_its_own_keeps_it():
    model = panet()
    model.backbone = CachedBackbone(model.backbone.freeze())
    with remembering(model, "memory"):
        assert isinstance(model.backbone, CachedBackbone) and model.backbone.dtype == torch.float16
    with pytest.raises(ModelError, match="number of bytes"):
        table(panet(), MemoryStore(-1))
    for bad in (True, 3):
        with pytest.raises(ProtocolError, match='expected "memory", a folder'):
            table(panet(), bad)


def test_absent_targets():
    data = shapes("test", 60)
    rules = RULES.replace(absent=0.5, episodes=40, way=1)
    found = evaluate(panet(), data, rules, shots=(1,), progress=False)
    scores = found.scores[1]
    sampler = EpisodeSampler(data, rules)
    shown = [bool((sampler.label(s) == 1).any()) for s in found.lists[0].specs]
    assert scores.absent.tolist() == [not s for s in shown] and 8 < scores.absent.sum() < 32
    marked = scores.table[scores.absent, 1, 1] / SIZE**2
    assert scores.false_alarm == pytest.approx(marked.mean()) and 0 < scores.false_alarm < 1
    assert np.isclose(scores.image_iou, scores.episode_iou()[~scores.absent].mean())
    low, high = scores.image_interval()
    assert low < scores.image_iou < high
    two = EpisodeSampler(data, rules.replace(absent=1.0, way=2)).build(
        EpisodeSampler(data, rules.replace(absent=1.0, way=2)).fixed(6).specs
    )
    assert not ((two.query_masks > 0) & (two.query_masks < 255)).any()
    none = evaluate(panet(), data, RULES, shots=(1,), progress=False).scores[1]
    assert np.isnan(none.false_alarm) and not none.absent.any()
    assert EpisodeSampler(data, RULES).fixed(10).hash == EpisodeSampler(data, RULES.replace(absent=0.0)).fixed(10).hash
    with pytest.raises(ProtocolError, match="forgives whatever is marked"):
        rules.replace(counting="present")
    nothing = evaluate(panet(), data, rules.replace(absent=1.0, episodes=5), shots=(1,), progress=False)
    assert np.isnan(nothing.scores[1].image_iou)
    episode, notes = examples(found, data, shot=1, each=3)
    assert len(notes) == 9 and ((episode.query_masks == 1).flatten(1).any(1)).all(), "only where something is shown"
    for bad in (-0.1, 1.1, True, "half"):
        with pytest.raises(ProtocolError, match=r"Protocol.absent"):
            RULES.replace(absent=bad)


def test_absent_targets_need_images_without_them():
    class Crowded(type(shapes("test"))):
        def shows(self, index, cls):
            return True

    data = Crowded(0, "test", size=SIZE, pool=20, val_classes=0)
    with pytest.raises(DatasetError, match=r"absent=1.0 needs queries without .*Use absent=0"):
        EpisodeSampler(data, RULES.replace(absent=1.0)).draw(0, 0)
