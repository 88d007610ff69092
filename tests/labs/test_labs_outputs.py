"""What is handed in may be anything, and places may refuse to be written to: results, or a typed message, always."""

import contextlib
import csv
import json
import os
import random
import re
import string

import nbformat
import pytest
from fuzzing import KEPT, STRANGE, TEXT, altered, damaged

from fsslib.errors import FsslibError, OutputError
from fsslib.labs import __main__ as command
from fsslib.labs import class_table, collect, submit
from fsslib.labs.hidden_state import hidden_state
from fsslib.labs.kernel import Outcome

RESULT = {
    "format": submit.FORMAT, "stage": "01_prototypes", "name": "Ann", "notebook": "ann.ipynb", "notebook_sha256": "",
    "fsslib": "0", "seconds": 1.5,
    "exercises": [{"name": "temperature", "status": "wrong", "slip": "no log", "message": "=1+1", "answer": "-x"}],
    "cells": [{"cell": 0, "problem": "order", "message": "m"},
              {"cell": 2, "source": "x", "problem": "error", "message": "m"}],
}  # fmt: skip
CELLS = ["import torch", "%time x = 1\nfiles = !ls", "def temperature(m, p):\n    return x"]
ODD = [
    *STRANGE, "\x00=1", "ä" * 3000, "00", "code", "import *", "def f(:\n", "%%time\n%%time", "?" * 50, "(" * 300,
    "-" * 5000 + "1", ">>> 1\n... 2", "\t\n  x\n y", {"a": [1]},
]  # fmt: skip


def signed(result):
    return result | {"sha256": submit.sign(result)}


def notebook():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    book.cells[0].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "✓ temperature: right."})]
    book.metadata["fsslib"] = {"stage": "01_prototypes", "names": {"few": "few = 1"}}
    return json.loads(nbformat.writes(book))


@pytest.fixture
def no_kernel(monkeypatch):
    """In place of the kernel: cells that end in all the ways that there are."""
    ends = [Outcome("ok"), Outcome("error", "NameError", "name 'x' is not defined"), Outcome("dead"),
            Outcome("slow", message="Stopped: it used"), Outcome("loud"), Outcome("skipped")]  # fmt: skip

    def run(sources, stage, limits, shown):
        return [ends[len(text) % len(ends)] for text in sources], RESULT["exercises"] if len(sources) % 2 else None

    monkeypatch.setattr(submit, "_run", run)


def test_mutated_submissions(tmp_path, no_kernel, capsys):
    """Each is a result or a sentence in the class table; the table is always made, and nothing lies anywhere else."""
    chance = random.Random(16)
    room, out = tmp_path / "room", tmp_path / "out"
    room.mkdir()
    for n in range(KEPT):
        result = altered(RESULT, chance, ODD)
        with contextlib.suppress(UnicodeEncodeError, AttributeError):
            result = signed(result) if n % 4 else result
        for name, made in ((f"{n}.ipynb", altered(notebook(), chance, ODD)), (f"lone{n}.result.json", result)):
            content = json.dumps(made).encode()
            (room / name).write_bytes(content if chance.randrange(3) else damaged(content, TEXT, chance))
    handed = {file.name for file in room.iterdir()}
    assert command.main(["collect", str(room), "--out", str(out)]) == 0
    said = capsys.readouterr()
    rows = collect.collect(room, out)
    assert len(rows) == 2 * KEPT and all(row["result"] or row["note"] for row in rows)
    refused = [row for row in rows if not row["result"]]
    assert 0 < len(refused) < len(rows) and "Traceback" not in said.err
    assert not [row for row in rows if "could not be run" in row["note"]], "everything is refused with a reason"
    table = list(csv.DictReader((out / "class" / "class.csv").open(encoding="utf-8-sig", newline="")))
    assert {row["file"] for row in table} == handed
    assert {file.name for file in room.iterdir()} == handed and set(os.listdir(tmp_path)) == {"room", "out"}
    print(f"{len(rows)} submissions: {len(rows) - len(refused)} results, {len(refused)} refused")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "＝1", "\n=1", "\x00=1", "|x"])
def test_no_cell_of_the_csv_is_a_formula(tmp_path, text):
    rows = [{"who": text, "file": text, "note": text, "result": None}]
    file, _ = class_table.write_table(rows, tmp_path)
    assert file.read_bytes().startswith(b"\xef\xbb\xbfwho,file,"), "programs for tables know it as UTF-8"
    (row,) = csv.DictReader(file.open(encoding="utf-8-sig", newline=""))
    assert all(row[key][:1] == "'" for key in ("who", "file", "note")) and not row["exercise"]


