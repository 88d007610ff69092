"""HDMNet learns on a tiny backbone: extreme episodes, what moves in a step and what must not; options refused."""

from dataclasses import replace

import pytest
import torch
from core_tools import random_episode, shapes
from hdmnet_tools import LOSSES, tiny

from fsslib import EpisodeSampler, Protocol, build_model
from fsslib.errors import ModelError
from fsslib.models.hdmnet import HDMNet
from fsslib.training import Schedule, _optimiser, train_episodes


def legal(*shape, seed: int = 0):
    """As `random_episode` with all that the losses ask for; of several ways, no class index."""
    episode = random_episode(*shape, seed=seed, extras=True)
    return replace(episode, class_index=None) if episode.way > 1 else episode


def spoiled(what: str):
    """An episode with one thing missing."""
    episode = legal(2, 1, 2)
    support, query, base = (x.clone() for x in (episode.support_masks, episode.query_masks, episode.base_masks))
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
    elif what == "a void base annotation":
        base[:] = 255
    return replace(episode, support_masks=support, query_masks=query, base_masks=base)


SPOILED = ("an empty support mask", "no support at all", "only void supports", "full supports")
SPOILED += ("no object in the query", "a void query", "a void base annotation")
SHOTS = {"shots": 2}
EIGHT = {"backbone_options": {"stride": 8}}
RUNS = {what: (SHOTS, spoiled(what)) for what in SPOILED}
RUNS |= {f"{shots} shots": ({"shots": shots}, legal(2, 1, shots)) for shots in (1, 5, 7)}
RUNS |= {f"{size} pixels": ({}, legal(2, 1, 1, size, size)) for size in (13, 40, 97, 121)}
RUNS |= {
    "97 x 129": ({}, legal(2, 1, 1, 97, 129)),
    "a batch of one": ({}, legal(1, 1, 1)),
    "three ways": ({}, legal(2, 3, 1)),
    "no layer4": ({"last": "layer3"}, legal()),
    "stride 8": (EIGHT, legal()),
    "stride 8, 97 pixels": (EIGHT, legal(1, 1, 1, 97, 97)),
    "stride 8, no layer4": (EIGHT | {"last": "layer3"}, legal()),
    "batch statistics": ({"bn": "batch"} | SHOTS, legal(2, 1, 2)),
    "a trained backbone": ({"freeze": False, "bn": "batch"}, legal()),
    "one stage": ({"stages": 1}, legal()),
    "one stage without truth": ({"stages": 1, "distil_truth": False}, legal()),
    "no self-attention, 9 pixels": ({"self_attention": False}, legal(2, 1, 1, 9, 9)),
    "no ensemble": ({"ensemble": False} | SHOTS, legal(2, 1, 2)),
    "usual softmax": ({"match_softmax": "support"} | SHOTS, spoiled("an empty support mask")),
    "usual softmax without support": ({"match_softmax": "support"} | SHOTS, spoiled("no support at all")),
    "features masked": ({"mask_support": "features"} | SHOTS, legal(2, 1, 2)),
    "matched weights": ({"shot_weights": "matched"} | SHOTS, legal(2, 1, 2)),
    "linear weights": ({"shot_hidden": 0, "shot_weights": "matched"} | SHOTS, legal(2, 1, 2)),
    "resnet18": ({"backbone": "resnet18"}, legal()),
    "vgg16_bn": ({"backbone": "vgg16_bn"}, legal(2, 1, 1, 49, 49)),
    "vgg16": ({"backbone": "vgg16"}, legal(2, 1, 1, 33, 33)),
    "dropout": ({"dropout": 0.5, "attention_dropout": 0.1}, legal()),
}


@pytest.mark.parametrize("run", RUNS)
def test_training_stays_finite_and_moves_only_what_it_should(run):
    options, episode = RUNS[run]
    model = tiny(**options).train()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3, momentum=0.9)
    for _ in range(2):
        losses = model.losses(episode)
        assert set(losses) == set(LOSSES) and all(v.ndim == 0 and torch.isfinite(v) for v in losses.values())
        optimiser.zero_grad()
        losses["total"].backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        optimiser.step()
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert any(n.startswith("transformer.") for n in moved) or run == "a void query"
    own = {n for n, p in model.named_parameters() if p.requires_grad}
    own |= {n for n, _ in model.named_buffers() if n.startswith("backbone.") and model.batch_statistics}
    assert moved <= own and not any(n.startswith("base_head.") for n in moved)
    assert any(n.startswith("backbone.") for n in moved) == (not model.freeze or model.backbone.bn == "batch")
    with torch.no_grad():
        logits = model.eval()(replace(episode, query_masks=None, base_masks=None, class_index=None)).logits
    assert logits.shape == (episode.batch, 1 + episode.way, *episode.query_images.shape[-2:])
    assert torch.isfinite(logits).all() and logits.dtype == torch.float32


