"""Figures about dense correlation: what they draw and say follows the numbers they are given."""

import numpy as np
import pytest
import torch

from fsslib.episode import Episode
from fsslib.plots import correlation as pictures
from fsslib.plots.display import picture

IMAGE = torch.linspace(-1, 1, 3 * 33 * 33).view(3, 33, 33)


def test_heat_lays_the_map_over_a_grey_picture_and_outlines_the_object():
    mask = torch.zeros(33, 33).long()
    mask[8:16, 20:28] = 1
    figure, alt, _ = pictures.heat({"": [("cos", IMAGE, torch.tensor([[-2.0, 0], [0, 3]]), mask)]}, "One map.")
    axis = figure.axes[0]
    below, above = axis.images
    assert np.ptp(below.get_array(), axis=-1).max() == 0 and below.get_extent() == above.get_extent()
    assert above.get_array().tolist() == [[-2, 0], [0, 3]] and axis.get_title() == "cos\n-2 to 3"
    outline = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
    assert outline.min(0) == pytest.approx([20 / 33, 8 / 33]) and outline.max(0) == pytest.approx([28 / 33, 16 / 33])
    assert alt == "One map. Ranges: cos -2 to 3."


def test_heat_keeps_the_colours_of_a_plain_picture_and_needs_no_mask():
    figure, alt, _ = pictures.heat({"best": [("query", IMAGE, None, None)]}, "One picture.")
    axis = figure.axes[0]
    assert len(axis.images) == 1 and np.ptp(axis.images[0].get_array(), axis=-1).max() > 0
    assert not axis.collections and axis.get_ylabel() == "best" and alt == "One picture."


def test_heat_stands_rows_of_different_length_and_empty_masks():
    flat = torch.full((2, 2), 0.004)
    rows = {"a": [("x", IMAGE, None, torch.zeros(33, 33).long())] * 2, "b": [("y", None, flat, None)]}
    figure, alt, _ = pictures.heat(rows, "Two rows.")
    assert len(figure.axes) == 4 and picture(figure) and "b, y 0.004 to 0.004" in alt
    assert not figure.axes[0].collections


def test_attention_axes_show_what_is_given_and_received():
    over_query = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]])
    over_support = torch.tensor([[0.75, 0.5, 0.25], [0.25, 0.5, 0.75]])
    figure, alt, data = pictures.attention_axes({"over the query": over_query, "over the support": over_support})
    assert "over the query: a support position gives 1.0, a query position receives 0.0 to 1.5" in alt
    assert "over the support: a support position gives 1.5, a query position receives 1.0" in alt
    assert "2 support positions to 3 query positions" in alt
    assert data.loc["receives, most", "over the query"] == 1.5 and data.loc["gives, least", "over the support"] == 1.5
    gives, receives = figure.axes[1], figure.axes[2]
    assert [bar.get_width() for bar in gives.patches] == [1, 1]
    assert receives.patches[0].get_data().values.tolist() == [1.5, 0.5, 0]
    assert figure.axes[2].get_ylim() == figure.axes[5].get_ylim(), "the two are to be compared"


def test_decision_draws_every_threshold_and_the_plain_one(drawn):
    figure, alt, data = pictures.decision({"low": [0.6, 0.7], "high": [0.65, 0.75]}, "base", "threshold")
    assert [[y for _, y in points] for _, points in drawn(figure.axes[0])][1:] == [[0.65, 0.75], [0.5, 0.5]]
    assert "low: 0.60 to 0.70; high: 0.65 to 0.75; dotted 0.5" in alt and data.loc["high", "at 1"] == 0.75


def test_the_storyboard_shows_the_maps_and_who_meets_whom():
    one = torch.zeros(1, 2, 5, 5)
    sides = {"query_images": IMAGE[None], "support_images": IMAGE[None, None, None]}
    mask = torch.zeros(1, 33, 33).long()
    mask[:, 4:9, 4:9] = 1
    episode = Episode(query_masks=mask, support_masks=mask[None, None], classes=torch.tensor([[1]]), **sides)
    maps = {f"correlation/{i}": torch.rand(1, n, n) for i, n in enumerate((7, 4, 2))}
    maps |= {"meta": one, "prior": one, "base_map": one[:, :1] + 1}
    maps |= {"scene/object": one[:, :1], "merged/background": one[:, :1] - torch.eye(5)}
    figure, alt, _ = pictures.storyboard(episode, maps)
    assert "correlation maps of 2, 4, 7 cells" in alt and len(figure.artists) == len(pictures.ARROWS)
    support, *_, answer = figure.axes
    shown = support.images[0].get_array()
    assert not shown[mask[0] == 0].any() and shown[mask[0] == 1].any(), "only the object is left"
    assert answer.images[-1].get_array().tolist() == torch.eye(5).tolist()
    assert picture(figure)
