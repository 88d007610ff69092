"""The distillation explorer shows the losses that SD-AANet trains with, and runs the model once an episode."""

import pytest
import torch
from explorer_tools import counted, overlap, own, panel
from torch.nn import functional as F

from fsslib import EpisodeSampler, Protocol, load_dataset
from fsslib.data.episodes import EpisodeSpec
from fsslib.errors import FsslibError
from fsslib.models.sdaanet import SDAANet
from fsslib.widgets import explore_distillation
from fsslib.widgets.episode_controls import EpisodeControls

EXPLORER, METHOD = "explore_distillation", "sdaanet"


@torch.no_grad()
def test_the_losses_are_those_of_the_model(explorer, net):
    losses, facts = net.losses(EpisodeControls().episode()), explorer.scene.facts
    assert facts["kd"] == pytest.approx(float(losses["kd"]), rel=1e-4)
    terms = {n: net.weights[n] * float(losses[n]) for n in ("main", "aux", "kd", "saam")}
    assert facts["terms"] == pytest.approx(terms, rel=1e-3)
    assert sum(facts["terms"].values()) == pytest.approx(float(losses["total"]), rel=1e-3)
    assert facts["share"] == pytest.approx(50 * float(losses["kd"] / losses["total"]), rel=1e-3)


CHANGES = [{"temperature": 0.2}, {"mean": "prototypes"}, {"teacher_query": "reweighted"}, {"query": 3}, {"fold": 2}]
CHANGES += [{"teacher": "distributions", "temperature": 0.1}, {"shots": 3, "teachers": "integral"}]


@torch.no_grad()
@pytest.mark.parametrize("change", [*CHANGES, {"shots": 3, "support": 4}])
def test_with_every_setting(explorer, net, change):
    before, after = explorer.scene.facts["kd"], explorer.set(**change).scene.facts["kd"]
    picks = EpisodeControls(shots=change.get("shots", 1))
    for name in ("fold", "support", "query"):
        if name in change:
            picks.controls[name].value = change[name]
            picks.prepare(name)
    for name in ("teacher", "teacher_query", "teachers"):
        setattr(net.sdpm, name, change.get(name, getattr(net.sdpm, name)))
    net.distil |= {name: change[name] for name in ("temperature", "mean") if name in change}
    expected = float(net.losses(picks.episode())["kd"])
    assert after == pytest.approx(expected, rel=1e-3, abs=1e-9) and after != pytest.approx(before, rel=1e-2)


@torch.no_grad()
def test_bars_and_pictures_are_those_of_the_model(explorer, net):
    episode, facts = EpisodeControls().episode(), explorer.scene.facts
    found, truth = net(episode), episode.query_masks[0]
    student, teacher = ((found.maps[name][0, 0] / 5).softmax(0) for name in ("students", "teacher"))
    rows, top = panel(explorer, "shares").rows, teacher.topk(8).indices.tolist()
    assert list(rows) == [f"Channel {c}" for c in top] + ["24 others"]
    for column, expected in (("student", student), ("teacher", teacher)):
        torch.testing.assert_close(facts[column], expected, atol=1e-6, rtol=1e-4)
        whole = sum(row[column] for row in list(rows.values())[:-1]) + 24 * rows["24 others"][column]
        assert whole == pytest.approx(1, abs=1e-5)
        assert rows[f"Channel {top[0]}"][column] == pytest.approx(float(expected[top[0]]), rel=1e-4)
    gate = panel(explorer, "gates").rows[f"Channel {top[0]}"]
    assert gate["support"] == pytest.approx(float((found.maps["gate"][0, 0, top[0]] + 1) / 2), rel=1e-4)
    assert gate["query"] == pytest.approx(float(found.maps["query_factor"][0, top[0]]), rel=1e-4)
    known = found.maps["query_prototype"][0]
    for name, kept in (("pooled", "pooled"), ("student", "students"), ("teacher", "teacher")):
        expected = float(F.cosine_similarity(found.maps[kept][0, 0], known, dim=0))
        assert facts["cosines"][name] == pytest.approx(expected, abs=1e-4)
    assert facts["iou"] == pytest.approx(overlap(found.masks()[0], truth), abs=1e-6)
    net.sdpm.gate.register_forward_hook(lambda module, inputs, gate: torch.ones_like(gate))
    assert facts["ungated"] == pytest.approx(overlap(net(episode).masks()[0], truth), abs=1e-6)


def test_temperature_and_weight_run_nothing_again(explorer, monkeypatch):
    runs = counted(monkeypatch, SDAANet, "segment")
    flat, kd = explorer.scene.facts["spread"], explorer.scene.facts["kd"]
    facts = explorer.set(alpha=0.0).scene.facts
    assert facts["share"] == 0 and facts["kd"] == kd
    facts = explorer.set(alpha=5000.0).scene.facts
    assert facts["terms"]["kd"] == pytest.approx(5000 * kd) and "5000" in explorer.scene.words
    assert panel(explorer, "terms").rows["5000 · KD"][""] == pytest.approx(5000 * kd)
    assert explorer.set(temperature=0.05).scene.facts["spread"] < 0.5 < 0.99 < flat
    explorer.set(mean="prototypes", teacher="distributions", teacher_query="reweighted", teachers="integral")
    assert not runs
    explorer.set(query=6)
    assert len(runs) == 2  # with the gate and without


def test_the_model_is_left_as_it_was():
    data, options = load_dataset("shapes", fold=1, split="train", val_classes=0), {"temperature": 3.0, "alpha": 7.0}
    mine, model = own("explore_distillation", "sdaanet", data=data, width=16, dropout=0.5, **options)
    assert mine.scene.facts["teacher"].shape == (16,) and options.items() <= mine.values.items()
    first = mine.scene.facts["kd"]
    mine.set(temperature=0.1, teacher="distributions")
    mine.set(temperature=3.0, teacher="prototypes")
    assert mine.scene.facts["kd"] == first  # no dropout
    assert model.sdpm.teacher == "prototypes"
    with torch.no_grad():
        chosen = mine.scene.facts["terms"]["kd"]
        picks = EpisodeControls(data, size=65, shots=2)
        assert chosen == pytest.approx(7 * float(model.eval().losses(picks.episode())["kd"]), rel=1e-3)


def test_the_gap_moves_the_support_away_from_the_query(net):
    """The same objects at every gap, the support's of domain 0 and the query's of domain 1; S and t part."""
    explorer = explore_distillation(model=net, gaps=(1, 0))
    assert explorer.values["data"] == 0, "it starts without a gap"
    seen = {}
    for gap in (0.0, 1.0):
        facts = explorer.set(data=gap).scene.facts
        data = load_dataset("shapes", split="test", knobs={"gap": gap})
        support, query = data.images_of(1, 0)[0], data.images_of(1, 1)[explorer.values["query"]]
        e = EpisodeSampler(data, Protocol()).build([EpisodeSpec((1,), ((support,),), query)])
        with torch.no_grad():
            assert facts["iou"] == pytest.approx(overlap(net(e).masks()[0], e.query_masks[0]), abs=1e-6)
        seen[gap] = facts["cosines"]["student"]
    assert seen[0.0] != seen[1.0]
    with pytest.raises(FsslibError, match=r"data=0\.7"):
        explorer.set(data=0.7)
