"""HDMNet learns on a tiny backbone: extreme episodes, what moves in a step and what must not; options refused."""

import pytest
import torch
from core_tools import shapes
from hdmnet_tools import LOSSES, tiny
from method_tools import legal, spoiled

from fsslib import EpisodeSampler, Protocol, build_model
from fsslib.training import Schedule, _optimiser, train_episodes


@pytest.mark.parametrize("freeze", [True, False])
def test_everything_learns_except_the_base_learner(freeze):
    model = tiny(freeze=freeze, shots=2, shot_hidden=8).train()
    with torch.no_grad():
        model.ensemble.scene.weight[0, 1] = 0.5  # it starts at 0, and no gradient reaches the weights of the shots
    losses = model.losses(legal("hdmnet", 3, 1, 2))
    losses["total"].backward()
    for name, parameter in model.named_parameters():
        learns = not name.startswith("base_head.") and not (freeze and name.startswith("backbone."))
        assert (parameter.grad is not None and bool(parameter.grad.any())) == learns, name
    assert losses["base"].requires_grad == (not freeze)


def test_a_void_query_teaches_the_correlation_alone():
    losses = tiny(shots=2).train().losses(spoiled("hdmnet", "void query"))
    assert losses["main"] == 0 and losses["distill"] > 0 and losses["base"] > 0
    assert tiny(shots=2).losses(spoiled("hdmnet", "void base annotation"))["base"] == 0
    empty = tiny(shots=2).losses(spoiled("hdmnet", "empty supports"))["distill"]
    full = tiny(shots=2, distil_truth=False).losses(spoiled("hdmnet", "empty supports"))["distill"]
    assert empty >= 0 and abs(full) < 1e-6, "correlation maps of nothing agree"


@pytest.mark.parametrize("weights", ["published", "matched"])
def test_learning_rates_as_published(weights):
    """The transformer at a tenth; the published weights of the shots are in no group and keep their random values."""
    model = tiny(shots=2, shot_weights=weights, transformer_lr=0.1)
    groups = _optimiser(model, Schedule(1)).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    found = {names[id(p)]: group["factor"] for group in groups for p in group["params"]}
    assert set(found) == {n for n, p in model.named_parameters() if p.requires_grad}
    for name, factor in found.items():
        still = name.startswith("ensemble.reweight") and weights == "published"
        assert factor == (0.0 if still else 0.1 if name.startswith("transformer.") else 1.0), name
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    sampler = EpisodeSampler(shapes(pool=60), Protocol(input_size=33), shot=2)
    history = train_episodes(model, sampler, Schedule(2, batch=2, lr=1e-2, warmup=0), progress=False)
    assert len(history.rows) == 2 and {*LOSSES} <= history.rows[0].keys()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith("ensemble.reweight") for n in moved) == (weights == "matched")
    assert {n.split(".")[0] for n in moved} >= {"transformer", "down_query", "down_supp", "query_merge", "ensemble"}


@pytest.mark.parametrize(("split", "way"), [("train", 1), ("train", 2), ("test", 1), ("test", 2)])
def test_the_sampler_knows_the_base_annotation(split, way):
    data = shapes(split)
    sampler = EpisodeSampler(data, Protocol(input_size=33, way=way))
    for spec in sampler.fixed(12).specs:
        episode, raw = sampler.build([spec]).validate(), data[spec.query][1].long()
        assert episode.query_images.shape[-2:] == raw.shape, "no resizing in between"
        expected = torch.zeros_like(raw)
        for position, c in enumerate(sorted(data.base_classes), 1):
            expected[raw == c] = position
        expected[raw == 255] = 255
        assert torch.equal(episode.base_masks[0], expected)
        if split == "train" and way == 1:
            index = data.base_classes.index(spec.classes[0])
            assert episode.class_index.tolist() == [index]
            assert torch.equal(episode.base_masks[0] == index + 1, episode.query_masks[0] == 1)
        else:
            assert episode.class_index is None
    if split == "train":
        assert torch.isfinite(tiny().losses(sampler.batch(0, 2))["total"])


def test_where_the_paper_drops_something():
    with torch.device("meta"):
        model = build_model("hdmnet", backbone="tiny", width=32)
    channels = {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout2d)}
    assert channels == {"down_query.2": 0.5, "down_supp.2": 0.5, "base_head.classifier.1": 0.1}
    values = {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert set(values.values()) == {0.1} and len(values) == 3 * (3 + 3 + 3)
    assert {n.split(".")[0] for n in values} == {"transformer"}
