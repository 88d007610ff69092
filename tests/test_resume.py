"""Resuming: after any kill, error or Ctrl-C a run ends with the same weights, bit for bit."""

import csv
import math
import os
import signal
import struct
from dataclasses import asdict, replace

import pytest
import torch
from core_tools import QUIET, TEN, Line, at, forked, interrupted
from torch import nn

from fsslib.errors import TrainingError
from fsslib.training import fit


@pytest.mark.parametrize("stop", [0, 3, 4, 9])
@pytest.mark.parametrize("where", ["callback", "batch", "signal"])
def test_an_interrupt_keeps_what_was_done(tmp_path, stop, where):
    """Also bit for bit: neither lost nor repeated steps, wherever Ctrl-C comes."""
    whole = Line()
    rows = fit(whole, at, TEN, **QUIET).rows

    def interrupting(step):
        if step == stop and where == "batch":
            raise KeyboardInterrupt
        if step == stop and where == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        return at(step)

    callback = interrupted(stop if where == "callback" else -1)
    model = Line()
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupting, TEN, folder=tmp_path, save_every=3, callback=callback, **QUIET)
    assert not model.training
    file = tmp_path / "line.ckpt"
    kept = torch.load(file, weights_only=True)["step"] if file.exists() else 0
    assert kept == (stop if where == "batch" else stop + 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = Line()
    history = fit(again, at, TEN, folder=tmp_path, **QUIET)
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.moved, whole.moved) and history.rows == rows


def test_a_second_interrupt_gets_through_at_once(tmp_path):
    def impatient(step):
        for _ in range(2 if step == 5 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return at(step)

    with pytest.raises(KeyboardInterrupt):
        fit(Line(), impatient, TEN, folder=tmp_path, **QUIET)
    assert torch.load(tmp_path / "line.ckpt", weights_only=True)["step"] == 5


class Sick(Line):
    """Its loss of step 5 is no number."""

    def losses(self, batch):
        losses = super().losses(batch)
        return {"total": losses["total"] * (math.nan if batch == 5 else 1)}


def test_half_a_step_is_not_kept(tmp_path):
    """An error inside a step leaves moved buffers behind: the file stays at the last whole step that was written."""
    with pytest.raises(TrainingError, match=r"nan at step 5.*learning rate"):
        fit(Sick(), at, TEN, folder=tmp_path, save_every=2, **QUIET)
    whole, healed = Line(), Line()
    fit(whole, at, TEN, **QUIET)
    fit(healed, at, TEN, folder=tmp_path, **QUIET)
    assert torch.equal(healed.weight, whole.weight) and torch.equal(healed.moved, whole.moved)


@pytest.mark.parametrize("log_every", [3, 5, 100])
def test_losses_that_are_read_later_are_the_same(tmp_path, log_every):
    def callback(step, _):
        return {"half": step / 2} if step % 2 else None

    whole, late = Line(), Line()
    rows = fit(whole, at, TEN, callback=callback, **QUIET).rows
    with pytest.raises(ZeroDivisionError):
        fit(late, lambda step: at(step if step < 7 else 1 // 0), TEN, folder=tmp_path, log_every=log_every, **QUIET)
    history = fit(late, at, TEN, callback=callback, folder=tmp_path, log_every=log_every, **QUIET)
    assert [row["total"] for row in history.rows] == [row["total"] for row in rows]
    assert history.rows[7:] == rows[7:] and list(history.rows[7]) == ["total", "half"]
    assert torch.equal(whole.weight, late.weight)


@pytest.mark.parametrize(("log_every", "save_every", "kept", "called"), [
    (5, 2, 4, 6), (4, 200, None, 7), (100, 200, None, 10), (100, 3, 3, 6), (1, 200, None, 5),
])  # fmt: skip
def test_a_loss_that_is_read_later_is_named_and_its_state_not_kept(tmp_path, log_every, save_every, kept, called):
    """Whoever reads it first: the time for it, a file that is due, or the end of the training."""
    steps = []
    with pytest.raises(TrainingError, match="nan at step 5"):
        how = {"folder": tmp_path, "log_every": log_every, "save_every": save_every}
        fit(Sick(), at, TEN, callback=Seldom(steps), **how, **QUIET)
    assert len(steps) == called
    file = tmp_path / "line.ckpt"
    assert (torch.load(file, weights_only=True)["step"] if file.exists() else None) == kept


class Seldom:
    """A callback that needs the losses after step `last` alone."""

    def __init__(self, steps, last=99):
        self.steps, self.last = steps, last

    def due(self, step):
        return step == self.last

    def __call__(self, step, _):
        self.steps.append(step)


def test_neither_a_callback_nor_ctrl_c_gets_past_a_bad_loss(tmp_path):
    steps = []
    with pytest.raises(TrainingError, match="nan at step 5"):
        fit(Sick(), at, TEN, callback=Seldom(steps, last=6), log_every=100, **QUIET)
    assert steps == [0, 1, 2, 3, 4, 5], "the loss is found before the callback of step 6"

    with pytest.raises(TrainingError, match="nan at step 5"):
        fit(Sick(), interrupted(8, at), TEN, callback=Seldom([]), folder=tmp_path, log_every=100, **QUIET)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = Line()
    fit(first, at, TEN, folder=tmp_path, **QUIET)
    again = Line()
    history = fit(again, lambda step: pytest.fail("trained again"), TEN, folder=tmp_path, **QUIET)
    assert torch.equal(first.weight, again.weight) and len(history.rows) == 10
    assert [p.name for p in tmp_path.iterdir()] == ["line.ckpt"]


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"steps": 20}, {"seed": 1, "clip": 2.0}])
def test_a_resume_file_of_another_schedule(tmp_path, change):
    fit(Line(), at, TEN, folder=tmp_path, **QUIET)
    with pytest.raises(TrainingError) as caught:
        fit(Line(), at, replace(TEN, **change), folder=tmp_path, **QUIET)
    assert all(name in str(caught.value) for name in change) and "line.ckpt" in str(caught.value)
    assert not any(name in str(caught.value) for name in asdict(TEN).keys() - change.keys() - {"batch"})


