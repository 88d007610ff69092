"""CachedBackbone: the plain backbone's numbers, hits and evictions, names, and every reason to refuse or forget."""

import copy
import pickle

import pytest
import torch

from fsslib.errors import ModelError
from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.base import Backbone
from fsslib.nn.backbones.cached import CachedBackbone

STAGES = ["layer2", "layer4"]


def images(count, seed=0, size=33):
    return torch.randn((count, 3, size, size), generator=torch.Generator().manual_seed(seed))


def frozen(name="tiny", **options):
    torch.manual_seed(0)
    return build_backbone(name, **options).freeze()


@pytest.fixture
def counted():
    """A cached tiny backbone and the list of batch sizes that its plain backbone was run with."""
    plain, sizes = frozen(), []
    plain.layer0.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    return CachedBackbone(plain, dtype=torch.float32), sizes


def test_same_numbers_as_the_plain_backbone(counted):
    cached, sizes = counted
    plain, x = frozen(), images(3)
    expected = plain(x, STAGES)
    for _ in range(2):
        found = cached(x, STAGES)
        assert list(found) == STAGES
        for stage in STAGES:
            assert torch.equal(found[stage], expected[stage]) and not found[stage].requires_grad
            assert found[stage].stride() == expected[stage].stride()
    assert sizes == [3]
    mixed = cached(torch.cat([images(2, seed=1), x[1:2]]), STAGES)
    torch.testing.assert_close(mixed["layer4"][2], expected["layer4"][1])
    torch.testing.assert_close(mixed["layer4"][:2], plain(images(2, seed=1), STAGES)["layer4"])


def test_hits_misses_and_new_stages(counted):
    cached, sizes = counted
    x = images(4)
    cached(x[:2], STAGES)
    assert (cached.hits, cached.misses, sizes) == (0, 2, [2])
    cached(x, STAGES)
    assert (cached.hits, cached.misses, sizes) == (2, 4, [2, 2]), "only the unknown images are run"
    cached(x[[3, 0, 0]], ["layer4"])
    assert (cached.hits, cached.misses, sizes) == (5, 4, [2, 2])
    cached(x[:1], ["layer3"])
    assert (cached.hits, cached.misses, sizes) == (5, 5, [2, 2, 1]), "a stage not asked for before is a miss"
    almost = x[:1].clone()
    almost[0, 0, 0, 0] += 1e-6
    cached(almost, ["layer4"])
    assert cached.misses == 6, "one changed bit is another image"
    cached(x[:1].double().float(), ["layer4"])
    cached(x[:1].contiguous(memory_format=torch.channels_last), ["layer4"])
    assert (cached.hits, cached.misses) == (7, 6), "neither identity nor memory format matters, only content"


def test_shape_is_part_of_the_content(counted):
    cached, _ = counted
    x = images(1, size=64)
    assert cached(x, ["layer2"])["layer2"].shape[-2:] == (16, 16)
    assert cached(x.reshape(1, 3, 32, 128), ["layer2"])["layer2"].shape[-2:] == (8, 32)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_half_precision_storage(dtype, tolerance):
    cached, x = CachedBackbone(frozen(), dtype=dtype), images(2)
    first, second = cached(x, STAGES)["layer4"], cached(x, STAGES)["layer4"]
    expected = frozen()(x, STAGES)["layer4"]
    assert first.dtype == torch.float32 and torch.equal(first, second), "hit and miss round alike"
    torch.testing.assert_close(first, expected, rtol=tolerance, atol=tolerance)
    assert not torch.equal(first, expected)
    numbers = sum(f.numel() for f in frozen()(x, STAGES).values())
    assert cached.stored_bytes == 2 * numbers


@pytest.mark.parametrize("name", ["tiny", "vgg16"])
def test_names_and_stages_are_the_backbones(name):
    plain = frozen(name, last="layer3")
    cached = CachedBackbone(plain)
    assert isinstance(cached, Backbone) and cached.deepest == "layer3" and cached.channels == plain.channels
    cached(images(1), ["layer1", "layer3"])
    assert list(cached.state_dict()) == list(plain.state_dict())
    found = plain(images(1), ["layer1", "layer2"])
    assert torch.equal(cached.layer2(found["layer1"]), found["layer2"]) and not hasattr(cached, "layer4")
    holder = torch.nn.Module()
    holder.backbone = cached
    assert all(key.startswith(("backbone.layer", "backbone.features")) for key in holder.state_dict())
    with pytest.raises(ModelError, match="has no layer4"):
        cached(images(1), ["layer4"])


