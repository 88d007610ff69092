"""Protocol: honest defaults, choices that are checked, and a card that shows all of them."""

import re
from dataclasses import fields

import pytest

from fsslib import Protocol
from fsslib.errors import ProtocolError

PRESETS = {
    "shapes5i": Protocol.shapes5i, "pascal5i": Protocol.pascal5i, "coco20i": Protocol.coco20i,
    **{f"published {m}": lambda m=m, **c: Protocol.published(m, **c) for m in ("panet", "sdaanet", "asgnet", "hdmnet")},
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    protocol = PRESETS[name]()
    assert protocol.name == name and PRESETS[name](episodes=7).episodes == 7
    assert Protocol(**protocol.as_dict()) == protocol, "plain values rebuild it"
    with pytest.raises(ProtocolError, match=r"no episods; it has .*episodes"):
        PRESETS[name](episods=7)


@pytest.mark.parametrize("name", PRESETS)
def test_the_card_shows_every_choice(name):
    protocol = PRESETS[name](list_hash="abc123")
    card = protocol.card()
    for item in fields(protocol):
        value = getattr(protocol, item.name)
        if item.name == "train_size" and value is None:
            assert re.search(rf"train_size +{protocol.input_size} ", card), "what it stands for is said"
            continue
        for part in value if isinstance(value, tuple) else (value,):
            assert str(part) in card, item.name
    assert all(len(line.split()) > 2 for line in card.splitlines()[1:]), "every line says what it means"


def test_only_published_protocols_look_at_the_test_fold():
    honest = [Protocol(), Protocol.shapes5i(), Protocol.pascal5i(), Protocol.coco20i()]
    assert all(p.selection != "test_fold" and not p.source for p in honest)
    with pytest.raises(ProtocolError, match=r"test_fold.*published"):
        Protocol(selection="test_fold")
    with pytest.raises(ProtocolError, match="published"):
        Protocol.pascal5i(selection="test_fold")
    assert Protocol.published("sdaanet").selection == "test_fold"
    assert "test classes" in Protocol.published("asgnet").source


def test_habits_of_the_papers():
    panet, asgnet, hdmnet = (Protocol.published(m) for m in ("panet", "asgnet", "hdmnet"))
    assert (panet.void, panet.counting, panet.input_size, len(panet.seeds)) == ("background", "present", 417, 5)
    assert (asgnet.resize, asgnet.label_size, asgnet.area_filter) == ("pad", "original", 2 * 32 * 32)
    assert (hdmnet.novel_pixels, hdmnet.bn, hdmnet.queries) == ("drop", "frozen", "every_image")
    sdaanet = Protocol.published("sdaanet")
    assert (sdaanet.train_size, sdaanet.input_size, sdaanet.augmentation) == (321, 473, "sdaanet")
    assert (asgnet.train_size, asgnet.input_size, asgnet.augmentation) == (473, 473, "pfenet")
    assert (hdmnet.train_size, hdmnet.input_size, hdmnet.augmentation) == (473, 473, "hdmnet")
    for protocol in (asgnet, sdaanet, hdmnet):
        assert "a class below the area filter" in protocol.source, "what is not as there is said"
    assert "321" in hdmnet.source and 321 not in hdmnet.seeds and "black" in asgnet.source


def test_a_habit_that_was_changed_is_named_on_the_card():
    habits = Protocol.published("sdaanet")
    assert Protocol.published("sdaanet", selection="test_fold", list_hash="x").source == habits.source
    assert Protocol.published("sdaanet", episodes=7).source.endswith("not as there: episodes")
    for method in ("asgnet", "hdmnet"):
        own = Protocol.published(method)
        assert Protocol.published(method, augmentation="photo").source == f"{own.source}; not as there: augmentation"
    other = Protocol.published("sdaanet", selection="last", bn="frozen")
    assert other.source == f"{habits.source}; not as there: bn, selection" and other.source in other.card()


@pytest.mark.parametrize(("field", "value"), [
    ("void", "ignored"), ("novel_pixels", "delete"), ("resize", "crop"), ("label_size", "both"), ("selection", "best"),
    ("counting", "some"), ("queries", "random"), ("bn", "sync"), ("annotation", "point"), ("augmentation", "wild"),
    ("train_size", 8), ("train_size", 97.0), ("input_size", 8), ("input_size", 97.0), ("episodes", 0),
    ("episodes", True), ("way", 0), ("area_filter", -1), ("seeds", ()), ("seeds", (1, 1)), ("seeds", (-1,)),
    ("seeds", ("0",)), ("seeds", 3),
])  # fmt: skip
def test_impossible_values(field, value):
    with pytest.raises(ProtocolError, match=rf"Protocol\.{field}.*{re.escape(repr(value))}.*expected"):
        Protocol(**{field: value})
    with pytest.raises(ProtocolError, match=field):
        Protocol().replace(**{field: value})
