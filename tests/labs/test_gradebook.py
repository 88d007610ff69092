"""Gradebooks: read back as Canvas and Moodle document their imports; late, double and odd submissions lose nothing."""

import csv
import io
from datetime import datetime

import pytest

from fsslib.labs.__main__ import _parser, main
from fsslib.labs.gradebook import gradebook, points, read_roster
from fsslib.labs.submit import SubmissionError

STAGE = "01_prototypes"
CODE = ["prototype", "cosine_map", "temperature", "inside_only"]
DUE = datetime(2026, 12, 1, 12)
EARLY, LATE = DUE.timestamp() - 60, DUE.timestamp() + 60
ODD = ['O\'Neil, "Kim"', "Łukasz Żółć", "李 小龍", "=1+1", "Ann-Marie von der Au"]


def row(who, solved=CODE, file=None, submitted=EARLY, name=None):
    """A row as `collect` returns it."""
    marks = [{"name": n, "status": "right" if n in solved else "wrong", "slip": "", "message": ""} for n in CODE]
    marks.append({"name": "box_bias", "status": "right", "slip": "", "message": "", "answer": "words"})
    result = {"stage": STAGE, "name": who if name is None else name, "exercises": marks, "cells": []}
    return {"who": who, "file": file or f"{who}/{STAGE}.ipynb", "note": "", "submitted": submitted, "result": result}


def canvas(text):
    """Lines by student as Canvas reads them: five fixed columns, then assignments; points possible in the first line.
    Raises for what Canvas refuses."""
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert rows[1][0].strip() == "Points Possible" and all(float(cell) > 0 for cell in rows[1][5:])
    assert len({len(r) for r in rows}) == 1 and len(set(rows[0])) == len(rows[0])
    return {r[0]: dict(zip(rows[0][5:], [float(c) if c else None for c in r[5:]])) | {"ID": r[1]} for r in rows[2:]}


def moodle(text):
    """Lines as Moodle's import sees them: headed columns, one of which identifies, numbers or nothing as grades."""
    rows = list(csv.DictReader(io.StringIO(text)))
    assert all(r["ID number"] or r["Full name"] or r["Email address"] for r in rows)
    grades = {k for k in rows[0] if k not in ("ID number", "Full name", "Email address")}
    return {r["Full name"]: {k: float(r[k]) if r[k] else None for k in grades} for r in rows}


def test_points_are_the_importance_in_the_notebook():
    worth = {"prototype": 3, "cosine_map": 3, "temperature": 2, "inside_only": 2, "box_bias": 2, "way_back": 2}
    assert points(STAGE) == worth


@pytest.mark.parametrize("read", [canvas, moodle])
def test_odd_names_and_sums(read):
    text, remarks = gradebook([row(who, CODE[:at]) for at, who in enumerate(ODD)], read.__name__)
    found = read(text)
    assert [found[who.replace("=1+1", "'=1+1")][STAGE] for who in ODD] == [0, 3, 6, 8, 10]
    assert ["by their ID" in remark for remark in remarks] == [True] * (read is canvas)


def test_a_column_for_each_exercise_leaves_written_answers_open():
    found = canvas(gradebook([row("Ann", ["cosine_map"])], "canvas", columns="exercises")[0])["Ann"]
    assert found[f"{STAGE} cosine_map"] == 3 and found[f"{STAGE} prototype"] == 0
    assert found[f"{STAGE} box_bias"] is None


@pytest.mark.parametrize(
    ("double", "late", "expected"), [("best", 1, 10), ("best", 0.2, 3), ("latest", 0.5, 5), ("first", 0.5, 3)]
)
def test_late_and_double_submissions_by_rule(double, late, expected):
    rows = [row("Ann", ["prototype"], "a/one.ipynb"), row("Ann", CODE, "a/two.ipynb", submitted=LATE)]
    text, remarks = gradebook(rows, "canvas", due=DUE, late=late, double=double)
    assert canvas(text)["Ann"][STAGE] == expected
    remarks = [remark for remark in remarks if "by their ID" not in remark]
    assert "handed in 2 times" in remarks[0] and (("late" in " ".join(remarks[1:])) == (expected not in (3,)))


