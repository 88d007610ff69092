"""Would the golden comparison of HDMNet notice a mistake? Plant the likely ones and see that it fails."""

import pytest
import torch
from golden_tools import ROOT_GOLDEN, read_golden
from hdmnet_tools import (
    TYPICAL,
    excess,
    golden_file,
    gradient_norms,
    official_model,
    record,
    reduced_episode,
    reduced_evaluation,
    reduced_excess,
    reduced_model,
    reduced_training,
    typical_error,
)
from planted_hdmnet import ATTACHED, EPS, FIVE, ONE, PLANTED, REDUCED_TOO, TRAIN

RUN = {ONE: "forward", FIVE: "forward", TRAIN: "losses"}


@pytest.fixture(scope="module")
def scene(shared):
    """By file: golden tensors, metadata, episode, model and true features; those are costly and seldom in question."""
    kept, models = {}, {}
    for name in RUN:
        golden, facts, episode = golden_file(shared, name)
        model = models.setdefault(facts["shot"], official_model(shared, facts))
        with torch.no_grad():
            kept[name] = golden, facts, episode, model, model.features(episode)
    return kept


@pytest.mark.parametrize("name", RUN)
@torch.no_grad()
def test_without_a_mistake_everything_agrees(name, scene, monkeypatch):
    golden, _, episode, model, features = scene[name]
    monkeypatch.setattr(model, "features", lambda _: features)
    found = record(model.train(name == TRAIN), episode, RUN[name])[1]
    assert max(excess(found, golden).values()) <= 1 and typical_error(found, golden) <= TYPICAL


@pytest.mark.parametrize("what", PLANTED)
@torch.no_grad()
def test_the_comparison_would_fail(what, scene, monkeypatch):
    error = PLANTED[what]
    golden, _, episode, model, features = scene[error.file]
    model.train(error.file == TRAIN)
    if not error.backbone:
        monkeypatch.setattr(model, "features", lambda _: features)
    error.plant(monkeypatch, model)
    found = record(model, episode, RUN[error.file])[1]
    off = excess({error.key: found[error.key]}, golden)[error.key]
    assert off > 100, "the mistake must stand out, not only just fail"


@torch.no_grad()
def test_a_wrong_epsilon_shows_in_the_typical_error(scene, monkeypatch):
    golden, _, episode, model, features = scene[ONE]
    monkeypatch.setattr(model, "features", lambda _: features)
    before = typical_error(record(model.eval(), episode, "forward")[1], golden)
    assert before <= TYPICAL
    EPS(monkeypatch, model)
    found = record(model, episode, "forward")[1]
    assert typical_error(found, golden) > max(1.3 * TYPICAL, 2 * before)


def test_a_learning_teacher_shows_in_the_gradients(scene, monkeypatch):
    golden, facts, episode, model, _ = scene[TRAIN]
    ATTACHED(monkeypatch, model)
    losses, found = record(model.train(), episode, "losses")
    assert max(excess(found, golden).values()) <= 1, "no value shows it"
    found = {"grad_norms": gradient_norms(model, losses["total"], facts["grad_names"])}
    assert excess(found, golden)["grad_norms"] > 5


@pytest.fixture(scope="module")
def reduced():
    stored, _ = read_golden(ROOT_GOLDEN / "hdmnet.safetensors")
    model, episode = reduced_model(), reduced_episode(stored)
    with torch.no_grad():
        return stored, model, episode, model.features(episode)


@pytest.mark.parametrize("what", REDUCED_TOO)
def test_the_reduced_file_notices_too(what, reduced, monkeypatch):
    """Where the authors' numbers are absent. That without a mistake all is well, test_golden_hdmnet says."""
    error, (stored, model, episode, features) = PLANTED[what], reduced
    model.eval()
    if not error.backbone:
        monkeypatch.setattr(model, "features", lambda _: features)
    error.plant(monkeypatch, model)
    assert reduced_excess(reduced_evaluation(model, episode), stored)[REDUCED_TOO[what]] > 15


@pytest.mark.parametrize("what", ["a learning teacher", "class_index not left out"])
def test_the_reduced_training_notices_too(what, reduced, monkeypatch):
    stored, model, episode, _ = reduced
    (PLANTED[what].plant if what in PLANTED else ATTACHED)(monkeypatch, model)
    off = reduced_excess(reduced_training(model, episode), stored)
    if what == "a learning teacher":
        assert off.pop("gradnorms_way_distill") > 5 and off.pop("gradnorms_ways_total") > 5
        assert max(off.values()) <= 1, "no value shows it"
    else:
        assert off["way_losses"] > 15 and off["gradnorms_way_main"] > 5
        assert off["gradnorms_way_distill"] <= 1
