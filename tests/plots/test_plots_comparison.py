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
    ("a", "c"): ((5.5, 4.0, 7.0), [5, 5, 6.5]),
    ("b", "c"): ((0.5, -1.0, 2.0), [0.5, 1, 0]),
}
PAIRS |= {(b, a): ((-v, -high, -low), [-seed for seed in each]) for (a, b), ((v, low, high), each) in PAIRS.items()}


def test_the_matrix_puts_unclear_differences_in_brackets():
    figure, alt, data = pictures.matrix({"K=1": PAIRS, "K=5": PAIRS}, ["a", "b", "c"])
    texts = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}
    assert texts[0, 1] == "+5.0" and texts[1, 0] == "-5.0" and texts[1, 2] == "(+0.5)" and len(texts) == 6
    assert "K=5, b - c (+0.5)" in alt and "c - b" not in alt, "every pair is said once"
    assert data.loc[("K=1", "a"), "c"] == 5.5 and np.isnan(data.loc[("K=1", "a"), "a"])
    low, high = figure.axes[0].collections[0].get_clim()
    assert low == -high == -5.5, "0 is the middle of the colours"


MIOU = {("gap", 0): (50, 60), ("gap", 1): (40, 38), ("area", 1): (50, 60), ("area", 0.5): (49, 63)}
ROWS = [
    {"knob": knob, "value": value, "method": method, "miou": (miou, miou - 2, miou + 2)}
    for (knob, value), pair in MIOU.items()
    for method, miou in zip(("panet", "own"), pair)
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
    figure, alt, _ = pictures.side_by_side(episode, masks, ious, ["a wins", "b wins"], "Two episodes.")
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
