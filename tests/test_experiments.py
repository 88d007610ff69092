"""Runs: checked before they start, whole or absent afterwards, restartable, one process each."""

import ast
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fsslib import experiments, notebook, paths
from fsslib.commands import main, parse_value
from fsslib.errors import FsslibError, ParameterError, TrainingError
from fsslib.experiments import check_parameters, collect, read_result, run, run_notebook, status, sweep, write_index
from fsslib.parameters import ExperimentParameters, parameters_help
from fsslib.results import write_result
from fsslib.workplace import claimed

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


# --- parameters


def test_every_problem_is_listed_at_once():
    with pytest.raises(ParameterError) as caught:
        check_parameters({"episods": 3, "fold": "1", "shots": [1, 0], "dataset": "pascal", "lr": True, "seeds": []})
    text = str(caught.value)
    for line in (
        "episods: unknown parameter, did you mean episodes?",
        "fold: expected a whole number, found '1'",
        "shots: 0 is too small",
        "root: the data set pascal needs the folder",
        "lr: expected a number, found True",
        "seeds: the list is empty",
    ):
        assert line in text
    assert len(text.splitlines()) == 6


@pytest.mark.parametrize(
    "given, words",
    [
        ({"method": "pannet"}, "did you mean panet"),
        ({"backbone": "resnet34"}, "backbone: must be 'tiny'"),
        ({"fold": 4}, "fold: must be less than or equal to 3"),
        ({"way": 6}, "a fold has 5"),
        ({"episodes": 1}, "episodes: must be greater"),
        ({"lr": float("nan")}, "lr: expected a finite number"),
        ({"shots": [1, 1]}, "names a value twice"),
        ({"shots": 1}, "shots: expected a list, found 1"),
        ({"dataset": "pascal", "root": "no/such/folder"}, "there is no folder"),
        ({"root": "."}, "has no folder; leave root out"),
        ({"weights": "imagenet"}, "the backbone tiny has none"),
        ({"backbone": "resnet50", "weights": "no.pth", "checkpoint": None}, "there is no file 'no.pth'"),
        ({"checkpoint": "no.safetensors"}, "write shipped"),
        ({"backbone": "vgg16"}, "shipped for tiny, not vgg16; set null"),
        ({"freeze_backbone": True, "width": 8, "pretrain_steps": 9}, "set pretrain_steps to 0"),
        ({"freeze_backbone": True}, "nothing would train"),
        ({"options": {"freeze": True}}, "use the parameter freeze_backbone"),
        ({"options": {"a": object()}}, "can be passed on"),
        ({"precision": 32}, "precision: must be '32' or 'bf16', found 32"),
    ],
)
def test_impossible_parameters_are_refused_in_plain_words(given, words):
    with pytest.raises(ParameterError) as caught:
        check_parameters(given)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_valid_parameters_are_completed():
    checked = check_parameters({"freeze_backbone": True, "pretrain_steps": 0, "width": 16, "lr": 1})
    assert (
        checked["width"] == 16 and checked["shots"] == [1, 5] and set(checked) == set(ExperimentParameters.model_fields)
    )
    assert check_parameters({"freeze_backbone": True, "pretrain_steps": 0, "episodic_steps": 0})["width"] is None
    assert all(name in parameters_help() for name in checked)
    assert all(field.description for field in ExperimentParameters.model_fields.values())


def test_the_notebook_experiment_has_these_parameters():
    source = paths.notebooks() / "src" / "experiment.py"
    if not source.exists():
        pytest.skip("the notebook experiment is not in this tree")
    found = notebook.defaults(notebook.load(source))
    found.pop(notebook.OUT, None)
    assert found == ExperimentParameters().model_dump()


# --- one run


def test_a_run_appears_whole_and_is_not_repeated(book, tmp_path):
    runs = tmp_path / "runs"
    folder = run({"number": 4}, runs=runs, notebook=book, progress=False)
    assert names(runs) == [folder.name] and folder.name.startswith("trial-")
    assert names(folder) == ["report.html", "report.ipynb", "result.json", "run.json", "started"]
    text = (folder / "report.ipynb").read_text()
    assert str(tmp_path) not in text and "One dot for 4." in (folder / "report.html").read_text()
    meta = json.loads(text)["metadata"]
    assert "input_path" not in meta["papermill"] and meta["papermill"]["parameters"]["number"] == 4

    table = collect(runs)
    assert list(table.shot) == [1, 5] and list(table.miou) == [0.4, 0.8] and list(table.number) == [4, 4]
    index = write_index(runs).read_text()
    assert "One dot for 4." in index and "A small run" in index and "0.800" in index
    assert "http" not in index.replace("http-equiv", "") and f"{folder.name}/report.html" in index

    before = folder.stat().st_ino
    assert run({"number": 4}, runs=runs, notebook=book, progress=False) == folder
    assert folder.stat().st_ino == before, "a finished run is left alone"
    with pytest.raises(ParameterError, match="exists and is not a run with these parameters"):
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
    command = [sys.executable, "-m", "fsslib.experiments", "run", "--notebook", str(book), "--runs", str(runs)]
    process = subprocess.Popen([*command, "--name", "long", "-p", "pause=60.0"], stderr=subprocess.DEVNULL)
    part = runs / "long.part"
    try:
        deadline = time.monotonic() + 60
        while not (part / "started").exists() and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended too early"
            time.sleep(0.1)
        assert status(runs) == [("long", "running", "")]
        with pytest.raises(FsslibError, match="another process"), claimed(part):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(runs) == ["long.part"]
    deadline = time.monotonic() + 20
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


# --- results


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


def test_a_killed_replacement_is_undone(book, tmp_path):
    """Between the two renames of a forced run the old one lies beside: the next call brings it back."""
    runs = tmp_path / "runs"
    old = runs / "x.old.part"
    old.mkdir(parents=True)
    checked = notebook.check_against(notebook.load(book), {})
    (old / "run.json").write_text(json.dumps({"parameters": checked}))
    assert run({}, runs=runs, notebook=book, name="x", progress=False) == runs / "x"
    assert names(runs) == ["x"]


def test_paths_stay_valid_in_the_folder_of_the_run(tmp_path, monkeypatch):
    from fsslib.workplace import _absolute

    monkeypatch.chdir(tmp_path)
    assert _absolute("root", "voc") == os.path.realpath(tmp_path / "voc")
    assert _absolute("weights", "imagenet") == "imagenet" and _absolute("checkpoint", "shipped") == "shipped"
    assert _absolute("method", "panet") == "panet" and _absolute("root", None) is None


def test_values_of_the_command_line():
    texts = {"5": 5, "0.1": 0.1, "[1, 5]": [1, 5], "true": True, "None": None, "resnet50": "resnet50", '"7"': "7"}
    assert {text: parse_value(text) for text in texts} == texts
    assert parse_value("32", "precision") == "32"


def test_run_names_tell_runs_apart():
    a, b = (experiments.run_name(check_parameters({"fold": 1, "lr": lr})) for lr in (0.1, 0.2))
    assert a.startswith("panet-tiny-shapes-f1-s0-") and a != b and a[:-8] == b[:-8]


def test_parameter_cells_that_compute_are_refused():
    assert notebook._assignments("a: int = 3\nb = [1]  # c = d\n") == {"a": 3, "b": [1]}
    with pytest.raises(FsslibError, match="plain value"):
        notebook._assignments("a = 1 + len('x')")
    assert ast.parse(BOOK)