def test_changed_weights_empty_the_cache(counted):
    cached, _ = counted
    x = images(1)
    old = cached(x, ["layer4"])["layer4"]
    torch.manual_seed(9)
    other = build_backbone("tiny").freeze()
    cached.load_state_dict(other.state_dict())
    assert torch.equal(cached(x, ["layer4"])["layer4"], other(x, ["layer4"])["layer4"])
    assert not torch.allclose(cached(x, ["layer4"])["layer4"], old)
    with torch.no_grad():
        cached.layer1[0].bn1.running_mean.add_(1)
        other.layer1[0].bn1.running_mean.add_(1)
    assert torch.equal(cached(x, ["layer4"])["layer4"], other(x, ["layer4"])["layer4"])
    cached.double(), other.double()
    assert torch.equal(
        cached(x.double(), ["layer4"])["layer4"], other(x.double(), ["layer4"])["layer4"].float().double()
    )


def test_copies_start_empty(counted):
    cached, _ = counted
    expected = cached(images(2), STAGES)["layer4"]
    cached.plain.layer0._forward_hooks.clear()
    for twin in (copy.deepcopy(cached), pickle.loads(pickle.dumps(cached))):
        assert twin.stored_bytes == 0 and cached.stored_bytes > 0
        assert torch.equal(twin(images(2), STAGES)["layer4"], expected) and twin.misses == 2
        with torch.no_grad():
            twin.layer0[0].weight.zero_()
        assert not torch.equal(twin(images(2), STAGES)["layer4"], expected), "a copy has its own, consistent weights"
    assert torch.equal(cached(images(2), STAGES)["layer4"], expected)


def test_inference_mode_autocast_and_image_gradients(counted):
    cached, _ = counted
    x = images(2)
    with torch.inference_mode():
        cached(x, ["layer4"])
    feature = cached(x, ["layer4"])["layer4"]
    assert cached.hits == 2
    weight = torch.ones(64, requires_grad=True)
    (feature * weight[:, None, None]).sum().backward()
    torch.testing.assert_close(weight.grad, feature.sum((0, 2, 3)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, expected = cached(x, ["layer4"])["layer4"], cached.plain(x, ["layer4"])["layer4"]
    assert rough.dtype == expected.dtype == torch.bfloat16 and torch.equal(rough, expected)
    assert torch.equal(cached(x, ["layer4"])["layer4"], feature), "autocast features are kept apart"
    x.requires_grad_()
    cached(x, ["layer4"])["layer4"].sum().backward()
    assert x.grad.abs().sum() > 0


def test_illegal_use():
    with pytest.raises(ModelError, match=r"require gradients.*freeze\(\)"):
        CachedBackbone(build_backbone("tiny"))
    with pytest.raises(ModelError, match=r"bn='batch' makes.*set_bn\('frozen'\)"):
        CachedBackbone(frozen(bn="batch"))
    with pytest.raises(ModelError, match="wraps a plain Backbone, not Linear"):
        CachedBackbone(torch.nn.Linear(1, 1))
    with pytest.raises(ModelError, match="not CachedBackbone"):
        CachedBackbone(CachedBackbone(frozen()))
    for bad, said in (({"max_bytes": -1}, "bytes from 0"), ({"dtype": torch.int8}, "a floating point type")):
        with pytest.raises(ModelError, match=said):
            CachedBackbone(frozen(), **bad)
    cached = CachedBackbone(frozen())
    with pytest.raises(ModelError, match="which bn='batch' excludes"):
        cached.set_bn("batch")
    cached.layer4.requires_grad_(True)
    with pytest.raises(ModelError, match="require gradients"):
        cached(images(1), ["layer4"])
    cached.freeze().plain.set_bn("batch")
    with pytest.raises(ModelError, match="bn='batch' makes"):
        cached(images(1), ["layer4"])


def test_training_mode_does_not_move_statistics():
    cached, x = CachedBackbone(frozen()), images(2)
    expected = cached(x, ["layer4"])["layer4"]
    torch.nn.Sequential(cached).train()
    cached.clear()
    assert torch.equal(cached(x, ["layer4"])["layer4"], expected) and cached.layer0[1].running_mean.abs().sum() == 0


def test_features_too_large_for_half_precision():
    plain = frozen()
    with torch.no_grad():
        plain.layer4[0].bn2.weight.fill_(1e8)
    with pytest.raises(ModelError, match=r"layer4: features exceed torch.float16; use dtype=torch.float32"):
        CachedBackbone(plain)(images(1), ["layer4"])
