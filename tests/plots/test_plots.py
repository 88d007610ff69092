"""Training curves show every loss, however small, and the validations; seaborn draws what is statistics."""

from unittest.mock import Mock

import matplotlib.pyplot as plt
import pytest
import seaborn as sns

from fsslib.plots import ablation, attention, common, comparison, distillation, protocol
from fsslib.plots.common import histories
from fsslib.plots.display import legibility, picture, width_of
from fsslib.training import History


def test_training_curves_show_every_term_and_every_validation(drawn):
    rows = [{"main": 1 / s, "aux": 0.8 / s, "kd": 1e-5 * s, "saam": 0.5, "total": 2 / s} for s in range(1, 31)]
    for step in (10, 30):
        rows[step - 1]["val_miou"] = 40.0 + step
    history = History(rows)
    figure, alt, _ = histories({"episodic training": history, "nothing": History()}, window=5)
    left, right = figure.axes
    lines = [line for line, _ in drawn(left)]
    assert len(lines) == 4 and left.get_yscale() == "log", "kd would lie on the axis otherwise"
    assert len({line.get_color() for line in lines}) == len({str(line._dash_pattern) for line in lines}) == 4
    assert list(right.lines[0].get_xydata()[:, 0]) == [10, 30]
    assert "kd from" in alt and "validation from 50.0 to 70.0 percent" in alt
    assert history.smooth("val_miou", 1) == [50.0, 70.0]
    figure, _, _ = histories({"plain": History([{"total": 2.0}, {"total": 1.0}])})
    assert len(figure.axes) == 1 and figure.axes[0].get_yscale() == "linear"


INTERVAL = (2.0, 1.0, 3.0)
STATISTICS = {
    "lineplot": [
        lambda: common.score_curves({"a": {1: INTERVAL, 2: INTERVAL}}, "x"),
        lambda: comparison.knobs([{"knob": "gap", "value": 0, "method": "a", "miou": INTERVAL}], {"a": "A"}),
        lambda: protocol.flips({"t": {"a": {25: 3.0, 100: 1.0}}}),
    ],
    "pointplot": [
        lambda: common.differences({"a": INTERVAL}),
        lambda: attention.dots({"a": {"g": INTERVAL}}, "x"),
        lambda: ablation.ablation([{"shots": 1, "model": "m", "miou": INTERVAL, "per_seed": [2.0]}]),
    ],
    "barplot": [lambda: common.score_bars({"a": INTERVAL})],
    "heatmap": [lambda: comparison.matrix({"t": dict.fromkeys((("a", "b"), ("b", "a")), (INTERVAL, [1]))}, ["a", "b"])],
    "histplot": [lambda: attention.values({"a": ([0.0, 1.0], [0.0, 2.0])})],
    "scatterplot": [lambda: distillation.gate_channels([[0.1, 0.2], [0.3, 0.4]], ["a", "b"])],
}


@pytest.mark.parametrize("name", STATISTICS)
def test_seaborn_draws_the_statistics_in_one_theme(name, monkeypatch):
    function, before = Mock(wraps=getattr(sns, name)), dict(plt.rcParams)
    monkeypatch.setattr(sns, name, function)
    for draw in STATISTICS[name]:
        function.reset_mock()
        axis = draw()[0].axes[0]
        assert function.called and axis.xaxis.label.get_size() == pytest.approx(9.024)
    assert dict(plt.rcParams) == before, "nobody's settings change"


def test_a_figure_is_the_same_each_time():
    draw = STATISTICS["scatterplot"][0]
    assert picture(draw()[0]) == picture(draw()[0])


@pytest.mark.parametrize(("size", "title", "panel", "colliding"), [
    ((4, 2.2), "short", 141, 0), ((1.5, 1), "short", 50, 0),
    ((4, 2.2), "a title as long as two of its pictures", 141, 1),
])  # fmt: skip
def test_what_cannot_be_read_is_noticed(size, title, panel, colliding):
    """The narrowest picture in pixels of the page, and titles that run into each other; a plot is no picture."""
    figure, axes = plt.subplots(1, 2, figsize=size)
    for axis in axes:
        axis.imshow([[0, 1], [1, 0]])
        axis.set_title(title)
    found = legibility(figure, width_of(picture(figure)))
    assert abs(found["panel"] - panel) < 25 and len(found["colliding"]) == colliding
    wide, _ = plt.subplots(1, 10, figsize=(30, 3))
    for axis in wide.axes:
        axis.imshow([[0, 1], [1, 0]])
    assert legibility(wide, width_of(picture(wide)))["panel"] < 100, "a page shrinks what is wider"
    plot, axis = plt.subplots()
    axis.plot([0, 1])
    assert legibility(plot, width_of(picture(plot))) == {"panel": None, "colliding": []}
