"""ASGNet on small backbones: options, ways and shots, hard episodes, maps, precision, files and caches."""

import re
from dataclasses import replace

import pytest
import torch
from asgnet_tools import LOSSES, RELATIVE, everything, tiny
from core_tools import random_episode

from fsslib import build_model
from fsslib.checkpoints import load_model, save_model
from fsslib.errors import ModelError
from fsslib.models import asgnet
from fsslib.nn.backbones.cached import CachedBackbone

INNER = {f"inner/{i}" for i in range(4)}
DECODED = {"logits", "main", "aux", "total"} | INNER
ALLOCATED = {"similarity", "probability", "guide", "guide_features"} | DECODED
CLUSTERED = {"superpixels", "prototypes", "prototypes_used"} | ALLOCATED
# What changes; everything else must stay to the bit.
OPTIONS = {
    "aux_weight": ({"aux_weight": 0.0}, {"total"}),
    "adaptive": ({"adaptive": False}, {"seeds"} | CLUSTERED),
    "superpixel_area": ({"superpixel_area": 5.0}, {"seeds"} | CLUSTERED),
    "max_superpixels": ({"max_superpixels": 1}, {"seeds"} | CLUSTERED),
    "seeds": ({"seeds": "clean"}, {"seeds"} | CLUSTERED),
    "reach": ({"reach": 1.0}, CLUSTERED - {"prototypes_used"}),
    "iterations in evaluation": ({"iterations": (10, 1)}, CLUSTERED - {"prototypes_used"}),
    "iterations in training": ({"iterations": (1, 5)}, set()),
    "allocation": ({"allocation": "expand"}, {"guide_features"} | DECODED),
    "similarity": ({"similarity": "mean"}, {"probability"} | DECODED),
    "shot_merge": ({"shot_merge": "average"}, {"guide_features", "probability"} | DECODED),
    "fusion": ({"fusion": "once"}, DECODED),
    "scales": ({"scales": RELATIVE}, DECODED),
    "dropout": ({"dropout": 0.9}, set()),
    "freeze": ({"freeze": False}, set()),
    "bn": ({"bn": "batch"}, set()),
    "shots": ({"shots": 5}, set()),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_what_it_says_and_nothing_else(option):
    options, changes = OPTIONS[option]
    episode = random_episode(2, 1, 2)
    before, after = (everything(tiny(**own), episode) for own in ({}, options))
    assert before.keys() == after.keys() == {"query_features", "seeds", "aux"} | CLUSTERED
    same = {n for n in before if before[n].shape == after[n].shape and torch.equal(before[n], after[n])}
    # Other prototypes may well be nearest in the same places.
    assert changes - {"guide"} <= before.keys() - same <= changes


def test_the_losses_are_what_the_options_make_of_them():
    episode = random_episode(2, 1, 2)
    for pyramid in (True, False):
        plain, weighed = (everything(tiny(pyramid=pyramid, aux_weight=w), episode) for w in (1.0, 0.25))
        torch.testing.assert_close(plain["total"], plain["main"] + plain["aux"])
        torch.testing.assert_close(weighed["total"], plain["main"] + 0.25 * plain["aux"])
        assert plain["aux"] > 0 and sum(name.startswith("inner/") for name in plain) == (4 if pyramid else 1)


def test_training_clusters_longer_than_evaluation(monkeypatch):
    """No golden file tells: there the clusters have settled after five iterations."""
    model, seen, original = tiny(reach=3.0), [], asgnet.cluster
    monkeypatch.setattr(asgnet, "cluster", lambda *a, **options: (seen.append(options), original(*a, **options))[1])
    for mode in (True, False):
        model.train(mode)(random_episode())
    assert seen == [{"iterations": 10, "reach": 3.0}, {"iterations": 5, "reach": 3.0}]


WRONG = [{"seeds": "random"}, {"similarity": "max"}, {"shot_merge": "mean"}, {"fusion": "never"}, {"pyramid": "no"}]
WRONG += [{"adaptive": 1}, {"freeze": None}, {"width": 0}, {"width": 8.0}, {"max_superpixels": 0}, {"aux_weight": "1"}]
WRONG += [{"max_superpixels": 2.0}, {"superpixel_area": 0}, {"reach": -1.0}, {"reach": float("inf")}, {"dropout": 1.5}]
WRONG += [{"iterations": 5}, {"iterations": (10, 5, 5)}, {"aux_weight": -1}]
MESSAGES = [({name: value}, re.escape(f"asgnet: {name}={value!r}")) for own in WRONG for name, value in own.items()]
MESSAGES += [
    ({"iterations": (10, 0)}, "asgnet: iterations=0: expected a whole number"),
    ({"allocation": "guide"}, "allocation=.*Did you mean 'guided'.*Valid: 'guided', 'expand'"),
    ({"scales": (60, 0.5)}, "scales="),
    ({"last": "layer2"}, "needs layer2 and layer3; tiny ends at layer2"),
    ({"shot_merg": "pool"}, "no option 'shot_merg': did you mean 'shot_merge'"),
    ({"backbone": "resnet50", "weights": "imagenet"}, "deep stem. Ways out: stem='classic', .*PATH.*weights=None"),
]


@pytest.mark.parametrize(("options", "message"), MESSAGES)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ModelError, match=message):
        tiny(**options)


