"""Loader processes: the same weights and scores with any number of them, and every trouble arrives where it belongs."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from core_tools import QUIET, SIZE, TEN, Line, at, interrupted, panet, shapes
from torch import nn
from torch.utils.data import get_worker_info

from fsslib import EpisodeSampler, Protocol, evaluate
from fsslib.data import loading
from fsslib.errors import DatasetError, ProtocolError, TrainingError
from fsslib.nn.backbones import build_backbone
from fsslib.pretraining import LabelledImages, pretrain
from fsslib.training import Schedule, fit, train_episodes

SHORT = Schedule(steps=6, batch=2, lr=1e-2, warmup=2, seed=3)
RULES = Protocol.shapes5i(input_size=SIZE, episodes=10)


@pytest.fixture(autouse=True)
def none_left():
    yield
    assert not multiprocessing.active_children()


def trained(**how):
    """A short training on Shapes-5i, with random drops, random changes of the pictures and moving statistics."""
    model = panet(bn="batch")
    model.project = nn.Dropout(0.3)
    sampler = EpisodeSampler(shapes(), Protocol(input_size=SIZE), seed=5, augment=True)
    history = train_episodes(model, sampler, SHORT, progress=False, **how)
    return model.state_dict(), history.rows


@pytest.fixture(scope="module")
def whole():
    return trained()


def assert_same(found, expected):
    assert found[1] == expected[1] and found[0].keys() == expected[0].keys()
    assert all(torch.equal(value, expected[0][name]) for name, value in found[0].items())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_weights_are_the_same(whole, workers):
    assert_same(trained(workers=workers), whole)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 1), (1, 0)])
def test_a_training_goes_on_with_another_number(whole, tmp_path, before, after):
    with pytest.raises(KeyboardInterrupt):
        trained(workers=before, folder=tmp_path, callback=interrupted(2))
    assert torch.load(tmp_path / "episodic.ckpt", weights_only=True)["step"] == 3
    assert_same(trained(workers=after, folder=tmp_path), whole)


def test_pre_training_and_random_numbers_of_torch():
    ends = []
    for workers in (0, 2):
        torch.manual_seed(0)
        backbone = build_backbone("tiny")
        rows = pretrain(backbone, shapes(), SHORT, size=SIZE, progress=False, workers=workers).rows
        ends.append((backbone.state_dict(), rows))
    assert_same(*ends)
    drawn = [fit(Line(), lambda step: 3 * torch.rand(()), TEN, workers=workers, **QUIET).rows for workers in (0, 2)]
    assert drawn[0] == drawn[1] and len({row["total"] for row in drawn[0]}) == 10


@pytest.mark.parametrize("how", [{"label_size": "original"}, {"way": 2, "seeds": (0, 1)}])
def test_scores_are_the_same(how):
    model = panet()
    found = [
        evaluate(model, shapes("test"), RULES.replace(**how), shots=(1, 2), batch=4, progress=False, **given)
        for given in ({}, {"workers": 1}, {"workers": 2, "cache": "memory"})
    ]
    for other in found[1:]:
        assert other.protocol == found[0].protocol
        for shot in (1, 2):
            assert np.array_equal(found[0].scores[shot].table, other.scores[shot].table)


class OwnError(Exception):
    """Of a data set that somebody wrote."""


@pytest.mark.parametrize("error", [DatasetError("image 7 is cut short."), OwnError("a", 7), KeyError("seven")])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_arrives_as_it_is(tmp_path, error, workers):
    def broken(step):
        if step == 7:
            raise error
        return at(step)

    with pytest.raises(type(error)) as caught:
        fit(Line(), broken, TEN, workers=workers, folder=tmp_path, **QUIET)
    assert caught.value.args == error.args
    assert torch.load(tmp_path / "line.ckpt", weights_only=True)["step"] == 7, "what was trained before is kept"


def test_what_cannot_be_sent_is_said(monkeypatch):
    class Hidden(Exception):
        pass

    def hidden(step):
        raise Hidden("only known here")

    with pytest.raises(TrainingError, match=r"only known here.*workers=0"):
        fit(Line(), hidden, TEN, workers=1, **QUIET)
    with pytest.raises(TrainingError, match=r"cannot be sent.*workers=0"):
        fit(Line(), lambda step: lambda: step, TEN, workers=1, **QUIET)

    class Full:
        @staticmethod
        def dumps(content):
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )

    monkeypatch.setattr(loading, "ForkingPickler", Full)
    with pytest.raises(TrainingError, match=r"shared memory is full \(/dev/shm.*--shm-size.*workers=0"):
        fit(Line(), at, TEN, workers=1, **QUIET)


@pytest.mark.parametrize(("number", "words"), [
    (signal.SIGKILL, r"loader process died \(DataLoader worker.*signal: Killed\).*workers=0"),
    (signal.SIGBUS, r"killed: shared memory is full \(/dev/shm.*--shm-size.*workers=0"),
])  # fmt: skip
def test_a_killed_process_is_said_and_the_training_can_go_on(tmp_path, number, words):
    def fatal(step):
        if step == 8 and get_worker_info():
            os.kill(os.getpid(), number)
        return at(step)

    plain, model = Line(), Line()
    rows = fit(plain, at, TEN, **QUIET).rows
    with pytest.raises(TrainingError, match=words):
        fit(model, fatal, TEN, workers=2, folder=tmp_path, save_every=2, **QUIET)
    assert fit(model, fatal, TEN, folder=tmp_path, **QUIET).rows == rows and torch.equal(model.weight, plain.weight)


def test_interrupts_are_left_to_the_main_process():
    def interrupt(step, _):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGINT)

    assert len(fit(Line(), at, TEN, workers=2, callback=interrupt, **QUIET).rows) == 10


@pytest.mark.filterwarnings("ignore:Got pickle error")
def test_processes_that_do_not_fork(whole):
    before = multiprocessing.get_start_method(allow_none=True)
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        assert_same(trained(workers=1), whole)
        with pytest.raises(TrainingError, match=r"do not start.*lambda.*workers=0"):
            fit(Line(), lambda step: at(step), TEN, workers=1, **QUIET)
    finally:
        torch.multiprocessing.set_start_method(before, force=True)


def test_one_thread_and_no_more_processes_than_batches():
    def told(step):
        return torch.tensor([torch.get_num_threads(), os.getpid()])

    with loading.loaded(told, range(2), workers=8) as batches:
        found = torch.stack(list(batches))
    assert (found[:, 0] == 1).all() and len(found[:, 1].unique()) == 2 and os.getpid() not in found[:, 1]


def test_the_random_numbers_of_whoever_evaluates_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    evaluate(panet(), shapes("test"), RULES, progress=False, workers=1)
    torch.manual_seed(0)
    with loading.loaded(at, range(3), workers=1) as batches:
        list(batches)
    assert torch.equal(torch.rand(3), expected)


def test_impossible_numbers():
    for workers in (-1, 1.0, True):
        with pytest.raises(TrainingError, match=r"workers=.*whole number of processes from 0"):
            fit(Line(), at, TEN, workers=workers, **QUIET)
        with pytest.raises(ProtocolError, match=r"workers=.*whole number of processes from 0"):
            evaluate(panet(), shapes("test"), RULES, progress=False, workers=workers)


def test_batches_for_a_gpu_are_pinned(monkeypatch):
    """Which only a machine with one can do: here a copy stands for it."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    episode = EpisodeSampler(shapes(), Protocol(input_size=SIZE)).batch(0, 2)
    pinned = episode.pin_memory().validate()
    assert torch.equal(pinned.query_images, episode.query_images) and pinned.query_images is not episode.query_images
    images = LabelledImages(torch.rand(1, 3, 5, 5), torch.zeros(1, 5, 5, dtype=torch.long))
    assert torch.equal(images.pin_memory().images, images.images)
    seen = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *where, **how: seen.append((where, how)) or tensor)
    loading._placed((torch.ones(1), []), torch.device("cuda"))
    assert seen == [((torch.device("cuda"),), {"non_blocking": True})]
