"""explore_attention: matches are those of the prior, maps are the model's, and the decoder answers as the library's."""

import pytest
import torch
import torch.nn.functional as F
from explorer_tools import by_model, counted, keys, own, panel

from fsslib import build_model, load_dataset
from fsslib.models.sdaanet import SDAANet
from fsslib.ops import prior_mask, resize
from fsslib.widgets import explore_attention

EXPLORER, METHOD = "explore_attention", "sdaanet"


@torch.no_grad()
def all_cosines(net, episode, masking="twice"):
    """Cosines (K, h, w, h*w) of every masked support cell with every query cell, and the prior before stretching."""
    net.prior_masking = masking
    query, support = (side["deep"] for side in net.features(episode))
    cells = resize((episode.support_masks[:, 0] == 1).float(), (25, 25))
    masked = F.normalize((support[:, 0] * cells[:, :, None])[0].flatten(2), dim=1)
    table = masked.mT @ F.normalize(query[0].flatten(1), dim=0)
    return table.unflatten(1, (25, 25)), prior_mask(query, support[:, 0], cells, stretch=False)[0]


def test_at_first_it_shows_what_the_model_computes(explorer, net):
    facts = explorer.scene.facts
    found = by_model(net, facts["episode"])
    assert torch.equal(facts["prediction"], found.masks()[0]) and facts["iou"] == facts["iou_both"]
    torch.testing.assert_close(facts["prior"], found.maps["prior"][0, 0])
    torch.testing.assert_close(facts["attention"], found.maps["attention"][0, 0])
    names = ["query", "support 0", "matches", "prior", "attention", "taught", "inner", "prediction", "truth"]
    assert keys(explorer) == names
    options = {k: v for k, v in net.config.items() if k != "weights"} | {"attention_from": "supervised_head"}
    twin = build_model(**options).eval()
    twin.load_state_dict({k: v for k, v in net.state_dict().items() if "query_map" not in k})
    twin.explain = True
    torch.testing.assert_close(facts["taught"], by_model(twin, facts["episode"]).maps["attention"][0])
    row, column = facts["cell"]
    truth = facts["episode"].query_masks[0] == 1
    assert truth[min(96, 4 * row), min(96, 4 * column)], "it begins on the object"
    for number in (f"{float(facts['best'][0]):.2f}", f"IoU {facts['iou']:.0%}"):
        assert number in explorer.scene.words


