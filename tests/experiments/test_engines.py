"""Sweeps on a Dask cluster of two processes and on a made-up Slurm: what dies goes on elsewhere, once and the same.

The packages are the extra `cluster`; where they are not installed only what that says is tested."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import cluster_tools
import fake_slurm
import pytest
import torch

from fsslib.errors import ParameterError
from fsslib.experiments import engines, runs, status, sweep, sweeps
from fsslib.experiments.__main__ import main

# `importorskip` would import it, and then Ctrl-C belongs to it for the rest of the test run.
JOBQUEUE = pytest.mark.skipif(not find_spec("dask_jobqueue"), reason="needs the extra `cluster`")

# Marks are files beside the runs: what a run does, and how often, must not depend on which process does it.
BOOK = """
# %% tags=["parameters"]
seed = 0
marks = ""
# %%
import os, signal
from pathlib import Path
def mark(word):
    with open(f"{marks}/{word}-{seed}", "a") as file:
        file.write("x")
    return Path(f"{marks}/{word}-{seed}").stat().st_size
def die():
    os.kill(os.getpid(), signal.SIGKILL)
mark("begun")
"""
TRAINS = """
import json
from core_tools import Line, at
from fsslib.training import Schedule, fit
def killed(step, model):
    if mark("step") == 4 and seed == 3:
        die()
model = Line()
how = {"name": "line", "folder": ".", "save_every": 1, "progress": False}
fit(model, at, Schedule(steps=8, lr=0.1, seed=seed), callback=killed, **how)
Path("weights.json").write_text(json.dumps(model.weight.tolist()))
"""
DIES = "if seed == 1: die()\n"
SLURM = """
if seed == 1: raise ValueError("by itself")
if seed == 2: die()
if seed == 3 and mark("late") == 1:
    import time
    Path(os.environ["FAKE_SLURM"], os.environ["FAKE_NAME"] + ".overdue").touch()
    time.sleep(600)
