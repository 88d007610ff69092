"""The superpixel explorer shows what ASGNet computes, and every control reaches it."""

import numpy as np
import pytest
import torch
from explorer_tools import counted, overlap, own, panel

from fsslib.models.asgnet import ASGNet
from fsslib.widgets.episode_controls import EpisodeControls

EXPLORER, METHOD = "explore_superpixels", "asgnet"
DATA = "Objects of 3 parts"


@torch.no_grad()
def test_the_facts_are_those_of_the_library(explorer, net):
    episode = EpisodeControls().episode()
    found, facts = net(episode), explorer.scene.facts
    assert facts["iou"] == pytest.approx(overlap(found.masks()[0], episode.query_masks[0]), abs=1e-6)
    used = found.maps["prototypes_used"][0].bool()
    assert facts["used"] == int(used.sum()) == sum(facts["counts"]) == 5
    assert torch.equal(facts["guide"], found.maps["guide"][0, 0].long() + 1)  # one support: all numbers follow
    row, column = facts["position"]
    torch.testing.assert_close(facts["cosines"], found.maps["similarity"][0, used, row, column])
    assert found.maps["probability"][0, 0, row, column] == found.maps["probability"].max()
    p = found.maps["prototypes"][0, used]
    pairs = [float(torch.cosine_similarity(p[i], p[j], dim=0)) for i in range(5) for j in range(i)]
    assert facts["alike"] == pytest.approx(np.mean(pairs), abs=1e-4)
    net.max_superpixels = 1
    assert facts["single"] == pytest.approx(overlap(net(episode).masks()[0], episode.query_masks[0]))


def test_the_centres_are_where_the_clustering_ended(explorer, net):
    explorer.set(iterations=3)
    episode = EpisodeControls().episode()
    with torch.no_grad():
        features, masks = net.features(episode)[1]["reduced"][:, 0], episode.support_masks[:, 0]
        net.iterations = (10, 3)
        seeds, found = net.superpixels(features, masks)
    shown = panel(explorer, "regions 0")
    rings = np.array([mark[:2] for mark in shown.marks if mark[3] == "cross"])
    numbers = np.array([mark[:2] for mark in shown.marks if mark[3] == "badge"])
    where = torch.stack(torch.meshgrid(torch.arange(25.0), torch.arange(25.0), indexing="xy"))
    centres = torch.einsum("phw,dhw->pd", found.assignment[0], where)
    side = 97 / 25
    # The crop moves all marks alike.
    np.testing.assert_allclose(np.diff(rings, axis=0), side * np.diff(centres.numpy(), axis=0), atol=1e-2)
    np.testing.assert_allclose(np.diff(numbers, axis=0), side * np.diff(seeds.points[0].flip(1).numpy(), axis=0))
    shift = numbers[0] - side * (seeds.points[0, 0].flip(0).numpy() + 0.5)
    np.testing.assert_allclose(rings[0], side * (centres[0].numpy() + 0.5) + shift, atol=1e-2)


CHANGES = [{"iterations": 1}, {"reach": 1.0}, {"similarity": "mean"}, {"data": DATA}, {"fold": 1}, {"cls": 6}]
CHANGES = [({}, change) for change in [*CHANGES, {"sharpness": 8.0}, {"shots": 2}, {"support": 3}, {"query": 3}]]
CHANGES += [({"adaptive": False}, {"superpixels": 9}), ({"superpixels": 10}, {"adaptive": False})]
CHANGES += [({"iterations": 1}, change) for change in ({"seeds": "clean"}, {"allocation": "expand"})]


@pytest.mark.parametrize("before, change", [*CHANGES, ({"shots": 3}, {"shot_merge": "average"})])
def test_every_control_changes_the_pictures(explorer, before, change):
    explorer.set(**before)
    told = dict.fromkeys(("iterations", "reach", "sharpness", "seeds"), "alike")
    told |= {"superpixels": "used", "adaptive": "used"}
    old = {p.key: p.message() for p in explorer.scene.panels}, dict(explorer.scene.facts)
    explorer.set(**change)
    assert {p.key: p.message() for p in explorer.scene.panels} != old[0]
    for fact in (told[name] for name in change if name in told):
        assert explorer.scene.facts[fact] != old[1][fact]
    if "similarity" in change:
        low, high = (panel(explorer, "probability").caption.rsplit(" ", 3)[i] for i in (1, 3))
        assert -1 <= float(low) < float(high) <= 1  # the mean of cosines, where five make up to 5


def test_pointing_compares_one_position_and_runs_nothing(explorer, net, monkeypatch):
    runs = counted(monkeypatch, ASGNet, "forward")
    explorer.set(point={"panel": "query", "x": 50, "y": 9})
    assert not runs and explorer.scene.facts["position"] == (2, 12)
    with torch.no_grad():
        expected = net(EpisodeControls().episode()).maps["similarity"][0, :, 2, 12]
    torch.testing.assert_close(explorer.scene.facts["cosines"], expected)
    rows = panel(explorer, "bars").rows
    assert [row["cosine"] for row in rows.values()] == pytest.approx(expected.tolist(), abs=1e-6)
    runs.clear()
    for iterations in (6, 5):  # at first there are 5, and one prototype each is known already
        explorer.set(iterations=iterations)
        assert len(runs) == 1
    explorer.set(point={"panel": "gone", "x": 5000, "y": 9})
    assert explorer.scene.facts["position"] != (2, 12)


def test_true_parts_are_told_where_the_data_set_knows_them(explorer):
    assert explorer.scene.facts["parts"] == 1 and explorer.scene.facts["purity"] > 0.99
    several = explorer.set(data=DATA, iterations=1).scene.facts
    assert several["parts"] == 3 and several["largest"] < 0.7
    alone = explorer.set(superpixels=1).scene.facts
    assert alone["used"] == 1 and alone["alike"] == 1
    assert alone["purity"] == pytest.approx(alone["largest"], abs=0.1) and alone["purity"] < several["purity"]
    assert "masked average" in explorer.scene.words and [m[2] for m in panel(explorer, "regions 0").marks] == ["1"]


def test_more_superpixels_than_an_own_model_has():
    mine, model = own("explore_superpixels", "asgnet", width=16, max_superpixels=3, superpixel_area=5.0)
    assert mine.scene.facts["guide"].shape == (17, 17) and mine.values["superpixels"] == 3
    many = mine.set(superpixels=10, adaptive=False).scene
    assert many.facts["counts"] == [10, 10] and len(panel(mine, "bars").rows) == 8
    assert (model.max_superpixels, model.adaptive, model.iterations) == (3, True, (10, 5))
