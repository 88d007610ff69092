"""Figures and words about several methods: what they draw and say follows the numbers they are given."""

import numpy as np
import torch
from matplotlib.collections import PathCollection

from fsslib import Episode
from fsslib.analysis import intervals
from fsslib.plots import comparison as pictures
from fsslib.plots.display import picture

PAIRS = {
    ("a", "b"): ((5.0, 4.0, 6.0), [5, 4, 6]),
    ("b", "a"): ((-5.0, -6.0, -4.0), [-5, -4, -6]),
    ("a", "c"): ((5.5, 4.0, 7.0), [5, 5, 6.5]),
    ("c", "a"): ((-5.5, -7.0, -4.0), [-5, -5, -6.5]),
    ("b", "c"): ((0.5, -1.0, 2.0), [0.5, 1, 0]),
    ("c", "b"): ((-0.5, -2.0, 1.0), [-0.5, -1, 0]),
}


def test_the_matrix_puts_unclear_differences_in_brackets():
    figure, alt, data = pictures.matrix({"K=1": PAIRS, "K=5": PAIRS}, ["a", "b", "c"])
    texts = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}
    assert texts[0, 1] == "+5.0" and texts[1, 0] == "-5.0" and texts[1, 2] == "(+0.5)" and len(texts) == 6
    assert "K=5, b - c (+0.5)" in alt and "c - b" not in alt, "every pair is said once"
    assert data.loc[("K=1", "a"), "c"] == 5.5 and np.isnan(data.loc[("K=1", "a"), "a"])
    low, high = figure.axes[0].collections[0].get_clim()
    assert low == -high == -5.5, "0 is the middle of the colours"


def row(knob, value, method, miou, gain=(0, 0, 0)):
    return {"knob": knob, "value": value, "method": method, "miou": miou, "gain over panet": gain}


ROWS = [
    row("gap", 0, "panet", (50, 48, 52)),
    row("gap", 0, "own", (60, 58, 62), (10, 9, 11)),
    row("gap", 1, "panet", (40, 38, 42)),
    row("gap", 1, "own", (38, 36, 40), (-2, -3, -1)),
    row("area", 1, "panet", (50, 48, 52)),
    row("area", 1, "own", (60, 58, 62), (10, 9, 11)),
    row("area", 0.5, "panet", (49, 47, 51)),
    row("area", 0.5, "own", (63, 61, 65), (14, 13, 15)),
]
NAMES = {"panet": "PANet", "own": "Own"}


def test_knobs_are_panels_with_a_line_for_each_method(drawn):
    figure, alt, data = pictures.knobs(ROWS, NAMES)
    assert [axis.get_xlabel() for axis in figure.axes] == [intervals.KNOBS["gap"], intervals.KNOBS["area"]]
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == ["1", "0.5"], "from the standard to the hardest"
    assert [60, 38] in [[y for _, y in points] for _, points in drawn(figure.axes[0])]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["PANet", "Own"]
    assert "gap 0 to 1: Own 60 to 38" in alt and data.loc["area", "Own"] == "60.0 to 63.0"


def episodes():
    image = torch.linspace(0, 1, 2 * 3 * 33 * 33).view(2, 3, 33, 33)
    mask = torch.zeros(2, 33, 33).long()
    mask[0, 5:20, 5:20] = 1
    return Episode(image, mask, image[:, None, None], mask[:, None, None], torch.zeros(2, 1).long())


def test_side_by_side_shows_every_method_with_its_iou():
    episode = episodes()
    masks = {"a": episode.query_masks, "b": torch.zeros_like(episode.query_masks)}
    ious = {"a": [1.0, 0.0], "b": [0.0, 0.25]}
    figure, alt, _ = pictures.side_by_side(episode, masks, ious, ["a\nwins", "b\nwins"], "Two episodes.")
    axes = np.array(figure.axes).reshape(2, 4)
    assert [axis.get_title() for axis in axes[0]] == ["support", "query", "a", "b"]
    assert [axis.get_xlabel() for axis in axes[1, 2:]] == ["IoU 0 %", "IoU 25 %"]
    bold = [[axis.xaxis.label.get_fontweight() == "bold" for axis in line[2:]] for line in axes]
    assert bold == [[True, False], [False, True]]
    assert alt == "Two episodes. IoU in percent. a wins: a 100, b 0; b wins: a 0, b 25."
    assert picture(figure, photo=True), "a query without the object has no outline"


def test_trade_puts_cost_against_score():
    points = {"a": (0.2, (50.0, 48.0, 52.0), 1000), "b": (0.4, (60.0, 57.0, 63.0), 4000)}
    figure, alt, data = pictures.trade(points, "GMACs")
    dots = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    assert dots[0].get_offsets().tolist() == [[0.2, 50.0], [0.4, 60.0]] and np.diff(dots[0].get_sizes()) > 0
    assert "a 0.20 and 50.0, 1,000 learned" in alt and data.loc["b", "learned"] == 4000