def test_the_stem_is_the_paper_s_unless_told_otherwise():
    with torch.device("meta"):
        stems = [build_model("asgnet", backbone="resnet18", stem=stem).backbone.stem for stem in (None, "classic")]
        other = build_model("sdaanet", backbone="resnet18").backbone.stem
    assert stems == ["deep", "classic"] and other == "classic"
    assert tiny().backbone.name == "tiny", "backbones without a choice of stems have none"


def test_maps_only_on_request_and_detached():
    model, episode = tiny(), random_episode(2, 1, 3)
    assert model(episode).maps == {}
    model.explain = True
    maps = model(replace(episode, query_masks=None)).maps
    shapes = {"query_features": (2, 8, 9, 9), "guide_features": (2, 8, 9, 9), "seeds": (2, 3, 5, 2)}
    shapes |= {"prototypes": (2, 15, 8), "prototypes_used": (2, 15), "superpixels": (2, 3, 5, 9, 9)}
    shapes |= {"similarity": (2, 15, 9, 9), "probability": (2, 1, 9, 9), "guide": (2, 1, 9, 9)}
    shapes |= {f"inner/{i}": (2, 2, side, side) for i, side in enumerate((6, 4, 3, 2))}
    assert {name: tuple(value.shape) for name, value in maps.items()} == shapes
    assert not any(value.requires_grad for value in maps.values())
    assert all(value.dtype == torch.float32 for value in maps.values())
    assert set(maps["prototypes_used"].unique().tolist()) <= {0.0, 1.0} and maps["prototypes_used"].sum() > 6
    chosen = maps["prototypes"].gather(1, maps["guide"].long().flatten(1)[..., None].expand(-1, -1, 8))
    assert torch.equal(chosen.transpose(1, 2).unflatten(2, (9, 9)), maps["guide_features"])
    assert model(random_episode(2, 2, 3)).maps["guide"].shape == (2, 2, 1, 9, 9)


def shots_of(episode, shots):
    """The episode with other support images."""
    parts = {"support_images": episode.support_images[:, :, shots], "support_masks": episode.support_masks[:, :, shots]}
    return replace(episode, **parts)


