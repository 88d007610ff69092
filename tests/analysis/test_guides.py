"""The area under the ROC curve of the maps that a decoder is given."""

import numpy as np
import pytest
import torch
from core_tools import random_episode
from sdaanet_tools import tiny

from fsslib import EpisodeSampler, Protocol, load_dataset, load_model
from fsslib.analysis.guides import auc, aucs, guide_aucs, guide_use
from fsslib.checkpoints import shipped

SCORE, OBJECT = torch.tensor([[0.9, 0.6, 0.4, 0.1]]), torch.tensor([[1, 1, 0, 0]])


@pytest.mark.parametrize(("score", "mask", "expected"), [
    (SCORE, OBJECT, 1.0), (-SCORE, OBJECT, 0.0), (0 * SCORE, OBJECT, 0.5), (3 * SCORE - 7, OBJECT, 1.0),
    (SCORE, torch.tensor([[0, 1, 1, 0]]), 0.5), (SCORE, torch.tensor([[255, 1, 0, 255]]), 1.0),
    (SCORE, torch.tensor([[0, 1, 0, 255]]), 0.5),
])  # fmt: skip
def test_auc(score, mask, expected):
    """Pairs are counted: (0.6 over 0.4, under 0.9) is one of two; 255 does not count."""
    assert auc(score, mask) == pytest.approx(expected)
    assert aucs(score[None], mask[None]) == pytest.approx([expected])


def test_a_side_without_pixels_has_no_auc():
    assert np.isnan(auc(SCORE, 0 * OBJECT)) and np.isnan(auc(SCORE, 0 * OBJECT + 1))


def test_the_guides_of_a_network_are_ranked():
    episode, net = random_episode(2, 1, 2), tiny()
    found = guide_aucs(net, [episode.shots(1), episode])
    assert found.keys() == {"prior", "attention"} and not net.explain
    net.explain = True
    maps = [net.eval()(e).maps["prior"][:, 0] for e in (episode.shots(1), episode)]
    expected = np.mean([aucs(m, episode.query_masks) for m in maps])
    assert found["prior"] == pytest.approx(expected)
    assert guide_aucs(tiny(prior=False), [episode]).keys() == {"attention"}
    assert guide_aucs(tiny(prior=False, saam=False), [episode]) == {}


def test_a_map_that_the_decoder_does_not_read_costs_nothing():
    """Weights of 0 behind one map: its exchange changes no pixel. The shipped decoder hangs on the prior."""
    net, data = load_model(shipped("sdaanet", "shapes", 0)), load_dataset("shapes", fold=0, split="test")
    for conv, _ in net.enrichment.merge:
        conv.weight.data[:, -1] = 0  # the attention
    sampler = EpisodeSampler(data, Protocol.shapes5i(), shot=1)
    episode = sampler.build(sampler.fixed(8, 0).specs)
    found = guide_use(net, [episode])
    assert found["attention"] == 0 and found["prior"] > 10 and not net.explain
    assert guide_use(tiny(prior=False, saam=False), [random_episode(2, 1, 1)]) == {}
