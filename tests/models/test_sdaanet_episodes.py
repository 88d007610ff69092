"""SD-AANet on a tiny backbone: several ways and shots, maps, precision, layouts, files and caches."""

from dataclasses import replace

import pytest
import torch
from core_tools import random_episode
from sdaanet_tools import LOSSES, RELATIVE, everything, tiny

from fsslib import build_model
from fsslib.checkpoints import load_model, save_model
from fsslib.errors import EpisodeError
from fsslib.models.sdaanet import SDAANet
from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.cached import CachedBackbone


def test_predicting_needs_no_labels_and_losses_do():
    model, episode = tiny(), random_episode(2, 1, 2)
    blind = replace(episode, query_masks=None)
    assert torch.equal(model(blind).logits, model(episode).logits)
    with pytest.raises(EpisodeError, match=r"query_masks.*None"):
        model.losses(blind)
    with pytest.raises(EpisodeError, match="support_masks"):
        model(replace(episode, support_masks=episode.support_masks[..., :-1]))


def one_way(episode, way):
    """Way `way` of an episode as an episode of its own; the other ways are background."""
    labels = torch.where(episode.query_masks == 255, 255, (episode.query_masks == way + 1).long())
    images, masks = episode.support_images[:, way : way + 1], episode.support_masks[:, way : way + 1]
    parts = {"query_masks": labels, "support_images": images, "support_masks": masks}
    return replace(episode, classes=episode.classes[:, way : way + 1], **parts)


def test_several_ways_are_several_episodes():
    model, episode = tiny(), random_episode(2, 3, 2)
    whole, parts = everything(model, episode), [everything(model, one_way(episode, w)) for w in range(3)]
    assert not whole["logits"][:, 0].any()
    for name, value in whole.items():
        if name == "logits":
            expected = torch.stack([part["logits"][:, 1] - part["logits"][:, 0] for part in parts], 1)
            value = value[:, 1:]
        elif name in LOSSES:
            expected = torch.stack([part[name] for part in parts]).mean()
        else:
            expected = torch.stack([part[name] for part in parts], 1)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    assert model(episode).logits.shape == (2, 4, 33, 33)


