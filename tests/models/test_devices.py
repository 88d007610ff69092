"""Several devices: the losses and weights of one, and nothing lost when one of the processes ends."""

import os
import signal
import stat
from dataclasses import replace
from functools import partial

import pytest
import torch
from core_tools import SIZE, panet, random_episode, shapes
from device_tools import Lines, at, in_two, part_of

from fsslib import EpisodeSampler, Protocol, build_model
from fsslib.errors import DatasetError, ParameterError, TrainingError
from fsslib.experiments import check_parameters
from fsslib.models.devices import _cause
from fsslib.nn.backbones import build_backbone
from fsslib.pretraining import labelled_batch, pretrain
from fsslib.training import Schedule, Selection, fit

OPTIONS = {
    "panet": {"bn": "batch"}, "sdaanet": {"width": 8, "scales": (1.0, 0.5)},
    "asgnet": {"width": 8, "scales": (1.0, 0.5), "pyramid": False, "backbone": "resnet18", "last": "layer3"},
    "hdmnet": {"width": 32, "shots": 2},
}  # fmt: skip
# Plain steps: AdamW makes much of gradients that are nothing but rounding.
THREE = Schedule(3, batch=4, lr=3e-3, warmup=2, optimiser="sgd")
TEN = Schedule(10, batch=8, lr=0.1, warmup=2)
QUIET = {"progress": False}


def uneven(step, part=(0, 1)):
    """Two shots; half of the queries, and one support, are void for the most part."""
    episode = random_episode(4, 1, 2, 65, 65, seed=step, extras=True)
    episode.query_masks[:2, 9:], episode.support_masks[0, :, 1, 9:] = 255, 255
    return part_of(episode, part)


def methods_trained(method, schedule, folder):
    torch.manual_seed(0)
    model = build_model(method, **{"backbone": "tiny"} | OPTIONS[method])
    fit(model, uneven, schedule, name="end", folder=folder, **QUIET)


def pre_trained(_, schedule, folder):
    torch.manual_seed(0)
    pretrain(build_backbone("tiny"), shapes(), schedule, size=SIZE, folder=folder, **QUIET)


@pytest.mark.parametrize("what", [*OPTIONS, "pre-training"])
def test_two_processes_are_one(tmp_path, what):
    """With random drops, batch statistics of head or backbone, and pixels that are not the same number in both."""
    train = methods_trained if what in OPTIONS else pre_trained
    train(what, THREE, tmp_path / "one")
    assert in_two(lambda: train(what, replace(THREE, devices=2), tmp_path / "two")) == [0, 0]
    one, two = (torch.load(next((tmp_path / name).glob("*.ckpt")), weights_only=True) for name in ("one", "two"))
    apart = {n: (v - two["model"][n]).abs().max() / v.abs().max().clamp_min(1) for n, v in one["model"].items()}
    print(f"{what}: weights differ by {max(apart.values()):.1e}")
    assert max(apart.values()) < 1e-6
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-6)
    assert one["rows"][0]["total"] != one["rows"][-1]["total"]


def test_the_parts_of_a_batch():
    sampler = EpisodeSampler(shapes(), Protocol(input_size=SIZE, queries="every_image"), seed=5, augment=True)
    for batch, names in (
        (partial(sampler.batch, size=6), ("query_images", "query_masks", "support_images", "classes", "class_index")),
        (partial(labelled_batch, shapes(), SIZE, 0, batch=6), ("images", "masks")),
    ):
        whole, parts = batch(step=7), [batch(step=7, part=(number, 3)) for number in range(3)]
        for name in names:
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def told(step, model):
    return {"step": step}


def moved(model):
    """A score for `Selection`: the best state is not the last."""
    return -abs(int(model.norm.num_batches_tracked) - 4)


def selected():
    return Selection(moved, every=2, steps=10)


@pytest.fixture(scope="module")
def alone():
    torch.manual_seed(0)
    model, chosen = Lines(), selected()
    return model, fit(model, at, TEN, name="lines", callback=chosen, **QUIET).rows, chosen


def assert_same(model, rows, chosen, alone):
    for name, value in alone[0].state_dict().items():
        assert torch.allclose(model.state_dict()[name].float(), value.float(), rtol=1e-5, atol=1e-5), name
    assert rows == [pytest.approx(row, rel=1e-4) for row in alone[1]]
    assert chosen.summary() == alone[2].summary() == {"step": 4, "val_miou": 0.0}
    assert chosen.state_dict()["state"].keys() == model.state_dict().keys()


