"""Runs: checked before they start, whole or absent afterwards, restartable, one process each."""

import json
import multiprocessing
import os
import time

import pytest

from fsslib.errors import FsslibError, ParameterError, TrainingError
from fsslib.experiments import collect, notebook, run, run_notebook, status, sweep, write_index
from fsslib.experiments.commands import main
from fsslib.experiments.runs import _stamp, check
from fsslib.experiments.workplace import claimed

BOOK = """
# %% [markdown]
# # A small run

# %% tags=["parameters"]
number = 3
pause = 0.0
word = "a"
out = None

# %%
import json, os, time
from pathlib import Path
Path("started").write_text("yes")
time.sleep(pause)
if number < 0:
    raise ValueError(f"{number} is negative")

# %%
from IPython.display import display
from ipywidgets import IntSlider
display(IntSlider(7))
pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
display({"image/png": pixel, "text/plain": "p"}, raw=True, metadata={"image/png": {"alt": f"One dot for {number}."}})

# %%
result = {"scores": {"1": {"miou": number / 10}, "5": {"miou": number / 5}}, "protocol": {"name": "trial"},
          "versions": {}, "seed": 0, "list_hash": "abc", "duration_s": 1.5,
          "parameters": {"number": number, "word": word}}
if out is not None:
    Path(out, "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "trial.py"
    path.write_text(BOOK.lstrip())
    return path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_run_appears_whole_and_is_not_repeated(book, tmp_path):
    runs = tmp_path / "runs"
    folder = run({"number": 4}, runs=runs, notebook=book, progress=False)
    assert names(runs) == [folder.name] and folder.name.startswith("trial-")
    assert names(folder) == ["report.html", "report.ipynb", "result.json", "run.json", "started"]
    text = (folder / "report.ipynb").read_text()
    assert str(tmp_path) not in text and "One dot for 4." in (folder / "report.html").read_text()
    meta = json.loads(text)["metadata"]
    assert "widget-view" not in text and "widgets" not in meta
    assert "input_path" not in meta["papermill"] and meta["papermill"]["parameters"]["number"] == 4

    table = collect(runs)
    assert list(table.shot) == [1, 5] and list(table.miou) == [0.4, 0.8] and list(table.number) == [4, 4]
    index = write_index(runs).read_text()
    assert "One dot for 4." in index and "A small run" in index and "0.800" in index
    assert "http" not in index.replace("http-equiv", "") and f"{folder.name}/report.html" in index

    before = folder.stat().st_ino
    assert run({"number": 4}, runs=runs, notebook=book, progress=False) == folder
    assert folder.stat().st_ino == before, "a finished run is left alone"
    with pytest.raises(ParameterError, match="exists and is not a run of trial with these parameters"):
        run({"number": 5}, runs=runs, notebook=book, name=folder.name, progress=False)
    assert run({"number": 4}, runs=runs, notebook=book, force=True, progress=False) == folder
    assert folder.stat().st_ino != before and sorted(names(runs)) == sorted([folder.name, "index.html"])


def test_misspelt_parameters_start_nothing(book, tmp_path, capsys):
    for given, words in (({"nubmer": 1}, "did you mean number"), ({"number": "4"}, "expected a whole number")):
        with pytest.raises(ParameterError, match=words):
            run(given, runs=tmp_path / "runs", notebook=book)
    for name in ("../x", "a.part", "a b"):
        with pytest.raises(ParameterError, match="cannot name a run"):
            run({}, runs=tmp_path / "runs", notebook=book, name=name)
    with pytest.raises(FsslibError, match="there is no notebook"):
        run({}, notebook="nothing")
    assert not (tmp_path / "runs").exists()
    arguments = ["run", "--notebook", str(book), "--runs", str(tmp_path / "runs")]
    assert main([*arguments, "-p", "nubmer=1"]) == 2
    assert "did you mean number" in capsys.readouterr().err
    assert main([*arguments, "-p", "number=1", "-p", "number=2"]) == 2
    assert main(["sweep", "--file", str(tmp_path / "none.json")]) == 2
    assert main(["help"]) == 0 and "episodes" in capsys.readouterr().out


def test_a_sweep_goes_on_after_a_failure_and_resumes(book, tmp_path):
    runs, said = tmp_path / "runs", []
    with pytest.raises(ParameterError, match="expected a whole number"):
        sweep({"number": [1, "x"]}, runs=runs, notebook=book)
    with pytest.raises(ParameterError, match="list of values"):
        sweep({"number": 1}, runs=runs, notebook=book)
    assert not runs.exists(), "every combination is checked before the first run"

    planned = sweep({"number": [-1, 2]}, base={"word": "b"}, runs=runs, notebook=book, dry_run=True)
    assert list(planned.state) == ["planned", "planned"]
    table = sweep({"number": [-1, 2]}, base={"word": "b"}, jobs=2, runs=runs, notebook=book, report=said.append)
    assert list(table.state) == ["failed", "done"] and len(said) == 2
    failed, done = table.run
    assert "ValueError: -1 is negative" in table.problem[0] and f"{failed}.part" in table.problem[0]
    assert names(runs) == sorted([f"{failed}.part", done])
    assert "report.ipynb" in names(runs / f"{failed}.part"), "the partial notebook is kept"
    assert {(n, s) for n, s, _ in status(runs)} == {(failed, "failed"), (done, "done")}
    assert list(collect(runs).run.unique()) == [done]

    again = sweep({"number": [2]}, base={"word": "b"}, runs=runs, notebook=book)
    assert list(again.state) == ["skipped"]
    with pytest.raises(TrainingError, match="-1 is negative"):
        run({"number": -1, "word": "b"}, runs=runs, notebook=book, progress=False)


def test_a_killed_run_leaves_only_its_part_and_can_be_restarted(book, tmp_path):
    runs = tmp_path / "runs"
    options = {"runs": runs, "notebook": book, "name": "long", "progress": False}
    process = multiprocessing.get_context("fork").Process(target=run, args=({"pause": 3600.0},), kwargs=options)
    process.start()  # forked: a new process would import torch first
    part = runs / "long.part"
    try:
        deadline = time.monotonic() + 600
        while not (part / "started").exists() and time.monotonic() < deadline:
            assert process.is_alive(), "the run ended too early"
            time.sleep(0.1)
        assert status(runs) == [("long", "running", "")]
        with pytest.raises(FsslibError, match="another process"), claimed(part):
            pass
    finally:
        process.kill()
        process.join()
    assert names(runs) == ["long.part"]
    deadline = time.monotonic() + 300
    while status(runs)[0][1] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(runs)[0][:2] == ("long", "interrupted"), "the process at work ends with the one that was killed"
    assert run({}, runs=runs, notebook=book, name="long", progress=False) == runs / "long"
    assert names(runs) == ["long"]


def test_a_notebook_must_leave_a_valid_result(book, tmp_path):
    book.write_text(BOOK.replace('"seed": 0, ', "").lstrip())
    with pytest.raises(TrainingError, match="'seed' is missing"):
        run_notebook(book, tmp_path / "runs" / "x", progress=False)
    assert names(tmp_path / "runs") == ["x.part"]


def test_a_killed_replacement_is_undone(book, tmp_path):
    """Between the two renames of a forced run the old one lies beside: the next call brings it back."""
    runs = tmp_path / "runs"
    old = runs / "x.old.part"
    old.mkdir(parents=True)
    checked = notebook.check_against(notebook.load(book), {})
    (old / "run.json").write_text(json.dumps({"parameters": checked, "notebook": "trial"}))
    assert run({}, runs=runs, notebook=book, name="x", progress=False) == runs / "x"
    assert names(runs) == ["x"]


def test_paths_stay_valid_in_the_folder_of_the_run(tmp_path, monkeypatch):
    from fsslib.experiments.workplace import _absolute

    monkeypatch.chdir(tmp_path)
    assert _absolute("root", "voc") == os.path.realpath(tmp_path / "voc")
    assert _absolute("weights", "imagenet") == "imagenet" and _absolute("checkpoint", "shipped") == "shipped"
    assert _absolute("method", "panet") == "panet" and _absolute("root", None) is None


def test_the_state_of_a_killed_training_serves_the_same_run_only(book, tmp_path):
    book.write_text(BOOK.lstrip().replace('"yes"', 'str(os.path.exists("episodic.ckpt"))'))
    book.write_text(book.read_text().replace("# %% [markdown]", "# %%\nimport os\n\n# %% [markdown]", 1))
    part = tmp_path / "runs" / "r.part"
    for number, kept in ((3, "True"), (4, "False")):
        part.mkdir(parents=True)
        (part / "episodic.ckpt").write_text("half a training")
        (part / "run.json").write_text(json.dumps(_stamp(book, check({"number": 3}, book))))
        done = run(
            {"number": number}, runs=tmp_path / "runs", notebook=book, name="r", progress=False, force=number == 4
        )
        assert (done / "started").read_text() == kept
        assert not list(done.glob("*.ckpt"))
