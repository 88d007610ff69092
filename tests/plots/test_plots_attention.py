"""Figures about prior and attention maps: what they draw and say follows the numbers they are given."""

import numpy as np
import pytest
import torch

from fsslib.plots import attention as pictures
from fsslib.plots.display import picture


def cosines(rows=(), side=9):
    """(side*side, side*side) zeros with support position `row` as similar to query position `column` as `value`."""
    table = torch.zeros(side * side, side * side)
    for row, column, value in rows:
        table[row, column] = value
    return table


def drawn_matches(table, positions):
    blank = torch.zeros(3, 33, 33)
    return pictures.matches(blank, blank, torch.zeros(33, 33).long(), table, positions)


def test_matches_stars_the_best_support_position_of_each_query_position():
    table = cosines([(2 * 9 + 3, 4 * 9 + 5, 0.9), (6 * 9 + 7, 4 * 9 + 5, 0.4), (6 * 9 + 7, 0, 0.3)])
    figure, alt, _ = drawn_matches(table, {"A": (4, 5), "B": (0, 0)})
    stars = [axis.lines[0].get_xydata()[0].tolist() for axis in figure.axes[1:3]]
    assert stars == [[3.5, 2.5], [7.5, 6.5]]  # columns and rows of the cells' centres
    assert [t.get_position() for t in figure.axes[0].texts] == [(5.5, 4.5), (0.5, 0.5)]
    assert "A's best match has a cosine of 0.9" in alt and "B's best match has a cosine of 0.3" in alt
    assert "2 object positions" in alt


def test_matches_shows_only_object_positions_and_stays_inside_the_picture():
    figure, _, _ = drawn_matches(cosines([(0, 0, 0.5), (1, 3, 0.2)]), {"A": (0, 0)})
    shown = figure.axes[1].images[1].get_array()
    assert np.argwhere(~shown.mask).tolist() == [[0, 0], [0, 1]]
    (left, right), (bottom, top) = figure.axes[1].get_xlim(), figure.axes[1].get_ylim()
    assert (left, top) == (0, 0) and right == bottom <= 9
    figure, alt, _ = drawn_matches(cosines(), {"A": (4, 4)})
    assert "0 object positions" in alt and picture(figure), "it stands an empty mask"


def test_values_tell_the_object_from_the_rest(drawn):
    maps = {"prior": (torch.full((4,), 0.8), torch.tensor([0.0, 0.2])), "other": ([-1], [2])}
    figure, alt, data = pictures.values(maps)
    assert "prior from 0.0 to 0.8, mean 0.80 on it, 0.10 off" in alt and "other from -1.0 to 2.0" in alt
    assert data.loc["prior, elsewhere", "mean"] == 0.1 and data.loc["other, object", "lowest"] == -1
    heights = [line.get_ydata().max() for line, points in drawn(figure.axes[0]) if len(points) > 2]
    assert heights == [1.0, 0.5]  # shares, so that a small object is as visible as its surroundings


def test_gallery_gives_every_column_one_scale():
    photo = np.zeros((5, 5, 3))
    rows = {"best": [photo, torch.zeros(4, 4), torch.eye(4)], "worst": [photo, 3 * torch.eye(4), -torch.eye(4)]}
    figure, alt, _ = pictures.gallery(rows, ("query", "prior", "attention"), "two rows of pictures")
    axes = np.array(figure.axes).reshape(2, 3)
    assert [a.images[0].get_clim() for a in axes[:, 1]] == [(0, 3)] * 2
    assert [a.images[0].get_clim() for a in axes[:, 2]] == [(-1, 1)] * 2
    assert [a.get_title() for a in axes[0]] == ["query\n", "prior\n0.0 to 3.0", "attention\n-1.0 to 1.0"]
    assert [a.get_ylabel() for a in axes[:, 0]] == ["best", "worst"] and alt == "two rows of pictures"


def test_dots_put_every_value_with_its_interval_on_its_group(drawn):
    head = {"a": (0.7, 0.6, 0.8), "b": (0.6, 0.5, 0.7)}
    series = {"prior": {"a": (0.9, 0.8, 0.95), "b": (0.5, 0.4, 0.6)}, "head": head}
    figure, alt, data = pictures.dots(series, "AUC", line=0.5)
    axis = figure.axes[0]
    assert "prior: a 0.90, b 0.50; head: a 0.70, b 0.60" in alt and data.loc["b", "head"] == 0.6
    places = [np.nanmean(points, 0) for _, points in drawn(axis)]
    assert axis.lines[0].get_xdata().tolist() == [0.9, 0.5]
    bar = axis.lines[1].get_xydata()
    assert (np.nanmin(bar[:, 0]), np.nanmax(bar[:, 0])) == pytest.approx((0.8, 0.95)) and abs(places[1][1]) < 0.5
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["prior", "head"]
    figure, alt, _ = pictures.dots({"": {"a": (0.9, 0.8, 1.0)}}, "AUC")
    assert figure.axes[0].get_legend() is None and "intervals. a 0.90." in alt, "one series needs no name"


def test_dots_show_every_training_beside_its_mean():
    series = {"one": {"a": (0.7, 0.6, 0.8), "b": (0.6, 0.5, 0.7)}, "two": {"a": (0.4, 0.3, 0.5), "b": (0.3, 0.2, 0.4)}}
    single = {"one": {"b": [0.5, 0.7]}, "two": {"a": [0.35, 0.4, 0.45]}}
    figure, alt, _ = pictures.dots(series, "mIoU", trainings=single)
    small = [line.get_xydata() for line in figure.axes[0].lines if line.get_markersize() == 3]
    assert [points[:, 0].tolist() for points in small] == [next(iter(x.values())) for x in single.values()]
    assert abs(small[0][0, 1] - 1) < 0.5 and abs(small[1][0, 1]) < 0.5, "on the line of their group"
    assert "a dot for each training" in alt


def test_emergence_draws_loss_and_measurements():
    points = {"support": {0: 0.5, 10: 0.9}, "query": {0: 0.4, 10: 0.8}}
    figure, alt, data = pictures.emergence([0.7, 0.3, 0.2], points, "AUC")
    assert "Loss from 0.70 to 0.20" in alt and "query from 0.40 to 0.80" in alt
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2, 3] and data.loc[10, "support"] == 0.9
    figure, alt, _ = pictures.emergence([], {"support": {0: 0.5}})
    assert "of no step" in alt and picture(figure)
