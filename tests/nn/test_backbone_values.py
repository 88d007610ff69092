"""Backbones compute what torchvision, an independent reference and the authors' code compute with the same weights."""

import json

import pytest
import torch
from golden_tools import assert_golden, read_golden, recipe_weights
from torch import nn
from torch.nn import functional as F
from torchvision import models as tv

from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.base import STAGES
from fsslib.nn.backbones.weights import apply_state


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_equals_torchvision_up_to_layer2(name):
    torch.manual_seed(0)
    reference = getattr(tv, name)().eval()
    ours = build_backbone(name, last="layer2").eval()
    apply_state(ours, reference.state_dict(), "reference")
    x = images(2, 3, 65, 65)
    with torch.no_grad():
        found = ours(x, ["layer0", "layer1", "layer2"])
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        assert torch.equal(found["layer0"], x)
        for stage in ("layer1", "layer2"):
            x = getattr(reference, stage)(x)
            assert torch.equal(found[stage], x)


def test_vgg16_bn_equals_torchvision_where_the_pools_agree():
    torch.manual_seed(0)
    reference = tv.vgg.make_layers(tv.vgg.cfgs["D"], batch_norm=True).eval()
    ours = build_backbone("vgg16_bn").eval()
    apply_state(ours, {f"features.{k}": v for k, v in reference.state_dict().items()}, "reference")
    x = images(1, 3, 64, 64)  # a multiple of 16: rounding up or down is the same
    with torch.no_grad():
        assert torch.equal(ours(x, ["layer4"])["layer4"], reference[:43](x))


def _reference_stage(state, stage, x, dilation, blocks, kernel3):
    """A dilated residual stage from its state dict with torch.nn.functional alone."""

    def conv(x, name, reach):
        weight, bn = (
            state[name],
            name.replace("conv", "bn").replace("downsample.0", "downsample.1").removesuffix(".weight"),
        )
        x = F.conv2d(x, weight, padding=reach if weight.shape[-1] == 3 else 0, dilation=reach)
        stats = [state[f"{bn}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *stats)

    for b in range(blocks):
        y = x
        for i, _ in enumerate(kernel3, start=1):
            y = conv(y, f"{stage}.{b}.conv{i}.weight", dilation)
            y = y.relu() if i < len(kernel3) else y
        if b == 0:
            x = conv(x, f"{stage}.0.downsample.0.weight", dilation)
        x = (x + y).relu()
    return x


@pytest.mark.parametrize("name, convs, blocks", [("resnet18", 2, (2, 2)), ("resnet50", 3, (6, 3))])
def test_dilated_stages_equal_a_reference(name, convs, blocks):
    torch.manual_seed(1)
    backbone = build_backbone(name).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 3)
    with torch.no_grad():
        found = backbone(images(1, 3, 57, 57), STAGES)
        x = found["layer2"]
        for stage, dilation, n in (("layer3", 2, blocks[0]), ("layer4", 4, blocks[1])):
            x = _reference_stage(backbone.state_dict(), stage, x, dilation, n, range(convs))
            torch.testing.assert_close(found[stage], x, rtol=1e-5, atol=1e-5 * x.abs().max().item())


@pytest.mark.parametrize("pool", ["3x3", "2x2"])
def test_vgg16_equals_a_reference(pool):
    """PANet's encoder written out: 3x3 pools, the fourth without stride, conv5 dilated, no last ReLU."""
    torch.manual_seed(0)
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
            torch.testing.assert_close(found[stage], x)
    assert not weights and (x < 0).any() and x.shape == (1, 512, 6, 6)


def test_stride_on_the_1x1():
    torch.manual_seed(0)
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


@pytest.mark.parametrize(
    "method, file, table, name, stem, image, keys",
    [
        ("sdaanet", "eval_r50_1shot", "resnet50", "resnet50", None, "in/query_img", "feat/query_layer{}"),
        ("sdaanet", "eval_vgg_1shot", "vgg16_bn", "vgg16_bn", None, "in/query_img", "feat/query_layer{}"),
        ("hdmnet", "eval_1shot", "resnet50_pascal_1shot", "resnet50", "deep", "in.x", "query_layer{}"),
        ("panet", "eval_1way_1shot", "vgg16", "vgg16", None, "in/query_img", "feat/features_{}"),
    ],
)
def test_features_equal_the_authors_code(shared, method, file, table, name, stem, image, keys):
    golden, facts = read_golden(shared / "golden" / method / f"{file}.safetensors")
    names = json.loads((shared / "specs" / f"{method}_state.json").read_text())[table]
    names = [row for row in names if row[0].startswith(("layer", "encoder."))]
    state = recipe_weights(names, facts.get("recipe_scales", ()), facts.get("salt", ""))
    backbone = build_backbone(name, stem=stem).eval()
    backbone.load_state_dict(
        {key.removeprefix("encoder.backbone."): value for key, value in state.items()}, strict=True
    )
    x = golden[image].float()
    if method == "panet":  # one batch there: the support image, then the query
        x = torch.cat([golden["in/support_img"].float().flatten(0, 2), x.flatten(0, 1)])
    with torch.no_grad():
        found = backbone(x, STAGES)
    compared = 0
    for i, stage in enumerate(STAGES):
        key = keys.format(min(2 * i + 1, 8) if method == "panet" else i)
        if key in golden or f"{key}.sub" in golden:
            size = golden[key] if key in golden else golden[f"{key}.sub"]
            assert_golden(found[stage], golden, key, atol=2e-5 * size.abs().max().item())
            compared += 1
    assert compared >= 3
