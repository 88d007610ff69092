"""Runs: checked before they start, whole or absent afterwards, restartable, one process each."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import nbformat
import pytest

from fsslib.errors import FsslibError, ParameterError, TrainingError
from fsslib.experiments import collect, notebook, run, run_notebook, runs, status, sweep, sweeps, write_index
from fsslib.experiments.__main__ import COMPARED, main
from fsslib.experiments.runs import _stamp, check, claimed

BOOK = """
# %% [markdown]
# # A small run

# %% tags=["parameters"]
number = 3
wait_for = ""
word = "a"
out = None

# %%
import json, os, time, warnings
from pathlib import Path
warnings.warn("of a notebook")
Path("started").touch()
while wait_for and not os.path.exists(wait_for):
    time.sleep(0.05)
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


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("book") / "trial.py"
    path.write_text(BOOK.lstrip())
    return path


@pytest.fixture(scope="module")
def swept(book, tmp_path_factory):
    """Folder, table and printed lines of a sweep in which one run fails: the only kernels that several tests share."""
    folder, lines = tmp_path_factory.mktemp("sweep") / "runs", []
    grid, base = {"number": [-1, 4]}, {"word": "b"}
    return folder, sweep(grid, base=base, jobs=2, runs=folder, notebook=book, report=lines.append), lines


@pytest.fixture
def no_kernel(monkeypatch):
    return without_kernel(monkeypatch)


def without_kernel(monkeypatch):
    """Runs end at once with an empty report; the list names what their folders held."""
    held = []

    def execute(source, part, *_):
        held.append(names(part))
        nbformat.write(nbformat.v4.new_notebook(), part / "report.ipynb")

    monkeypatch.setattr(runs, "execute", execute)
    return held


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_run_appears_whole_and_is_not_repeated(book, swept, no_kernel):
    folder, table, _ = swept
    done = folder / table.run[1]
    assert names(done) == ["report.html", "report.ipynb", "result.json", "run.json", "started"]
    text = (done / "report.ipynb").read_text()
    assert str(folder.parent) not in text and "One dot for 4." in (done / "report.html").read_text()
    meta = json.loads(text)["metadata"]
    assert "widget-view" not in text and "widgets" not in meta
    assert "cell:3: UserWarning: of a notebook" in text, "a warning names no folder of this machine"
    assert "input_path" not in meta["papermill"] and meta["papermill"]["parameters"]["number"] == 4

    table = collect(folder)
    assert list(table.shot) == [1, 5] and list(table.miou) == [0.4, 0.8] and list(table.number) == [4, 4]
    index = write_index(folder).read_text()
    assert "One dot for 4." in index and "A small run" in index and "0.800" in index
    assert "http" not in index.replace("http-equiv", "") and f"{done.name}/report.html" in index

    given, where = {"number": 4, "word": "b"}, {"runs": folder, "notebook": book, "progress": False}
    assert run(given, **where) == done and not no_kernel, "a finished run is left alone"
    with pytest.raises(ParameterError, match="exists and is not a run of trial with these parameters"):
        run({"number": 5}, name=done.name, **where)


def test_a_forced_run_replaces_the_old_one(book, tmp_path, no_kernel):
    where = {"runs": tmp_path, "notebook": book, "name": "r"}
    folder = run({}, **where)
    (folder / "old").touch()
    assert run({}, force=True, **where) == folder and names(folder) == ["report.ipynb", "run.json"]
    assert names(tmp_path) == ["r"] and len(no_kernel) == 2


def test_misspelt_parameters_start_nothing(book, tmp_path, capsys):
    for given, words in (({"nubmer": 1}, "did you mean number"), ({"number": "4"}, "expected a whole number")):
        with pytest.raises(ParameterError, match=words):
            run(given, runs=tmp_path / "runs", notebook=book)
    for name in ("../x", "a.part", "a b"):
        with pytest.raises(ParameterError, match="cannot name a run"):
            run({}, runs=tmp_path / "runs", notebook=book, name=name)
    with pytest.raises(FsslibError, match="there is no notebook"):
        run({}, notebook="nothing")
    for grid, words in (({"number": [1, "x"]}, "expected a whole number"), ({"number": 1}, "list of values")):
        with pytest.raises(ParameterError, match=words):
            sweep(grid, runs=tmp_path / "runs", notebook=book)
    assert not (tmp_path / "runs").exists(), "every combination is checked before the first run"
    arguments = ["run", "--notebook", str(book), "--runs", str(tmp_path / "runs")]
    assert main([*arguments, "-p", "nubmer=1"]) == 2 and "did you mean number" in capsys.readouterr().err
    assert main([*arguments, "-p", "number=1", "-p", "number=2"]) == 2
    assert main(["sweep", "--file", str(tmp_path / "none.json")]) == 2
    assert main(["help"]) == 0 and "episodes" in capsys.readouterr().out


