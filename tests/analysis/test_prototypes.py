"""Distances of prototypes: of one class, of others, and of one picture."""

import pytest
import torch

from fsslib import Episode, build_model
from fsslib.analysis.prototypes import prototype_distances, prototype_worth
from fsslib.metrics import FewShotIoU


def half(value):
    """Pictures (2, 3, 65, 65) of one value, with the left half marked."""
    mask = torch.zeros(2, 65, 65, dtype=torch.long)
    mask[:, :, :32] = 1
    return torch.full((2, 3, 65, 65), value), mask


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_distances_follow_the_pictures_and_the_projections(shared):
    """Query and support of equal pictures: nothing but the projections and the gate can lie between them."""
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


def test_the_worth_of_a_prototype_is_the_score_with_the_query_or_a_foreign_support():
    net = build_model("sdaanet", backbone="tiny", width=8, scales=(1.0, 0.5), saam=False, prior=False, dropout=0.0)
    for merge in net.enrichment.merge:  # untrained, a network hardly looks at the prototype
        merge[0].weight.data *= 50
    net.enrichment.classifier[-1].bias.data.zero_()
    image, other = torch.randn(2, 4, 3, 65, 65)
    mask, its_mask = (torch.rand(2, 4, 65, 65) > 0.5).long()
    classes = torch.tensor([[0], [0], [1], [1]])
    given = Episode(image, mask, other[:, None, None], its_mask[:, None, None], classes)
    own = Episode(image, mask, image[:, None, None], mask[:, None, None], classes)
    far = [2, 2, 0, 0]  # the first of the other class
    foreign = Episode(image, mask, other[far][:, None, None], its_mask[far][:, None, None], classes)
    found = prototype_worth(net, [given])
    net.eval()
    for name, episode in (("as it is", given), ("own prototype", own), ("foreign prototype", foreign)):
        meter = FewShotIoU()
        with torch.no_grad():
            meter.update(net(episode).masks(), mask, classes)
        assert found[name] == pytest.approx(100 * meter.compute().miou, abs=1e-3)
    assert len(set(found.values())) == 3
