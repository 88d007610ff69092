"""Base-class bias: counts by certainty agree with the scores, and equal recall is equal."""

import numpy as np
import pytest
import torch

from fsslib import Protocol, build_model, evaluate, load_dataset
from fsslib.analysis.base_bias import ANSWERS, BINS, equal_recall, marked, recall_of, shares_at


@pytest.fixture(scope="module")
def measured():
    """An untrained HDMNet whose ensemble is no identity, on small pictures; its evaluation, and what it marks."""
    torch.manual_seed(0)
    net = build_model("hdmnet", backbone="tiny", width=32).eval()
    with torch.no_grad():
        net.ensemble.background.weight.copy_(torch.tensor([1.0, 0.3]).view(1, 2, 1, 1))
    data = load_dataset("shapes", split="test", size=65, val_classes=0, knobs={"co_occurrence": 1.0})
    rules = Protocol.shapes5i(episodes=6, input_size=65)
    return evaluate(net, data, rules, progress=False), marked(net, data, rules, data.base_classes, batch=4)


def test_marked_pixels_agree_with_the_scores(measured):
    evaluation, found = measured
    scores = {name: own.scores[1] for name, own in found.evaluations.items()}
    assert found.evaluations["ensemble"].protocol.list_hash == evaluation.protocol.list_hash
    assert np.array_equal(scores["ensemble"].table, evaluation.scores[1].table)
    assert not np.array_equal(scores["ensemble"].table, scores["matching alone"].table)
    for name in ANSWERS:
        counts, (hit, wrong, missed) = found.counts[name], scores[name].table[:, 1].T
        above = counts[:, :, BINS // 2 :].sum(-1)
        assert np.array_equal(above[:, 0], hit) and np.array_equal(above[:, 1:].sum(1), wrong)
        assert np.array_equal(counts[:, 0].sum(-1), hit + missed) and (counts.sum((1, 2)) == 65 * 65).all()
        assert (counts[:, 1].sum(-1) > 0).any()
    assert ((found.probability > 0) & (found.probability < 1)).all()


def test_equal_recall():
    """Two rankings of four wanted and four base pixels: the second puts one base pixel in front."""
    counts = np.zeros((2, 1, 3, BINS), int)
    for answer, wanted, base in (
        (0, (190, 180, 170, 20), (90, 60, 50, 40)),
        (1, (190, 180, 95, 20), (195, 60, 50, 40)),
    ):
        counts[answer, 0, 0, list(wanted)] += 1
        counts[answer, 0, 1, list(base)] += 1
    assert recall_of(counts[:, 0]).tolist() == [0.75, 0.5]
    counts[:, 0, 2, 10] = 8
    assert shares_at(counts[:, 0], 0.5).tolist() == [[0.5, 0, 0], [0.5, 0.25, 0]]
    assert (shares_at(counts[:, 0], 1.0) == 1).all()
    rows = equal_recall([dict(zip(ANSWERS, counts))] * 2, draws=10)
    assert rows["difference"] == pytest.approx((-0.25, -0.25, -0.25)) and rows["ensemble per seed"] == [0.0, 0.0]
    assert rows["matching alone"][0] == 0.25 and rows["IoU difference"][0] == pytest.approx(2 / 4 - 2 / 5)