def test_the_csv_keeps_every_letter(tmp_path):
    words = 'Zoë "Ω", 日本; a\nb\td \U0001f600'
    file, _ = class_table.write_table([{"who": words, "file": "f", "note": "", "result": None}], tmp_path)
    (row,) = csv.DictReader(file.open(encoding="utf-8-sig", newline=""))
    assert row["who"] == words and b"\r\r\n" not in file.read_bytes()
    class_table.write_table([{"who": "\ud800", "file": "f", "note": "\udcff", "result": None}], tmp_path)


@pytest.fixture
def barred(tmp_path):
    """A place below a file: nobody, not even an administrator, can write there."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


@pytest.fixture
def room(tmp_path, monkeypatch):
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "ann.ipynb").write_text(json.dumps(notebook()))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return folder


WRITERS = {
    "write_result": lambda place, rows: submit.write_result(rows[0]["result"], place / "x.result.json"),
    "write_table": lambda place, rows: class_table.write_table(rows, place),
    "keep_all": lambda place, rows: collect.keep_all(rows, place),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_place_that_cannot_be_written_is_named(barred, writer):
    rows = [{"who": "Ann", "file": "ann.ipynb", "note": "", "result": signed(RESULT)}]
    with pytest.raises(OutputError, match=r"file.* cannot be written"):
        WRITERS[writer](barred, rows)


def test_a_table_is_written_as_far_as_it_can_be(tmp_path):
    (tmp_path / "class.csv").mkdir()
    with pytest.raises(OutputError, match=r"class\.csv cannot be written"):
        class_table.write_table([], tmp_path)
    assert (tmp_path / "class.html").is_file() and not (tmp_path / "class.csv" / "x").exists()


@pytest.mark.parametrize("arguments", [["collect", "room"], ["submit", "room/ann.ipynb"]])
def test_results_are_never_lost(tmp_path, room, barred, no_kernel, capsys, monkeypatch, arguments):
    """They are shown, kept in another folder, which the message names, and a second call finds them there."""
    monkeypatch.chdir(tmp_path)
    assert command.main([*arguments, "--out", str(barred / "below" / "r.json")]) == 2
    said = capsys.readouterr()
    assert ("temperature" in said.out and "no log" in said.out + said.err) or "=1+1" in said.out
    assert "cannot be written" in said.err and "--out names another place" in said.err
    (elsewhere,) = (tmp_path / "temporary").iterdir()
    assert str(elsewhere) in said.err
    kept = [file.name for file in elsewhere.rglob("*") if file.is_file()]
    assert "ann.result.json" in kept and set(kept) <= {"ann.result.json", "class.csv", "class.html"}
    monkeypatch.setattr(collect, "_run", None)
    if arguments[0] == "collect":
        assert command.main([*arguments, "--out", str(elsewhere)]) == 0, "nothing is run again"


def test_where_nothing_at_all_can_be_written(tmp_path, room, barred, no_kernel, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(barred))
    assert command.main(["collect", str(room), "--out", str(barred)]) == 2
    said = capsys.readouterr()
    assert re.search(r"^ann +- +- +✗|^ann", said.out, re.M) and "cannot be written" in said.err


@pytest.mark.parametrize("name", ["a\x00b.ipynb", "", "~nobody-of-this-name/x.ipynb", "x" * 300 + ".ipynb"])
def test_paths_that_are_none(name):
    for call in (lambda: submit.submit(name), lambda: submit.read_notebook(name), lambda: collect.collect(name, name)):
        with pytest.raises(FsslibError):
            call()


def test_letters_that_no_file_can_hold(tmp_path, no_kernel, monkeypatch):
    """A name typed in another encoding, an answer that returns half of a pair of surrogates."""
    monkeypatch.setitem(RESULT["exercises"][0], "answer", "\ud800")
    made = notebook()
    made["cells"][2]["source"] = "x = '\ud800'"
    (tmp_path / "x.ipynb").write_text(json.dumps(made))
    result = submit.submit(tmp_path / "x.ipynb", name="\udcff", progress=False)
    file = submit.write_result(result, tmp_path / "x.ipynb")
    assert collect.read_result(file) == result and result["name"] == "?"


def test_any_text_can_be_read_as_a_cell():
    chance = random.Random(1)
    for _ in range(KEPT):
        text = "".join(chance.choice(string.printable + "äß\ud800\x00") for _ in range(chance.randrange(60)))
        hidden_state([text, chance.choice(["x", "%time ", "!", "?"]) + text], [1, 2])