def test_bulk_downloads_carry_ids_and_lateness():
    rows = [
        row("x", file=f"leeanna_LATE_4711_99_{STAGE}.ipynb", name=""),
        row("y", file=f"bo_12_98_{STAGE}.ipynb", name=""),
    ]
    text, _ = gradebook(rows, "canvas", late=0.5)
    assert canvas(text) == {"leeanna": {STAGE: 5.0, "ID": "4711"}, "bo": {STAGE: 10.0, "ID": "12"}}
    rows = [row("x", file=f"Anna Lee_77_assignsubmission_file/{STAGE}.ipynb", name="")]
    assert moodle(gradebook(rows, "moodle")[0]) == {"Anna Lee": {STAGE: 10.0}}


def test_two_students_of_one_name_stay_two():
    rows = [row("x", CODE[:at], file=f"leeanna_{at}_9_{STAGE}.ipynb", name="Anna Lee") for at in (1, 2)]
    lines = gradebook(rows, "canvas")[0].splitlines()[2:]
    assert [line.rsplit(",", 1)[1] for line in lines] == ["3", "6"]


def test_a_roster_gives_ids_and_everybody_a_line(tmp_path):
    file = tmp_path / "exported.csv"
    file.write_text(
        "\ufeffStudent,ID,SIS User ID,SIS Login ID,Section\n    Points Possible,,,,\n"
        '"Lee, Anna",4711,s1,alee,A\n"Bo, Bob",12,s2,bbo,A\n"Żółć, Łukasz",13,s3,lz,B\n',
        encoding="utf-8",
    )
    rows = [row("Anna Lee"), row("lukasz", name="łukasz żółć"), row("Somebody Else")]
    rows += [row("bobby", file=f"bob bo/{STAGE}.ipynb")]  # known by the subfolder
    text, remarks = gradebook(rows, "canvas", roster=read_roster(file))
    found = canvas(text)
    assert list(found) == ["Lee, Anna", "Bo, Bob", "Żółć, Łukasz", "Somebody Else"]
    assert [found[n][STAGE] for n in found] == [10, 10, 10, 10] and found["Lee, Anna"]["ID"] == "4711"
    (remark,) = remarks
    assert "Somebody Else is not in the roster. A subfolder with the name" in remark
    text, _ = gradebook(rows[:3], "canvas", roster=read_roster(file))
    assert canvas(text)["Bo, Bob"][STAGE] is None, "a line for everybody"


def test_what_cannot_be_read_is_named():
    broken = {"who": "Eve", "file": "eve/x.ipynb", "note": "x.ipynb is no notebook.", "submitted": 0.0, "result": None}
    text, remarks = gradebook([row("Ann"), broken], "csv")
    assert "Ann" in text and remarks == ["eve/x.ipynb: not in the gradebook: x.ipynb is no notebook."]


@pytest.mark.parametrize(
    "wrong",
    [{"system": "blackboard"}, {"double": "worst"}, {"late": 2}],
    ids=["system", "double", "late"],
)
def test_unknown_rules_are_refused(wrong):
    given = {"system": "csv"} | wrong
    with pytest.raises(SubmissionError):
        gradebook([], given.pop("system"), **given)


@pytest.mark.parametrize(("due", "moment"), [
    ("2027-01-31", datetime(2027, 1, 31, 23, 59, 59)), ("2027-01-31T12:30", datetime(2027, 1, 31, 12, 30)),
    ("31.1.2027", None),
])  # fmt: skip
def test_a_day_lasts_till_its_end(due, moment, capsys):
    if moment:
        assert _parser().parse_args(["collect", ".", "--due", due]).due == moment
        assert main(["collect", ".", "--due", due]) == 2 and "add --gradebook" in capsys.readouterr().err
    else:
        with pytest.raises(SystemExit):
            main(["collect", ".", "--due", due])
        assert "write it as 2027-01-31" in capsys.readouterr().err


def test_a_roster_without_names(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    assert main(["collect", str(tmp_path), "--gradebook", "canvas", "--roster", str(tmp_path / "r.csv")]) == 2
    assert "names no column for students" in capsys.readouterr().err
