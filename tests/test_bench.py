"""The bench: every cell measures what it says, two revisions take turns, and nothing is left behind."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools import bench, bench_cells

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--backbone", "tiny", "--size", "33", "--repeats", "1"]
clone = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone, to compare revisions of")


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Cell, its arguments -> the answers to one repetition."""
    monkeypatch.setenv("FSSLIB_CACHE", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(bench_cells.SHAPES, "data_options", {"pool": 60})

    def ask(cell, *arguments):
        answers, settings = io.StringIO(), {"device": "cpu", "backbone": "tiny", "size": 33, "data": None}
        monkeypatch.setattr(sys, "stdin", io.StringIO("go\nstop\n"))
        own = bench_cells.Bench(settings, answers)
        own.square, own.grid, own.kernel = torch.ones(64, 64), torch.ones(1, 8, 9, 9), torch.ones(8, 8, 3, 3)
        if cell == "memory":
            bench_cells.CELLS[cell](own, *arguments)
        else:
            with pytest.raises(bench_cells.Stop):
                bench_cells.CELLS[cell](own, *arguments)
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    return ask


def test_pictures_hold_objects_of_a_realistic_size():
    for index in range(4):
        image, mask = bench_cells.picture(index)
        assert image.shape == (3, *mask.shape) and image.float().std() > 20
        assert set(mask.unique().tolist()) == {0, 1 + index}
        assert 0.13 < (mask > 0).float().mean() < 0.16


@pytest.mark.parametrize(("cell", "trained"), [("training", True), ("evaluation", False)])
def test_the_parts_of_a_step_are_its_whole(asked, cell, trained):
    ready, found = asked(cell, "panet", "1")
    assert ready == {"ready": True}
    assert found["forward"] + found["backward"] + found["heads"] == pytest.approx(found["total"])
    assert min(found["forward"], found["heads"], found["loading"], found["mm"], found["convolution"]) > 0
    assert (found["backward"] > 0) == trained  # PANet trains its backbone
    # A backward pass costs twice the forward one, but for the images' own gradient.
    assert found["gflop"] / found["backbone_gflop"] == pytest.approx(2.9 if trained else 1, abs=0.15)


def test_what_a_frozen_backbone_spares_is_seen(asked):
    assert asked("training", "asgnet", "1")[1]["backward"] == 0


@pytest.mark.filterwarnings("ignore:PASCAL-5i fold 0")
@pytest.mark.parametrize("cell", ["backbone panet training", "evaluate memory", "loader asgnet", "drawing"])
def test_other_cells_answer_with_seconds(asked, cell):
    _, found = asked(*cell.split())
    assert bench.row(cell, "this", [found])["seconds"] > 0


def test_shapes_training_is_the_recipes(asked):
    _, found = asked("shapes", "panet", "episodic")
    assert 0 < found["loading"] < found["total"]


def test_memory_is_that_of_the_passes_and_of_all(asked):
    (found,) = asked("memory", "panet", "evaluation", "1")
    assert found["mib"] >= found["passes_mib"] >= 0


def worktrees(folder: Path) -> list[str]:
    """Of this clone, as git lists them, inside a folder."""
    listed = subprocess.run(["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


def start(*arguments, folder) -> subprocess.Popen:
    """The bench as people run it, with its temporary files in `folder`."""
    env = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT), "FSSLIB_SHARED": str(folder)}
    command = [sys.executable, ROOT / "tools" / "bench.py", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


@clone
def test_two_revisions_take_turns_and_ctrl_c_leaves_nothing_behind(tmp_path):
    """What was measured before Ctrl-C is kept."""
    file, temporary = tmp_path / "bench.json", tmp_path / "tmp"
    temporary.mkdir()
    parts = "evaluate", "loader", "shapes", "memory"  # so many that Ctrl-C never comes too late
    run = start(*parts, *SMALL, "--compare", "HEAD", "--json", file, folder=temporary)
    printed = [run.stdout.readline().split("  ")[0].strip() for _ in range(5)]
    assert printed == ["cell", *["evaluate none"] * 2, *["evaluate memory"] * 2]
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=300) == 130
    rows = json.loads(file.read_text())["rows"]
    assert [(row["cell"], row["revision"]) for row in rows[:2]] == [("evaluate none", r) for r in ("this", "HEAD")]
    assert all(tuple(row) == bench.KEYS and row["error"] is None for row in rows)
    compared = [row for row in rows if row["ratio"]]
    assert {row["revision"] for row in compared} == {"this"}
    assert all(0 < row["ratio_least"] <= row["ratio"] <= row["ratio_most"] for row in compared)
    run.stdout.close()
    assert not worktrees(tmp_path) and not list(temporary.iterdir())


@pytest.mark.parametrize("error", [None, "no memory"])
def test_the_status_says_whether_a_cell_failed(monkeypatch, error):
    monkeypatch.setattr(bench, "bench", lambda given: [{"error": None}, {"error": error}])
    assert bench.main(["panet"]) == bool(error)


def test_the_parts_and_their_cells():
    assert bench.cells(["evaluate", "loader"]) == [f"evaluate {c}" for c in ("none", "memory")] + [
        "loader sdaanet",
        "loader asgnet",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pannet"], "Did you mean 'panet'"),
        (["--repeats", "0"], "--repeats 0"),
        pytest.param(["--compare", "no-such-revision"], "git says", marks=clone),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, said, capsys):
    assert bench.main(arguments) == 2
    assert said in capsys.readouterr().err
