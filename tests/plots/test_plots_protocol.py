"""Figures about the protocol: what they draw and say follows the numbers they are given."""

import numpy as np
from matplotlib.colors import to_hex

from fsslib.plots import protocol as pictures
from fsslib.plots.display import picture


def row(group, label, data, difference, paired=True):
    return {"group": group, "label": label, "data": data, "difference": difference, "paired": paired}


ROWS = [
    row("same", "label size", "drawn", (1.0, 0.5, 1.5)),
    row("same", "label size", "real", (-1.0, -2.0, -0.5)),
    row("other", "area filter", "real", (3.0, -1.0, 7.0), paired=False) | {"difference per seed": [-6.0, 12.0]},
]
SOURCES = {"drawn": "Shapes-5i", "real": "photographs"}


def test_switches_have_a_panel_for_each_group_and_hollow_marks_where_episodes_differ(drawn):
    figure, alt, data = pictures.switches(ROWS, SOURCES)
    other = figure.axes[1]
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["same", "other"]
    assert [t.get_text() for t in other.get_yticklabels()] == ["area filter"]
    lines = [(line, *point) for axis in figure.axes for line, points in drawn(axis) for point in points]
    marks = (at for at in lines if at[0].get_marker() in ("o", "s") and np.isfinite(at[1]))
    (first, x, y), (second, _, lower), (hollow, *_) = marks
    assert x == 1.0 and y < lower, "sources stand beside each other"
    assert to_hex(hollow.get_markerfacecolor()) == "#ffffff" != to_hex(second.get_markerfacecolor())
    assert first.get_marker() != second.get_marker(), "not told apart by colour alone"
    assert [-6.0, 12.0] in [[x for x, _ in points] for _, points in drawn(other)], "every training is a dot"
    assert "label size, photographs: -1.0 (-2.0 to -0.5), lower" in alt
    assert "area filter, photographs, other episodes: +3.0 (-1.0 to 7.0), no clear difference" in alt
    assert data.loc[("same", "label size", "Shapes-5i"), "high"] == 1.5 and len(picture(figure)) < 60_000


def test_flips_have_a_panel_for_each_question():
    lines = {"same list": {25: 30.0, 1000: 0.0}, "own lists": {25: 45.0, 1000: 9.6}}
    figure, alt, data = pictures.flips({"winner": lines, "neighbours": lines})
    assert [axis.get_title() for axis in figure.axes] == ["winner", "neighbours"]
    assert figure.axes[1].lines[1].get_ydata().tolist() == [45.0, 9.6]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["25", "1,000"]
    assert "winner, own lists: 45 % at 25 and 10 % at 1000 episodes" in alt
    assert data.loc[1000, ("neighbours", "own lists")] == 10 and figure.axes[0].get_ylim()[0] == 0


def test_stops_show_every_training_and_who_cannot_lose(drawn):
    gains = {"honest": {"t0": {50: 0.0, 100: -2.0}, "t1": {50: 0.0, 100: 1.0}}, "cheat": {"t0": {50: 0.0, 100: 3.0}}}
    figure, alt, data = pictures.stops(gains)
    assert [axis.get_title() for axis in figure.axes] == ["honest", "cheat"]
    assert [points for _, points in drawn(figure.axes[0]) if len(points) == 2][:2] == [
        [[50, 0], [100, -2]],
        [[50, 0], [100, 1]],
    ]
    assert "honest from -2.0 to +1.0; cheat from +0.0 to +3.0" in alt and data.loc[100, ("cheat", "t0")] == 3
