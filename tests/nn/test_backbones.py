"""Backbones: grids, stages, batch-norm modes, gradients, refusals (their numbers: test_backbone_values)."""

from unittest import mock

import pytest
import torch
from torch import nn

from fsslib.errors import ModelError
from fsslib.nn.backbones import base, build_backbone, resnet
from fsslib.nn.backbones.base import STAGES
from fsslib.ops import Box

NAMES = ("tiny", "resnet18", "resnet50", "resnet101", "vgg16", "vgg16_bn")


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Shapes


@pytest.mark.parametrize("name", NAMES)
def test_grids(name):
    backbone, size = build_backbone(name).eval(), (33, 65)
    with torch.no_grad():
        found = backbone(images(1, 3, *size), STAGES)
    assert list(found) == list(STAGES) and backbone.deepest == "layer4"
    for stage, feature in found.items():
        stride = backbone.strides[stage]
        cells = tuple(-(-side // stride) for side in size)
        assert feature.shape == (1, backbone.channels[stage], *cells), stage
        assert feature.isfinite().all()


def test_papers_grids_at_97_pixels():
    expected = {
        "resnet18": [25, 25, 13, 13, 13], "vgg16": [49, 25, 13, 13, 13], "vgg16_bn": [49, 25, 13, 7, 7],
        "tiny": [49, 49, 25, 25, 25],
    }  # fmt: skip
    for name, sides in expected.items():
        with torch.no_grad():
            found = build_backbone(name)(images(1, 3, 97, 97), STAGES)
        assert [found[s].shape[-1] for s in STAGES] == sides, name
    tiny = build_backbone("tiny", stride=8)
    assert [f.shape[-1] for f in tiny(images(1, 3, 97, 97), STAGES).values()] == [49, 49, 25, 13, 13]


@pytest.mark.parametrize("name", ["tiny", "resnet18", "vgg16", "vgg16_bn"])
def test_one_pass_stops_at_the_deepest_wanted_stage(name):
    backbone, ran = build_backbone(name), []
    for stage in STAGES:
        last_module = list(getattr(backbone, stage))[-1]
        last_module.register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    found = backbone(images(1, 3, 33, 33), ["layer2", "layer1"])
    assert ran == ["layer0", "layer1", "layer2"] and list(found) == ["layer2", "layer1"]
    again = backbone.layer2(found["layer1"])
    assert torch.equal(again, found["layer2"]), "a stage is callable on its own and no stage is overwritten in place"


@pytest.mark.parametrize("name", ["tiny", "resnet50", "vgg16", "vgg16_bn"])
def test_last_leaves_deeper_stages_out(name):
    backbone = build_backbone(name, last="layer3")
    assert backbone.deepest == "layer3" and "layer4" not in backbone.channels and not hasattr(backbone, "layer4")
    assert not any(backbone.stage_of(key) == "layer4" for key in backbone.state_dict())
    with pytest.raises(ModelError, match="last='layer3' and has no layer4"):
        backbone(images(1, 3, 33, 33), ["layer4"])


BOXES = {
    "inside": (5, 7, 11, 13), "one cell": (6, 7, 12, 13), "a corner": (0, 3, 0, 2), "another": (12, 13, 23, 24),
    "a row": (6, 7, 0, 24), "everything": (0, 13, 0, 24),
}  # fmt: skip


@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50", "vgg16_bn"])
@torch.no_grad()
def test_a_deeper_stage_in_a_box_is_what_the_whole_stage_has_there(name):
    """ResNets compute it there only, with zeros beyond the grid and nowhere else."""
    backbone = build_backbone(name).eval()
    for norm in (m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1), norm.bias.normal_(0, 0.1)
    features = images(1, backbone.channels["layer3"], 13, 24).relu()
    whole = backbone.deeper(features, "layer4")
    for what, sides in BOXES.items():
        found, expected = backbone.deeper(features, "layer4", Box(*sides)), Box(*sides).cut(whole)
        off = (found - expected).abs().max() / expected.abs().max()
        assert found.shape == expected.shape and off < 1e-5, what
    strided = images(1, backbone.channels["layer1"], 13, 15)
    box = Box(0, 3, 1, 4)
    assert torch.equal(backbone.deeper(strided, "layer2", box), box.cut(backbone.deeper(strided, "layer2")))


# Batch norm, gradients, memory format


def _stats(backbone):
    return torch.cat([m.running_mean for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)])


@pytest.mark.parametrize("name", ["tiny", "resnet18", "vgg16_bn"])
def test_bn_modes(name):
    x = images(2, 3, 33, 33)
    frozen = build_backbone(name).train()
    before = _stats(frozen).clone()
    with torch.no_grad():
        trained, evaluated = frozen(x, ["layer4"]), frozen.eval()(x, ["layer4"])
    assert torch.equal(_stats(frozen), before) and torch.equal(trained["layer4"], evaluated["layer4"])
    assert all(p.requires_grad for p in frozen.parameters()), "frozen statistics leave affine parameters trainable"

    batch = frozen.set_bn("batch").train()
    with torch.no_grad():
        batch(x, ["layer4"])
    assert not torch.equal(_stats(batch), before)
    moved = _stats(batch).clone()
    batch.eval()(x, ["layer4"])
    assert torch.equal(_stats(batch), moved)
    batch.train().set_bn("frozen")(x, ["layer4"])
    assert torch.equal(_stats(batch), moved) and batch.training
    nn.Sequential(batch).train()[0](x, ["layer4"])
    assert torch.equal(_stats(batch), moved), "also when a parent module is put into training mode"


def test_freeze_and_gradients():
    backbone = build_backbone("tiny", bn="batch").train()
    backbone(images(2, 3, 33, 33), STAGES)["layer2"].sum().backward()
    assert backbone.layer0[0].weight.grad is not None and backbone.layer4[0].conv1.weight.grad is None
    assert backbone.freeze() is backbone and not any(p.requires_grad for p in backbone.parameters())
    x = images(1, 3, 33, 33).requires_grad_()
    backbone.eval()(x, ["layer4"])["layer4"].sum().backward()
    assert x.grad.abs().sum() > 0, "a backbone never switches gradients off by itself"


def _plainly(backbone, x):
    """All stages as the modules compute them, one image of its own layout after the other."""
    calls = []
    with mock.patch.object(base, "conv_norm", plain), mock.patch.object(resnet, "conv_norm", plain):
        for feature in x.split(1):
            calls.append([feature := getattr(backbone, stage)(feature) for stage in STAGES])
    return {stage: torch.cat(parts) for stage, parts in zip(STAGES, zip(*calls))}


def plain(conv, norm, features):
    return norm(conv(features))


@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50", "vgg16", "vgg16_bn"])
def test_folded_norms_layouts_and_pieces_change_nothing(name):
    """Statistics far from 0 and 1, channels of both signs, and more images than one call takes."""
    backbone, g = build_backbone(name).eval(), torch.Generator().manual_seed(3)
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value, shift in ((part.running_mean, 0), (part.running_var, 1.5), (part.weight, 1), (part.bias, 0)):
                value.data = shift + torch.rand(value.shape, generator=g) - 0.5
    x, names = images(5, 3, 33, 33), list(backbone.state_dict())
    with torch.no_grad(), mock.patch.object(base, "PIXELS", 2 * 33 * 33):
        found, expected = backbone(x, STAGES), _plainly(backbone, x)
        again = backbone.deeper(found["layer3"], "layer4")
    for stage in STAGES:
        largest = float(expected[stage].abs().max())
        torch.testing.assert_close(found[stage] / largest, expected[stage] / largest, rtol=0, atol=2e-5)
        assert found[stage].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(again / largest, found["layer4"] / largest, rtol=0, atol=2e-5)
    assert list(backbone.state_dict()) == names and not backbone._buffers


@pytest.mark.parametrize("name, layout", [("resnet18", torch.contiguous_format), ("tiny", torch.channels_last)])
def test_what_learns_keeps_its_graph_and_layout(name, layout):
    backbone = build_backbone(name, bn="batch").train()
    feature = backbone(images(2, 3, 33, 33), ["layer4"])["layer4"]
    assert feature.is_contiguous(memory_format=layout) and feature.requires_grad
    backbone.eval()
    learned = backbone(images(1, 3, 33, 33), ["layer4"])["layer4"]
    learned.square().mean().backward()
    assert all(weight.grad is not None for weight in backbone.parameters())


def test_batch_statistics_see_the_whole_batch():
    backbone, x = build_backbone("tiny", bn="batch").train(), images(4, 3, 33, 33)
    whole = backbone(x, ["layer2"])["layer2"]
    with mock.patch.object(base, "PIXELS", 1):
        assert torch.equal(backbone(x, ["layer2"])["layer2"], whole)


# Refusals


@pytest.mark.parametrize("arguments, message", [
    ({"name": "resnet5"}, "Did you mean 'resnet50'"), ({"name": "tiny", "stem": "deep"}, "concerns ResNets only"),
    ({"name": "resnet18", "stem": "deap"}, "Did you mean 'deep'"),
    ({"name": "tiny", "bn": "froze"}, "Did you mean 'frozen'"),
    ({"name": "vgg16", "last": "layer5"}, "Did you mean 'layer"),
    ({"name": "tiny", "stride": 16}, "output stride 4 or 8"), ({"name": "tiny", "width": 0}, "whole number from 1"),
    ({"name": "tiny", "strides": 8}, "Did you mean 'stride'"), ({"name": "vgg16", "pool": "2x3"}, "pool="),
    ({"name": "resnet18", "stride_on": "1x1"}, "option 'stride_on'"),
    ({"name": "resnet50", "last": "layer1", "stride_on": "2x2"}, "stride_on="),
    ({"name": "resnet18", "stem": "deep", "weights": "imagenet"}, "stem='classic'.*PATH.*weights=None"),
    ({"name": "tiny", "weights": "imagenet"}, "no ImageNet weights for tiny"),
    ({"name": "resnet50", "last": "layer1", "stride_on": "1x1", "weights": "imagenet"}, "drop stride_on"),
    ({"name": "tiny", "weights": 3}, "expected None, 'imagenet' or the path"),
])  # fmt: skip
def test_refused_arguments(arguments, message):
    with pytest.raises(ModelError, match=message):
        build_backbone(arguments.pop("name"), **arguments)


def test_refused_requests():
    backbone = build_backbone("tiny")
    with pytest.raises(ModelError, match="Did you mean 'layer4'"):
        backbone(images(1, 3, 33, 33), ["layer44"])
    for stages in ("layer3", []):
        with pytest.raises(ModelError, match="expected a list of stage names"):
            backbone(images(1, 3, 33, 33), stages)
    for bad in (images(3, 33, 33), images(1, 1, 33, 33), torch.zeros(1, 3, 33, 33, dtype=torch.uint8)):
        with pytest.raises(ModelError, match="normalised with the ImageNet mean"):
            backbone(bad, ["layer1"])
