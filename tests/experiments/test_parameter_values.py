"""Values in parameter files and grids: plain ones, each name and each run once."""

import datetime
import json

import numpy as np
import pytest

from fsslib.errors import ParameterError
from fsslib.experiments import sweep
from fsslib.experiments.__main__ import parse_value
from fsslib.experiments.parameters import check_plain, read_parameters
from fsslib.experiments.runs import check
from fsslib.experiments.sweeps import plan

BOOK = """\
# %% tags=["parameters"]
number = 1
rate = 0.5
anything = None
out = None
"""


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "trial.py"
    path.write_text(BOOK)
    return path


def test_numbers_are_numbers(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("lr: 1e-3\na: 2E+4\nb: -1.5e2\nc: 1.5e-3\nd: 12\ne: '1e-3'\nf: e3\ng: 1e\n")
    wanted = {"lr": 0.001, "a": 2e4, "b": -150.0, "c": 0.0015, "d": 12, "e": "1e-3", "f": "e3", "g": "1e"}
    assert read_parameters(file) == wanted


@pytest.mark.parametrize(("text", "words"), [
    ("a: 2020-01-01", r"a: datetime.date.* is no plain value"), ("a: .nan", "a: nan"),
    ("a: {b: [1, .inf]}", r"a\.b\.1: inf"),
    ("a: {1: x}", "a: .*is no plain value"), ("a: !!set {x}", "a: .*set"),
    ("a: !!binary eA==", "a: .*bytes"),
    ("a: &a [*a]", "deeper"), ("a: 99999999999999999999999", "usual size"), ('a: "\\ud800"', "no plain value"),
    ("a: !!int ''", "cannot be read as YAML"), ("a: !!bool 7", "cannot be read as YAML"),
    ("? [1]\n: 2", "cannot be read"),
    ("a: !!timestamp x", "cannot be read as YAML"), ("a: " + "[" * 3000, "cannot be read as YAML"),
    ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n" for p, c in zip("abcdefg", "bcdefgh")
    ), "more values"),
])  # fmt: skip
def test_what_is_no_plain_value(tmp_path, text, words):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ParameterError, match=words):
        read_parameters(file)


def test_plain_values_at_every_door(book):
    for value, made in ((book, str(book)), ({1: 2}, {"1": 2}), (np.int64(3), 3)):
        with pytest.raises(ParameterError, match="no plain value"):
            check_plain({"anything": value})  # as a file has it; what Python gives is made plain
        assert check({"anything": value}, book)["anything"] == made
    for value in (datetime.date(2020, 1, 1), float("nan"), {1, 2}, "\ud800", 2**64):
        given = {"anything": value}
        for door, taken in ((check_plain, (given,)), (check, (given, book)), (plan, ({"anything": [value]}, {}, book))):
            with pytest.raises(ParameterError, match="no plain value"):
                door(*taken)
    check_plain({"a": [1, (2.0, "x"), {"b": None}], "c": True, "d": 1e300})
    # Whatever the names are: nothing is lost without a word.
    with pytest.raises(ParameterError, match=r"-p options: .*a is given twice"):
        parse_value('{"a": 1, "a": 2}', "options")
    assert parse_value('{"a": [1, 2]}', "options") == {"a": [1, 2]} and parse_value("[" * 9999) == "[" * 9999


@pytest.mark.parametrize(("grid", "base", "words"), [
    ({"number": [1, 2, 1]}, None, "number: 1 stands twice"),
    ({"anything": [[1], [1]]}, None, r"anything: \[1\] stands twice"),
    ({"rate": [1, 1.0]}, None, r"the same run as rate=1\n    in rate=1.0"),
    ({1: [2]}, None, "grid: expected names"),
    ({"number": [1]}, [("number", 1)], "base: expected names"),
    ({"number": [1]}, {"number": 2}, "in the grid and beside"),
    ([1], None, "grid: expected names"), ({"number": "12"}, None, "a list of values"),
    ({"number": [True]}, None, "whole number"),
])  # fmt: skip
def test_grids_ask_for_every_run_once(book, grid, base, words):
    with pytest.raises(ParameterError, match=words):
        sweep(grid, base=base, dry_run=True, notebook=book)


def test_a_grid_of_different_values(book, tmp_path):
    file = tmp_path / "grid.json"
    file.write_text(json.dumps({"number": [1, 2], "anything": [None, 0, False, "0", [0]]}))
    assert len(plan(read_parameters(file), {}, book)) == 10
