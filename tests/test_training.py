"""Training: it learns, it resumes bit for bit after any kill, and it says why it cannot go on."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from core_tools import SIZE, panet, shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fsslib import EpisodeSampler, Protocol
from fsslib.errors import TrainingError
from fsslib.nn.backbones import build_backbone
from fsslib.pretraining import BaseSegmenter, labelled_batch, pretrain
from fsslib.training import History, Schedule, fit, train_episodes


class Line(nn.Module):
    """y = w·x against y = 3x: training that costs nothing. The batch of step t is t."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.drop = nn.Dropout(0.5)
        self.register_buffer("moved", torch.zeros(()))

    def losses(self, batch):
        self.moved += 1
        noise = self.drop(torch.ones(4))
        return {"total": ((self.weight * noise - 3) ** 2 * (1 + batch % 3)).mean()}


def at(step):
    return torch.tensor(step)


def sampler(**how):
    return EpisodeSampler(shapes(), Protocol(input_size=SIZE), **how)


QUIET = {"name": "line", "progress": False}
TEN = Schedule(steps=10, lr=0.1, warmup=2)


@settings(max_examples=100, deadline=None)
@given(steps=st.integers(1, 300), warmup=st.integers(0, 400), lr=st.floats(1e-6, 10))
def test_learning_rates(steps, warmup, lr):
    rates = [Schedule(steps=steps, warmup=warmup, lr=lr).lr_at(step) for step in range(steps)]
    assert all(0 < rate <= lr for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    if warmup < steps:
        assert max(rates) == pytest.approx(lr)
        assert rates[-1] == pytest.approx(lr * min(1, 1 / max(steps - warmup, 1)))
        if warmup > 1:
            assert rates[0] == pytest.approx(lr / warmup)


def test_episodic_training_learns():
    model = panet(bn="batch")
    history = train_episodes(
        model, sampler(seed=1), Schedule(steps=30, batch=4, lr=3e-3, warmup=3), folder=None, progress=False
    )
    values = [row["query"] for row in history.rows]
    assert sum(values[-8:]) < 0.8 * sum(values[:4]) * 2, values
    assert len(history.rows) == 30 and set(history.rows[0]) == {"query", "align", "total"} and history.seconds > 0
    smooth = history.smooth("total", 5)
    assert smooth[0] == history.rows[0]["total"] and len(smooth) == 30
    assert smooth[9] == pytest.approx(sum(row["total"] for row in history.rows[5:10]) / 5)
    assert not model.training


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_repeated_run_is_the_same_run(optimiser):
    schedule = Schedule(steps=3, batch=2, optimiser=optimiser, seed=2)
    states = []
    for noise in (0, 1):
        model = panet(seed=4)
        torch.manual_seed(noise)
        train_episodes(model, sampler(augment=True), schedule, progress=False)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], v) for k, v in states[1].items())


def run_process(folder: Path, *how: str) -> int:
    here = Path(__file__).parent
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here)}
    done = subprocess.run([sys.executable, here / "killed_run.py", folder, *how], env=env, capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


def test_killed_runs_end_with_the_same_weights(tmp_path):
    """SIGKILL before the first file, between files, while a file is being written, and after the last step."""
    assert run_process(tmp_path / "whole", "-") == 0
    kills = [("0",), ("3",), ("4", "saving"), ("4",), ("6", "saving"), ("7",), ("8", "saving")]
    for how in kills:
        assert run_process(tmp_path / "cut", *how) == -signal.SIGKILL, how
        assert not (tmp_path / "cut" / "final.pt").exists()
    assert run_process(tmp_path / "cut", "-") == 0
    whole, cut = (torch.load(tmp_path / name / "final.pt", weights_only=True) for name in ("whole", "cut"))
    assert whole["model"].keys() == cut["model"].keys()
    assert all(torch.equal(value, cut["model"][name]) for name, value in whole["model"].items())
    assert whole["rows"] == cut["rows"] and [row["seen"] for row in cut["rows"]] == list(range(8))


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

    def callback(step, _):
        if step == stop and where == "callback":
            raise KeyboardInterrupt

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
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.moved, whole.moved)
    assert history.rows == rows