@pytest.mark.parametrize("options", [{}, {"shot_merge": "average"}, {"allocation": "expand"}, {"pyramid": False}])
def test_the_order_of_the_shots_and_the_batch_do_not_matter(options):
    model, episode = tiny(**options), random_episode(3, 1, 3)
    whole, turned = everything(model, episode), everything(model, shots_of(episode, [2, 0, 1]))
    for name in ("logits", "probability", "guide_features", *LOSSES):
        torch.testing.assert_close(whole[name], turned[name], rtol=1e-4, atol=1e-5)
    singles = [everything(model, episode.select([i])) for i in range(3)]
    for name in whole.keys() - set(LOSSES):
        torch.testing.assert_close(whole[name], torch.cat([s[name] for s in singles]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merge", ["pool", "average"])
def test_several_shots_pool_their_prototypes_or_average_what_they_allocate(merge):
    model, episode = tiny(shot_merge=merge), random_episode(2, 1, 3)
    whole = everything(model, episode)
    parts = [everything(model, shots_of(episode, [k])) for k in range(3)]
    for name in ("prototypes", "prototypes_used", "similarity", "seeds", "superpixels"):
        torch.testing.assert_close(whole[name], torch.cat([part[name] for part in parts], 1), rtol=1e-4, atol=1e-5)
    probability = torch.stack([part["probability"] for part in parts])
    features = torch.stack([part["guide_features"] for part in parts]).mean(0)
    total = probability.sum(0) if merge == "pool" else probability.mean(0)
    torch.testing.assert_close(whole["probability"], total, rtol=1e-4, atol=1e-4)
    assert torch.allclose(whole["guide_features"], features, atol=1e-5) == (merge == "average")


def test_several_ways_are_several_episodes():
    model, episode = tiny(), random_episode(2, 3, 2)
    whole = everything(model, episode)
    for way in range(3):
        labels = torch.where(episode.query_masks == 255, 255, (episode.query_masks == way + 1).long())
        own = {name: getattr(episode, name)[:, [way]] for name in ("support_images", "support_masks", "classes")}
        part = everything(model, replace(episode, query_masks=labels, **own))
        margin = part["logits"][:, 1] - part["logits"][:, 0]
        torch.testing.assert_close(whole["logits"][:, way + 1], margin, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(whole["prototypes"][:, way], part["prototypes"], rtol=1e-4, atol=1e-5)
    assert not whole["logits"][:, 0].any() and whole["logits"].shape == (2, 4, 33, 33)


def test_gradients_reach_the_query_only(monkeypatch):
    model, episode = tiny(), random_episode(2, 1, 2)
    query, support = ({name: v.detach().requires_grad_() for name, v in own.items()} for own in model.features(episode))
    monkeypatch.setattr(model, "features", lambda _: (query, support))
    model.train().losses(episode)["total"].backward()
    assert query["reduced"].grad.any() and support["reduced"].grad is None


def spoiled(what: str):
    """An episode with one thing missing."""
    episode = random_episode(2, 1, 2)
    support, query = episode.support_masks.clone(), episode.query_masks.clone()
    support[:, :, : 1 if "an empty" in what else 2] = {"full": 1, "void": 255}.get(what.split()[0], 0)
    if "query" in what:
        support, query[:] = episode.support_masks, 255 if "void" in what else 0
    return replace(episode, support_masks=support, query_masks=query)


SPOILED = ("an empty support", "empty supports", "void supports", "full supports", "void query", "empty query")
RUNS = {what: ({}, spoiled(what)) for what in SPOILED}
RUNS |= {f"{what}, ASPP": ({"pyramid": False}, spoiled(what)) for what in ("empty supports", "void query")}
RUNS |= {f"{shots} shots": ({}, random_episode(2, 1, shots)) for shots in (1, 2, 7)}
RUNS |= {f"{size} pixels": ({}, random_episode(1, 1, 1, size, size)) for size in (9, 40, 97, 121)}
RUNS |= {
    "97 x 129": ({"scales": RELATIVE}, random_episode(1, 1, 2, 97, 129)),
    "three ways": ({}, random_episode(2, 3, 1)),
    "stride 8": ({"backbone_options": {"stride": 8}, "superpixel_area": 2.0}, random_episode()),
    "batch statistics": ({"bn": "batch"}, random_episode(2, 2, 2)),
    "a trained backbone": ({"freeze": False}, random_episode()),
    "resnet18": ({"backbone": "resnet18", "last": "layer3"}, random_episode()),
    "vgg16_bn": ({"backbone": "vgg16_bn", "superpixel_area": 1.0}, random_episode()),
    "ASPP": ({"pyramid": False, "dropout": 0.5}, random_episode(2, 2, 2)),
    "ASPP, resnet18": ({"pyramid": False, "backbone": "resnet18", "last": "layer3"}, random_episode(1, 1, 1)),
    "ASPP, vgg16_bn": ({"pyramid": False, "backbone": "vgg16_bn"}, random_episode()),
    "ASPP, 97 x 129": ({"pyramid": False, "fusion": "once"}, random_episode(2, 1, 2, 97, 129)),
    "paper": ({"seeds": "clean", "fusion": "once", "similarity": "mean", "dropout": 0.5}, random_episode(2, 1, 3)),
    "one average": ({"max_superpixels": 1, "allocation": "expand", "shot_merge": "average"}, random_episode(2, 1, 3)),
}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("run", RUNS)
def test_training_stays_finite_and_moves_only_what_it_should(run, precision):
    options, episode = RUNS[run]
    model = tiny(**options).train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    learner = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3, momentum=0.9)
    for _ in range(2 if precision == torch.float32 else 1):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            losses = model.losses(episode)
        assert set(losses) == set(LOSSES) and all(v.ndim == 0 and torch.isfinite(v) for v in losses.values())
        assert all(v.dtype == torch.float32 for v in losses.values())
        learner.zero_grad()
        losses["total"].backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert all(torch.isfinite(grad).all() for grad in grads.values())
        learner.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith("backbone.") for n in moved) == (not model.freeze)
    assert "void query" in run or {"context.classifier.3.bias", "down_conv.0.weight"} <= moved
    assert "void query" not in run or (losses["total"] == 0 and not moved)
    with torch.no_grad():
        logits = model.eval()(replace(episode, query_masks=None)).logits
    assert logits.shape == (episode.batch, 1 + episode.way, *episode.query_images.shape[-2:])
    assert torch.isfinite(logits).all() and logits.dtype == torch.float32


@pytest.mark.parametrize("options", [{"scales": RELATIVE, "iterations": (3, 2)}, {"pyramid": False, "seeds": "clean"}])
@torch.no_grad()
def test_saving_and_loading(options, tmp_path):
    model, episode = tiny(backbone_options={"stride": 8}, **options), random_episode()
    loaded = load_model(save_model(model, tmp_path / "model.safetensors"))
    assert isinstance(loaded, asgnet.ASGNet) and torch.equal(loaded(episode).logits, model(episode).logits)
    assert torch.equal(loaded.losses(episode)["total"], model.losses(episode)["total"])


@pytest.mark.parametrize("pyramid", [True, False])
@torch.no_grad()
def test_cached_features_give_the_same_logits(pyramid):
    model, episode = tiny(pyramid=pyramid), random_episode(2, 1, 2)
    expected = model(episode).logits
    model.backbone = CachedBackbone(model.backbone, dtype=torch.float32)
    for _ in range(2):
        torch.testing.assert_close(model(episode).logits, expected, rtol=1e-5, atol=1e-6)
    assert model.backbone.misses == model.backbone.hits == 6
