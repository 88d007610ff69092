"""The base learner of HDMNet: loading the authors', training it, keeping it; and the ensemble that asks it."""

import itertools
import json
import warnings

import pytest
import torch
from core_tools import random_episode, shapes
from golden_tools import assert_loads_strictly, recipe_weights
from hdmnet_tools import everything, tiny
from torch import nn

from fsslib import build_model, load_official
from fsslib.data.base import base_table
from fsslib.errors import TrainingError
from fsslib.experiments import check_parameters, recipe
from fsslib.losses import segmentation
from fsslib.models.base_learner import BaseLearner
from fsslib.models.hdmnet import Ensemble
from fsslib.nn.backbones.cached import CachedBackbone
from fsslib.nn.context import PSPHead
from fsslib.ops import resize
from fsslib.pretraining import labelled_batch, pretrain
from fsslib.training import Schedule


def copied(module: nn.Module) -> dict:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@torch.no_grad()
def test_the_authors_pspnet_loads_into_the_method(shared):
    """Their file holds the backbone twice, once as `encoder`, and comes from several GPUs."""
    table = json.loads((shared / "specs/hdmnet_state.json").read_text())["base_learner_pspnet_resnet50_pascal"]
    model = build_model("hdmnet", backbone="resnet50").eval()
    learner, image = model.base_learner, torch.randn(1, 3, 41, 41)
    own = {learner.official_name(name) for name in learner.state_dict()}
    aliases = {name for name, *_ in table if name.startswith("encoder.")}
    assert own == {name for name, *_ in table} - aliases and len(aliases) > 300
    state = recipe_weights([row for row in table if row[0] not in aliases], [[".bn3.weight", 0.25]])
    theirs = state | {name: torch.full(shape, 9.0) for name, shape, _ in table if name in aliases}
    before, heads = learner(image), copied(model.transformer)
    load_official(learner, {"state_dict": {f"module.{name}": value for name, value in theirs.items()}})
    assert torch.equal(model.backbone.layer0[0].weight, state["layer0.0.weight"])
    assert torch.equal(model.base_head.classifier[2].bias, state["cls.4.bias"])
    assert torch.equal(model.base_head.pooling.stages[3][2].running_var, state["ppm.features.3.2.running_var"])
    assert (learner(image) - before).abs().max() > 1e-2 and not changed(model.transformer, heads)
    lost, more = ("cls.4.weight", r"head\.classifier\.2\.weight"), ("decoder.weight", r"decoder\.weight")
    assert_loads_strictly(learner, state, lost, more, ("cls.4.weight", torch.zeros(61, 512, 1, 1)))


@torch.no_grad()
def test_it_shares_its_parts_with_the_method():
    model = tiny()
    learner, episode = model.base_learner, random_episode(extras=True)
    assert isinstance(learner, BaseLearner) and learner.classes == 15
    found = everything(model, episode)["base"]
    torch.testing.assert_close(learner.eval()(episode.query_images).softmax(1), found)
    next(p for name, p in learner.named_parameters() if name == "head.classifier.2.bias").add_(torch.arange(16.0))
    assert (everything(model, episode)["base"] - found).abs().max() > 0.1


def test_its_loss_is_the_cross_entropy_of_the_whole_image():
    learner = tiny().base_learner.eval()
    batch = labelled_batch(shapes(), 33, 0, 0, 2)
    expected = segmentation(resize(learner(batch.images), (33, 33)), batch.masks)
    losses = learner.losses(batch)
    assert losses.keys() == {"total"} and set(batch.masks.unique().tolist()) <= {*range(16), 255}
    torch.testing.assert_close(losses["total"], expected)


