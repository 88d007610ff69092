"""Stores of features: limits, use, damage, several processes; and the cache that lives in them."""

import os
import random
from functools import partial

import numpy as np
import pytest
import torch
from core_tools import forked

from fsslib.errors import ModelError
from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.cached import CachedBackbone, DiskStore, MemoryStore

MAKERS = {"memory": lambda folder, size: MemoryStore(size), "disk": lambda folder, size: DiskStore(folder, size)}


def key(number):
    return number.to_bytes(24, "big")


def feature(value, count=100):
    return torch.full((count,), float(value))


@pytest.fixture(params=list(MAKERS))
def maker(request, tmp_path):
    return lambda size: MAKERS[request.param](tmp_path / "features", size)


def test_what_is_put_is_found(maker):
    store = maker(10_000)
    for i, kind in enumerate((torch.float32, torch.float16, torch.float64)):
        value = torch.randn(3, 4, 5).to(kind)
        store.put(key(i), value)
        assert torch.equal(store.get(key(i)), value) and store.get(key(i)).dtype == kind
    assert store.get(key(99)) is None and len(store) == 3
    store.put(key(0), feature(7))
    assert torch.equal(store.get(key(0)), feature(7)) and len(store) == 3
    store.clear()
    assert len(store) == 0 and store.stored_bytes == 0 and store.get(key(0)) is None


def test_the_least_recently_used_goes_first(maker):
    store = maker(3 * 528 + 10)  # three features and their headers
    for number in (1, 2, 3, 1, 4):
        if store.get(key(number)) is None:
            store.put(key(number), feature(number))
    assert store.stored_bytes <= store.max_bytes
    assert [store.get(key(k)) is not None for k in (1, 2, 3, 4)] == [True, False, True, True]
    store.put(key(9), feature(9, 5000))
    assert store.get(key(9)) is None and store.get(key(1)) is not None, "too large for the store"


def test_a_disk_store_is_found_again(tmp_path):
    first = DiskStore(tmp_path)
    first.put(key(1), feature(1)), first.put(key(2), feature(2))
    again = DiskStore(tmp_path)
    assert len(again) == 2 and again.stored_bytes == first.stored_bytes and torch.equal(again.get(key(2)), feature(2))
    first.put(key(3), feature(3))
    assert torch.equal(again.get(key(3)), feature(3)) and len(again) == 3, "written by another process"
    again.clear()
    assert first.get(key(1)) is None and len(list(tmp_path.iterdir())) == 0


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_damaged_files_count_as_unknown(tmp_path, damage):
    store = DiskStore(tmp_path)
    store.put(key(1), feature(1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    assert store.get(key(1)) is None and not file.exists()
    store.put(key(1), feature(2))
    assert torch.equal(store.get(key(1)), feature(2))


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be kept.*Name another folder"):
        DiskStore(tmp_path / "file")
    for bad in (-1, 1.5, True):
        with pytest.raises(ModelError, match="max_bytes"):
            DiskStore(tmp_path, bad)
    store = DiskStore(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    (tmp_path / "gone").write_text("")
    with pytest.raises(ModelError, match="Free space, lower max_bytes"):
        store.put(key(1), feature(1))


def images(count=3, seed=0):
    return torch.randn((count, 3, 33, 33), generator=torch.Generator().manual_seed(seed))


def backbone(seed=0):
    torch.manual_seed(seed)
    return build_backbone("tiny").freeze()


def test_features_on_disk_serve_the_same_weights_only(tmp_path):
    def cached(seed=0):
        return CachedBackbone(backbone(seed), dtype=torch.float32, store=DiskStore(tmp_path))

    first = cached()
    expected = first(images(), ["layer4"])["layer4"]
    again = cached()
    assert torch.equal(again(images(), ["layer4"])["layer4"], expected) and (again.hits, again.misses) == (3, 0)
    other = cached(seed=1)
    assert not torch.allclose(other(images(), ["layer4"])["layer4"], expected) and other.misses == 3
    rough = CachedBackbone(backbone(), dtype=torch.float16, store=DiskStore(tmp_path))
    rough(images(), ["layer4"])
    assert rough.misses == 3, "rounded features are others"


def test_options_without_weights_make_other_features(tmp_path):
    """The same weights with another stride are another network."""
    nets = []
    for stride in (4, 8):
        torch.manual_seed(0)
        nets.append(build_backbone("tiny", stride=stride).freeze())
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters()))
    for net in nets:
        found = CachedBackbone(net, dtype=torch.float32, store=DiskStore(tmp_path))(images(), ["layer4"])["layer4"]
        assert torch.equal(found, net(images(), ["layer4"])["layer4"])


def test_other_peoples_files_are_left_alone(tmp_path):
    np.save(tmp_path / "results.npy", np.zeros(1000))
    (tmp_path / "notes.txt").write_text("mine")
    store = DiskStore(tmp_path, 2000)
    assert len(store) == 0 and store.stored_bytes == 0
    for i in range(9):
        store.put(key(i), feature(i))
    store.clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "results.npy"]
    with pytest.raises(ModelError, match="empty text"):
        DiskStore("")


def test_processes_that_evict_each_others_features(tmp_path):
    """Two processes in one small folder: nobody fails, and what is found is right."""

    def use(seed):
        draw = random.Random(seed)
        for _ in range(30):
            store = DiskStore(tmp_path, 4000)
            for _ in range(10):
                i = draw.randrange(12)
                found = store.get(key(i))
                assert found is None or torch.equal(found, feature(i))
                store.put(key(i), feature(i))

    assert forked(partial(use, 0), partial(use, 1)) == [0, 0]


def test_deeper_stages_of_masked_features():
    plain = backbone()
    cached = CachedBackbone(plain, dtype=torch.float32)
    shallow = plain(images(), ["layer3"])["layer3"]
    masks = (torch.rand(shallow[:, :1].shape, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    for features in (shallow, shallow * masks, shallow):
        assert torch.equal(cached.deeper(features, "layer4"), plain.deeper(features, "layer4"))
    assert (cached.hits, cached.misses) == (3, 6), "features masked for a class are others"
    assert torch.equal(cached(images(), ["layer4"])["layer4"], plain(images(), ["layer4"])["layer4"])


def test_an_unfrozen_backbone_may_be_remembered_where_nothing_changes_it():
    plain = build_backbone("tiny", bn="batch").eval()
    with torch.no_grad():
        cached = CachedBackbone(plain)
        cached(images(), ["layer4"])
    with pytest.raises(ModelError, match="require gradients"):
        cached(images(), ["layer4"])
    with torch.no_grad(), pytest.raises(ModelError, match="cannot be cached"):
        cached.train()(images(), ["layer4"])