@pytest.mark.parametrize(("masking", "x", "y"), [("twice", 10, 80), ("twice", 96, 0), ("after", 60, 33)])
def test_the_best_match_is_the_prior_before_stretching(explorer, net, masking, x, y):
    facts = explorer.set(shots=3, masking=masking, point={"panel": "query", "x": x, "y": y}).scene.facts
    row, column = facts["cell"]
    assert (row, column) == (y * 25 // 97, x * 25 // 97)
    table, raw = all_cosines(net, facts["episode"], masking)
    torch.testing.assert_close(facts["best"], raw[:, row, column], atol=1e-5, rtol=0)
    here = table[..., row * 25 + column]
    for k, found in enumerate(facts["matches"]):
        assert found[0][2] == pytest.approx(float(facts["best"][k]), abs=1e-5)
        for r, c, value in found:
            assert value == pytest.approx(float(here[k, r, c]), abs=1e-4)
    prior = by_model(net, facts["episode"], prior_masking=masking).maps["prior"][0, 0]
    torch.testing.assert_close(facts["prior"], prior)


def test_matches_are_numbered_best_first_and_apart(explorer, net):
    facts = explorer.set(top=4).scene.facts
    (found,), (row, column) = facts["matches"], facts["cell"]
    values = [value for *_, value in found]
    assert values == sorted(values, reverse=True) and len(found) == 4
    spots = torch.tensor([match[:2] for match in found])
    gaps = (spots[:, None] - spots[None]).abs().amax(-1)
    assert (gaps[~torch.eye(4, dtype=torch.bool)] > 1).all()
    # Whatever is better than the last match lies beside a better one.
    table = all_cosines(net, facts["episode"])[0][0, ..., row * 25 + column]
    for r, c in (table > values[-1] + 1e-5).nonzero().tolist():
        assert any(max(abs(r - a), abs(c - b)) <= 1 and v >= table[r, c] - 1e-5 for a, b, v in found)
    assert [mark[2] for mark in panel(explorer, "support 0").marks] == ["1", "2", "3", "4"]
    assert len(explorer.set(top=2).scene.facts["matches"][0]) == 2


def test_the_views_of_a_support_show_its_object(explorer):
    explorer.set(shots=2, shot=2, query=8)
    mask = explorer.scene.facts["episode"].support_masks[0, 0, 1] == 1
    height, width = panel(explorer, "matches").pixels.shape[:2]
    rows, columns = (mask.any(axis).sum() for axis in (1, 0))
    assert panel(explorer, "support 1").pixels.shape[:2] == (height, width)
    assert rows <= height == width < 97 and columns <= width
    for x, y, *_ in panel(explorer, "support 1").marks:
        assert 0 <= x < width and 0 <= y < height
    assert "support 2" in panel(explorer, "matches").caption and "0." in panel(explorer, "support 1").caption
    explorer.set(shot=1)
    assert panel(explorer, "matches").pixels.shape[:2] != (height, width)
    explorer.set(shots=1)
    assert explorer.controls["shot"].max == 1 and explorer.controls["shot"].disabled


@torch.no_grad()
def test_the_decoder_gets_what_is_said(explorer, net):
    episode = explorer.scene.facts["episode"]
    maps = by_model(net, episode).maps
    given = {"prior": maps["prior"], "attention": maps["attention"]}
    stand_ins = {"its mean": lambda m: torch.full_like(m, float(m.mean())), "zeros": torch.zeros_like}
    swapped, seen = {"prior only": ["attention"], "attention only": ["prior"], "neither": ["prior", "attention"]}, set()
    for instead, stand_in in stand_ins.items():
        for guides, names in swapped.items():
            facts = explorer.set(guides=guides, instead=instead).scene.facts
            both = torch.cat([stand_in(m) if name in names else m for name, m in given.items()], 1)
            small, _ = net.enrichment(maps["prototypes"], maps["query_reweighted"], both)
            assert (facts["prediction"] == resize(small, (97, 97)).argmax(1)[0]).float().mean() > 0.999
            assert facts["iou_both"] > 0.5, "the comparison stays"
            for told in (instead.split()[-1], *(f"the {name} by" for name in names)):
                assert told in explorer.scene.words
            assert ("kept from" in panel(explorer, "prior").caption) == ("prior" in names)
            seen.add(facts["iou"])
    assert len(seen) > 1


def test_pointing_at_the_query_runs_no_model(explorer, monkeypatch):
    calls = counted(monkeypatch, SDAANet, "features", "segment")
    explorer.set(query=12)
    assert calls == ["features", "segment"]
    before, point = panel(explorer, "matches").pixels, {"panel": "prior", "x": 3, "y": 90}
    for change in ({"point": point}, {"top": 2}, {"guides": "neither", "instead": "zeros"}):
        explorer.set(**change)
    assert len(calls) == 2 and not (before == panel(explorer, "matches").pixels).all()
    explorer.set(masking="after")
    assert len(calls) == 4


@pytest.mark.parametrize("point", [{"panel": "support 0", "x": 1, "y": 1}, {"panel": "query", "x": 300, "y": 1}])
def test_a_point_out_of_date_is_no_point(explorer, point):
    first = explorer.scene.facts["cell"]
    assert explorer.set(point=point).scene.facts["cell"] == first
    explorer.set(point={"panel": "attention", "x": 2, "y": 3})
    assert explorer.scene.facts["cell"] == (0, 0) and panel(explorer, "query").message()["at"] == [2, 3]


def test_own_model_and_data():
    explorer, model = own("explore_attention", "sdaanet", width=8, scales=[1.0, 0.5])
    facts = explorer.set(top=3).scene.facts
    assert explorer.values["shot"] == 1
    with torch.no_grad():
        wanted = model.eval()(facts["episode"])
    assert torch.equal(facts["prediction"], wanted.masks()[0]) and facts["prediction"].shape == (65, 65)
    assert all(len(found) <= 3 for found in facts["matches"]) and len(facts["matches"]) == 2
    explorer.set(cls=explorer.controls["cls"].options[1][1])
    assert explorer.scene.facts["episode"] is not facts["episode"]


def test_a_support_without_object_matches_nothing():
    data = load_dataset("shapes", fold=0, split="test", knobs={"absent": 1.0})
    facts = explore_attention(data).scene.facts
    assert facts["matches"] == [[]] and not facts["best"].any() and not facts["prior"].any()
