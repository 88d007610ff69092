"""Fast kernels against their plain forms, and what they promise about empty masks."""

import pytest
import torch
import torch.nn.functional as F

from fsslib.losses import alignment, segmentation
from fsslib.ops import cosine_maps, masked_average, project_mask, upsample


def plain_masked_average(features, masks, eps=1e-5):
    """As the papers' code has it: enlarge every feature channel to the mask, then average."""
    large = F.interpolate(features, masks.shape[-2:], mode="bilinear", align_corners=False)
    total = (large[:, None] * masks[:, :, None]).sum((-2, -1))
    return total / (masks.sum((-2, -1)) + eps)[..., None]


@pytest.mark.parametrize("size,image", [((13, 13), (97, 97)), ((5, 9), (33, 70)), ((7, 4), (7, 4)), ((1, 1), (9, 9))])
def test_masked_average_equals_the_plain_form(size, image):
    torch.manual_seed(0)
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


def test_empty_mask_gives_the_zero_vector():
    pooled = masked_average(torch.randn(1, 4, 5, 5), torch.zeros(1, 1, 33, 33))
    assert torch.equal(pooled, torch.zeros(1, 1, 4))


def test_cosine_maps_equal_cosine_similarity():
    torch.manual_seed(0)
    features, prototypes = torch.randn(2, 8, 5, 6), torch.randn(2, 3, 8)
    expected = 20 * torch.stack([F.cosine_similarity(features, p[..., None, None]) for p in prototypes.unbind(1)], 1)
    torch.testing.assert_close(cosine_maps(features, prototypes), expected, atol=1e-5, rtol=1e-5)
    assert not cosine_maps(features, torch.zeros(2, 1, 8)).any()


def test_cosines_stay_in_full_precision_under_autocast():
    features, prototypes = torch.randn(1, 64, 5, 5), torch.randn(1, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cosine_maps(features, prototypes)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, cosine_maps(features, prototypes))


def test_upsample_is_half_pixel_centred():
    row = upsample(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), (1, 4)).flatten()
    torch.testing.assert_close(row, torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_segmentation_counts_only_labelled_pixels():
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    target = torch.randint(0, 2, (2, 4, 4))
    target[0] = 255
    expected = F.cross_entropy(logits[1:], target[1:])
    torch.testing.assert_close(segmentation(logits, target), expected)
    nothing = segmentation(logits, torch.full_like(target, 255))
    nothing.backward()
    assert float(nothing) == 0.0
    assert not logits.grad.any()


def plain_alignment(scores, query, support, masks):
    """Section 3.4 of the paper, one episode, way and shot at a time."""
    total = 0.0
    for b in range(len(scores)):
        label = scores[b].argmax(0)
        for way in range(masks.shape[1]):
            if not (label == way + 1).any():
                continue
            pair = [(query[b] * (label == c)).sum((1, 2)) / ((label == c).sum() + 1e-5) for c in (0, way + 1)]
            for shot in range(masks.shape[2]):
                cosines = [20 * F.cosine_similarity(support[b, way, shot], p[:, None, None], 0) for p in pair]
                large = upsample(torch.stack(cosines)[None], tuple(masks.shape[-2:]))
                total = total + F.cross_entropy(large, masks[b, way, shot][None], ignore_index=255)
    return total / (masks.shape[1] * masks.shape[2] * len(scores))


def test_alignment_equals_the_loop_of_the_paper_and_skips_unpredicted_ways():
    torch.manual_seed(3)
    scores, query = torch.randn(2, 3, 6, 6), torch.randn(2, 8, 6, 6, requires_grad=True)
    scores[1, 2] = -99.0  # way 2 is never predicted in the second episode
    support = torch.randn(2, 2, 2, 8, 6, 6, requires_grad=True)
    masks = torch.randint(0, 2, (2, 2, 2, 33, 33))
    masks[..., :3] = 255
    fast, plain = alignment(scores, query, support, masks), plain_alignment(scores, query, support, masks)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
    for leaf in (query, support):
        grads = [torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (fast, plain)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-7)
