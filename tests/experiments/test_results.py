"""What an experiment leaves behind is checked, and written whole or not at all."""

import shlex

import pytest

from fsslib.errors import ParameterError
from fsslib.experiments.__main__ import parse_value
from fsslib.experiments.results import command, read_result, write_result
from fsslib.experiments.runs import check


def names(folder):
    return sorted(p.name for p in folder.iterdir())


RESULT = {
    "scores": {"1": {"miou": 0.5}},
    "protocol": {},
    "versions": {},
    "seed": 0,
    "list_hash": {"1": "abc"},
    "duration_s": 2,
    "parameters": {"root": "/far/away/voc", "shots": [1]},
}


def test_results_are_checked_and_written_whole(tmp_path):
    path = write_result(tmp_path, RESULT)
    assert path == tmp_path / "result.json" and names(tmp_path) == ["result.json"]
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
    assert names(tmp_path) == ["result.json"]
    path.write_text("{")
    with pytest.raises(ParameterError, match="not a JSON file"):
        read_result(tmp_path)


def test_the_command_of_a_result_gives_its_parameters_back():
    given = {"fold": 2, "checkpoint": None, "shots": [1, 3], "options": {"last": "layer3"}, "precision": "bf16"}
    words = shlex.split(command(check(given)))
    assert words[:4] == ["python", "-m", "fsslib.experiments", "run"]
    pairs = dict(word.split("=", 1) for word in words[5::2])
    assert {name: parse_value(text, name) for name, text in pairs.items()} == given
