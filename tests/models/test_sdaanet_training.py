"""SD-AANet learns on a tiny backbone: extreme episodes, every backbone, what moves in a step and what must not."""

from dataclasses import replace

import pytest
import torch
from core_tools import random_episode
from sdaanet_tools import LOSSES, RELATIVE, tiny

from fsslib import build_model


def spoiled(what: str):
    """An episode with one thing missing."""
    episode = random_episode(2, 1, 2)
    support, query = episode.support_masks.clone(), episode.query_masks.clone()
    if what == "an empty support mask":
        support[:, :, 0] = 0
    elif what == "no support at all":
        support[:] = 0
    elif what == "only void supports":
        support[:] = 255
    elif what == "full supports":
        support[:] = 1
    elif what == "no object in the query":
        query[query == 1] = 0
    elif what == "a void query":
        query[:] = 255
    return replace(episode, support_masks=support, query_masks=query)


SPOILED = ("an empty support mask", "no support at all", "only void supports", "full supports")
SPOILED += ("no object in the query", "a void query")
RUNS = {what: ({}, spoiled(what)) for what in SPOILED}
RUNS |= {f"{shots} shots": ({}, random_episode(2, 1, shots)) for shots in (1, 7)}
RUNS |= {f"{size} pixels": ({}, random_episode(2, 1, 1, size, size)) for size in (9, 40, 97, 121)}
RUNS |= {
    "97 x 129": ({"scales": RELATIVE}, random_episode(2, 1, 1, 97, 129)),
    "a batch of one": ({}, random_episode(1, 1, 1)),
    "a batch of one, relative": ({"scales": RELATIVE}, random_episode(1, 1, 2)),
    "three ways": ({}, random_episode(2, 3, 1)),
    "no layer4": ({"last": "layer3"}, random_episode()),
    "no layer4, masked after": ({"last": "layer3", "prior_masking": "after"}, random_episode()),
    "masked after": ({"prior_masking": "after"}, random_episode()),
    "stride 8": ({"backbone_options": {"stride": 8}}, random_episode()),
    "stride 8, no layer4": ({"backbone_options": {"stride": 8}, "last": "layer3"}, random_episode()),
    "batch statistics": ({"bn": "batch"}, random_episode(2, 1, 2)),
    "batch statistics, masked after": ({"bn": "batch", "prior_masking": "after"}, random_episode(2, 1, 2)),
    "batch statistics, no layer4": ({"bn": "batch", "last": "layer3"}, random_episode(2, 2, 1)),
    "a trained backbone": ({"freeze": False}, random_episode()),
    "resnet18": ({"backbone": "resnet18", "last": "layer3"}, random_episode()),
    "vgg16_bn": ({"backbone": "vgg16_bn"}, random_episode()),
    "vgg16": ({"backbone": "vgg16"}, random_episode()),
    "dropout": ({"dropout": 0.5}, random_episode()),
    "paper": (
        {"teacher": "distributions", "teacher_query": "reweighted", "detach_teacher": True, "query_factor": "mean"}
        | {"attention": "each_support", "temperature": 1.0, "kd_factor": 1.0, "kd_mean": "prototypes"},
        random_episode(2, 1, 3),
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_training_stays_finite_and_moves_only_what_it_should(run):
    options, episode = RUNS[run]
    model = tiny(**options).train()
    frozen = {n: p.clone() for n, p in model.backbone.named_parameters() if model.freeze}
    heads = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    learner = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3, momentum=0.9)
    for _ in range(2):
        losses = model.losses(episode)
        assert set(losses) == set(LOSSES) and all(v.ndim == 0 and torch.isfinite(v) for v in losses.values())
        learner.zero_grad()
        losses["total"].backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        learner.step()
    assert all(p.grad is None for p in model.backbone.parameters() if model.freeze)
    assert all(torch.equal(p, frozen[n]) for n, p in model.backbone.named_parameters() if model.freeze)
    own = dict(model.named_parameters())
    assert any(not torch.equal(own[n], p) for n, p in heads.items())
    with torch.no_grad():
        logits = model.eval()(replace(episode, query_masks=None)).logits
    assert logits.shape == (episode.batch, 1 + episode.way, *episode.query_images.shape[-2:])
    assert torch.isfinite(logits).all() and logits.dtype == torch.float32


def test_every_head_learns_and_a_trained_backbone_up_to_layer3():
    for freeze in (True, False):
        model = tiny(freeze=freeze).train()
        model.losses(random_episode(3, 1, 2))["total"].backward()
        for name, parameter in model.named_parameters():
            learns = not name.startswith("backbone.") or (not freeze and not name.startswith("backbone.layer4"))
            assert (parameter.grad is not None and bool(parameter.grad.any())) == learns, name


def test_a_void_query_teaches_nothing_but_the_support_head():
    losses = tiny().train().losses(spoiled("a void query"))
    assert losses["main"] == losses["aux"] == 0 and losses["saam"] > 0
    assert tiny().train().losses(spoiled("only void supports"))["saam"] == 0


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


def test_batch_statistics_in_the_published_order():
    model, episode = tiny(bn="batch").train(), random_episode(2, 2, 2)
    sizes, first = [], []
    model.backbone.layer0.register_forward_pre_hook(lambda _, inputs: first.append(inputs[0]))
    model.backbone.layer4.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    model.losses(episode)
    supports = [episode.support_images[:, w, k] for w in range(2) for k in range(2)]
    assert len(first) == 5 and all(torch.equal(a, b) for a, b in zip(first, [episode.query_images, *supports]))
    assert sizes == [2] * 5
    first.clear(), sizes.clear()
    model.eval().losses(episode)
    assert [len(x) for x in first] == [10] and sizes == [10]


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
