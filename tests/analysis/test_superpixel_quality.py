"""How different superpixels are, on objects where that is known."""

import pytest
import torch
from core_tools import random_episode

from fsslib import build_model
from fsslib.analysis.superpixels import NAMES, superpixel_measures, superpixel_quality
from fsslib.models.asgnet import Superpixels


def test_measures_of_superpixels_that_are_known():
    """The plain average twice, two cells at a right angle, and a support with one prototype, which does not count."""
    assignment = torch.zeros(3, 3, 2, 2)
    assignment[0, :2] = 0.25
    assignment[1, 0, 0, 0] = assignment[1, 1, 1, 1] = 1.0
    assignment[2, 0] = 1.0
    prototypes = torch.zeros(3, 3, 4)
    prototypes[0, :2, 0], prototypes[1, 0, 1], prototypes[1, 1, 2] = 3.0, 2.0, 5.0
    used = torch.tensor([[True, True, False], [True, True, False], [True, False, False]])
    found = superpixel_measures(Superpixels(prototypes, used, assignment))
    torch.testing.assert_close(found, torch.tensor([[2.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 0.5]]))


@pytest.mark.parametrize("many", [True, False], ids=["several", "one"])
def test_a_sharper_assignment_has_less_entropy(many):
    net = build_model("asgnet", backbone="tiny", width=8, superpixel_area=5.0, max_superpixels=5 if many else 1)
    episode = random_episode(2, 1, 2)
    flat = superpixel_quality(net, [episode, episode])
    assert flat.keys() == (set(NAMES) if many else {"prototypes"}) and (flat["prototypes"] > 1) == many and net.training
    if many:
        net.sharpness = 8.0
        sharp = superpixel_quality(net, [episode])
        assert sharp["entropy"] < flat["entropy"] <= 1 and sharp["cosine"] < flat["cosine"]
        assert 0 < sharp["cells in use"] < flat["cells in use"] <= 1
