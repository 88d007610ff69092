"""The correlation explorer shows what HDMNet computes, and every control reaches it."""

import pytest
import torch
import torch.nn.functional as F
from explorer_tools import counted, explaining, keys, overlap, own, panel

from fsslib import build_model
from fsslib.models.hdmnet import HDMNet, block_mask, correlate, to_tokens
from fsslib.ops import resize
from fsslib.widgets import explore_correlation
from fsslib.widgets.episode_controls import EpisodeControls

EXPLORER, METHOD = "explore_correlation", "hdmnet"


def library_attention(net, episode, stage, softmax):
    """(L, M) from `correlate` itself: values that are unit vectors of the positions come back as the attention."""
    maps, layer = net(episode).maps, net.transformer.match[stage]
    query, support = maps[f"query/{stage}"], maps[f"support/{stage}"]
    keys = torch.cat([to_tokens(one) for one in support.unbind(1)], 1)
    q, k, _ = layer.attention.project(layer.norm1(to_tokens(query)), layer.norm1(keys))
    mask = block_mask(episode.support_masks[:, 0], tuple(query.shape[-2:]))
    # As many positions at a time as values have channels.
    columns = F.pad(torch.eye(k.shape[2]), (0, -k.shape[2] % k.shape[3])).split(k.shape[3], 1)
    values = [part.expand(1, k.shape[1], -1, -1) for part in columns]
    found = [correlate(q, k, v, mask, layer.attention.temperature, softmax)[0][0].mean(0) for v in values]
    return torch.cat(found, 1)[:, : k.shape[2]]


@torch.no_grad()
def test_the_facts_are_those_of_the_library(explorer, net):
    episode = EpisodeControls().episode()
    found, truth = net(episode), episode.query_masks[0]
    assert explorer.scene.facts["iou"] == pytest.approx(overlap(found.masks()[0], truth), abs=1e-6)
    alone = resize(found.maps["meta"], (97, 97)).argmax(1)[0]
    assert explorer.scene.facts["ious"]["meta"] == pytest.approx(overlap(alone, truth), abs=1e-6)
    for stage, side in enumerate((25, 13, 7)):
        facts = explorer.set(stage=stage).scene.facts
        assert facts["correlation"].shape == (side, side)
        torch.testing.assert_close(facts["correlation"], found.maps[f"correlation/{stage}"][0])
        assert facts["on"] > facts["correlation"].mean() > facts["off"]
        layer = net.transformer.match[stage]
        _, k, _ = layer.attention.project(*[layer.norm1(to_tokens(found.maps[f"support/{stage}"][0]))] * 2)
        inside = block_mask(episode.support_masks[:, 0], (side, side))[0] == 1
        unit = F.normalize(k[0], dim=-1)[:, inside]
        mean = F.normalize(unit.mean(1, keepdim=True), dim=-1)
        assert facts["like"] == pytest.approx(float((unit @ mean.mT).mean()), abs=1e-4)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:3 shots")
