"""The stored tables are what the library computes, and the shipped weights are as good as they are said to be."""

import json

import pytest
import torch

from fsslib import Protocol, build_model, evaluate, load_dataset, load_model, paths
from fsslib.baselines import baselines
from fsslib.checkpoints import read_note, shipped
from fsslib.experiments.results import check_result

FILES = sorted((paths.data() / "results").glob("panet-shapes-fold*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_stored_results_are_complete_and_five_shots_are_not_below_one(path):
    result = json.loads(path.read_text())
    check_result(result, path.name)
    one, five = (result["scores"][k] for k in ("1", "5"))
    assert result["protocol"]["episodes"] == 1000
    assert one["low"] < one["miou"] < one["high"]
    assert five["miou"] >= one["miou"]


def test_every_fold_has_its_stored_result_and_its_weights():
    assert [p.stem[-1] for p in FILES] == list("0123")
    for fold in range(4):
        path = shipped("panet", "shapes", fold)
        assert path.stat().st_size < 1.5 * 2**20
        assert read_note(path)["command"] == f"python tools/train_shipped.py panet {fold}"


def test_stored_row_of_fold_0_is_recomputed():
    """All 1,000 episodes again: the same list, and the same score up to the processor's last bits."""
    result = json.loads((paths.data() / "results/panet-shapes-fold0.json").read_text())
    test_set = load_dataset("shapes", fold=0, split="test")
    found = evaluate(load_model(shipped("panet")), test_set, Protocol(), shots=(1, 5), batch=20, progress=False)
    assert found.protocol.list_hash == result["list_hash"]
    for shot in (1, 5):
        assert 100 * found.scores[shot].miou == pytest.approx(result["scores"][str(shot)]["miou"], abs=0.3)
    assert 100 * found.scores[1].miou >= 55
    gain, _, _ = found.scores[5].difference(found.scores[1])
    assert gain >= 0


def test_difficulty_of_the_embedded_data_is_as_stated():
    test_set = load_dataset("shapes", fold=0, split="test")
    scores = {name: 100 * s.miou for name, s in baselines(test_set).items()}
    assert 25 < scores["every object (oracle)"] < 33
    assert scores["all foreground"] == pytest.approx(8, abs=1.5)
    torch.manual_seed(0)
    net = build_model("panet", backbone="tiny")
    untrained = evaluate(net, test_set, Protocol(episodes=300), batch=20, progress=False)
    assert 100 * untrained.scores[1].miou <= 12
