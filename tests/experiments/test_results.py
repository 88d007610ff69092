"""What an experiment leaves behind: checked, written whole or not at all, compared on equal episodes, averaged."""

import shlex

import numpy as np
import pandas as pd
import pytest
from report_tools import scored

from fsslib.errors import ParameterError
from fsslib.experiments.__main__ import parse_value
from fsslib.experiments.results import command, compare, over_seeds, paired, read_result, write_result
from fsslib.experiments.runs import check

RESULT = {
    "scores": {"1": {"miou": 0.5}}, "protocol": {}, "versions": {}, "seed": 0, "list_hash": {"1": "abc"},
    "duration_s": 2, "parameters": {"root": "/far/away/voc", "shots": [1]},
}  # fmt: skip


def test_results_are_checked_and_written_whole(tmp_path):
    path = write_result(tmp_path, RESULT)
    assert path == tmp_path / "result.json" and [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert read_result(tmp_path)["parameters"]["root"] == "voc", "a result names no place on this machine"
    assert write_result(None, RESULT) is None
    for change, words in (
        ({"scores": {}}, "'scores' is empty"),
        ({"scores": {"one": {"miou": 1}}}, "expected a number of shots"),
        ({"scores": {"1": {"miou": float("nan")}}}, "scores.1.miou is nan"),
        ({"seed": True}, "'seed' must be int"),
        ({"versions": None}, "'versions' must be dict"),
    ):
        with pytest.raises(ParameterError, match=words):
            write_result(tmp_path / "b.json", {**RESULT, **change})
    with pytest.raises(ParameterError, match="convert tensors"):
        write_result(tmp_path / "b.json", {**RESULT, "extra": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    path.write_text("{")
    with pytest.raises(ParameterError, match="not a JSON file"):
        read_result(tmp_path)


def test_the_command_of_a_result_gives_its_parameters_back():
    given = {"fold": 2, "checkpoint": None, "shots": [1, 3], "options": {"last": "layer3"}, "precision": "bf16"}
    words = shlex.split(command(check(given)))
    assert words[:4] == ["python", "-m", "fsslib.experiments", "run"]
    pairs = dict(word.split("=", 1) for word in words[5::2])
    assert {name: parse_value(text, name) for name, text in pairs.items()} == given


def run_with(folder, shift, **protocol):
    folder.mkdir()
    scored(shift, **protocol).save(folder / "trained.npz")
    return folder


def test_compare_is_paired_and_refuses_other_episodes_and_missing_counts(tmp_path):
    better, worse, other = (
        run_with(tmp_path / "a", 10),
        run_with(tmp_path / "b", 0),
        run_with(tmp_path / "c", 0, list_hash="x"),
    )
    row = compare(better, worse).iloc[0]
    assert row.difference == pytest.approx(row.run - row.reference) and 0 < row.low < row.difference < row.high
    assert row.high - row.low < 1, "every episode is better by the same pixels: a paired interval must be narrow"
    same = compare(better, better).iloc[0]
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ParameterError, match="different episodes"):
        compare(better, other)
    with pytest.raises(ParameterError, match="finished experiment"):
        compare(better, tmp_path)
    boxes = run_with(tmp_path / "d", 0, annotation="box")
    assert len(compare(better, boxes)) == 2, "what a weaker annotation costs is a fair question"
    with pytest.raises(ParameterError, match="different protocols: annotation mask and box"):
        paired(better, boxes, same_protocol=True)
    (worse / "trained.npz").write_text("cut short")
    with pytest.raises(ParameterError, match=r"b: trained\.npz cannot be read"):
        compare(better, worse)


def test_over_seeds_groups_what_differs_in_the_seed_alone():
    rows = [
        {"run": f"r{s}{f}", "fold": f, "seed": s, "shot": 1, "miou": 50.0 + s + f, "root": None, "width": f or None}
        for s in range(3)
        for f in (0, 1)
    ]
    table = over_seeds(pd.DataFrame(rows))
    assert list(table.training_seeds) == [3, 3] and list(table.miou) == [51.0, 52.0]
    # t(0.975, 2 degrees of freedom) = 4.3027 times 1 / sqrt(3)
    assert table.high[0] - table.miou[0] == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    single = over_seeds(pd.DataFrame(rows[:1]))
    assert np.isnan(single.low[0])
