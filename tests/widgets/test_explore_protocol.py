"""The switchboard: the same weights under other rules, paired where the episodes are the same."""

import numpy as np
import pytest

pytest.importorskip("anywidget")

from core_tools import panet

from fsslib import Protocol, evaluate, load_dataset
from fsslib.models.shot_by_shot import VOTE
from fsslib.widgets.explorers.protocol import explore_protocol


@pytest.fixture(scope="module")
def board():
    net, data = panet().eval(), load_dataset("shapes", split="test", pool=60, size=33)
    return net, data, explore_protocol(net, data, episodes=25)


def test_the_reference_is_compared_with_itself(board):
    _, _, explorer = board
    facts = explorer.scene.facts
    assert facts["score"] == facts["reference"] and facts["difference"][0] == 0 and facts["paired"]


@pytest.mark.parametrize(("values", "rules", "shots", "paired"), [
    ({"shots": 5, "merge": VOTE}, {"k_merge": VOTE}, 5, True),
    ({"way": 2, "counting": "present"}, {"way": 2, "counting": "present"}, 1, False),
    ({"absent": True, "counting": "present"}, {"absent": 0.3}, 1, False),  # with absent targets everything counts
    ({"list": 3}, {"seeds": (3,)}, 1, False),
    ({"merge": VOTE}, {}, 1, True),  # a rule for five shots says nothing about one
])  # fmt: skip
def test_switches_are_the_protocol_s(board, values, rules, shots, paired):
    net, data, explorer = board
    first = {name: widget.value for name, widget in explorer.controls.items()}
    facts = explorer.set(**values).scene.facts
    expected = evaluate(net, data, Protocol.shapes5i(episodes=25, **rules), shots=(1, 5), progress=False)
    scores = expected.scores[shots]
    assert np.allclose(facts["score"], 100 * np.array([scores.miou, *scores.interval()]))
    assert facts["paired"] == paired == (facts["protocol"].list_hash == first_hash(net, data))
    assert ("not paired" in explorer.scene.words) == (not paired)
    assert explorer.controls["counting"].disabled == bool(values.get("absent"))
    explorer.set(**first)


def first_hash(net, data):
    return evaluate(net, data, Protocol.shapes5i(episodes=25), shots=(1, 5), progress=False).protocol.list_hash


def test_another_mean_is_another_number(board):
    net, data, explorer = board
    facts = explorer.set(average="images").scene.facts
    scores = evaluate(net, data, Protocol.shapes5i(episodes=25), shots=(1, 5), progress=False).scores[1]
    assert np.isclose(facts["score"][0], 100 * scores.image_iou) and not facts["paired"]
    (panel,) = explorer.scene.panels
    assert "these rules" in panel.alt and panel.pixels.shape[2] == 3
    explorer.set(average="classes")
