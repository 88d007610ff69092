"""Comparing runs: paired on equal episodes, refused on others, averaged over seeds."""

import numpy as np
import pandas as pd
import pytest

from fsslib import Protocol
from fsslib.errors import ParameterError
from fsslib.evaluation import Evaluation
from fsslib.experiments.results import compare, over_seeds
from fsslib.metrics import Scores


def run_with(folder, shift, digest="abc"):
    rng = np.random.default_rng(0)
    hits = rng.integers(100, 200, 40) + shift
    table = np.zeros((40, 2, 3), int)
    table[:, 1] = np.stack([hits, 300 - hits, np.full(40, 50)], -1)
    classes = rng.integers(1, 6, (40, 1))
    scores = {1: Scores(table, classes, np.zeros(40, int))}
    folder.mkdir()
    Evaluation(scores, Protocol(list_hash=digest), {1: 0.1}, ()).save(folder / "trained.npz")
    return folder


def test_compare_is_paired(tmp_path):
    better, worse = run_with(tmp_path / "a", 10), run_with(tmp_path / "b", 0)
    row = compare(better, worse).iloc[0]
    assert row.difference == pytest.approx(row.run - row.reference)
    assert 0 < row.low < row.difference < row.high
    assert row.high - row.low < 1, "every episode is better by the same pixels: a paired interval must be narrow"
    same = compare(better, better).iloc[0]
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_compare_refuses_other_episodes_and_missing_counts(tmp_path):
    one, other = run_with(tmp_path / "a", 0), run_with(tmp_path / "b", 0, "xyz")
    with pytest.raises(ParameterError, match="different episodes"):
        compare(one, other)
    with pytest.raises(ParameterError, match="finished experiment"):
        compare(one, tmp_path)


def test_over_seeds_groups_what_differs_in_the_seed_alone():
    rows = [
        {"run": f"r{s}{f}", "fold": f, "seed": s, "shot": 1, "miou": 50.0 + s + f} for s in range(3) for f in (0, 1)
    ]
    table = over_seeds(pd.DataFrame(rows))
    assert list(table.training_seeds) == [3, 3]
    assert list(table.miou) == [51.0, 52.0]
    # t(0.975, 2 degrees of freedom) = 4.3027 times 1 / sqrt(3)
    assert table.high[0] - table.miou[0] == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    single = over_seeds(pd.DataFrame(rows[:1]))
    assert np.isnan(single.low[0])
