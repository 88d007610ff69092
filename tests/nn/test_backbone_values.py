"""Backbones compute what torchvision, an independent reference and the authors' code compute with the same weights."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models as tv

from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.base import STAGES
from fsslib.nn.backbones.weights import apply_state

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-4)


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_equals_torchvision_up_to_layer2(name):
    reference = getattr(tv, name)().eval()
    ours = build_backbone(name, last="layer2").eval()
    apply_state(ours, reference.state_dict(), "reference")
    x = images(2, 3, 65, 65)
    with torch.no_grad():
        found = ours(x, ["layer0", "layer1", "layer2"])
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        close(found["layer0"], x)
        for stage in ("layer1", "layer2"):
            x = getattr(reference, stage)(x)
            close(found[stage], x)


def test_vgg16_bn_equals_torchvision_where_the_pools_agree():
    reference = tv.vgg.make_layers(tv.vgg.cfgs["D"], batch_norm=True).eval()
    ours = build_backbone("vgg16_bn").eval()
    apply_state(ours, {f"features.{k}": v for k, v in reference.state_dict().items()}, "reference")
    x = images(1, 3, 64, 64)  # a multiple of 16: rounding up or down is the same
    with torch.no_grad():
        close(ours(x, ["layer4"])["layer4"], reference[:43](x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_deep_stages_are_dilated_throughout(name):
    """Also their first blocks; that resnet50 computes what the authors' does, the golden files say."""
    backbone = build_backbone(name)
    for stage, dilation in (("layer3", 2), ("layer4", 4)):
        convs = [part for part in getattr(backbone, stage).modules() if isinstance(part, nn.Conv2d)]
        assert {conv.stride for conv in convs} == {(1, 1)}
        spread = {(conv.dilation, conv.padding) for conv in convs if conv.kernel_size == (3, 3)}
        assert spread == {((dilation, dilation), (dilation, dilation))}


@pytest.mark.parametrize("pool", ["3x3", "2x2"])
def test_vgg16_equals_a_reference(pool):
    """PANet's encoder written out: 3x3 pools, the fourth without stride, conv5 dilated, no last ReLU."""
    backbone = build_backbone("vgg16", pool=pool)
    weights = list(backbone.state_dict().values())
    x = images(1, 3, 41, 41)
    with torch.no_grad():
        found = backbone(x, STAGES)
        for i, (stage, convs) in enumerate(zip(STAGES, (2, 2, 3, 3, 3))):
            for c in range(convs):
                reach = 2 if i == 4 else 1
                x = F.conv2d(x, weights.pop(0), weights.pop(0), padding=reach, dilation=reach)
                x = x if (i, c) == (4, 2) else x.relu()
            if i < 3 and pool == "2x2":
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            elif i < 4:
                x = F.max_pool2d(x, 3, 2 if i < 3 else 1, padding=1)
            close(found[stage], x)
    assert not weights and (x < 0).any() and x.shape == (1, 512, 6, 6)


def test_stride_on_the_1x1():
    usual = build_backbone("resnet50", last="layer3").eval()
    first_generation = build_backbone("resnet50", last="layer3", stride_on="1x1").eval()
    first_generation.load_state_dict(usual.state_dict())
    x = images(1, 3, 65, 65)
    with torch.no_grad():
        a, b = usual(x, STAGES[:4]), first_generation(x, STAGES[:4])
        # Striding in the 1x1 is the usual block on every second cell of its input.
        block = usual.layer2[0]
        sub = a["layer1"][..., ::2, ::2]
        y = block.relu(block.bn1(block.conv1(sub)))
        y = F.conv2d(y, block.conv2.weight, padding=1)
        y = block.bn3(block.conv3(block.relu(block.bn2(y))))
        y = usual.layer2[1:](block.relu(y + block.downsample(a["layer1"])))
    assert torch.equal(a["layer1"], b["layer1"])
    torch.testing.assert_close(b["layer2"], y, rtol=1e-5, atol=1e-4)
    assert a["layer3"].shape == b["layer3"].shape and not torch.allclose(a["layer3"], b["layer3"])
