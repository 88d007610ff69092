"""The pyramid and the pooling head against plain forms of the papers, convolutions that spare what they can against
those that lay everything out, and the batch norm of single values."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fsslib.errors import ModelError
from fsslib.models.sdaanet import SAAM
from fsslib.nn.context import ASPP, BatchNorm2d, FeatureEnrichment, PSPHead, PyramidPooling, convolved_together


def large(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def plain(module, constant, pooled, guides):
    """PFENet's forward as its paper draws it: the prototype spread over the grid, everything concatenated."""
    size, levels, inner = pooled.shape[-2:], [], []
    for i, scale in enumerate(module.scales):
        grid = (int(scale),) * 2 if scale > 1 else tuple(max(1, int(s * scale)) for s in size)
        inputs = [] if constant is None else [constant[:, :, None, None].expand(-1, -1, *grid)]
        inputs.append(F.adaptive_avg_pool2d(pooled, grid))
        inputs += [] if guides is None else [large(guides, grid)]
        merged = module.merge[i](torch.cat(inputs, 1))
        if i:
            merged = module.alpha[i - 1](torch.cat([merged, large(levels[-1], grid)], 1)) + merged
        merged = module.beta[i](merged) + merged
        inner.append(module.inner[i](merged))
        levels.append(large(merged, size))
    fused = module.res1(torch.cat(levels, 1))
    return module.classifier(module.res2(fused) + fused), inner


CASES = {
    "absolute": ({"scales": (9, 5, 3, 2)}, (7, 7)), "larger than the features": ({"scales": (12, 4)}, (5, 5)),
    "relative": ({"scales": (1.0, 0.5, 0.25, 0.125)}, (13, 13)), "not square": ({"scales": (1.0, 0.4, 0.3)}, (9, 6)),
    "one scale": ({"scales": (4,)}, (6, 6)), "no prototype": ({"constant": 0}, (7, 7)),
    "no guides": ({"resized": 0}, (7, 5)), "features only": ({"constant": 0, "resized": 0}, (7, 7)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_pyramid_equals_its_plain_form_with_gradients(case):
    options, size = CASES[case]
    options = {"constant": 5, "pooled": 6, "resized": 2, "width": 4, "scales": (6, 3, 2)} | options
    module = FeatureEnrichment(**options).eval()
    shapes = (2, options["constant"]), (2, options["pooled"], *size), (2, options["resized"], *size)
    inputs = [torch.randn(shape).requires_grad_() if shape[1] else None for shape in shapes]
    (logits, inner), (expected, levels) = module(*inputs), plain(module, *inputs)
    assert logits.shape == (2, 2, *size)
    assert [tuple(level.shape) for level in inner] == [(2, 2, *grid) for grid in module.grids(size)]
    torch.testing.assert_close([logits, *inner], [expected, *levels], rtol=1e-4, atol=1e-6)
    leaves = [x for x in (*inputs, *module.parameters()) if x is not None]
    grads = [
        torch.autograd.grad(sum((x**2).sum() for x in (out, *levels)), leaves, allow_unused=True)
        for out, levels in ((logits, inner), (expected, levels))
    ]
    assert not any(grad is None for grad in grads[0])
    for found, wanted in zip(*grads):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()) + 1e-9)


def test_the_logits_do_not_depend_on_the_inner_ones():
    module = FeatureEnrichment(constant=3, pooled=3, resized=1, width=4, scales=(4, 2)).eval()
    inputs = torch.randn(1, 3), torch.randn(1, 3, 7, 7), torch.randn(1, 1, 7, 7)
    (logits, inner), (expected, levels) = module(*inputs, inner=False), module(*inputs)
    assert torch.equal(logits, expected) and (len(inner), len(levels)) == (0, 2)


def test_guides_of_another_grid_are_resized_once():
    module = FeatureEnrichment(constant=3, pooled=3, resized=1, width=4, scales=(4, 2)).eval()
    constant, pooled, guide = torch.randn(1, 3), torch.randn(1, 3, 7, 7), torch.randn(1, 1, 11, 9)
    torch.testing.assert_close(module(constant, pooled, guide)[0], plain(module, constant, pooled, guide)[0])


@pytest.mark.parametrize(("scales", "size", "grids"), [
    ((60, 30, 15, 8), (13, 13), [(60, 60), (30, 30), (15, 15), (8, 8)]), ((60.0, 2), (13, 17), [(60, 60), (2, 2)]),
    ((1.0, 0.5, 0.25, 0.125), (13, 13), [(13, 13), (6, 6), (3, 3), (1, 1)]),
    ((1.0, 0.5, 0.25, 0.125), (60, 60), [(60, 60), (30, 30), (15, 15), (7, 7)]),
    ((1, 0.5, 0.25, 0.125), (41, 20), [(41, 20), (20, 10), (10, 5), (5, 2)]), ((0.125,), (3, 9), [(1, 1)]),
])  # fmt: skip
def test_grids(scales, size, grids):
    module = FeatureEnrichment(constant=1, pooled=1, resized=0, width=1, scales=scales)
    assert module.grids(size) == grids


@pytest.mark.parametrize(
    "scales",
    [(60, 0.5), (), (0,), (-1, 2), (1.5, 3), (2, 1), (float("nan"),), (float("inf"),), ("60", "30"), (60, None)],
)
def test_scales_that_make_no_sense(scales):
    with pytest.raises(ModelError, match=r"scales=.*expected whole numbers above 1.*or fractions up to 1"):
        FeatureEnrichment(constant=1, pooled=1, resized=1, width=1, scales=scales)


