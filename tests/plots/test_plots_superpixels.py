"""Figures and words about superpixels: what they draw and say follows the numbers they are given."""

import numpy as np
import torch
from matplotlib.colors import to_rgb

from fsslib.plots import common
from fsslib.plots import superpixels as pictures
from fsslib.plots.display import picture

IMAGE = torch.zeros(3, 33, 33)


def test_tinted_enlarges_numbers_without_mixing_them():
    labels = torch.zeros(3, 3).long()
    labels[0, 0], labels[2, 1] = 1, 7
    shown = common.tinted(labels, IMAGE, strength=1.0)
    assert shown.shape == (33, 33, 3) and len(np.unique(shown.reshape(-1, 3), axis=0)) == 3
    assert (shown[:11, :11] == to_rgb(common.HUES[0])).all()
    assert (shown[22:, 11:22] == to_rgb(common.HUES[1])).all()  # 7 has the colour of 2
    assert np.ptp(shown[0, 20]) == 0  # elsewhere grey
    image = torch.stack([torch.linspace(-1, 1, 33).expand(33, 33)] * 3)
    shown = common.tinted(torch.ones(3, 3), image)
    assert shown[0, -1].sum() > shown[0, 0].sum() and shown.min() >= 0 and shown.max() <= 1, "the picture is seen"


def drawn_placement(count):
    cells = torch.zeros(11, 11, dtype=torch.bool)
    cells[4:7, 4:7] = True
    points = torch.tensor([[4, 5], [6, 6], [0, 0]])
    return pictures.placement({"a disc": (IMAGE, cells, {"published": (points, count), "clean": (points, 3)})})


def test_placement_numbers_the_seeds_on_their_cells():
    figure, alt, _ = drawn_placement(2)
    found = {t.get_text(): t.get_position() for t in figure.axes[0].texts}
    assert found == {"1": (5.5, 4.5), "2": (6.5, 6.5)}  # columns and rows of the cells' centres
    assert len(figure.axes[1].texts) == 3 and [a.get_title() for a in figure.axes] == ["published: 2", "clean: 3"]
    assert "a disc, published: 2 superpixels; a disc, clean: 3 superpixels" in alt
    figure, alt, _ = drawn_placement(1)
    assert not figure.axes[0].texts and "published: 1 superpixel;" in alt and picture(figure), "one needs no seed"


def test_clustering_draws_the_way_of_every_centre():
    cells = torch.zeros(9, 9, dtype=torch.bool)
    cells[2:7, 2:7] = True
    weights = torch.zeros(2, 9, 9)
    weights[0, 3, 3], weights[0, 4, 4], weights[1, 5, 5] = 0.5, 0.25, 1.0
    centres = {0: [[2.0, 2.0], [2.0, 6.0]], 5: [[4.0, 4.0], [4.0, 5.0]]}
    stages = {step: (torch.tensor(places), weights) for step, places in centres.items()}
    figure, alt, _ = pictures.clustering({"exp(-D)": stages}, cells)
    assert [a.get_title() for a in figure.axes] == ["t = 0", "t = 5"]
    way, end = figure.axes[1].lines[:2]
    assert way.get_xydata().tolist() == [[2, 2], [4, 4]] and end.get_xydata().tolist() == [[4, 4]]
    shown = figure.axes[0].images[0].get_array()
    opaque = shown[..., 3].round(2)
    assert (opaque > 0).sum() == 25 and opaque[3, 3] == 1 and opaque[4, 4] == 0.6 and opaque[6, 6] == 0.2
    assert opaque[5, 5] == 1 and (shown[5, 5, :3] == to_rgb(common.HUES[1])).all(), "the second one's own cell"
    assert "exp(-D): mean distance of the centres from 4.0 to 1.0 cells" in alt


def test_a_storyboard_joins_its_steps_by_arrows_and_numbers_places():
    steps = [("support", np.zeros((9, 9, 3)), [(2, 3), (5, 6)]), ("map", torch.rand(3, 3), ())]
    figure, alt, _ = pictures.storyboard({"SGC": steps, "GPA": steps}, "Two rows of two steps.")
    above = figure.axes[:2]
    assert [a.get_title() for a in above] == ["support", "map"] and above[0].get_ylabel() == "SGC"
    assert {t.get_text(): t.get_position() for t in above[0].texts} == {"1": (3, 2), "2": (6, 5)}
    assert sum(t.arrow_patch is not None for a in figure.axes for t in a.texts if hasattr(t, "arrow_patch")) == 2
    assert alt == "Two rows of two steps." and picture(figure)
