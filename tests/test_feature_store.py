"""Stores of features: limits, use, damage, several processes; and the cache that lives in them."""

import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from fsslib.errors import ModelError
from fsslib.nn.backbones import build_backbone
from fsslib.nn.feature_cache import CachedBackbone
from fsslib.nn.feature_store import DiskStore, MemoryStore

MAKERS = {"memory": lambda folder, size: MemoryStore(size), "disk": lambda folder, size: DiskStore(folder, size)}


def feature(value, count=100):
    return torch.full((count,), float(value))


@pytest.fixture(params=list(MAKERS))
def maker(request, tmp_path):
    return lambda size: MAKERS[request.param](tmp_path / "features", size)


def test_what_is_put_is_found(maker):
    store = maker(10_000)
    for i, kind in enumerate((torch.float32, torch.float16, torch.float64)):
        value = torch.randn(3, 4, 5).to(kind)
        store.put(bytes([i]), value)
        assert torch.equal(store.get(bytes([i])), value) and store.get(bytes([i])).dtype == kind
    assert store.get(b"unknown") is None and len(store) == 3
    store.put(bytes([0]), feature(7))
    assert torch.equal(store.get(bytes([0])), feature(7)) and len(store) == 3
    store.clear()
    assert len(store) == 0 and store.stored_bytes == 0 and store.get(bytes([0])) is None


def test_the_least_recently_used_goes_first(maker):
    store = maker(3 * 528 + 10)  # three features and their headers
    for key in (1, 2, 3, 1, 4):
        if store.get(bytes([key])) is None:
            store.put(bytes([key]), feature(key))
    assert store.stored_bytes <= store.max_bytes
    assert [store.get(bytes([k])) is not None for k in (1, 2, 3, 4)] == [True, False, True, True]
    store.put(bytes([9]), feature(9, 5000))
    assert store.get(bytes([9])) is None and store.get(bytes([1])) is not None, "too large for the store"


def test_a_disk_store_is_found_again(tmp_path):
    first = DiskStore(tmp_path)
    first.put(b"a", feature(1)), first.put(b"b", feature(2))
    again = DiskStore(tmp_path)
    assert len(again) == 2 and again.stored_bytes == first.stored_bytes
    assert torch.equal(again.get(b"b"), feature(2))
    first.put(b"c", feature(3))
    assert torch.equal(again.get(b"c"), feature(3)) and len(again) == 3, "written by another process"
    again.clear()
    assert first.get(b"a") is None and len(list(tmp_path.iterdir())) == 0


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_damaged_files_count_as_unknown(tmp_path, damage):
    store = DiskStore(tmp_path)
    store.put(b"a", feature(1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    assert store.get(b"a") is None and not file.exists()
    store.put(b"a", feature(2))
    assert torch.equal(store.get(b"a"), feature(2))


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
        store.put(b"a", feature(1))


def test_killed_writers_leave_only_whole_features(tmp_path):
    pace, whole = random.Random(1), feature(5, 200_000)
    killed = 0
    for _ in range(20):
        pid = os.fork()
        if not pid:
            store = DiskStore(tmp_path)
            for i in range(10_000):
                store.put(i.to_bytes(2, "big"), whole)
            os._exit(0)
        time.sleep(pace.uniform(0.005, 0.05))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
        for file in tmp_path.glob("*.npy"):
            assert np.array_equal(np.load(file), whole.numpy())
    assert killed >= 15
    store = DiskStore(tmp_path)
    assert len(store) and all(torch.equal(store.get(bytes.fromhex(n[:-4])), whole) for n in list(store._sizes))


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
    assert again.store.get(next(iter(first.store._sizes)).encode()) is None
    rough = CachedBackbone(backbone(), dtype=torch.float16, store=DiskStore(tmp_path))
    rough(images(), ["layer4"])
    assert rough.misses == 3, "rounded features are others"


def test_deeper_stages_of_masked_features():
    plain = backbone()
    cached = CachedBackbone(plain, dtype=torch.float32)
    shallow = plain(images(), ["layer3"])["layer3"]
    masks = (torch.rand(shallow[:, :1].shape, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    for features in (shallow, shallow * masks, shallow):
        assert torch.equal(cached.deeper(features, "layer4"), plain.layer4(features))
    assert (cached.hits, cached.misses) == (3, 6), "features masked for a class are others"
    assert torch.equal(cached(images(), ["layer4"])["layer4"], plain(images(), ["layer4"])["layer4"])


def test_an_unfrozen_backbone_may_be_remembered_where_nothing_changes_it():
    torch.manual_seed(0)
    plain = build_backbone("tiny", bn="batch").eval()
    with torch.no_grad():
        cached = CachedBackbone(plain)
        cached(images(), ["layer4"])
    with pytest.raises(ModelError, match="require gradients"):
        cached(images(), ["layer4"])
    with torch.no_grad(), pytest.raises(ModelError, match="cannot be cached"):
        cached.train()(images(), ["layer4"])
