"""Prior mask, masked pooling, resizing and distillation against their plain forms, and at their edges."""

import pytest
import torch
import torch.nn.functional as F

from fsslib import ops
from fsslib.losses import distillation, log_distribution
from fsslib.ops import masked_pool, prior_mask, resize


def plain_prior(query, support, masks, stretch=True):
    """PFENet's prior with the whole N x N matrix of cosines, one image and one shot at a time."""
    maps = torch.zeros(*masks.shape[:2], *query.shape[-2:])
    for b in range(len(query)):
        rows = query[b].flatten(1)
        for k in range(masks.shape[1]):
            columns = (support[b, k] * masks[b, k]).flatten(1)
            norms = columns.norm(dim=0)[:, None] * rows.norm(dim=0)
            best = (columns.T @ rows / (norms + 1e-7)).amax(0)
            if stretch:
                best = (best - best.min()) / (best.max() - best.min() + 1e-7)
            maps[b, k] = best.view(query.shape[-2:])
    return maps


def scene(kind, shots=2, size=(7, 6), seed=0):
    """Query (2, 9, 7, 5), supports (2, shots, 9, *size) with signed features, and masks of a kind."""
    g = torch.Generator().manual_seed(seed)
    query, support = torch.randn(2, 9, 7, 5, generator=g), torch.randn(2, shots, 9, *size, generator=g)
    masks = torch.rand(2, shots, *size, generator=g)
    if kind == "soft":
        masks = (2 * masks - 1).clamp_min(0)
    elif kind == "hard":
        masks = (masks > 0.5).float()
    elif kind in ("full", "empty"):
        masks = torch.full_like(masks, kind == "full")
    elif kind == "one empty, one full":
        masks[0, 0], masks[1, 1] = 0, 1
    elif kind == "one cell":
        masks = F.one_hot(masks.flatten(2).argmax(-1), size[0] * size[1]).view_as(masks).float()
    elif kind == "faint":
        masks *= 1e-7
    elif kind == "opposite":
        # Every similarity under the mask is negative, so what the mask hides (cosine 0) is the best there is.
        query, support = query.abs(), -support.abs()
        masks = (masks > 0.5).float()
    return query, support, masks


KINDS = ("soft", "hard", "full", "empty", "one empty, one full", "one cell", "faint", "opposite")


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("stretch", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_prior_equals_the_plain_form(kind, stretch, wait, monkeypatch):
    """With the object's cells alone, and in the dense form that never waits for a GPU."""
    monkeypatch.setattr(ops, "may_wait", lambda tensor: wait)
    for shots in (1, 3) if kind != "one empty, one full" else (2,):
        query, support, masks = scene(kind, shots)
        found, expected = (
            prior_mask(query, support, masks, stretch=stretch),
            plain_prior(query, support, masks, stretch),
        )
        assert found.shape == (2, shots, 7, 5) and found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
        if kind == "empty":
            assert not found.any()
        elif stretch and kind not in ("one empty, one full", "opposite", "faint"):
            assert (found.flatten(2).amin(-1) == 0).all() and (found.flatten(2).amax(-1) > 0.999).all()


def test_prior_of_a_full_mask_may_be_negative():
    """Nothing is masked out, so no zero joins the comparison."""
    query, support, _ = scene("opposite")
    full = torch.ones(2, 2, 7, 6)
    assert (prior_mask(query, support, full, stretch=False) < 0).all()
    full[:, :, 0, 0] = 0
    assert not prior_mask(query, support, full, stretch=False).any()


def test_prior_carries_no_gradient_and_stays_in_single_precision():
    query, support, masks = scene("soft")
    plain = prior_mask(query, support, masks)
    with torch.autocast("cpu", torch.bfloat16):
        found = prior_mask(query.requires_grad_(), support.requires_grad_(), masks)
    assert not found.requires_grad and torch.equal(found, plain)
    assert prior_mask(query.bfloat16(), support.bfloat16(), masks).dtype == torch.float32


def test_prior_of_zero_and_huge_features_is_finite():
    query, support, masks = scene("hard")
    for factor in (0.0, 1e-12, 1e8):
        for maps in (prior_mask(factor * query, support, masks), prior_mask(query, factor * support, masks)):
            assert torch.isfinite(maps).all()


def test_masked_pool_stays_in_single_precision():
    features, full = torch.randn(1, 4, 30, 30), torch.ones(1, 30, 30)
    outside = masked_pool(features, full)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(masked_pool(features, full), outside)
    assert masked_pool(features.bfloat16(), full).dtype == outside.dtype == torch.float32


def test_resize_keeps_corners_and_any_leading_axes():
    row = resize(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), (1, 4)).flatten()
    torch.testing.assert_close(row, torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))
    maps = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(resize(maps[0, 0], (9, 11)), resize(maps, (9, 11))[0, 0]) and resize(maps, (5, 6)) is maps


@pytest.mark.parametrize("mean", ["elements", "prototypes"])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_distillation_equals_torch_with_its_factors_and_both_gradients(mean, temperature):
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 3, 16, generator=g) for _ in range(2))
    pair = [x.clone().requires_grad_() for x in (student, teacher)]
    exact = [x.double().requires_grad_() for x in (student, teacher)]
    loss = distillation(pair[0], log_distribution(pair[1], temperature), temperature=temperature, factor=0.9, mean=mean)
    logs, target = F.log_softmax(exact[0] / temperature, -1), F.softmax(exact[1] / temperature, -1)
    divisor = 6 if mean == "prototypes" else 6 * 16
    expected = 0.9 * temperature**2 * F.kl_div(logs, target, reduction="sum") / divisor
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    for found, wanted in zip(torch.autograd.grad(loss, pair), torch.autograd.grad(expected, exact)):
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-7)


def test_distillation_defaults_zero_and_extremes():
    student, teacher = torch.randn(2, 8), torch.randn(2, 8)
    log_teacher = log_distribution(teacher)
    explicit = distillation(student, log_teacher, temperature=5.0, factor=0.9, mean="elements")
    assert torch.equal(distillation(student, log_teacher), explicit) and explicit > 0
    assert distillation(teacher, log_teacher).abs() < 1e-6
    for scale in (0.0, 1e4):
        wild = (scale * student).requires_grad_()
        loss = distillation(wild, log_distribution(-scale * teacher))
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(wild.grad).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distillation(student, log_distribution(teacher)), explicit)