def test_a_killed_process_and_ctrl_c_lose_nothing(tmp_path, alone):
    """Processes of their own, twice; the rest in forked ones, which take less time to start."""
    schedule, trouble = replace(TEN, devices=2), tmp_path / "trouble"
    torch.manual_seed(0)
    model, batch = Lines(), partial(at, trouble=trouble)
    how = {"name": "lines", "folder": tmp_path, "save_every": 2, "logger": "csv", **QUIET}
    trouble.write_text(f"0 3 {int(signal.SIGINT)} {os.getpid()}")
    with pytest.raises(KeyboardInterrupt):
        fit(model, batch, schedule, callback=selected(), **how)
    file = tmp_path / "lines.ckpt"
    assert torch.load(file, weights_only=True)["step"] >= 4, "the step under way came to its end"
    trouble.write_text(f"1 7 {int(signal.SIGKILL)} 0")
    with pytest.raises(TrainingError, match=r"a process of the training on several devices died.*it goes on"):
        fit(model, batch, schedule, callback=selected(), **how)
    assert torch.load(file, weights_only=True)["step"] == 6
    assert not list(tmp_path.glob("devices-*")), "what was handed over is gone"
    assert in_two(lambda: fit(Lines(), batch, schedule, callback=selected(), **how)) == [0, 0]
    chosen = selected()
    rows = fit(model, lambda step, part: pytest.fail("trained again"), schedule, callback=chosen, **how).rows
    assert_same(model, rows, chosen, alone)
    logged = (tmp_path / "logs" / "lines" / "metrics.csv").read_text().split()
    assert len(logged) == 11, "each row once, written by the first process alone"
    with pytest.raises(TrainingError, match=r"another run \(other devices\)"):
        fit(Lines(), at, TEN, callback=selected(), **how)


SRUN = """#!/bin/bash
# Starts a command twice, as on two machines.
echo "$@" > "$0.asked"
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=1 SLURM_NNODES=2 SLURM_NODELIST=127.0.0.1 SLURM_LOCALID=0
exec 3<&0
SLURM_PROCID=1 SLURM_NODEID=1 "$@" <&3 &
SLURM_PROCID=0 SLURM_NODEID=0 exec "$@"
"""


def test_two_machines_of_slurm(tmp_path, alone, monkeypatch):
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    schedule, chosen = replace(TEN, nodes=2), selected()
    torch.manual_seed(0)
    model = Lines()
    with pytest.raises(TrainingError, match=r"nodes=2: this is no job of Slurm"):
        fit(model, at, schedule, name="lines", **QUIET)
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    rows = fit(model, at, schedule, name="lines", callback=chosen, folder=tmp_path, **QUIET).rows
    assert_same(model, rows, chosen, alone)
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1" in (tmp_path / "srun.asked").read_text()


def test_the_error_that_came_first_is_raised(tmp_path):
    import pickle

    def left(number, when, error):
        (tmp_path / f"error-{number}").write_bytes(pickle.dumps((when, error)))

    (tmp_path / "words").write_text("Segmentation fault\n")
    assert "(exit status -11, Segmentation fault)" in str(_cause(tmp_path, -11))
    left(0, 1.0, RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert "(exit status 1)" in str(_cause(tmp_path, 1)) and isinstance(_cause(tmp_path, 1), TrainingError)
    left(1, 2.0, DatasetError("image 7 is cut short."))
    left(2, 3.0, KeyError("later"))
    assert str(_cause(tmp_path, 1)) == "image 7 is cut short."


def test_what_several_devices_cannot_do():
    with pytest.raises(TrainingError, match=r"batch=8 has no equal shares for 3 devices: take a multiple"):
        Schedule(1, devices=3)
    with pytest.raises(TrainingError, match=r"12 devices|no equal shares for 3 devices on 2 nodes"):
        Schedule(1, batch=9, devices=3, nodes=2)
    with pytest.raises(TrainingError, match="compile=True works on one device only"):
        Schedule(1, devices=2, compile=True)
    with pytest.raises(TrainingError, match=r"cannot be sent .*devices=1"):
        fit(panet(), lambda step: None, Schedule(1, devices=2), name="x", **QUIET)
    with pytest.raises(ParameterError, match=r"devices: batch=8 has no equal shares for 3 devices"):
        check_parameters({"devices": 3})
