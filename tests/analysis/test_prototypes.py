"""Distances of prototypes: of one class, of others, and of one picture."""

import pytest
import torch

from fsslib import Episode, build_model
from fsslib.analysis.prototypes import prototype_distances


def half(value):
    """Pictures (2, 3, 65, 65) of one value, with the left half marked."""
    mask = torch.zeros(2, 65, 65, dtype=torch.long)
    mask[:, :, :32] = 1
    return torch.full((2, 3, 65, 65), value), mask


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_distances_follow_the_pictures_and_the_projections(shared):
    """Query and support of equal pictures: nothing but the projections and the gate can lie between them."""
    torch.manual_seed(0)
    net = build_model("sdaanet", backbone="tiny", width=8, scales=(1.0, 0.5), shared_projection=shared, dropout=0.0)
    image, mask = half(0.5)
    episode = Episode(image, mask, image[:, None, None], mask[:, None, None], torch.tensor([[0], [1]]))
    net.sdpm.gate[2].weight.data.zero_()  # the gate is the same for all channels: it turns nothing
    net.sdpm.gate[2].bias.data.zero_()
    found = prototype_distances(net, [episode, episode])
    assert found["same class"] == pytest.approx(found["same picture"], abs=1e-5)
    assert found["other class"] == pytest.approx(found["same class"], abs=1e-5), "the pictures are all alike"
    assert (found["same picture"] < 1e-3) == shared and not net.explain and net.training
    other, _ = half(-1.0)
    moved = prototype_distances(net, [Episode(other, mask, image[:, None, None], mask[:, None, None], episode.classes)])
    assert moved["same class"] > found["same class"] + 1e-3 or not shared
    assert (moved["same picture"] < 1e-3) == shared