def test_a_sweep_goes_on_after_a_failure_and_resumes(book, swept, capsys):
    folder, table, lines = swept
    assert list(table.state) == ["failed", "done"]
    failed, done = table.run
    assert sorted(line.split(" (")[0] for line in lines) == sorted([f"{failed}: failed", f"{done}: done"])
    assert "ValueError: -1 is negative" in table.problem[0] and f"{failed}.part" in table.problem[0]
    assert {*names(folder)} - {"index.html"} == {f"{failed}.part", done}
    assert "report.ipynb" in names(folder / f"{failed}.part"), "the partial notebook is kept"
    assert {(n, s) for n, s, _ in status(folder)} == {(failed, "failed"), (done, "done")}
    assert list(collect(folder).run.unique()) == [done]
    again = {"base": {"word": "b"}, "runs": folder, "notebook": book, "dry_run": True}
    assert list(sweep({"number": [-1, 4]}, **again).state) == ["planned", "skipped"]
    assert list(sweep({"number": [4]}, **again | {"dry_run": False}).state) == ["skipped"]

    assert main(["status", "--runs", str(folder)]) == main(["collect", "--runs", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"{failed}  failed" in printed and "is negative" in printed and "miou" in printed and "0.8" in printed
    assert main(["collect", "--runs", str(folder), "--csv", str(folder.parent / "a.csv")]) == 0
    columns, *rows = (folder.parent / "a.csv").read_text().splitlines()
    assert columns == "run,number,word,shot,miou,list_hash,duration_s" and rows[1] == f"{done},4,b,5,0.8,abc,1.5"


def test_reports_finish_beside_a_failure(tmp_path, monkeypatch, capsys):
    started, trained = [], {}

    def run_notebook(name, out, parameters, **how):
        started.append(out.name)
        if name == "experiment":
            trained[out.name] = check(parameters)
        if name.startswith("07"):
            raise TrainingError("cell 3 stopped with an error.")
        out.mkdir(parents=True)
        nbformat.write(nbformat.v4.new_notebook(), out / "report.ipynb")

    monkeypatch.setattr(runs, "run_notebook", run_notebook)
    assert main(["reports", "--jobs", "1", "--runs", str(tmp_path)]) == 1
    assert started[:2] == list(trained) == list(COMPARED) and set(started[2:]) == {*notebook.names()} - {"experiment"}
    one, two = trained.values()
    own = {name for name in one if one[name] != two[name]}
    assert own == {"method", "width", "lr", "options"}, "data, budget, seeds and episodes are the same"
    minutes = [notebook.load(notebook.find(name)).metadata["minutes"] for name in started[2:]]
    assert minutes == sorted(minutes, reverse=True), "the longest first"
    out, err = capsys.readouterr()
    assert err == "07_comparison: cell 3 stopped with an error.\n"
    assert out.count(": done (") == len(started) - 1 and out.endswith(f"{tmp_path / 'index.html'}\n")
    page = (tmp_path / "index.html").read_text()
    assert "experiment-sdaanet holds no trained.npz" in page.split("SD-AANet minus PANet")[1]
    assert main(["reports", "--jobs", "0"]) == 2


def test_an_interrupt_stops_every_run(monkeypatch):
    """Also one that was about to start: stop_all is called until nothing is under way."""
    begun, stopped, lines, calls = threading.Barrier(3), threading.Event(), [], []

    def work():
        begun.wait()
        stopped.wait()

    def stop_all():
        calls.append(1)
        if len(calls) == 2:
            stopped.set()

    def interrupted(_):
        begun.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "stop_all", stop_all)
    monkeypatch.setattr(sweeps, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweeps.side_by_side(dict.fromkeys("abcd", work), 2, lines.append)
    assert len(calls) == 2 and not lines, "what waits is not started, what was stopped is no failure"


def test_a_killed_run_leaves_only_its_part_and_can_be_restarted(book, tmp_path, monkeypatch):
    folder, given = tmp_path / "runs", {"wait_for": str(tmp_path / "gate")}
    options = {"runs": folder, "notebook": book, "name": "long", "progress": False}
    process = multiprocessing.get_context("fork").Process(target=run, args=(given,), kwargs=options)
    process.start()  # forked: a new process would import torch first
    try:
        while not (working := list(folder.glob("long@*.part/started"))):
            assert process.is_alive(), "the run ended too early"
            time.sleep(0.05)
        assert status(folder)[0][:2] == ("long", "running") and f"process {process.pid} on" in status(folder)[0][2]
        with pytest.raises(FsslibError, match="another process"), claimed(folder / "long"):
            pass
    finally:
        process.kill()
        process.join()
    assert status(folder)[0][:2] == ("long", "interrupted")
    (working[0].parent / "episodic.ckpt").touch()
    held = without_kernel(monkeypatch)
    assert run(given, **options) == folder / "long" and names(folder) == ["long"]
    assert held == [["episodic.ckpt", "run.json"]], "only the state of its training is left for the restart"
    assert names(folder / "long") == ["report.ipynb", "run.json"]


def test_a_notebook_must_leave_a_valid_result(book, tmp_path, monkeypatch):
    def ended_well(order, part):
        (part / "result.json").write_text("{}")
        return True

    monkeypatch.setattr(runs, "_ended_well", ended_well)
    with pytest.raises(TrainingError, match=r"left no valid.*'seed' is missing"):
        run_notebook(book, tmp_path / "runs" / "x", progress=False)
    assert names(tmp_path / "runs") == ["x.part"]


def test_a_killed_replacement_is_undone(book, tmp_path):
    """Between the two renames of a forced run the old one lies beside: the next call brings it back."""
    (tmp_path / "x.old.part").mkdir()
    (tmp_path / "x.old.part" / "run.json").write_text(json.dumps(_stamp(book, check({}, book))))
    assert run({}, runs=tmp_path, notebook=book, name="x", progress=False) == tmp_path / "x"
    assert names(tmp_path) == ["x"]


def test_paths_stay_valid_in_the_folder_of_the_run(tmp_path, monkeypatch):
    absolute = runs._absolute
    monkeypatch.chdir(tmp_path)
    assert absolute("root", "voc") == os.path.realpath(tmp_path / "voc")
    assert absolute("weights", "imagenet") == "imagenet" and absolute("checkpoint", "shipped") == "shipped"
    assert absolute("method", "panet") == "panet" and absolute("root", None) is None


@pytest.mark.parametrize(
    ("at", "number", "force", "kept"),
    [
        ("r.part", 3, False, True),
        ("r@01234567.part", 3, False, True),
        ("r.part", 4, False, False),
        ("r.part", 3, True, False),
    ],
)
def test_the_state_of_a_killed_training_serves_the_same_run_only(book, tmp_path, no_kernel, at, number, force, kept):
    part = tmp_path / at
    part.mkdir()
    (part / "episodic.ckpt").touch()
    (part / "run.json").write_text(json.dumps(_stamp(book, check({"number": 3}, book))))
    done = run({"number": number}, runs=tmp_path, notebook=book, name="r", progress=False, force=force)
    assert no_kernel == [["episodic.ckpt", "run.json"] if kept else ["run.json"]]
    assert names(done) == ["report.ipynb", "run.json"]


def test_help_status_and_collect_need_no_torch(swept):
    """In a process that can import neither torch nor numpy and pandas; where nothing is checked, nor pydantic."""
    script = f"""
import sys
sys.modules.update(torch=None, pandas=None, numpy=None)
from fsslib.experiments.__main__ import main
where = ["--runs", {str(swept[0])!r}]
sys.exit(main(["status", *where]) or main(["collect", *where]) or "pydantic" in sys.modules or main(["help"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "episodic_steps" in done.stdout and "is negative" in done.stdout and "miou" in done.stdout