@pytest.mark.parametrize("softmax", ["query", "support"])
@pytest.mark.parametrize("stage, shots", [(0, 1), (2, 3)])
def test_attention_is_that_of_the_library(explorer, net, softmax, stage, shots):
    episode = EpisodeControls(shots=shots).episode()
    expected = library_attention(net, episode, stage, softmax)
    side = (25, 13, 7)[stage]
    explorer.set(stage=stage, softmax=softmax, shots=shots, point={"panel": "query", "x": 70, "y": 20})
    at = 20 * side // 97 * side + 70 * side // 97
    facts = explorer.scene.facts
    torch.testing.assert_close(facts["attention"].flatten(), expected[at], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(facts["received"].flatten(), expected.sum(1), atol=1e-5, rtol=1e-3)
    assert facts["amount"] == pytest.approx(float(expected[at].sum()), rel=1e-3)
    assert [f"attention {k}" in keys(explorer) for k in range(3)] == [k < shots for k in range(3)]
    # The same from the other side: a cell of the last support's object.
    mask = block_mask(episode.support_masks[:, 0], (side, side))[0].view(shots, side, side)
    row, column = mask[-1].nonzero()[0].tolist()
    point = {"panel": f"support {shots - 1}", "x": (column + 0.5) * 97 / side, "y": (row + 0.5) * 97 / side}
    facts = explorer.set(point=point).scene.facts
    given = expected.view(-1, shots, side, side)[:, shots - 1, row, column]
    torch.testing.assert_close(facts["attention"].flatten(), given, atol=1e-5, rtol=1e-3)
    if softmax == "query":
        assert facts["amount"] == pytest.approx(1, abs=1e-4)  # each object cell gives one unit


def test_beside_the_object_nothing_is_read(explorer):
    assert explorer.set(point={"panel": "support 0", "x": 0, "y": 96}).scene.facts["amount"] == 0
    assert "unread" in panel(explorer, "attention").caption
    stale = explorer.set(point={"panel": "support 4", "x": 0, "y": 0}).scene
    assert stale.facts["attention"].ndim == 3 and panel(explorer, "query").marks


def test_settings_reach_the_model_and_leave_it_as_it_was():
    model, other, episode = explaining("hdmnet"), explaining("hdmnet"), EpisodeControls().episode()
    model.explain, names = False, list(model.state_dict())
    mine = explore_correlation(model=model)
    shown = mine.set(softmax="support", temperature=0.5).scene.facts
    for match in other.transformer.match:
        match.attention.softmax, match.attention.temperature = "support", 0.5
    with torch.no_grad():
        found = other(episode)
    assert shown["iou"] == pytest.approx(overlap(found.masks()[0], episode.query_masks[0]), abs=1e-6)
    torch.testing.assert_close(shown["correlation"], found.maps["correlation/0"][0])
    assert "other settings" in mine.scene.words
    plain = build_model(**{**model.config, "self_attention": False}).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})
    plain.explain = True
    shown = mine.set(softmax="query", temperature=0.1, self_attention=False).scene.facts
    with torch.no_grad():
        torch.testing.assert_close(shown["correlation"], plain(episode).maps["correlation/0"][0])
    assert list(model.state_dict()) == names and len(model.transformer.stages[0].layers) == 2
    assert {(m.attention.softmax, m.attention.temperature) for m in model.transformer.match} == {("query", 0.1)}
    assert not model.explain


def test_stage_ensemble_and_point_run_nothing_again(explorer, monkeypatch):
    runs = counted(monkeypatch, HDMNet, "forward")
    both = explorer.scene.facts["ious"]
    assert explorer.set(ensemble=False).scene.facts["iou"] == both["meta"] != both["ensemble"]
    assert "not used" in panel(explorer, "base_map").caption
    explorer.set(stage=1, point={"panel": "query", "x": 3, "y": 3})
    explorer.set(stage=2, point={"panel": "support 0", "x": 3, "y": 3})
    assert not runs
    for temperature in (1.0, 0.1):  # at first it is 0.1
        explorer.set(temperature=temperature)
        assert len(runs) == 1


@pytest.mark.parametrize("change", [{"fold": 1}, {"shots": 2}, {"support": 3}, {"query": 3}, {"temperature": 0.02}])
def test_other_controls_change_prediction_and_attention(explorer, change):
    before = dict(explorer.scene.facts)
    after = explorer.set(**change).scene.facts
    assert after["ious"] != before["ious"] and not torch.equal(after["received"], before["received"])


def test_a_model_without_self_attention_and_ensemble():
    options = {"width": 32, "stages": 2, "match_temperature": 0.3, "self_attention": False, "ensemble": False}
    mine, _ = own("explore_correlation", "hdmnet", **options)
    assert mine.values["temperature"] == 0.3 and mine.set(stage=1).scene.facts["correlation"].shape == (9, 9)
    assert not {"self_attention", "ensemble"} & mine.controls.keys()
    assert [label for label, _ in mine.controls["stage"].options] == ["0, fine", "1, coarse"]
    assert list(mine.scene.facts["ious"]) == ["meta"] and "ensemble" not in mine.scene.words