def test_training_it_moves_the_method_and_nothing_but_its_base_learner():
    data = shapes()
    model = tiny(base_classes=len(data.base_classes))
    model.base_learner.requires_grad_(True)
    before, trained = copied(model), len(data.base_classes)
    history = pretrain(
        *(model.backbone, data, Schedule(30, batch=8, lr=3e-3, warmup=3)),
        **{"size": 33, "learner": model.base_learner, "progress": False},
    )
    losses = [row["total"] for row in history.rows]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5]), losses
    moved = changed(model, before)
    learned = {name for name in before if name.startswith(("backbone.", "base_head."))}
    assert moved == learned and trained == 15
    assert model.base_head.level5[1].num_batches_tracked == 30 and model.backbone.bn == "frozen"
    model.train()
    outside = [m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(outside) > 15 and not any(norm.training for norm in outside)
    assert model.transformer.training and model.base_head.classifier[1].training


def test_another_number_of_classes_is_said():
    model = tiny(base_classes=12)
    model.base_learner.requires_grad_(True)
    with pytest.raises(TrainingError, match=r"has 12 classes.*has 15 base classes: .*base_classes=15"):
        pretrain(model.backbone, shapes(), Schedule(1), size=33, learner=model.base_learner)


def test_all_of_it_trains_and_is_as_frozen_as_before_afterwards():
    """A frozen backbone: the test of the recipe."""
    model = tiny(freeze=False)
    before = copied(model)
    pretrain(model.backbone, shapes(), Schedule(2), size=33, learner=model.base_learner, progress=False)
    moved = {name.split(".")[0] for name in changed(model, before)}
    assert moved == {"base_head", "backbone"}
    assert not any(weight.requires_grad for weight in model.base_head.parameters())
    assert all(weight.requires_grad for weight in model.backbone.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_recipe_trains_it_first_and_keeps_it_to_the_bit(frozen):
    """With a backbone that is not to change (a pre-trained one) only the head learns, on cached features."""
    small = {"checkpoint": None, "size": 33, "batch": 2, "episodes": 4, "shots": [1], "accelerator": "cpu", "width": 32}
    small |= {"method": "hdmnet", "pretrain_steps": 2, "episodic_steps": 2, "freeze_backbone": frozen or None}
    p = check_parameters(small)
    data, _ = recipe.datasets(p)
    net = recipe.model(p)
    assert isinstance(net.backbone, CachedBackbone) == frozen and net.freeze
    states = [copied(net)]
    for stage in ("pretrain", "episodic"):
        (history,) = recipe.train(p, net, data, stage=stage).values()
        assert len(history.rows) == 2
        states.append(copied(net))
        assert not any(w.requires_grad for w in net.base_learner.parameters())
        assert any(w.requires_grad for w in net.transformer.parameters())
    first, then = ({n for n in a if not torch.equal(a[n], b[n])} for a, b in itertools.pairwise(states))
    parts = ("base_head.",) if frozen else ("base_head.", "backbone.")
    assert first == {name for name in states[0] if name.startswith(parts)}
    assert then and not any(name.startswith(("base_head.", "backbone.")) for name in then)
    assert {"main", "distill", "base", "total"} <= history.rows[0].keys()
    assert recipe.score(p, net, recipe.datasets(p)[1]).scores[1].miou >= 0


@torch.no_grad()
def test_the_context_of_the_head_comes_before_its_relu():
    head, features = PSPHead(8, 16, 5).eval(), torch.randn(2, 8, 5, 6)
    context = head.features(features)
    assert context.shape == (2, 16, 5, 6) and context.amin() < 0, "before the ReLU"
    assert torch.equal(head(features), head.classifier(context))
    assert torch.equal(head.features(features), context), "the classifier changes nothing in place"


@pytest.mark.parametrize("hidden", [0, 2, 3])
def test_the_weights_of_the_shots_published_and_matched(hidden):
    distances = torch.tensor([[0.3, 0.1, 0.2], [0.5, 0.6, 0.4]])
    published, matched = Ensemble(3, hidden), Ensemble(3, hidden, matched=True)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.normal_()
    matched.load_state_dict(published.state_dict())
    for b, row in enumerate(distances):
        rank = row.argsort()
        weights = published.reweight(row[rank].view(1, 3, 1, 1)).flatten().softmax(0)
        in_order = torch.stack([weights[i] * row[rank[i]] for i in range(3)]).sum()
        torch.testing.assert_close(matched.distance(distances)[b], in_order)
        torch.testing.assert_close(published.distance(distances)[b], (weights * row).sum())
    with pytest.warns(UserWarning, match="2 shots, but the weights .* were made for 3"):
        torch.testing.assert_close(published.distance(distances[:, :2]), distances[:, :2].mean(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(published.distance(distances[:, :1]), distances[:, 0])


def test_an_untrained_ensemble_changes_nothing():
    meta, base, distance = torch.rand(2, 2, 3, 4).softmax(1), torch.rand(2, 1, 3, 4), torch.rand(2)
    ensemble = Ensemble()
    assert torch.equal(ensemble(meta, base, distance)[0], meta)
    with torch.no_grad():
        ensemble.scene.weight.copy_(torch.tensor([2.0, 3.0]).view(1, 2, 1, 1))
        ensemble.background.weight.copy_(torch.tensor([5.0, 7.0]).view(1, 2, 1, 1))
    merged, maps = ensemble(meta, base, distance)
    scene = 2 * meta + 3 * distance.view(2, 1, 1, 1)
    torch.testing.assert_close(merged, torch.cat([5 * scene[:, :1] + 7 * base, scene[:, 1:]], 1))
    assert maps.keys() == {"scene/background", "scene/object", "merged/background"}


def test_more_base_classes_than_labels_hold():
    """The 255th class is not the label for ignored pixels."""
    table = base_table([c for c in range(1, 300) if c != 255])
    assert (table == 255).sum() == 1 and table[255] == 255
    assert table[254] == 254 and table[256] == 256 and len(set(table.tolist())) == 300
