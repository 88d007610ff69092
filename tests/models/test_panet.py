"""PANet: alignment, the order of ways, and the promises of its options."""

from dataclasses import replace

import torch
from core_tools import panet, random_episode

from fsslib import build_model
from fsslib.losses import alignment


@torch.no_grad()
def test_the_alignment_of_a_batch_is_the_mean_of_its_episodes():
    model, episode = panet().train(), random_episode(3, 2, 2)
    single = torch.stack([model.losses(episode.select([i]))["align"] for i in range(3)])
    torch.testing.assert_close(model.losses(episode)["align"], single.mean(), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_order_of_ways_only_reorders_channels():
    model, episode = panet(), random_episode(2, 2, 2)
    turned = replace(
        episode, support_images=episode.support_images.flip(1), support_masks=episode.support_masks.flip(1)
    )
    torch.testing.assert_close(model(turned).logits, model(episode).logits[:, [0, 2, 1]], rtol=1e-4, atol=1e-4)


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
    assert all(p.grad is None for p in model.backbone.parameters()) and model.project.weight.grad.abs().sum() > 0
    gram = model.project.weight.flatten(1) @ model.project.weight.flatten(1).T
    torch.testing.assert_close(gram, torch.eye(8), rtol=0, atol=1e-5)


def test_batch_statistics_in_the_published_order(monkeypatch):
    model, episode, calls = panet(bn="batch").train(), random_episode(2, 2, 2), []
    original = model.backbone.forward
    monkeypatch.setattr(model.backbone, "forward", lambda x, s: (calls.append(x), original(x, s))[1])
    before = model.backbone.layer0[1].running_mean.clone()
    model(episode)
    expected = [episode.query_images, *(episode.support_images[:, w, k] for w in range(2) for k in range(2))]
    assert len(calls) == 5 and all(torch.equal(a, b) for a, b in zip(calls, expected))
    assert model.backbone.layer0[1].num_batches_tracked == 5
    assert not torch.equal(model.backbone.layer0[1].running_mean, before)
    calls.clear()
    model.eval()(episode)
    assert [len(x) for x in calls] == [10], "running statistics need one call"


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
