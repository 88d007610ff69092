"""Fast kernels against their plain forms, and what they promise about empty masks."""

import pytest
import torch
import torch.nn.functional as F

from fsslib.losses import segmentation
from fsslib.ops import FEW, Box, conv_in_boxes, cosine_maps, masked_average, project_mask, resize, upsample


def plain_masked_average(features, masks, eps=1e-5):
    """As the papers' code has it: enlarge every feature channel to the mask, then average."""
    large = F.interpolate(features, masks.shape[-2:], mode="bilinear", align_corners=False)
    total = (large[:, None] * masks[:, :, None]).sum((-2, -1))
    return total / (masks.sum((-2, -1)) + eps)[..., None]


@pytest.mark.parametrize("size,image", [((13, 13), (97, 97)), ((5, 9), (33, 70)), ((7, 4), (7, 4)), ((1, 1), (9, 9))])
def test_masked_average_equals_the_plain_form(size, image):
    features = torch.randn(2, 6, *size, requires_grad=True)
    masks = (torch.rand(2, 3, *image) > 0.7).float()
    fast, plain = masked_average(features, masks), plain_masked_average(features, masks)
    torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-5)
    weight = torch.randn_like(fast)
    grads = [torch.autograd.grad((out * weight).sum(), features)[0] for out in (fast, plain)]
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-4)


def test_project_mask_keeps_the_total():
    masks = torch.rand(3, 41, 57)
    torch.testing.assert_close(project_mask(masks, (6, 8)).sum((-2, -1)), masks.sum((-2, -1)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("small,large", [((13, 13), (97, 97)), ((5, 9), (33, 9)), ((1, 1), (9, 7)), ((7, 4), (7, 4))])
def test_few_maps_grow_as_interpolation_lets_them(small, large, channels_last):
    """Also under autocast, where a product of matrices would be computed in 16 bits."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    maps = torch.randn(3, FEW, *small).to(memory_format=layout).requires_grad_()
    for function, corners in ((upsample, False), (resize, True)):
        plain = F.interpolate(maps, large, mode="bilinear", align_corners=corners)
        weight = torch.randn_like(plain)
        expected = torch.autograd.grad((plain * weight).sum(), maps)[0]
        with torch.autocast("cpu", torch.bfloat16):
            fast = function(maps, large)
        torch.testing.assert_close(fast, plain, atol=2e-6, rtol=1e-5)
        found = torch.autograd.grad((fast * weight).sum(), maps)[0]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_cosines_stay_in_full_precision_under_autocast():
    features, prototypes = torch.randn(1, 64, 5, 5), torch.randn(1, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cosine_maps(features, prototypes)
    assert inside.dtype == torch.float32 and torch.equal(inside, cosine_maps(features, prototypes))


def test_segmentation_counts_only_labelled_pixels():
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    target = torch.randint(0, 2, (2, 4, 4))
    target[0] = 255
    expected = F.cross_entropy(logits[1:], target[1:])
    torch.testing.assert_close(segmentation(logits, target), expected)
    nothing = segmentation(logits, torch.full_like(target, 255))
    nothing.backward()
    assert float(nothing) == 0.0 and not logits.grad.any()


def test_cosines_and_their_gradients_are_torch_s_also_of_zero_features():
    g = torch.Generator().manual_seed(0)
    features, prototypes = torch.randn(2, 6, 4, 5, generator=g), torch.randn(2, 3, 6, generator=g)
    features[0, :, 0], prototypes[1, 2] = 0, 0
    leaves, found = [features.requires_grad_(), prototypes.requires_grad_()], []
    plain = F.cosine_similarity(features[:, None], prototypes[..., None, None], dim=2)
    for maps in (cosine_maps(features, prototypes, 20.0), 20 * plain):
        found.append([maps.detach(), *torch.autograd.grad(maps.sin().sum(), leaves)])
    assert not found[0][0][1, 2].any() and all(torch.isfinite(value).all() for value in found[0])
    for values in found:
        values[1][0, :, 0] = values[2][1, 2] = 0  # of zero vectors: something finite, divided by 1e-8
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_boxes():
    chosen = torch.zeros(5, 6, dtype=torch.bool)
    assert Box.around(chosen) is None
    chosen[1, 2] = chosen[3, 5] = True
    box = Box.around(chosen)
    assert box == (1, 4, 2, 6) and box.grown(2, (5, 6)) == (0, 5, 0, 6) and box.grown(1, (9, 9)) == (0, 5, 1, 7)
    maps = torch.arange(30).view(1, 5, 6)
    assert torch.equal(box.cut(maps), maps[:, 1:4, 2:6])
    outer = Box(1, 5, 1, 6)
    assert torch.equal(box.cut(outer.cut(maps), outer), maps[:, 1:4, 2:6])


def test_a_convolution_in_boxes_is_the_whole_one_where_it_is_wanted():
    """Objects at the borders, of one cell, of all cells, and none."""
    g = torch.Generator().manual_seed(0)
    features, weight, bias = (torch.randn(*shape, generator=g) for shape in ((4, 5, 7, 6), (3, 5, 3, 3), (3,)))
    wanted = torch.zeros(4, 7, 6, dtype=torch.bool)
    wanted[0, 0, 2], wanted[0, 4, 5], wanted[1, 3, 3], wanted[2] = True, True, True, True
    found, whole = conv_in_boxes(features, weight, bias, wanted), F.conv2d(features, weight, bias, padding=1)
    at = wanted[:, None].expand_as(whole)
    torch.testing.assert_close(found[at], whole[at])
    assert not found[3].any() and not found[1, :, :3].any() and not found[0, :, 5:].any()


@pytest.mark.parametrize("channels_last", [False, True])
def test_segmentation_of_many_classes_is_cross_entropy(channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits = torch.randn(2, 16, 5, 7).to(memory_format=layout).requires_grad_()
    target = torch.randint(0, 16, (2, 5, 7))
    target[:, 0] = 255
    plain, found = F.cross_entropy(logits, target, ignore_index=255), segmentation(logits, target)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, plain)))