@pytest.mark.parametrize("training", [False, True])
def test_pyramid_pooling_equals_its_plain_form(training):
    module = PyramidPooling(6, 4).train(training)
    features = torch.randn(2, 6, 7, 9)
    found = module(features)
    # The same numbers again from the layers by themselves; batch statistics do not depend on the running ones.
    branches = []
    for stage, size in zip(module.stages, (1, 2, 3, 6)):
        _, conv, norm, _ = stage
        mapped = F.conv2d(F.adaptive_avg_pool2d(features, size), conv.weight)
        statistics = (norm.running_mean, norm.running_var) if not training else (None, None)
        mapped = F.batch_norm(mapped, *statistics, norm.weight, norm.bias, training, 0.0, norm.eps)
        branches.append(large(mapped.relu(), (7, 9)))
    assert found.shape == (2, 6 + 4 * 4, 7, 9)
    torch.testing.assert_close(found, torch.cat([features, *branches], 1))
    assert PyramidPooling(6, 4, bins=(1, 5))(features).shape == (2, 14, 7, 9)


# What is spread over the grid in front of a convolution.


def laid_out(conv, features, small):
    """What `convolved_together` spares: everything on one grid, then the convolution."""
    return conv(torch.cat([features, *(large(maps, features.shape[-2:]) for maps in small)], 1))


def assert_same(found, expected, leaves):
    """Results and gradients agree to rounding, which is measured by the largest number."""
    pairs = [(found, expected)]
    pairs += zip(*(torch.autograd.grad((out**2).sum(), leaves) for out in (found, expected)))
    for value, wanted in pairs:
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-5 * float(wanted.detach().abs().max()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(7, 9), (12, 5), (6, 6), (2, 3), (1, 4), (1, 1)])
@pytest.mark.parametrize("cells", [[(1, 1)], [(1, 1), (2, 2), (3, 3), (6, 6)], [(2, 5)]])
def test_small_maps_are_convolved_before_they_are_enlarged(cells, size, bias):
    small = [torch.randn(2, 3 + i, *grid).requires_grad_() for i, grid in enumerate(cells)]
    features = torch.randn(2, 4, *size).requires_grad_()
    conv = nn.Conv2d(4 + sum(maps.shape[1] for maps in small), 5, 3, padding=1, bias=bias)
    with torch.inference_mode():  # what it keeps must serve training, too
        convolved_together(conv, features, small)
    found, expected = (form(conv, features, small) for form in (convolved_together, laid_out))
    assert_same(found, expected, [features, *small, *conv.parameters()])
    last = features.detach().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(convolved_together(conv, last, small), expected, rtol=1e-4, atol=1e-5)


def test_small_maps_under_autocast():
    conv, features, small = nn.Conv2d(7, 5, 3, padding=1), torch.randn(2, 4, 7, 9), [torch.randn(2, 3, 2, 2)]
    expected = laid_out(conv, features, small)
    with torch.autocast("cpu", torch.bfloat16):
        found = convolved_together(conv, features, small)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_the_attention_head_and_the_pooling_head_equal_their_plain_forms(training):
    saam, head = SAAM(3).train(training), PSPHead(8, 4, 5).train(training)
    saam.bottleneck[3].p = 0.0
    features, prototype, deep = (torch.randn(s).requires_grad_() for s in ((4, 3, 7, 9), (4, 3), (4, 8, 7, 9)))

    def spread():
        return prototype[:, :, None, None].expand_as(features)

    cases = [
        (lambda: saam(features, prototype), [saam.reduce, saam.pyramid, saam.bottleneck],
         lambda: saam.bottleneck(saam.pyramid(saam.reduce(torch.cat([features, spread()], 1)))), [features, prototype]),
        (lambda: head.features(deep), [head.pooling, head.level5], lambda: head.level5(head.pooling(deep)), [deep]),
    ]  # fmt: skip
    for spared, parts, plain, leaves in cases:
        parts, results, moved = nn.ModuleList(parts), [], []
        start = copy.deepcopy(parts.state_dict())
        for form in (spared, plain):
            parts.load_state_dict(start)
            result = form()
            moved.append(copy.deepcopy(parts.state_dict()))
            # A batch norm keeps the sum of squares as it is: cubes.
            grads = torch.autograd.grad((result**3).sum(), [*leaves, *parts.parameters()])
            results.append([result.detach(), *grads])
        for found, expected in zip(*results):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        torch.testing.assert_close(*moved, rtol=1e-4, atol=1e-6)


def test_atrous_pooling_equals_its_plain_form():
    module, features = ASPP(3, 0.0, rates=(1, 2)), torch.randn(2, 3, 5, 7).requires_grad_()
    whole = module.branches[0](features.mean((2, 3), keepdim=True)).expand_as(features)
    plain = module.fuse(torch.cat([whole, *(branch(features) for branch in module.branches[1:])], 1))
    assert_same(module(features), plain, [features, *module.parameters()])


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 2, 1), (4, 3, 5, 5)])
def test_batch_norm_is_torchs_where_torchs_can(shape):
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    features = torch.randn(shape)
    for training in (True, True, False):
        assert torch.equal(ours.train(training)(features), theirs.train(training)(features))
    for (name, found), expected in zip(ours.state_dict().items(), theirs.state_dict().values()):
        assert torch.equal(found, expected), name
    assert ours.num_batches_tracked == 2


def test_batch_norm_of_a_single_value_uses_and_keeps_the_running_statistics():
    norm = BatchNorm2d(3)
    norm(3 + 2 * torch.randn(4, 3, 5, 5))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    single = torch.randn(1, 3, 1, 1, requires_grad=True)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(3)(single)
    found = norm.train()(single)
    assert torch.equal(found, norm.eval()(single))
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    found.sum().backward()
    expected = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    torch.testing.assert_close(single.grad.flatten(), expected)
    assert norm.weight.grad.abs().sum() > 0
