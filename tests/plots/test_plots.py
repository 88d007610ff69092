"""Training curves show every loss there is, however small, and the validations in a scale of their own."""

import matplotlib.pyplot as plt

from fsslib.plots.common import histories
from fsslib.training import History


def test_training_curves_show_every_term_and_every_validation():
    rows = [{"main": 1 / s, "aux": 0.8 / s, "kd": 1e-5 * s, "saam": 0.5, "total": 2 / s} for s in range(1, 31)]
    for step in (10, 30):
        rows[step - 1]["val_miou"] = 40.0 + step
    history = History(rows)
    figure, alt, _ = histories({"episodic training": history, "nothing": History()}, window=5)
    left, right = figure.axes
    assert len(left.lines) == 4 and left.get_yscale() == "log", "kd would lie on the axis otherwise"
    assert len({(line.get_color(), line.get_linestyle()) for line in left.lines}) == 4
    assert list(right.lines[0].get_xydata()[:, 0]) == [10, 30]
    assert "kd from" in alt and "validation from 50.0 to 70.0 percent" in alt
    assert history.smooth("val_miou", 1) == [50.0, 70.0]
    figure, _, _ = histories({"plain": History([{"total": 2.0}, {"total": 1.0}])})
    assert len(figure.axes) == 1 and figure.axes[0].get_yscale() == "linear"
    plt.close("all")
