"""Figures about self-distillation: what they draw and say follows the numbers they are given."""

import pytest
import torch

from fsslib.plots import distillation as pictures
from fsslib.plots.display import picture


def test_gate_channels_sorts_by_the_mean_counts_the_damped_and_tells_classes_apart():
    gates = torch.tensor([[0.9, 0.1, 0.4], [0.7, 0.3, 0.4], [0.8, 0.2, 0.4], [0.8, 0.2, 0.4]])
    figure, alt, data = pictures.gate_channels(gates, ["b", "b", "a", "a"])
    assert data.index.tolist() == [1, 2, 0] and data.columns.tolist() == ["a", "b"]
    assert data["b"].tolist() == [0.2, 0.4, 0.8]
    assert "means from 0.20 to 0.80, 2 below one half" in alt and "2 classes lie 0.00 apart" in alt
    assert picture(figure)
    gates = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    assert "2 classes lie 0.40 apart" in pictures.gate_channels(gates, ["a", "b"])[1]


def test_student_and_teacher_share_one_order_and_their_difference_is_drawn():
    student, teacher = torch.tensor([0.1, 0.7, 0.2]), torch.tensor([0.2, 0.6, 0.5])
    losses = {0.5: (3e-4, 1.2e-3), 5.0: (2e-4, 8e-6)}
    figure, alt, data = pictures.student_teacher(student, teacher, losses)
    both, rest, last = figure.axes
    assert [bar.get_height() for bar in both.patches] == pytest.approx([0.7, 0.2, 0.1])
    assert [bar.get_height() for bar in rest.patches] == pytest.approx([-0.1, 0.3, 0.1])
    assert [line.get_ydata().tolist() for line in last.lines[:2]] == [[3e-4, 2e-4], [1.2e-3, 8e-6]]
    assert "mean 0.100 and runs from -0.100 to 0.300" in alt and "at 5 0.0002 with τ² and 8e-06 without" in alt
    assert data.loc[0.5, "without"] == 1.2e-3 and picture(figure)


def test_claim_curves_draw_every_training_and_every_interval():
    three, other = (50.0, 45.0, 56.0), (40.0, 40.0, 40.0)
    panels = {"mIoU": {"α = 0": {0.0: (three, [49, 50, 51]), 1.0: (other, [40, 40, 40])}}}
    panels["distance"] = {"α = 0": {0.0: (other, [39, 41]), 1.0: (other, [40])}}
    figure, alt, data = pictures.claim_curves(panels, "gap")
    dots = [sorted(y for line in axis.lines for y in line.get_ydata() if line.get_markersize() == 3.5)
            for axis in figure.axes]  # fmt: skip
    assert dots == [[40, 40, 40, 49, 50, 51], [39, 40, 41]]
    bars = [path.vertices[:, 1].tolist() for c in figure.axes[0].collections for path in c.get_paths()]
    assert [45.0, 56.0] in [sorted(bar) for bar in bars]
    assert "mIoU, α = 0: 50 at 0, 40 at 1" in alt and data.loc[1.0, ("mIoU", "α = 0")] == 40 and picture(figure)


def test_shares_add_up_to_a_hundred_and_name_the_small_ones():
    figure, alt, data = pictures.shares({"loss": {"main": 3.0, "kd": 0.03}, "gradient": {"main": 1.0, "kd": 1.0}})
    assert data.sum(axis=1).tolist() == pytest.approx([100, 100], abs=0.2)
    assert data.loc["gradient", "kd"] == 50 and "loss: main 99.0 %, kd 1.0 %" in alt
    written = [t.get_text() for t in figure.axes[0].texts if t.get_text()]
    assert written == ["99", "50", "50"], "a share below 5 % is too narrow for its number"
    assert picture(figure)
