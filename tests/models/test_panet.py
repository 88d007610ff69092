"""PANet: against independent prototypes, per-episode calls, and the promises of its options."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from core_tools import panet, random_episode

from fsslib import Prediction, build_model
from fsslib.losses import alignment
from fsslib.models.panet import PANet
from fsslib.nn.backbones import build_backbone


def slow_logits(model: PANet, episode) -> torch.Tensor:
    """The paper with loops: enlarge the features, average under each mask, compare; way by way."""
    size = episode.query_images.shape[-2:]

    def features(image):
        return model.project(model.backbone(image[None], [model.stage])[model.stage])

    def pooled(image, mask):
        large = F.interpolate(features(image), size, mode="bilinear", align_corners=False)[0]
        return (large * mask).sum((1, 2)) / (mask.sum() + 1e-5)

    rows = []
    for b in range(episode.batch):
        query = features(episode.query_images[b])[0]
        fore, back = [], []
        for w in range(episode.way):
            pairs = list(zip(episode.support_images[b, w], episode.support_masks[b, w]))
            fore.append(sum(pooled(i, (m == 1).float()) for i, m in pairs) / len(pairs))
            back.append(sum(pooled(i, (m == 0).float()) for i, m in pairs) / len(pairs))
        maps = [F.cosine_similarity(query, p[:, None, None], dim=0) for p in (sum(back) / len(back), *fore)]
        low = 20 * torch.stack(maps)[None]
        rows.append(F.interpolate(low, size, mode="bilinear", align_corners=False))
    return torch.cat(rows)


@pytest.mark.parametrize("way", [1, 2])
@pytest.mark.parametrize("shot", [1, 2, 3])
@torch.no_grad()
def test_equals_the_slow_prototypes(way, shot):
    model = panet(width=12 if shot == 2 else None)
    episode = random_episode(2, way, shot, 33, 41, seed=shot)
    logits = model(episode).logits
    assert logits.shape == (2, 1 + way, 33, 41) and logits.dtype == torch.float32
    masks = Prediction(logits).masks()
    assert masks.dtype == torch.long and masks.shape == (2, 33, 41)
    torch.testing.assert_close(logits, slow_logits(model, episode), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("way", "shot"), [(1, 1), (1, 3), (2, 2)])
@torch.no_grad()
def test_a_batch_equals_its_episodes(way, shot):
    model = panet()
    episode = random_episode(3, way, shot)
    single = torch.cat([model(episode.select([i])).logits for i in range(3)])
    torch.testing.assert_close(model(episode).logits, single, rtol=1e-5, atol=1e-4)
    for training in (False, True):
        model.train(training)
        whole = model.losses(episode)
        mean = [model.losses(episode.select([i])) for i in range(3)]
        expected = torch.stack([losses["align"] for losses in mean]).mean()
        torch.testing.assert_close(whole["align"], expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_order_of_ways_only_reorders_channels():
    model, episode = panet(), random_episode(2, 2, 2)
    turned = replace(
        episode, support_images=episode.support_images.flip(1), support_masks=episode.support_masks.flip(1)
    )
    torch.testing.assert_close(model(turned).logits, model(episode).logits[:, [0, 2, 1]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [1, 2])
def test_losses_reach_the_backbone(way):
    model, episode = panet().train(), random_episode(way=way, shot=2)
    losses = model.losses(episode)
    assert set(losses) == {"query", "align", "total"} and all(v.ndim == 0 for v in losses.values())
    torch.testing.assert_close(losses["total"], losses["query"] + losses["align"])
    assert losses["align"].item() > 0
    losses["total"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.backbone.layer0[0].weight.grad.abs().sum() > 0


def test_alignment_is_for_training_and_has_a_weight():
    episode = random_episode()
    model = panet(align_weight=0.5)
    assert model.losses(episode)["align"].item() == 0
    losses = model.train().losses(episode)
    torch.testing.assert_close(losses["total"], losses["query"] + 0.5 * losses["align"])
    assert panet(align=False).train().losses(episode)["align"].item() == 0


def test_alignment_skips_ways_without_a_predicted_pixel():
    """Of two ways one is never predicted: it adds nothing, and the divisor still counts it."""
    episode, generator = random_episode(1, 2, 1), torch.Generator().manual_seed(0)
    query, support = torch.randn(1, 6, 9, 9, generator=generator), torch.randn(1, 2, 1, 6, 9, 9, generator=generator)
    scores = torch.randn(1, 3, 9, 9, generator=generator)
    scores[:, 2] = -10
    both = alignment(scores, query, support, episode.support_masks)
    first = alignment(scores[:, :2], query, support[:, :1], episode.support_masks[:, :1])
    torch.testing.assert_close(both, first / 2)
    scores[:, 1] = -10
    assert alignment(scores, query, support, episode.support_masks).item() == 0


def test_a_frozen_backbone_leaves_the_projection_to_train():
    model = panet(freeze=True, width=8).train()
    model.losses(random_episode())["total"].backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.project.weight.grad.abs().sum() > 0
    gram = model.project.weight.flatten(1) @ model.project.weight.flatten(1).T
    torch.testing.assert_close(gram, torch.eye(8), rtol=0, atol=1e-5)


def test_batch_statistics_in_the_published_order(monkeypatch):
    model, episode = panet(bn="batch").train(), random_episode(2, 1, 2)
    calls = []
    original = model.backbone.forward
    monkeypatch.setattr(model.backbone, "forward", lambda x, s: (calls.append(x), original(x, s))[1])
    before = model.backbone.layer0[1].running_mean.clone()
    model(episode)
    assert [len(x) for x in calls] == [2, 2, 2]
    expected = [episode.query_images, episode.support_images[:, 0, 0], episode.support_images[:, 0, 1]]
    assert all(torch.equal(a, b) for a, b in zip(calls, expected))
    assert model.backbone.layer0[1].num_batches_tracked == 3
    assert not torch.equal(model.backbone.layer0[1].running_mean, before)
    calls.clear()
    model.eval()(episode)
    assert [len(x) for x in calls] == [6], "running statistics need one call"


def test_frozen_statistics_stay_even_in_training():
    model = panet().train()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items() if "running" in k or "tracked" in k}
    assert before
    model.losses(random_episode())
    assert all(torch.equal(model.backbone.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize(("name", "size"), [("tiny", (33, 49)), ("tiny", (40, 31)), ("vgg16", (33, 41))])
@torch.no_grad()
def test_any_size(name, size):
    model = PANet(build_backbone(name)).eval()
    assert model(random_episode(1, 1, 2, *size)).logits.shape == (1, 2, *size)


def test_a_perfect_match_is_found():
    """The query is its own support: with distinct colours the nearest prototype gives the mask back."""
    image = torch.full((3, 64, 64), -1.0)
    image[:, 16:48, 16:48] = torch.tensor([2.0, -2.0, 1.0]).view(3, 1, 1)
    mask = torch.zeros(64, 64, dtype=torch.long)
    mask[16:48, 16:48] = 1
    episode = random_episode(1, height=64, width=64)
    episode = replace(
        episode, query_images=image[None], support_images=image[None, None, None], support_masks=mask[None, None, None]
    )
    found = build_model("panet", backbone="tiny").eval()(replace(episode, query_masks=None)).masks()[0]
    assert ((found == 1) & (mask == 1)).sum() / ((found == 1) | (mask == 1)).sum() > 0.6
