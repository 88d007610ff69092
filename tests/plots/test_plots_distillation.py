"""Figures about self-distillation: what they draw and say follows the numbers they are given."""

import numpy as np
import pytest
import torch

from fsslib.plots import distillation as pictures
from fsslib.plots.display import picture


def test_curves_keeps_the_panels_apart_and_says_first_and_last():
    fall = {0: (0.5, 0.4, 0.6), 25: (0.25, 0.2, 0.3)}
    still = {0: (60.0, 55.0, 65.0), 25: (61.0, 57.0, 66.0)}
    panels = {"distance": {"without": fall, "with": still}, "mIoU, %": {"without": still, "with": still}}
    figure, alt, data = pictures.curve_panels(panels, "step", limits={"mIoU, %": (0, 100)})
    assert [axis.get_title() for axis in figure.axes] == list(panels) and figure.axes[1].get_ylim() == (0, 100)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["without", "with"]
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [0, 25] and line.get_ydata().tolist() == [0.5, 0.25]
    assert "distance: first without 0.5, with 60; last without 0.25, with 61" in alt
    assert data.loc[25, ("distance", "without")] == 0.25 and data.loc[0, ("mIoU, %", "with")] == 60
    assert picture(figure)
    figure, _, _ = pictures.curve_panels({"mIoU": {"only": {1: (1, 0, 2), 5: (2, 1, 3)}}}, "shots K", integer=True)
    assert not figure.legends and figure.axes[0].get_xticks().tolist() == [1, 5], "one curve, at counts"


def test_gate_channels_sorts_by_the_mean_counts_the_damped_and_tells_classes_apart():
    gates = torch.tensor([[0.9, 0.1, 0.4], [0.7, 0.3, 0.4], [0.8, 0.2, 0.4], [0.8, 0.2, 0.4]])
    figure, alt, data = pictures.gate_channels(gates, ["b", "b", "a", "a"])
    assert data.index.tolist() == [1, 2, 0] and data.columns.tolist() == ["a", "b"]
    assert data["b"].tolist() == [0.2, 0.4, 0.8]
    assert "means from 0.20 to 0.80, 2 below one half" in alt and "2 classes lie 0.00 apart" in alt
    assert picture(figure)
    gates = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    assert "2 classes lie 0.40 apart" in pictures.gate_channels(gates, ["a", "b"])[1]


def test_distributions_share_one_order_and_one_scale():
    student, teacher = torch.tensor([0.1, 0.7, 0.2]), torch.tensor([0.2, 0.6, 0.2])
    uniform = torch.full((3,), 1 / 3)
    figure, alt, data = pictures.distributions({"tau 1": (student, teacher), "tau 9": (uniform, uniform)})
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([0.7, 0.2, 0.1]) and heights == sorted(heights, reverse=True)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert data.loc["entropy, student", "tau 9"] == pytest.approx(np.log(3), abs=1e-3)
    assert data.loc["entropy, student", "tau 1"] < data.loc["entropy, teacher", "tau 1"]
    assert "over 3 channels" in alt and "tau 1: largest 0.700" in alt and picture(figure)
    data = pictures.distributions({"one": (torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))})[2]
    assert data.loc["entropy, student", "one"] == 0, "a channel may have no mass"


def test_shares_add_up_to_a_hundred_and_name_the_small_ones():
    figure, alt, data = pictures.shares({"loss": {"main": 3.0, "kd": 0.03}, "gradient": {"main": 1.0, "kd": 1.0}})
    assert data.sum(axis=1).tolist() == pytest.approx([100, 100], abs=0.2)
    assert data.loc["gradient", "kd"] == 50 and "loss: main 99.0 %, kd 1.0 %" in alt
    written = [t.get_text() for t in figure.axes[0].texts if t.get_text()]
    assert written == ["99", "50", "50"], "a share below 5 % is too narrow for its number"
    assert picture(figure)