@pytest.mark.parametrize("damage", ["truncated", "empty", "other model", "not ours"])
def test_unusable_resume_files(tmp_path, damage):
    fit(Line(), at, TEN, folder=tmp_path, **QUIET)
    file, model = tmp_path / "line.ckpt", Line()
    if damage == "other model":
        model.extra = nn.Linear(2, 2)
    elif damage == "not ours":
        torch.save([1, 2], file)
    else:
        file.write_bytes(file.read_bytes()[: 500 if damage == "truncated" else 0])
    with pytest.raises(TrainingError, match=r"line\.ckpt cannot be resumed.*delete it"):
        fit(model, at, TEN, folder=tmp_path, **QUIET)


def csv_rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v and k != "step"} for row in csv.DictReader(file)]


def tensorboard_rows(folder):
    """The scalars in all of TensorBoard's files, by step: records of a length, its sum, an event and its sum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    rows, seen = [{} for _ in range(10)], []
    for file in folder.iterdir():
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event, data = event_pb2.Event.FromString(data[12 : 12 + size]), data[16 + size :]
            for value in event.summary.value:
                rows[event.step][value.tag] = value.simple_value
                seen.append((event.step, value.tag))
    assert len(set(seen)) == len(seen), "no row twice"
    return rows


@pytest.mark.parametrize("log_every", [1, 4])
@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_loggers_hold_the_rows_of_the_history(tmp_path, logger, log_every):
    """After an error in a callback and a kill, which leaves rows of steps that are made again."""
    if logger == "tensorboard":
        pytest.importorskip("tensorboardX")
    how = {"folder": tmp_path, "logger": logger, "log_every": log_every, "save_every": 2, **QUIET}

    def callback(step, _):
        if step == fails.get("callback"):
            raise ZeroDivisionError
        return {"half": step / 2} if step % 3 == 2 else None

    def batch(step):
        if step == fails.get("kill"):
            os._exit(9)
        return at(step)

    fails = {"callback": 2}
    with pytest.raises(ZeroDivisionError):
        fit(Line(), batch, TEN, callback=callback, **how)
    fails = {"kill": 7}
    assert forked(lambda: fit(Line(), batch, TEN, callback=callback, **how)) == [9]
    assert torch.load(tmp_path / "line.ckpt", weights_only=True)["step"] == 6
    fails = {}
    rows = fit(Line(), batch, TEN, callback=callback, **how).rows
    read = {"csv": csv_rows, "tensorboard": tensorboard_rows}[logger]
    found, exact = read(tmp_path / "logs" / "line"), logger == "csv"
    assert [list(row) for row in rows] == [["total", "half"] if i % 3 == 2 else ["total"] for i in range(10)]
    assert found == (rows if exact else [pytest.approx(row, rel=1e-7) for row in rows])
    fit(Line(), batch, TEN, callback=callback, **how)
    assert read(tmp_path / "logs" / "line") == found, "a finished training logs nothing more"


def test_loggers_without_a_folder_or_a_package(tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match=r"'csv': needs a folder"):
        fit(Line(), at, TEN, logger="csv", **QUIET)
    with pytest.raises(TrainingError, match=r"'wandb': expected one of csv, tensorboard"):
        fit(Line(), at, TEN, logger="wandb", folder=tmp_path, **QUIET)
    for available in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{available}", False)
    with pytest.raises(TrainingError, match=r"tensorboardX.*fsslib\[tensorboard\]"):
        fit(Line(), at, TEN, logger="tensorboard", folder=tmp_path, **QUIET)


def test_what_a_sick_training_said_is_logged(tmp_path):
    with pytest.raises(TrainingError, match="nan at step 5"):
        fit(Sick(), at, TEN, folder=tmp_path, logger="csv", log_every=2, **QUIET)
    healthy = fit(Line(), at, TEN, **QUIET).rows
    assert csv_rows(tmp_path / "logs" / "line") == healthy[:4]
