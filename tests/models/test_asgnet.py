"""ASGNet on small backbones: options, ways and shots, hard episodes, maps, precision, files and caches."""

import pytest
import torch
from asgnet_tools import RELATIVE, everything, tiny
from core_tools import random_episode
from method_tools import differing, of_shots

from fsslib.models import asgnet

INNER = {f"inner/{i}" for i in range(4)}
DECODED = {"logits", "main", "aux", "total"} | INNER
ALLOCATED = {"similarity", "probability", "guide", "guide_features"} | DECODED
CLUSTERED = {"superpixels", "prototypes", "prototypes_used"} | ALLOCATED
# What changes; everything else must stay to the bit.
OPTIONS = {
    "aux_weight": ({"aux_weight": 0.0}, {"total"}), "adaptive": ({"adaptive": False}, {"seeds"} | CLUSTERED),
    "superpixel_area": ({"superpixel_area": 5.0}, {"seeds"} | CLUSTERED),
    "max_superpixels": ({"max_superpixels": 1}, {"seeds"} | CLUSTERED),
    "seeds": ({"seeds": "clean"}, {"seeds"} | CLUSTERED), "reach": ({"reach": 1.0}, CLUSTERED - {"prototypes_used"}),
    "sharpness": ({"sharpness": 4.0}, CLUSTERED - {"prototypes_used"}),
    "iterations in evaluation": ({"iterations": (10, 1)}, CLUSTERED - {"prototypes_used"}),
    "iterations in training": ({"iterations": (1, 5)}, set()),
    "allocation": ({"allocation": "expand"}, {"guide_features"} | DECODED),
    "similarity": ({"similarity": "mean"}, {"probability"} | DECODED),
    "similarity, best": ({"similarity": "max"}, {"probability"} | DECODED),
    "shot_merge": ({"shot_merge": "average"}, {"guide_features", "probability"} | DECODED),
    "fusion": ({"fusion": "once"}, DECODED), "scales": ({"scales": RELATIVE}, DECODED),
    "dropout": ({"dropout": 0.9}, set()), "freeze": ({"freeze": False}, set()), "bn": ({"bn": "batch"}, set()),
    "shots": ({"shots": 5}, set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    """An episode and what the model without options makes of it."""
    episode = random_episode(2, 1, 2)
    return episode, everything(tiny(), episode)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_what_it_says_and_nothing_else(option, plain):
    (options, changes), (episode, before) = OPTIONS[option], plain
    after = everything(tiny(**options), episode)
    assert before.keys() == {"query_features", "seeds", "aux"} | CLUSTERED
    # Other prototypes may well be nearest in the same places.
    assert changes - {"guide"} <= differing(before, after) <= changes


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
    assert seen == [{"iterations": n, "reach": 3.0, "sharpness": None} for n in (10, 5)]


def test_the_maps_belong_together():
    maps = everything(tiny(), random_episode(2, 1, 3))
    assert set(maps["prototypes_used"].unique().tolist()) <= {0.0, 1.0} and maps["prototypes_used"].sum() > 6
    chosen = maps["prototypes"].gather(1, maps["guide"].long().flatten(1)[..., None].expand(-1, -1, 8))
    assert torch.equal(chosen.transpose(1, 2).unflatten(2, (9, 9)), maps["guide_features"])


@pytest.mark.parametrize("merge", ["pool", "average"])
def test_several_shots_pool_their_prototypes_or_average_what_they_allocate(merge):
    model, episode = tiny(shot_merge=merge), random_episode(2, 1, 3)
    whole = everything(model, episode)
    parts = [everything(model, of_shots(episode, [k])) for k in range(3)]
    for name in ("prototypes", "prototypes_used", "similarity", "seeds", "superpixels"):
        torch.testing.assert_close(whole[name], torch.cat([part[name] for part in parts], 1), rtol=1e-4, atol=1e-5)
    probability = torch.stack([part["probability"] for part in parts])
    features = torch.stack([part["guide_features"] for part in parts]).mean(0)
    total = probability.sum(0) if merge == "pool" else probability.mean(0)
    torch.testing.assert_close(whole["probability"], total, rtol=1e-4, atol=1e-4)
    assert torch.allclose(whole["guide_features"], features, atol=1e-5) == (merge == "average")


def test_gradients_reach_the_query_only(monkeypatch):
    model, episode = tiny(), random_episode(2, 1, 2)
    query, support = ({name: v.detach().requires_grad_() for name, v in own.items()} for own in model.features(episode))
    monkeypatch.setattr(model, "features", lambda _: (query, support))
    model.train().losses(episode)["total"].backward()
    assert query["reduced"].grad.any() and support["reduced"].grad is None