@pytest.mark.parametrize("options", [{}, {"attention": "each_support", "teachers": "integral"}])
def test_the_order_of_the_shots_and_the_batch_do_not_matter(options):
    model, episode = tiny(**options), random_episode(3, 1, 3)
    turned = replace(
        episode, support_images=episode.support_images.flip(2), support_masks=episode.support_masks.flip(2)
    )
    whole, other = everything(model, episode), everything(model, turned)
    for name in ("logits", "prior", "attention", "prototypes", "query_factor", *LOSSES):
        torch.testing.assert_close(whole[name], other[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole["prior_shots"], other["prior_shots"].flip(1), rtol=1e-4, atol=1e-5)
    singles = [everything(model, episode.select([i])) for i in range(3)]
    for name in whole.keys() - set(LOSSES):
        torch.testing.assert_close(whole[name], torch.cat([s[name] for s in singles]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole["kd"], torch.stack([s["kd"] for s in singles]).mean(), rtol=2e-3, atol=0)


def test_the_same_support_twice_is_one_support_but_for_the_factor():
    """One gate twice multiplies twice, which is the published code's choice; with mean or average it does not."""
    episode = random_episode(2, 1, 1)
    twice = replace(
        episode,
        support_images=episode.support_images.repeat(1, 1, 2, 1, 1, 1),
        support_masks=episode.support_masks.repeat(1, 1, 2, 1, 1),
    )
    for factor in ("mean", "average"):
        found, expected = (everything(tiny(query_factor=factor), e) for e in (twice, episode))
        for name in ("logits", "prior", "attention", *LOSSES):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    one, average = (everything(tiny(query_factor=f), episode)["query_factor"] for f in ("product", "average"))
    torch.testing.assert_close(average, one)
    found, expected = (everything(tiny(), e)["query_factor"] for e in (twice, episode))
    assert (found < expected).all()


def test_maps_only_on_request_and_detached():
    model, episode = tiny(), random_episode(2, 1, 3)
    assert model(episode).maps == {} and model(random_episode(2, 2, 1)).maps == {}
    model.explain = True
    maps = model(episode).maps
    assert not any(value.requires_grad for value in maps.values())
    features = {"query_features": (2, 8, 9, 9), "support_features": (2, 3, 8, 9, 9), "query_reweighted": (2, 8, 9, 9)}
    prototypes = dict.fromkeys(("pooled", "gate", "students", "teacher"), (2, 3, 8))
    prototypes |= dict.fromkeys(("prototypes", "query_prototype", "query_factor"), (2, 8))
    guides = {"prior_shots": (2, 3, 9, 9), "prior": (2, 1, 9, 9), "attention": (2, 1, 9, 9)}
    guides |= {"support_attention": (2, 3, 2, 9, 9)} | {f"inner/{i}": (2, 2, s, s) for i, s in enumerate((6, 4, 3, 2))}
    assert {name: tuple(value.shape) for name, value in maps.items()} == features | prototypes | guides
    assert maps["prior"].amin() >= 0 and maps["prior"].amax() <= 1
    blind = model(replace(episode, query_masks=None)).maps
    assert maps.keys() - blind.keys() == {"teacher", "query_prototype"}
    assert model(random_episode(2, 2, 3)).maps["prior"].shape == (2, 2, 1, 9, 9)


def test_bfloat16_autocast():
    model, episode = tiny(), random_episode(2, 2, 2)
    exact = model(episode).logits
    with torch.autocast("cpu", torch.bfloat16):
        found, losses = model(episode).logits, model.train().losses(episode)
    assert found.dtype == torch.float32 and all(loss.dtype == torch.float32 for loss in losses.values())
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05 * float(exact.detach().abs().max()))
    losses["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_channels_last():
    model, episode = tiny(), random_episode(2, 1, 2)
    expected = everything(model, episode)
    found = everything(model.to(memory_format=torch.channels_last), episode)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    model.train().losses(episode)["total"].backward()
    assert model.sdpm.gate[0].weight.grad.any()


def test_saving_and_loading(tmp_path):
    model, episode = tiny(teacher="distributions", scales=RELATIVE, backbone_options={"stride": 8}), random_episode()
    with torch.no_grad():
        for norm in (stage[2] for stage in model.saam.pyramid.stages):
            norm.running_mean += 1
        loaded = load_model(save_model(model, tmp_path / "model.safetensors"))
        assert torch.equal(loaded(episode).logits, model(episode).logits)
        assert torch.equal(loaded.losses(episode)["total"], model.losses(episode)["total"])
    assert isinstance(loaded, SDAANet) and loaded.config == model.config | {"scales": list(RELATIVE)}


@pytest.mark.parametrize(("masking", "asked"), [("after", 6), ("twice", 12)])
@torch.no_grad()
def test_cached_features_give_the_same_logits(masking, asked):
    """The second time the cache answers everything: images, and with the mask before layer4 its inputs, too."""
    model, episode = tiny(prior_masking=masking), random_episode(2, 1, 2)
    expected = model(episode).logits
    model.backbone = CachedBackbone(model.backbone, dtype=torch.float32)
    runs = []
    torch.testing.assert_close(model(episode).logits, expected, rtol=1e-5, atol=1e-6)
    model.backbone.layer4.register_forward_hook(lambda *_: runs.append(1))
    torch.testing.assert_close(model(episode).logits, expected, rtol=1e-5, atol=1e-6)
    assert model.backbone.misses == model.backbone.hits == asked and not runs


@torch.no_grad()
def test_the_size_of_published_evaluations():
    torch.manual_seed(0)
    backbone = build_backbone("tiny", stride=8, width=4)
    model = build_model("sdaanet", backbone=backbone, width=8).eval()
    logits = model(random_episode(1, 1, 1, 473, 473)).logits
    assert logits.shape == (1, 2, 473, 473) and torch.isfinite(logits).all()


def test_inference_mode_leaves_nothing_that_breaks_training():
    model, episode = tiny(), random_episode(height=37, width=35)
    with torch.inference_mode():
        model(episode)
    model.train().losses(episode)["total"].backward()
    assert model.down_query[0].weight.grad is not None