@pytest.mark.parametrize("freeze", [True, False])
def test_everything_learns_except_the_base_learner(freeze):
    model = tiny(freeze=freeze, shots=2, shot_hidden=8).train()
    with torch.no_grad():
        model.ensemble.scene.weight[0, 1] = 0.5  # it starts at 0, and no gradient reaches the weights of the shots
    losses = model.losses(legal(3, 1, 2))
    losses["total"].backward()
    for name, parameter in model.named_parameters():
        learns = not name.startswith("base_head.") and not (freeze and name.startswith("backbone."))
        assert (parameter.grad is not None and bool(parameter.grad.any())) == learns, name
    assert losses["base"].requires_grad == (not freeze)


def test_bfloat16_autocast():
    model, episode = tiny(shots=2), legal(2, 2, 2)
    exact = model(episode).logits
    with torch.autocast("cpu", torch.bfloat16):
        found, losses = model(episode).logits, model.train().losses(episode)
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.05)
    assert found.dtype == torch.float32 and all(loss.dtype == torch.float32 for loss in losses.values())
    losses["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_void_query_teaches_the_correlation_alone():
    losses = tiny(shots=2).train().losses(spoiled("a void query"))
    assert losses["main"] == 0 and losses["distill"] > 0 and losses["base"] > 0
    assert tiny(shots=2).losses(spoiled("a void base annotation"))["base"] == 0
    empty = tiny(shots=2).losses(spoiled("no support at all"))["distill"]
    full = tiny(shots=2, distil_truth=False).losses(spoiled("no support at all"))["distill"]
    assert empty >= 0 and abs(full) < 1e-6, "correlation maps of nothing agree"


def test_each_loss_trains_what_it_should():
    model = tiny(shots=2).train()
    losses = model.losses(legal(2, 1, 2))
    heads = {"ensemble": model.ensemble.scene.weight, "decoder": model.transformer.classifier[0].weight}
    heads |= {"pyramid": model.transformer.stages[0].embed.weight, "reduction": model.down_supp[0].weight}
    value = model.transformer.match[0].attention.value.weight
    for term, reached in (("main", set(heads)), ("distill", {"pyramid", "reduction"})):
        grads = torch.autograd.grad(losses[term], [*heads.values(), value], retain_graph=True, allow_unused=True)
        assert {n for n, grad in zip(heads, grads) if grad is not None and grad.any()} == reached
        assert (grads[-1] is not None) == (term == "main"), "values have no part in the maps of correlation"


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


def test_the_published_stem_and_its_weights():
    with torch.device("meta"):
        assert build_model("hdmnet", backbone="resnet18", width=32).backbone.stem == HDMNet.stem == "deep"
        assert build_model("hdmnet", backbone="resnet18", width=32, stem="classic").backbone.stem == "classic"
    with pytest.raises(ModelError, match=r"weights='imagenet': .*deep stem.*stem='classic'"):
        build_model("hdmnet", backbone="resnet18", width=32, weights="imagenet")


def test_where_the_paper_drops_something():
    with torch.device("meta"):
        model = build_model("hdmnet", backbone="tiny", width=32)
    channels = {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout2d)}
    assert channels == {"down_query.2": 0.5, "down_supp.2": 0.5, "base_head.classifier.1": 0.1}
    values = {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert set(values.values()) == {0.1} and len(values) == 3 * (3 + 3 + 3)
    assert {n.split(".")[0] for n in values} == {"transformer"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match_softmax": "keys"}, "match_softmax="),
        ({"mask_support": "feature"}, r"mask_support=.*Did you mean 'features'"),
        ({"shot_weights": "sorted"}, "shot_weights="),
        ({"width": 40}, "width=40.*multiple of 32"),
        ({"width": 0}, "width=0"),
        ({"width": 64.0}, r"width=64\.0"),
        ({"stages": 4}, "stages=4.*1 to 3 stages"),
        ({"stages": 0}, "stages=0"),
        ({"base_classes": 0}, "base_classes=0"),
        ({"base_classes": True}, "base_classes=True"),
        ({"match_temperature": 0}, "match_temperature=0: expected a number above 0"),
        ({"match_temperature": -1.0}, "match_temperature=-1"),
        ({"distil_weight": float("nan")}, "distil_weight=nan"),
        ({"base_weight": "1"}, "base_weight='1'"),
        ({"transformer_lr": -0.1}, "transformer_lr=-0.1"),
        ({"shot_hidden": -2}, "shot_hidden=-2"),
        ({"dropout": 1.5}, r"hdmnet: dropout=1\.5"),
        ({"attention_dropout": True}, "attention_dropout=True"),
        ({"ensemble": "no"}, "ensemble='no': expected True or False"),
        ({"self_attention": 1}, "self_attention=1: expected True or False"),
        ({"distil_truth": None}, "distil_truth=None"),
        ({"freeze": "no"}, "freeze='no'"),
        ({"shots": 0}, "shots=0"),
        ({"last": "layer2"}, "needs layer2 and layer3; tiny ends at layer2"),
        ({"stage": 2}, "no option 'stage': did you mean 'stages'"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ModelError, match=message):
        tiny(**options)