def test_a_second_interrupt_gets_through_at_once(tmp_path):
    def impatient(step):
        for _ in range(2 if step == 5 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return at(step)

    with pytest.raises(KeyboardInterrupt):
        fit(Line(), impatient, TEN, folder=tmp_path, **QUIET)
    assert torch.load(tmp_path / "line.ckpt", weights_only=True)["step"] == 5


def test_half_a_step_is_not_kept(tmp_path):
    """An error inside a step leaves moved buffers behind: the file stays at the last whole step that was written."""

    class Sick(Line):
        def losses(self, batch):
            losses = super().losses(batch)
            return {"total": losses["total"] * (math.nan if batch == 5 else 1)}

    with pytest.raises(TrainingError, match=r"nan at step 5.*learning rate"):
        fit(Sick(), at, TEN, folder=tmp_path, save_every=2, **QUIET)
    whole, healed = Line(), Line()
    fit(whole, at, TEN, **QUIET)
    fit(healed, at, TEN, folder=tmp_path, **QUIET)
    assert torch.equal(healed.weight, whole.weight) and torch.equal(healed.moved, whole.moved)


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


def test_nothing_to_train():
    with pytest.raises(TrainingError, match=r"PANet has no parameter.*width"):
        train_episodes(panet(freeze=True), sampler(), TEN, progress=False)
    frozen = panet(freeze=True)
    assert train_episodes(frozen, sampler(), Schedule(steps=0), progress=False) == History()
    with pytest.raises(TrainingError, match=r"frozen.*freeze=True"):
        pretrain(frozen.backbone, shapes(), TEN, size=SIZE, progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "16"),
        ("optimiser", "adam"),
        ("accelerator", "gqu"),
        ("steps", -1),
        ("steps", 2.5),
        ("batch", 0),
        ("warmup", -1),
        ("seed", -1),
        ("lr", 0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", "1e-3"),
        ("clip", 0),
        ("weight_decay", -0.1),
    ],
)
def test_impossible_schedules(name, value):
    with pytest.raises(TrainingError, match=rf"{name}.*expected"):
        Schedule(**{"steps": 5, name: value})


def test_other_impossible_requests():
    with pytest.raises(TrainingError, match="save_every=0"):
        fit(Line(), at, TEN, save_every=0, **QUIET)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="accelerator 'gpu' is not usable"):
            fit(Line(), at, replace(TEN, accelerator="gpu"), **QUIET)


def test_callback_values_join_the_row_and_survive_a_resume(tmp_path):
    import numpy as np

    history = fit(Line(), at, TEN, folder=tmp_path, callback=lambda step, _: {"miou": np.float64(step)}, **QUIET)
    assert [row["miou"] for row in history.rows] == list(range(10))
    assert fit(Line(), at, TEN, folder=tmp_path, **QUIET).rows == history.rows


def test_bfloat16():
    model = panet(width=8)
    history = train_episodes(model, sampler(), Schedule(steps=2, batch=2, precision="bf16"), progress=False)
    assert all(math.isfinite(row["total"]) for row in history.rows)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("mode", ["frozen", "batch"])
def test_pretraining(mode):
    torch.manual_seed(0)
    backbone = build_backbone("tiny", bn=mode)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    history = pretrain(backbone, shapes(), Schedule(steps=12, batch=6, lr=1e-2, warmup=2), size=SIZE, progress=False)
    assert backbone.bn == mode
    now = backbone.state_dict()
    assert not any(torch.equal(now[k], v) for k, v in before.items() if "running" in k or k.endswith("0.weight"))
    assert now["layer0.1.num_batches_tracked"] == 12
    values = [row["total"] for row in history.rows]
    assert sum(values[-4:]) < sum(values[:4])
    with pytest.raises(TrainingError, match="save_every"):
        pretrain(backbone, shapes(), TEN, size=SIZE, progress=False, save_every=0)
    assert backbone.bn == mode, "also after an error"


def test_labels_are_base_classes_in_order():
    data = shapes("train")
    assert data.base_classes == tuple(sorted(data.base_classes)) and len(data.base_classes) == 15
    one, again = (labelled_batch(data, SIZE, seed=3, step=5, batch=8) for _ in range(2))
    assert torch.equal(one.images, again.images) and torch.equal(one.masks, again.masks)
    other = labelled_batch(data, SIZE, seed=3, step=6, batch=8)
    assert not torch.equal(one.masks, other.masks)
    assert one.images.dtype == torch.float32 and one.masks.dtype == torch.long and one.masks.shape == (8, SIZE, SIZE)
    seen = {v for step in range(12) for v in labelled_batch(data, SIZE, 0, step, 8).masks.unique().tolist()}
    assert seen <= {0, 255, *range(1, 16)} and len(seen) > 10

    class Row:
        augmentation, base_classes = "none", (2, 4, 9)

        def __len__(self):
            return 1

        def __getitem__(self, index):
            mask = torch.zeros(32, 32, dtype=torch.uint8)
            for column, value in enumerate((2, 4, 9, 7, 255)):
                mask[:, 4 * column : 4 * column + 4] = value
            return torch.zeros(3, 32, 32, dtype=torch.uint8), mask

    masks = labelled_batch(Row(), 32, seed=0, step=0, batch=1).masks[0, 0]
    assert masks[:24:4].tolist() == [1, 2, 3, 0, 255, 0], "another class counts as background"


def test_the_segmenter_sees_background_and_base_classes():
    model = BaseSegmenter(build_backbone("tiny"), 15)
    assert model(torch.randn(2, 3, 33, 33)).shape == (2, 16, 9, 9)
