"""Figures about prototypes: their words follow the numbers, and their intervals are right."""

import numpy as np
import pytest
import torch

from fsslib.ops import project_mask
from fsslib.plots import common
from fsslib.plots import pooling as pictures
from fsslib.plots.display import picture


@pytest.mark.parametrize("corner", [(0, 0), (40, 60), (80, 80)])
def test_pooling_figure_counts_cells(corner):
    mask = torch.zeros(97, 97, dtype=torch.long)
    mask[corner[0] : corner[0] + 17, corner[1] : corner[1] + 17] = 1
    weights = project_mask((mask == 1).float(), (25, 25))
    figure, alt, _ = pictures.pooling(torch.zeros(3, 97, 97), mask, weights)
    some = int((weights > 0.05 * weights.max()).sum())
    assert f"{some} cells have a weight" in alt and "25x25 cells" in alt
    written = [float(t.get_text()) for t in figure.axes[2].texts]
    assert len(written) == 49 and max(written) == round(float(weights.max()))


def test_pooling_figure_stands_an_empty_mask():
    figure, alt, _ = pictures.pooling(torch.zeros(3, 33, 33), torch.zeros(33, 33).long(), torch.zeros(9, 9))
    assert "0 cells have a weight" in alt and picture(figure)


def test_score_curves_and_differences_say_their_numbers():
    points = {1: (50.0, 45.0, 55.0), 5: (60.0, 58.0, 63.0)}
    figure, alt, data = common.score_curves({"PANet": points, "other": points}, "shots K")
    assert "PANet from 50 at 1 to 60 at 5" in alt and data.loc[5, "other"] == 60
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["PANet", "other"]
    figure, alt, data = common.differences({"box - mask": (-12.0, -15.0, -9.0)})
    assert "box - mask: -12.0 (-15.0 to -9.0), lower" in alt and data.loc["box - mask", "low"] == -15


def test_strip_restores_the_settings_it_changes():
    before = pictures.plt.rcParams["image.interpolation"]
    _, alt, _ = common.strip([("a", np.zeros((4, 4, 3))), ("b", torch.eye(4))], "two small pictures")
    assert alt == "two small pictures" and pictures.plt.rcParams["image.interpolation"] == before
