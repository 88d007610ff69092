"""SD-AANet learns on a tiny backbone: extreme episodes, every backbone, what moves in a step and what must not."""

import pytest
import torch
from core_tools import random_episode
from method_tools import spoiled
from sdaanet_tools import tiny

from fsslib import build_model


def test_every_head_learns_and_a_trained_backbone_up_to_layer3():
    for freeze in (True, False):
        model = tiny(freeze=freeze).train()
        model.losses(random_episode(3, 1, 2))["total"].backward()
        for name, parameter in model.named_parameters():
            learns = not name.startswith("backbone.") or (not freeze and not name.startswith("backbone.layer4"))
            assert (parameter.grad is not None and bool(parameter.grad.any())) == learns, name


def test_a_void_query_teaches_nothing_but_the_support_head():
    losses = tiny().train().losses(spoiled("sdaanet", "void query"))
    assert losses["main"] == losses["aux"] == 0 and losses["saam"] > 0
    assert tiny().train().losses(spoiled("sdaanet", "void supports"))["saam"] == 0


def test_a_batch_of_one_leaves_the_statistics_of_single_values_alone():
    model = tiny().train()
    model.losses(random_episode(1, 1, 2))
    single, *others = (stage[2] for stage in model.saam.pyramid.stages)
    assert single.num_batches_tracked == 0 and (single.running_mean == 0).all() and (single.running_var == 1).all()
    assert all(norm.num_batches_tracked == 3 and norm.running_mean.any() for norm in others)
    model.losses(random_episode(2, 1, 2))
    assert single.num_batches_tracked == 3, "two images do have a variance"


def test_explaining_a_training_forward_moves_no_other_statistics():
    episode, states = random_episode(2, 1, 2), []
    for explain in (False, True):
        model = tiny(bn="batch").train()
        model.explain = explain
        model(episode)
        states.append(model.state_dict())
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def test_channels_are_dropped_where_the_paper_drops_them():
    model = build_model("sdaanet", backbone="tiny", width=8, scales=(4, 2))
    dropped = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout2d)}
    heads = ["saam.bottleneck.3", "enrichment.inner.0.2", "enrichment.inner.1.2", "enrichment.classifier.2"]
    assert dropped == {"down_query.2": 0.5, "down_supp.2": 0.5} | dict.fromkeys(heads, 0.1)
    torch.manual_seed(0)
    reduction = build_model("sdaanet", backbone="tiny", width=1000, scales=(4, 2), saam=False, dropout=0.3).down_query
    found = reduction.train()(torch.rand(1, 96, 3, 3)), reduction.eval()(torch.rand(1, 96, 3, 3))
    silent = [float((features.amax((0, 2, 3)) == 0).float().mean()) for features in found]
    assert silent[0] - silent[1] == pytest.approx(0.3 * (1 - silent[1]), abs=0.06)