"""
WAITS = """
import time
while not Path(marks, "gate").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Sweeps a notebook with more cells at the end over its seeds; returns table and lines. Without kernels."""
    monkeypatch.setattr(engines, "Task", cluster_tools.Here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests/tools", *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep))))

    def swept(cells, seeds, on, report=None, folder="runs"):
        (tmp_path / "trial.py").write_text((BOOK + cells).lstrip())
        (tmp_path / "marks").mkdir(exist_ok=True)
        lines = []
        how = {"base": {"marks": str(tmp_path / "marks")}, "runs": tmp_path / folder, "notebook": tmp_path / "trial.py"}
        table = sweep({"seed": seeds}, on=on, report=report or lines.append, **how)
        return table, lines

    return swept


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="needs the extra `cluster`")
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fake_slurm, "PLACE", tmp_path / "slurm")
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)
    yield tmp_path / "slurm"
    fake_slurm.scancel("*")


def marked(tmp_path, word):
    return {int(mark.name.partition("-")[2]): mark.stat().st_size for mark in (tmp_path / "marks").glob(f"{word}-*")}


def test_dask_a_killed_worker_costs_nothing(grid, tmp_path, monkeypatch):
    """Eight runs on two workers, one of which dies in the middle of a training; undisturbed ones for comparison."""
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    table, lines = grid(TRAINS, list(range(8)), "dask:2")
    assert list(table.state) == ["done"] * 8 and len(lines) == 8 and lines[-1].endswith("(8 of 8)"), table.problem
    assert marked(tmp_path, "begun") == {seed: 1 + (seed == 3) for seed in range(8)}
    assert marked(tmp_path, "step") == {seed: 8 + (seed == 3) for seed in range(8)}, "it went on from its third step"
    weights = [(tmp_path / "runs" / name / "weights.json").read_text() for name in table.run]
    monkeypatch.setattr(runs, "execute", cluster_tools.execute)
    again, _ = grid(TRAINS.replace("die()", "pass"), list(range(8)), "local:1", folder="undisturbed")
    assert weights == [(tmp_path / "undisturbed" / name / "weights.json").read_text() for name in again.run]
    assert len(set(weights)) > 1 and torch.tensor([json.loads(text) for text in weights]).isfinite().all()


def test_dask_what_kills_every_worker_is_lost(grid, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    table, _ = grid(DIES, [0, 1, 2], "dask:2")
    assert list(table.state) == ["done", "lost", "done"] and "6 workers died" in table.problem[1]
    assert marked(tmp_path, "begun") == {0: 1, 1: 6, 2: 1}


def test_slurm_through_submitit(grid, slurm, tmp_path):
    """An array of four: one is well, one fails, one is killed, one takes longer than its time and goes on."""
    table, _ = grid(SLURM, [0, 1, 2, 3], "slurm:timeout_min=5,partition=gpu,array_parallelism=2")
    assert list(table.state) == ["done", "failed", "lost", "done"], table.problem.tolist()
    assert table.problem[1] == "by itself" and "Slurm job 100_2 ended as FAILED" in table.problem[2]
    assert marked(tmp_path, "begun") == {0: 1, 1: 1, 2: 1, 3: 2}, "only the time that was over is given again"
    script = (slurm / "100.sh").read_text()
    assert "--array=0-3%2" in script and "--partition=gpu" in script and "--time=5" in script
    assert not list((tmp_path / "runs" / ".slurm").glob("*.job"))


def test_slurm_goes_on_after_an_interrupt(grid, slurm, tmp_path, monkeypatch, capsys):
    """What was submitted is found again, by `status` and by the same sweep, which submits nothing twice."""

    def interrupted(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(engines.time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            grid(WAITS, [0, 1], "slurm:timeout_min=480")
    assert "Slurm goes on with 100:" in capsys.readouterr().out
    rows = status(tmp_path / "runs")
    assert len(rows) == 2 and all(state == "running" or "Slurm job 100_" in remark for _, state, remark in rows)
    while len(marked(tmp_path, "begun")) < 2:
        time.sleep(0.05)
    assert [state for _, state, _ in status(tmp_path / "runs")] == ["running"] * 2
    fake_slurm.scancel("100_1")
    while (slurm / "100_1.state").read_text() == "RUNNING":
        time.sleep(0.05)
    (tmp_path / "marks" / "gate").touch()
    table, _ = grid(WAITS, [0, 1], "slurm:timeout_min=480")
    assert list(table.state) == ["done", "done"] and marked(tmp_path, "begun") == {0: 1, 1: 2}
    assert (slurm / "101.job").exists() and not (slurm / "102.job").exists(), (
        "only the cancelled one is submitted again"
    )


@JOBQUEUE
@pytest.mark.parametrize("interrupt", [False, True])
def test_slurm_through_jobqueue(grid, slurm, tmp_path, interrupt):
    options = "cores: 1, memory: 1GB, walltime: 1:00:00, queue: gpu, scheduler-options: {host: 127.0.0.1}"
    (tmp_path / "c.yaml").write_text(f"slurm: {{{options}}}\nmaximum: 1\n")  # without a host it looks for a way out

    def report(line):
        assert line.endswith("done (1 of 2)")
        signal.raise_signal(signal.SIGINT)  # not every package leaves it a KeyboardInterrupt

    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            grid("if seed: time = __import__('time').sleep(600)", [0, 1], f"dask:{tmp_path / 'c.yaml'}", report)
    else:
        table, _ = grid("", [0, 1], f"dask:{tmp_path / 'c.yaml'}")
        assert list(table.state) == ["done", "done"], table.problem.tolist()
        script = (slurm / "100.sh").read_text()
        assert "#SBATCH -t 01:00:00" in script and "#SBATCH -p gpu" in script and "--nthreads 1" in script
        assert "--lifetime 3060s --lifetime-stagger 180s" in script
    while {state.read_text() for state in slurm.glob("*.state")} & {"PENDING", "RUNNING"}:
        time.sleep(0.05)  # every job has been cancelled, and ends
    assert list(slurm.glob("*.cancel"))


def test_a_place_that_is_none_and_packages_that_are_not_there(tmp_path, monkeypatch, capsys):
    for on in ("nowhere", "local", "local:x", "dsk", 3):
        with pytest.raises(ParameterError, match="on: expected local:N, dask"):
            sweep({"seed": [1]}, on=on, runs=tmp_path / "runs")
    (tmp_path / "trial.py").write_text(BOOK.lstrip())
    (tmp_path / "grid.yaml").write_text("seed: [1]\n")
    for name in ("dask", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)
    files = {"notebook": "trial.py", "runs": "runs", "file": "grid.yaml"}
    where = [f"--{option}={tmp_path / name}" for option, name in files.items()]
    for on, package in (("dask", "dask"), ("slurm:timeout_min=5", "submitit")):
        assert main(["sweep", *where, "--on", on]) == 2
        assert f"{package} is not installed" in (told := capsys.readouterr().err) and "[cluster]" in told


@pytest.mark.parametrize("on", ["slurm:partition=gpu", "slurm:timeout_min=5,colour=red", "slurm:timeout_min"])
def test_wrong_words_for_slurm(grid, slurm, on):
    with pytest.raises(ParameterError, match="on: slurm:"):
        grid("", [0], on)


@JOBQUEUE
@pytest.mark.parametrize("text", ["a: 1", "slurm: {cores: 1}", "slurm: {cores: 1, memory: 1GB, walltime: soon}", "[]"])
def test_wrong_cluster_files(grid, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ParameterError, match="on: "):
        grid("", [0], f"dask:{tmp_path / 'c.yaml'}")


@JOBQUEUE
def test_packages_of_clusters_leave_ctrl_c_alone_and_load_in_any_thread():
    words = (
        "import signal, concurrent.futures as c; from fsslib.experiments.engines import _needed;"
        "names = ['dask', 'distributed', 'submitit', 'dask_jobqueue'];"
        "list(c.ThreadPoolExecutor(1).map(_needed, names));"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", words], check=True)


def test_walltimes():
    slurm = {"08:00:00": 28800, "1-12": 129600, "90": 5400, "02:30": 150, "1-02:30:00": 95400}
    assert {text: engines._seconds(text, "slurm") for text in slurm} == slurm
    assert engines._seconds("02:30", "lsf") == 9000


def test_runs_side_by_side_see_a_gpu_each(monkeypatch):
    """Two at a time on two GPUs, three runs: never one GPU for two."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert sweeps._gpus([{"devices": 1}, {}]) == ["4", "7"] and sweeps._gpus([{"devices": 2}]) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert sweeps._gpus([{}]) == []
    at_work, seen = [], []

    def work():
        gpu = runs.ENVIRONMENT.get()["CUDA_VISIBLE_DEVICES"]
        assert gpu not in at_work
        at_work.append(gpu), seen.append(gpu)
        time.sleep(0.05)
        at_work.remove(gpu)

    assert set(sweeps.side_by_side(dict.fromkeys("abc", work), 2, lambda _: None, ["4", "7"]).values()) == {""}
    assert set(seen) == {"4", "7"} and len(seen) == 3
